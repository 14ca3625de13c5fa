//! What EAL is started with, and its translation into EAL's arguments.

use super::EalError;
use super::memory::{Mount, PageSize};

/// How to start DPDK's environment. Start from [`EalConfig::default`] and set what differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EalConfig {
    /// Names the instance: its sockets under `/var/run/dpdk` and its hugepage files. One living process each.
    pub file_prefix: String,
    /// The core of the control threads; EAL's main lcore is pinned to it.
    pub main_core: usize,
    /// A core for each worker, worker 0 first.
    pub worker_cores: Vec<usize>,
    /// Lets workers share a core with each other or with the main lcore: tests and small machines.
    pub allow_shared_cores: bool,
    /// Whether memory comes from hugepages.
    pub hugepages: Hugepages,
    /// MB of memory for DPDK: frame pools, rings and drivers.
    pub memory_mb: u32,
    /// MB of ordinary memory that the process is going to take beside, for its tables. The start is refused where they are not
    /// to be had, instead of a process that is killed later.
    pub tables_mb: u32,
    /// Physical or virtual addresses for devices; `None` lets EAL choose.
    pub iova: Option<Iova>,
    /// Keeps hugepages out of the file system: no mount is needed, and no secondary process (dpdk-dumpcap) can attach.
    pub in_memory: bool,
    /// Virtual devices, as EAL's `--vdev` takes them: `net_tap0,iface=dt0`.
    pub vdevs: Vec<String>,
    /// PCI addresses that DPDK may take, with device arguments if any. Empty: the PCI bus is left alone.
    pub pci_allow: Vec<String>,
    /// Passed to EAL as they are, last.
    pub extra_args: Vec<String>,
    /// EAL's `--log-level`, as in `lib.eal:debug`.
    pub log_level: Option<String>,
}

impl Default for EalConfig {
    fn default() -> Self {
        Self {
            file_prefix: "sluice".into(),
            main_core: 0,
            worker_cores: vec![1],
            allow_shared_cores: false,
            hugepages: Hugepages::Auto,
            memory_mb: 512,
            tables_mb: 0,
            iova: None,
            in_memory: false,
            vdevs: Vec::new(),
            pci_allow: Vec::new(),
            extra_args: Vec::new(),
            log_level: None,
        }
    }
}

/// Whether memory comes from hugepages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hugepages {
    /// If enough of them are free; else ordinary memory, and a log line says so. Required where there are PCI devices.
    #[default]
    Auto,
    /// Start fails without them.
    Required,
    /// Ordinary memory: slower, virtual devices only, no secondary process.
    Off,
}

/// Which addresses devices use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Iova {
    /// Physical ones.
    Physical,
    /// Virtual ones (an IOMMU translates).
    Virtual,
}

/// Where memory will come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Hugepages in a mounted hugetlbfs: secondary processes can attach.
    Hugetlbfs,
    /// Hugepages without files.
    AnonymousHugepages,
    /// Ordinary pages.
    Ordinary,
}

/// What the machine has, as far as the choice depends on it.
pub(super) struct Machine {
    pub(super) sizes: Vec<PageSize>,
    pub(super) mounts: Vec<Mount>,
    /// The kernel's default page size in kB.
    pub(super) default_kb: u64,
    pub(super) available_mb: Option<u64>,
}

impl Machine {
    /// The page sizes that EAL can use, given the mounts.
    fn usable(&self, in_memory: bool) -> Vec<&PageSize> {
        let mounted = |kb| {
            self.mounts
                .iter()
                .any(|mount| mount.page_kb.unwrap_or(self.default_kb) == kb)
        };
        self.sizes
            .iter()
            .filter(|size| in_memory || mounted(size.kb))
            .collect()
    }

    fn free_mb(&self, in_memory: bool) -> u64 {
        let sizes = self.usable(in_memory);
        sizes.iter().map(|size| size.free * size.kb / 1024).sum()
    }
}

