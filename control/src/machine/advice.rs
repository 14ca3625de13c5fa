//! What a machine and a boot file will do together, and what to change, in plain words.

use std::collections::BTreeSet;

use super::Machine;
use super::asked::Asked;
use crate::boot::{Boot, Hugepages, Polling, Port};

mod ports;

/// One thing that is as it should be, or is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about: `core 2`, `hugepages`, `port wan`.
    pub about: String,
    /// How it is.
    pub state: String,
    /// What to do about it; `None` if all is well.
    pub change: Option<String>,
}

impl Finding {
    fn good(about: impl Into<String>, state: impl Into<String>) -> Self {
        Self {
            about: about.into(),
            state: state.into(),
            change: None,
        }
    }

    fn bad(about: impl Into<String>, state: impl Into<String>, change: impl Into<String>) -> Self {
        Self {
            change: Some(change.into()),
            ..Self::good(about, state)
        }
    }
}

/// Looks at a machine with a boot file's eyes. `memory_mb` is what DPDK will take, `asked` what the ports' devices say that they can do,
/// or why they were not asked.
pub fn findings(
    machine: &Machine,
    boot: &Boot,
    memory_mb: u64,
    asked: &Result<Asked, String>,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for core in &boot.workers.cores {
        found.extend(worker_core(machine, boot, *core));
    }
    found.extend(shared_cores(machine, boot));
    found.push(hugepages(machine, boot, memory_mb));
    let nics: Vec<&Port> = boot.ports.iter().filter(|port| port.is_pci()).collect();
    if !nics.is_empty() {
        found.push(iommu(machine));
    }
    found.extend(ports::ports(machine, boot, asked));
    found
}

fn worker_core(machine: &Machine, boot: &Boot, id: usize) -> Vec<Finding> {
    let about = format!("core {id}");
    let Some(core) = machine.core(id) else {
        return vec![Finding::bad(
            about,
            "is not there or is off",
            "give the worker another core (workers.cores)",
        )];
    };
    let mut found = Vec::new();
    let busy = boot.workers.polling == Polling::Busy;
    found.push(match (core.isolated, core.tickless) {
        (true, true) => Finding::good(&about, "isolated, without a tick"),
        (true, false) => Finding::bad(
            &about,
            "isolated, but its timer ticks and interrupts the worker",
            format!("add nohz_full={id} rcu_nocbs={id} to the kernel's command line"),
        ),
        (false, _) if busy => Finding::bad(
            &about,
            "not isolated: the scheduler puts other threads on it, and packets wait for them",
            format!("add isolcpus={id} nohz_full={id} rcu_nocbs={id} to the kernel's command line"),
        ),
        (false, _) => Finding::good(
            &about,
            "shared with others, as polling = \"adaptive\" means it",
        ),
    });
    if let Some(governor) = core
        .governor
        .as_deref()
        .filter(|governor| *governor != "performance")
    {
        found.push(Finding::bad(
            &about,
            format!("its frequency follows the governor {governor:?}"),
            format!("echo performance > /sys/devices/system/cpu/cpu{id}/cpufreq/scaling_governor"),
        ));
    }
    found
}

/// Two threads of ours on one physical core.
fn shared_cores(machine: &Machine, boot: &Boot) -> Vec<Finding> {
    let mut ours: BTreeSet<usize> = boot.workers.cores.iter().copied().collect();
    ours.insert(boot.control_core());
    let mut found = Vec::new();
    for id in &boot.workers.cores {
        let siblings = machine.core(*id).map(|core| core.siblings.as_slice());
        for other in siblings.unwrap_or_default() {
            if ours.contains(other) && (other > id || !boot.workers.cores.contains(other)) {
                found.push(Finding::bad(
                    format!("core {id}"),
                    format!("is the same physical core as {other}, which is ours too: they slow each other down"),
                    "choose cores with different thread_siblings_list (lscpu -e), or switch SMT off",
                ));
            }
        }
    }
    found
}

fn hugepages(machine: &Machine, boot: &Boot, memory_mb: u64) -> Finding {
    let about = "hugepages";
    if boot.eal.hugepages == Hugepages::Off {
        return Finding::bad(
            about,
            "off: memory is ordinary, translated page by page, and NICs cannot use it",
            "eal.hugepages = \"required\" on any machine that is to be fast",
        );
    }
    let free_mb: u64 = machine
        .hugepages
        .iter()
        .map(|pages| pages.free * pages.kb / 1024)
        .sum();
    let nodes = worker_nodes(machine, boot);
    let wanted = memory_mb.div_ceil(nodes.len().max(1) as u64);
    let short = nodes.iter().find(|node| {
        let own = machine
            .hugepages
            .iter()
            .filter(|pages| pages.node == **node);
        own.map(|pages| pages.free * pages.kb / 1024).sum::<u64>() < wanted
    });
    if free_mb >= memory_mb && short.is_none() {
        return match machine.hugetlbfs.first() {
            None if !boot.eal.in_memory => Finding::bad(
                about,
                format!("{free_mb} MB free, but hugetlbfs is not mounted"),
                "mount -t hugetlbfs none /dev/hugepages, or eal.in_memory = true",
            ),
            _ => Finding::good(about, format!("{free_mb} MB free, {memory_mb} MB wanted")),
        };
    }
    let node = short.copied().unwrap_or_default();
    let pages = wanted.div_ceil(2);
    let then = match boot.eal.hugepages {
        Hugepages::Required => "sluiced will not start",
        _ => "sluiced will use ordinary memory, which is slower and which no NIC can use",
    };
    Finding::bad(
        about,
        format!(
            "{memory_mb} MB wanted, {free_mb} MB free; on node {node} less than the {wanted} MB that its workers want: {then}"
        ),
        format!(
            "echo {pages} > /sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages, or hugepages={pages} on the kernel's command line"
        ),
    )
}

