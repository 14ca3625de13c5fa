//! What this machine is like, as far as it matters to how fast sluice is: cores, NUMA nodes, hugepages, IOMMU, NICs.
//!
//! All of it is read from /sys and /proc below a root, so that tests can make up machines. [`advice`] says what to change.

pub mod advice;
pub mod asked;

use std::fs;
use std::path::{Path, PathBuf};

/// A machine. What cannot be read is as if it were not there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Cores that are on, by number.
    pub cores: Vec<Core>,
    /// Hugepages by NUMA node and size.
    pub hugepages: Vec<Hugepages>,
    /// Where hugetlbfs is mounted.
    pub hugetlbfs: Vec<PathBuf>,
    /// Whether an IOMMU is on.
    pub iommu: bool,
    /// Memory to be had without swapping.
    pub available_mb: u64,
    /// PCI network devices.
    pub nics: Vec<Nic>,
}

/// A core.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Core {
    /// Its number.
    pub id: usize,
    /// Its NUMA node.
    pub node: Option<u32>,
    /// Whether the scheduler leaves it alone (`isolcpus`).
    pub isolated: bool,
    /// Whether it has no timer tick while one thread runs (`nohz_full`).
    pub tickless: bool,
    /// Its frequency governor.
    pub governor: Option<String>,
    /// Other cores that are the same physical one (SMT).
    pub siblings: Vec<usize>,
}

/// The hugepages of one size on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hugepages {
    /// Their NUMA node.
    pub node: u32,
    /// Size of one.
    pub kb: u64,
    /// How many there are.
    pub total: u64,
    /// How many nobody has.
    pub free: u64,
}

/// A NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// `0000:01:00.0`.
    pub address: String,
    /// Vendor and device, as in `8086:1583`.
    pub id: String,
    /// The driver that has it.
    pub driver: Option<String>,
    /// Its NUMA node.
    pub node: Option<u32>,
    /// The kernel's interfaces on it.
    pub interfaces: Vec<String>,
}

impl Machine {
    /// The one that we run on.
    pub fn this() -> Self {
        Self::read(Path::new("/"))
    }

    /// The one whose /sys and /proc are below `root`.
    pub fn read(root: &Path) -> Self {
        let cpus = root.join("sys/devices/system/cpu");
        let listed = |path: PathBuf| text(&path).map(|text| numbers(&text)).unwrap_or_default();
        let isolated = listed(cpus.join("isolated"));
        let tickless = listed(cpus.join("nohz_full"));
        let nodes = nodes(root);
        let core = |id: usize| {
            let own = cpus.join(format!("cpu{id}"));
            let mut siblings = listed(own.join("topology/thread_siblings_list"));
            siblings.retain(|other| *other != id);
            Core {
                id,
                node: nodes
                    .iter()
                    .find(|(_, cores)| cores.contains(&id))
                    .map(|(node, _)| *node),
                isolated: isolated.contains(&id),
                tickless: tickless.contains(&id),
                governor: text(&own.join("cpufreq/scaling_governor")),
                siblings,
            }
        };
        Self {
            cores: listed(cpus.join("online")).into_iter().map(core).collect(),
            hugepages: nodes
                .iter()
                .flat_map(|(node, _)| hugepages(root, *node))
                .collect(),
            hugetlbfs: mounts(root),
            iommu: !names(&root.join("sys/class/iommu")).is_empty(),
            available_mb: available_mb(root).unwrap_or_default(),
            nics: nics(root),
        }
    }

    /// A core by its number.
    pub fn core(&self, id: usize) -> Option<&Core> {
        self.cores.iter().find(|core| core.id == id)
    }

    /// The NIC with this address, written with its domain or without.
    pub fn nic(&self, address: &str) -> Option<&Nic> {
        let domain = format!("0000:{address}");
        self.nics
            .iter()
            .find(|nic| nic.address.eq_ignore_ascii_case(address) || nic.address == domain)
    }
}

/// NUMA nodes with their cores; one of all cores where the kernel knows none.
fn nodes(root: &Path) -> Vec<(u32, Vec<usize>)> {
    let folder = root.join("sys/devices/system/node");
    let each = names(&folder).into_iter().filter_map(|name| {
        let number = name.strip_prefix("node")?.parse().ok()?;
        let cores = text(&folder.join(&name).join("cpulist"))?;
        Some((number, numbers(&cores)))
    });
    each.collect()
}

fn hugepages(root: &Path, node: u32) -> Vec<Hugepages> {
    let folder = root.join(format!("sys/devices/system/node/node{node}/hugepages"));
    let each = names(&folder).into_iter().filter_map(|name| {
        let kb = name
            .strip_prefix("hugepages-")?
            .strip_suffix("kB")?
            .parse()
            .ok()?;
        let count = |file: &str| text(&folder.join(&name).join(file))?.parse().ok();
        Some(Hugepages {
            node,
            kb,
            total: count("nr_hugepages")?,
            free: count("free_hugepages")?,
        })
    });
    each.collect()
}

fn mounts(root: &Path) -> Vec<PathBuf> {
    let text = text(&root.join("proc/mounts")).unwrap_or_default();
    let each = text.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, kind) = (words.next()?, words.next()?);
        (kind == "hugetlbfs").then(|| PathBuf::from(place))
    });
    each.collect()
}

fn available_mb(root: &Path) -> Option<u64> {
    let text = text(&root.join("proc/meminfo"))?;
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kb: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kb / 1024)
}