impl EalConfig {
    /// Refuses what cannot work on any machine.
    pub(super) fn validate(&self) -> Result<(), EalError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if self.file_prefix.is_empty()
            || self.file_prefix.starts_with('.')
            || !self.file_prefix.chars().all(plain)
        {
            return Err(EalError::BadPrefix(self.file_prefix.clone()));
        }
        if self.worker_cores.is_empty() {
            return Err(EalError::NoWorkers);
        }
        let max = dpdk_sys::SLUICE_MAX_LCORE as usize - 1;
        if self.worker_cores.len() > max {
            return Err(EalError::TooManyWorkers {
                want: self.worker_cores.len(),
                max,
            });
        }
        for (worker, core) in self.worker_cores.iter().enumerate() {
            let taken = *core == self.main_core || self.worker_cores[..worker].contains(core);
            if taken && !self.allow_shared_cores {
                return Err(EalError::SharedCore {
                    worker,
                    core: *core,
                });
            }
        }
        Ok(())
    }

    /// Chooses where memory comes from, or says what is missing.
    pub(super) fn backing(&self, machine: &Machine) -> Result<Backing, EalError> {
        let want_mb = u64::from(self.memory_mb);
        let enough = |in_memory| machine.free_mb(in_memory) >= want_mb;
        match self.hugepages {
            Hugepages::Off => {}
            _ if !self.in_memory && enough(false) => {
                return self.with_tables(machine, 0, Backing::Hugetlbfs);
            }
            _ if self.in_memory && enough(true) => {
                return self.with_tables(machine, 0, Backing::AnonymousHugepages);
            }
            Hugepages::Auto if machine.mounts.is_empty() && enough(true) => {
                tracing::info!(
                    "no hugetlbfs is mounted: hugepages are used without files, so no secondary process \
                     (dpdk-dumpcap) can attach"
                );
                return self.with_tables(machine, 0, Backing::AnonymousHugepages);
            }
            Hugepages::Required => return Err(self.shortfall(machine)),
            // Ordinary pages move in memory, and a NIC would not notice.
            Hugepages::Auto if !self.pci_allow.is_empty() => return Err(self.shortfall(machine)),
            Hugepages::Auto => tracing::info!(
                free_mb = machine.free_mb(true),
                want_mb,
                "not enough free hugepages: ordinary memory is used, which is slower"
            ),
        }
        self.with_tables(machine, want_mb, Backing::Ordinary)
    }

    /// `backing`, if ordinary memory has room for `frames_mb` and the tables.
    fn with_tables(
        &self,
        machine: &Machine,
        frames_mb: u64,
        backing: Backing,
    ) -> Result<Backing, EalError> {
        let tables_mb = u64::from(self.tables_mb);
        let want_mb = frames_mb + tables_mb;
        match machine.available_mb {
            Some(have_mb) if have_mb < want_mb => Err(EalError::NotEnoughMemory {
                want_mb,
                frames_mb,
                tables_mb,
                have_mb,
                short_mb: want_mb - have_mb,
            }),
            _ => Ok(backing),
        }
    }

    fn shortfall(&self, machine: &Machine) -> EalError {
        let want_mb = u64::from(self.memory_mb);
        if !self.in_memory && machine.usable(false).is_empty() && machine.free_mb(true) >= want_mb {
            return EalError::NoHugetlbfs;
        }
        let have_mb = machine.free_mb(self.in_memory);
        let short_mb = want_mb.saturating_sub(have_mb);
        let page_kb = machine.default_kb.max(1);
        let size = machine.sizes.iter().find(|size| size.kb == page_kb);
        EalError::NotEnoughHugepages {
            want_mb,
            have_mb,
            short_mb,
            page_kb,
            pages: size.map_or(0, |size| size.total) + (short_mb * 1024).div_ceil(page_kb),
        }
    }

    /// EAL's arguments, program name first.
    pub(super) fn arguments(&self, backing: Backing) -> Vec<String> {
        let mut lcores = format!("0@{}", self.main_core);
        for (worker, core) in self.worker_cores.iter().enumerate() {
            lcores += &format!(",{}@{core}", worker + 1);
        }
        let mut args = vec!["sluice".to_owned()];
        let mut add = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
        add("--lcores", &lcores);
        add("--main-lcore", "0");
        add("--file-prefix", &self.file_prefix);
        add("-m", &self.memory_mb.to_string());
        if let Some(iova) = self.iova {
            add(
                "--iova-mode",
                match iova {
                    Iova::Physical => "pa",
                    Iova::Virtual => "va",
                },
            );
        }
        for vdev in &self.vdevs {
            add("--vdev", vdev);
        }
        for device in &self.pci_allow {
            add("-a", device);
        }
        if let Some(level) = &self.log_level {
            add("--log-level", level);
        }
        if self.pci_allow.is_empty() {
            args.push("--no-pci".into());
        }
        match backing {
            Backing::Hugetlbfs => {}
            Backing::AnonymousHugepages => args.push("--in-memory".into()),
            Backing::Ordinary => args.push("--no-huge".into()),
        }
        args.extend(self.extra_args.iter().cloned());
        args
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(free: u64, mounted: bool) -> Machine {
        Machine {
            sizes: vec![PageSize {
                kb: 2048,
                total: free + 3,
                free,
            }],
            mounts: if mounted {
                vec![Mount {
                    path: "/dev/hugepages".into(),
                    page_kb: None,
                }]
            } else {
                Vec::new()
            },
            default_kb: 2048,
            available_mb: Some(1000),
        }
    }

    fn config(hugepages: Hugepages) -> EalConfig {
        EalConfig {
            hugepages,
            memory_mb: 64,
            ..EalConfig::default()
        }
    }

    #[test]
    fn automatic_memory_prefers_files_then_anonymous_hugepages_then_ordinary_pages() {
        let auto = config(Hugepages::Auto);
        assert_eq!(
            auto.backing(&machine(32, true)).unwrap(),
            Backing::Hugetlbfs
        );
        assert_eq!(
            auto.backing(&machine(32, false)).unwrap(),
            Backing::AnonymousHugepages
        );
        assert_eq!(auto.backing(&machine(31, true)).unwrap(), Backing::Ordinary);
    }

    #[test]
    fn a_nic_does_without_hugepages_only_if_told_so() {
        let mut config = config(Hugepages::Auto);
        config.pci_allow = vec!["0000:01:00.0".into()];
        assert!(matches!(
            config.backing(&machine(31, true)),
            Err(EalError::NotEnoughHugepages { short_mb: 2, .. })
        ));
        config.hugepages = Hugepages::Off;
        assert_eq!(
            config.backing(&machine(31, true)).unwrap(),
            Backing::Ordinary
        );
    }

    #[test]
    fn required_hugepages_that_are_missing_are_named_with_the_command_that_mends_it() {
        let error = config(Hugepages::Required)
            .backing(&machine(30, true))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("64 MB of hugepages and 60 MB are free, 4 MB too few"),
            "{error}"
        );
        assert!(
            error.contains("echo 35 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"),
            "{error}"
        );
        assert!(matches!(
            config(Hugepages::Required).backing(&machine(32, false)),
            Err(EalError::NoHugetlbfs)
        ));
    }

    #[test]
    fn more_memory_than_the_machine_has_is_refused_with_the_shortfall() {
        let config = EalConfig {
            hugepages: Hugepages::Off,
            memory_mb: 1500,
            ..EalConfig::default()
        };
        assert!(matches!(
            config.backing(&machine(0, false)),
            Err(EalError::NotEnoughMemory { short_mb: 500, .. })
        ));
    }

    #[test]
    fn tables_take_ordinary_memory_wherever_frames_are() {
        let mut config = EalConfig {
            tables_mb: 900,
            ..config(Hugepages::Auto)
        };
        assert_eq!(
            config.backing(&machine(32, true)).unwrap(),
            Backing::Hugetlbfs
        );
        // 900 and, without hugepages, 64 for frames.
        config.tables_mb = 937;
        assert_eq!(
            config.backing(&machine(32, true)).unwrap(),
            Backing::Hugetlbfs
        );
        let error = config.backing(&machine(31, true)).unwrap_err().to_string();
        assert!(
            error.contains("1001 MB of memory are wanted") && error.contains(" 1 MB too few"),
            "{error}"
        );
        config.tables_mb = 1500;
        assert!(matches!(
            config.backing(&machine(32, true)),
            Err(EalError::NotEnoughMemory { short_mb: 500, .. })
        ));
    }

    #[test]
    fn two_workers_on_one_core_need_leave() {
        let mut config = EalConfig {
            worker_cores: vec![1, 1],
            ..EalConfig::default()
        };
        assert!(matches!(
            config.validate(),
            Err(EalError::SharedCore { worker: 1, core: 1 })
        ));
        config.allow_shared_cores = true;
        assert!(config.validate().is_ok());
    }

    #[test]
    fn arguments_pin_the_main_lcore_and_number_workers_from_one() {
        let config = EalConfig {
            main_core: 2,
            worker_cores: vec![5, 4],
            vdevs: vec!["net_null0".into()],
            pci_allow: vec!["0000:01:00.0".into()],
            ..EalConfig::default()
        };
        let line = config.arguments(Backing::AnonymousHugepages).join(" ");
        assert_eq!(
            line,
            "sluice --lcores 0@2,1@5,2@4 --main-lcore 0 --file-prefix sluice -m 512 --vdev net_null0 \
             -a 0000:01:00.0 --in-memory"
        );
    }
}