fn iommu(machine: &Machine) -> Finding {
    if machine.iommu {
        Finding::good("IOMMU", "on: NICs reach DPDK's memory and no other")
    } else {
        Finding::bad(
            "IOMMU",
            "off: vfio-pci refuses NICs",
            "add intel_iommu=on iommu=pt (AMD: iommu=pt) to the kernel's command line and switch VT-d or AMD-Vi on in the firmware; in a virtual machine without one, echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode",
        )
    }
}

/// The NUMA nodes that workers are on.
fn worker_nodes(machine: &Machine, boot: &Boot) -> Vec<u32> {
    let cores = boot.workers.cores.iter();
    let nodes: BTreeSet<u32> = cores.filter_map(|id| machine.core(*id)?.node).collect();
    nodes.into_iter().collect()
}

fn words(items: &[impl ToString]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::tests::MadeUp;
    use super::*;
    use crate::boot;

    const GOOD: &str = "[eal]\nhugepages = \"required\"\n[[port]]\nname = \"wan\"\ndevice = \"0000:81:00.0\"\n[workers]\ncores = [6]\ncontrol_core = 4\n";

    fn found(made: &MadeUp, text: &str) -> Vec<Finding> {
        let cores = boot::Machine {
            cores: (0..16).collect(),
        };
        let boot = Boot::parse(Path::new("boot.toml"), text, &cores).unwrap();
        findings(&made.machine(), &boot, 1024, &Err("made up".into()))
    }

    /// What is to be changed: about what, and how it is.
    fn bad(made: &MadeUp, text: &str) -> Vec<(String, String)> {
        let found = found(made, text).into_iter();
        let bad = found.filter(|finding| finding.change.is_some());
        bad.map(|finding| (finding.about, finding.state)).collect()
    }

    #[test]
    fn a_machine_that_is_well_prepared_needs_no_change() {
        let found = found(&MadeUp::good(), GOOD);
        assert!(
            found.iter().all(|finding| finding.change.is_none()),
            "{found:?}"
        );
        let abouts: Vec<&str> = found.iter().map(|finding| finding.about.as_str()).collect();
        assert_eq!(
            abouts,
            ["core 6", "hugepages", "IOMMU", "devices", "port wan"]
        );
    }

    #[test]
    fn each_thing_that_is_wrong_is_found_alone() {
        let spoilt = |spoil: &dyn Fn(&MadeUp), about: &str, state: &str| {
            let made = MadeUp::good();
            spoil(&made);
            let bad = bad(&made, GOOD);
            assert!(
                matches!(&bad[..], [(what, how)] if what == about && how.contains(state)),
                "{state}: {bad:?}"
            );
        };
        let cpu = "sys/devices/system/cpu";
        spoilt(
            &|made| {
                made.file(&format!("{cpu}/isolated"), "\n");
            },
            "core 6",
            "not isolated",
        );
        spoilt(
            &|made| {
                made.file(&format!("{cpu}/nohz_full"), "\n");
            },
            "core 6",
            "timer ticks",
        );
        spoilt(
            &|made| {
                made.file(
                    &format!("{cpu}/cpu6/cpufreq/scaling_governor"),
                    "powersave\n",
                );
            },
            "core 6",
            "powersave",
        );
        spoilt(
            &|made| {
                made.file(
                    &format!("{cpu}/cpu6/topology/thread_siblings_list"),
                    "4,6\n",
                );
            },
            "core 6",
            "same physical core as 4",
        );
        spoilt(
            &|made| {
                made.file(&format!("{cpu}/online"), "0-5\n");
            },
            "core 6",
            "not there",
        );
        let pages = "sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages";
        spoilt(
            &|made| {
                made.file(pages, "10\n");
            },
            "hugepages",
            "on node 1 less than the 1024 MB",
        );
        spoilt(
            &|made| {
                made.file("proc/mounts", "\n");
            },
            "hugepages",
            "not mounted",
        );
        spoilt(
            &|made| {
                made.nic("0000:81:00.0", "i40e", "1");
            },
            "port wan",
            "is the kernel's (i40e)",
        );
        spoilt(
            &|made| {
                made.nic("0000:81:00.0", "igb_uio", "1");
            },
            "port wan",
            "no IOMMU keeps",
        );
        spoilt(
            &|made| {
                made.nic("0000:81:00.0", "vfio-pci", "0");
            },
            "port wan",
            "on node 0, workers are on 1",
        );
        spoilt(
            &|made| std::fs::remove_dir_all(made.0.path().join("sys/class/iommu")).unwrap(),
            "IOMMU",
            "off",
        );
        spoilt(
            &|made| std::fs::remove_dir_all(made.0.path().join("sys/bus/pci")).unwrap(),
            "port wan",
            "no NIC at",
        );
    }

    #[test]
    fn a_nic_whose_node_is_not_known_is_near_enough() {
        let made = MadeUp::good();
        made.nic("0000:81:00.0", "mlx5_core", "-1");
        assert_eq!(bad(&made, GOOD), []);
    }

    #[test]
    fn virtual_devices_and_shared_cores_of_a_small_machine_are_fine() {
        let text = "[eal]\nhugepages = \"auto\"\n[[port]]\nname = \"wan\"\ndevice = \"net_tap0\"\n[workers]\ncores = [0]\ncontrol_core = 0\nallow_shared_cores = true\npolling = \"adaptive\"\n";
        let found = found(&MadeUp::good(), text);
        assert!(
            found.iter().all(|finding| finding.change.is_none()),
            "{found:?}"
        );
        let off = bad(&MadeUp::good(), &text.replace("auto", "off"));
        assert!(matches!(&off[..], [(about, _)] if about == "hugepages"));
    }
}