fn nics(root: &Path) -> Vec<Nic> {
    let folder = root.join("sys/bus/pci/devices");
    let each = names(&folder).into_iter().filter_map(|address| {
        let own = folder.join(&address);
        let word = |file: &str| Some(text(&own.join(file))?.trim_start_matches("0x").to_owned());
        // Class 02 is "network controller" (PCI Code and ID Assignment, section 1.3).
        word("class")?.starts_with("02").then_some(())?;
        let driver = fs::read_link(own.join("driver")).ok();
        let driver = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        let interfaces = own.join("net");
        Some(Nic {
            id: format!("{}:{}", word("vendor")?, word("device")?),
            driver,
            // Minus one is "not known".
            node: text(&own.join("numa_node")).and_then(|node| node.parse().ok()),
            interfaces: names(&interfaces),
            address,
        })
    });
    each.collect()
}

/// What a file says, without blanks around it; `None` if there is nothing.
fn text(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort_unstable();
    names
}

/// The kernel's way to write sets of numbers: `0-3,8`.
fn numbers(text: &str) -> Vec<usize> {
    let each = text.split(',').filter_map(|part| {
        let (first, last) = part.trim().split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    });
    each.flatten().collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A machine made up of files.
    pub(crate) struct MadeUp(pub(crate) tempfile::TempDir);

    impl MadeUp {
        pub(crate) fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        pub(crate) fn file(&self, path: &str, text: &str) -> &Self {
            let path = self.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
            self
        }

        pub(crate) fn machine(&self) -> Machine {
            Machine::read(self.0.path())
        }

        /// Two nodes of four cores, 2-3 and 6-7 isolated, an Intel XL710 on node 1.
        pub(crate) fn good() -> Self {
            let made = Self::new();
            made.file("sys/devices/system/cpu/online", "0-7\n")
                .file("sys/devices/system/cpu/isolated", "2-3,6-7\n")
                .file("sys/devices/system/cpu/nohz_full", "2-3,6-7\n")
                .file("sys/devices/system/node/node0/cpulist", "0-3\n")
                .file("sys/devices/system/node/node1/cpulist", "4-7\n")
                .file("sys/class/iommu/dmar0/x", "")
                .file(
                    "proc/mounts",
                    "proc /proc proc rw 0 0\nnodev /dev/hugepages hugetlbfs rw 0 0\n",
                )
                .file(
                    "proc/meminfo",
                    "MemTotal: 9 kB\nMemAvailable:   64000000 kB\n",
                );
            for core in 0..8 {
                let own = format!("sys/devices/system/cpu/cpu{core}");
                made.file(&format!("{own}/cpufreq/scaling_governor"), "performance\n")
                    .file(
                        &format!("{own}/topology/thread_siblings_list"),
                        &format!("{core}\n"),
                    );
            }
            for node in 0..2 {
                let own = format!("sys/devices/system/node/node{node}/hugepages/hugepages-2048kB");
                made.file(&format!("{own}/nr_hugepages"), "4096\n")
                    .file(&format!("{own}/free_hugepages"), "4096\n");
            }
            made.nic("0000:81:00.0", "vfio-pci", "1");
            made
        }

        pub(crate) fn nic(&self, address: &str, driver: &str, node: &str) -> &Self {
            let own = format!("sys/bus/pci/devices/{address}");
            self.file(&format!("{own}/class"), "0x020000\n")
                .file(&format!("{own}/vendor"), "0x8086\n")
                .file(&format!("{own}/device"), "0x1583\n")
                .file(&format!("{own}/numa_node"), &format!("{node}\n"));
            let link = self.0.path().join(&own).join("driver");
            let _old = fs::remove_file(&link);
            std::os::unix::fs::symlink(format!("../../drivers/{driver}"), link).unwrap();
            self
        }
    }

    #[test]
    fn a_machine_is_read_from_its_files() {
        let made = MadeUp::good();
        made.file(
            "sys/devices/system/cpu/cpu2/topology/thread_siblings_list",
            "2,6\n",
        )
        .file("sys/bus/pci/devices/0000:00:1f.2/class", "0x010601\n");
        let machine = made.machine();
        assert_eq!(machine.cores.len(), 8);
        let expected = Core {
            id: 2,
            node: Some(0),
            isolated: true,
            tickless: true,
            governor: Some("performance".into()),
            siblings: vec![6],
        };
        assert_eq!(machine.core(2), Some(&expected));
        assert_eq!(machine.core(5).unwrap().node, Some(1));
        let pages = Hugepages {
            node: 1,
            kb: 2048,
            total: 4096,
            free: 4096,
        };
        assert_eq!(machine.hugepages[1], pages);
        assert_eq!(machine.hugetlbfs, [PathBuf::from("/dev/hugepages")]);
        assert!(machine.iommu);
        assert_eq!(machine.available_mb, 62500);
        let nic = Nic {
            address: "0000:81:00.0".into(),
            id: "8086:1583".into(),
            driver: Some("vfio-pci".into()),
            node: Some(1),
            interfaces: Vec::new(),
        };
        assert_eq!(machine.nics.as_slice(), std::slice::from_ref(&nic));
        assert_eq!(machine.nic("81:00.0"), Some(&nic));
        assert_eq!(machine.nic("0000:82:00.0"), None);
    }

    #[test]
    fn a_machine_that_tells_nothing_is_empty() {
        assert_eq!(MadeUp::new().machine(), Machine::default());
    }

    #[test]
    fn this_machine_has_cores() {
        assert!(!Machine::this().cores.is_empty());
    }

    #[test]
    fn sets_of_numbers_are_read_as_the_kernel_writes_them() {
        assert_eq!(numbers("0-2,5"), [0, 1, 2, 5]);
        assert_eq!(numbers(""), [0; 0]);
        assert_eq!(numbers("x,3,9-"), [3]);
    }
}
