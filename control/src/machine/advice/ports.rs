//! What the ports of a boot file will do, and what to change: NICs and drivers, RSS, NAT, rte_flow.

use sluice_dataplane::steer::{Obstacle, PortNeeds, PortPlan, RssCapabilities, Steering, plan};

use super::super::asked::{Answer, Asked, Device, FlowRules};
use super::super::{Machine, Nic};
use super::{Finding, words, worker_nodes};
use crate::boot::{Boot, Port};
use crate::spreading::{Spreading, nat};

/// Looks at all ports. `asked` is what their devices say that they can do, or why nobody knows.
pub(super) fn ports(machine: &Machine, boot: &Boot, asked: &Result<Asked, String>) -> Vec<Finding> {
    let mut found = Vec::new();
    let answers: &[Answer] = match asked {
        Ok(asked) => &asked.ports,
        Err(why) => {
            let state = format!("not asked what they can do (RSS, rte_flow): {why}");
            found.push(Finding::good("devices", state));
            &[]
        }
    };
    let workers = boot.workers.cores.len() as u16;
    let able = able(boot, answers);
    let needs: Vec<PortNeeds> = able.iter().map(|port| port.needs).collect();
    let plans = plan(&needs, workers);
    let spreads = plans.iter().map(PortPlan::spread).collect();
    let nat = nat(&able, &Steering::new(workers, spreads));
    let each = boot.ports.iter().zip(&needs).zip(plans.iter().zip(nat));
    for (id, ((port, needs), (plan, nat))) in each.enumerate() {
        let about = format!("port {}", port.name);
        found.extend(hardware(machine, boot, port));
        match answers.get(id) {
            None => {}
            Some(Answer::NotAsked(why)) => {
                let state = format!("not asked what it can do (RSS, rte_flow): {why}");
                found.push(Finding::good(about, state));
            }
            Some(Answer::Failed(why)) => found.push(Finding::bad(
                about,
                format!("DPDK cannot use it: {why}"),
                "mend that first: sluiced would not start",
            )),
            Some(Answer::Device(device)) => {
                found.push(queues(port, device, plan, workers));
                found.extend(senders(port, device, workers));
                found.extend(nat.map(|nat| nat_finding(boot, port, needs, nat)));
                found.push(Finding::good(about, flow_rules(&device.flow_rules)));
            }
        }
    }
    found
}

/// What each port's device can do; nothing, if nobody knows.
fn able(boot: &Boot, answers: &[Answer]) -> Vec<Spreading> {
    let known = |id: usize| match answers.get(id) {
        Some(Answer::Device(device)) => device.capabilities(),
        _ => RssCapabilities::default(),
    };
    let ports = boot.ports.iter().enumerate();
    ports.map(|(id, port)| port.spreading(known(id))).collect()
}

/// How packets will come to the workers.
fn queues(port: &Port, device: &Device, plan: &PortPlan, workers: u16) -> Finding {
    let about = format!("port {}", port.name);
    let (queues, most) = (plan.queues, device.rx_queues);
    let can = match (device.rss_table, &*device.rss_types) {
        (0, _) | (_, "none") => "no RSS".to_owned(),
        (table, types) => {
            let key = match device.rss_key {
                0 => "a key whose length it does not tell".to_owned(),
                bytes => format!("a key of {bytes} bytes"),
            };
            format!("RSS by a table of {table} entries and {key}, of {types}")
        }
    };
    let queues_of = format!(
        "driver {}, {queues} of {most} receive queues",
        device.driver
    );
    if workers == 1 {
        let state = format!("{queues_of}, one worker: nothing to spread ({can})");
        return Finding::good(about, state);
    }
    let state = match &plan.rss {
        Some(rss) => format!(
            "{queues_of} for {workers} workers, {can}: it will hash {}",
            rss.types()
        ),
        None if queues == 1 => format!(
            "{queues_of} for {workers} workers ({can}): all packets reach worker 0, which hands over what is others'"
        ),
        None => format!(
            "{queues_of} for {workers} workers, {can}: the device spreads packets as it likes, and those that reach another worker than their owner are handed over"
        ),
    };
    if queues >= workers {
        return Finding::good(about, state);
    }
    let state = format!(
        "{state}; {} workers have no queue here and live from what others hand over",
        workers - queues
    );
    if most > queues {
        let change = format!("rx_queues = {}, or leave it out", workers.min(most));
        return Finding::bad(about, state, change);
    }
    if port.is_pci() {
        let change = format!("workers.cores with {queues} cores, or a NIC with more queues");
        return Finding::bad(about, state, change);
    }
    Finding::good(about, state)
}

/// What follows where not every worker can send for itself.
fn senders(port: &Port, device: &Device, workers: u16) -> Option<Finding> {
    let few = device.tx_queues < workers;
    few.then(|| {
        let state = format!(
            "{} transmit queues for {workers} workers: the others have those workers send for them",
            device.tx_queues
        );
        Finding::good(format!("port {}", port.name), state)
    })
}

fn nat_finding(boot: &Boot, port: &Port, needs: &PortNeeds, nat: String) -> Finding {
    let about = format!("port {}", port.name);
    let workers = boot.workers.cores.len() as u16;
    let sides = needs.obstacle(workers) == Some(Obstacle::BothSides);
    if sides && boot.ports.len() > 1 {
        let change = "side = \"clients\" for ports that only clients are behind, side = \"servers\" for those of real servers";
        return Finding::bad(about, nat, change);
    }
    Finding::good(about, nat)
}

fn flow_rules(rules: &FlowRules) -> String {
    match rules {
        FlowRules::Taken => "says that it takes rules of rte_flow; sluice needs none".to_owned(),
        FlowRules::None => "takes no rules of rte_flow; sluice needs none".to_owned(),
        FlowRules::Refused(why) => {
            format!("refused a plain rule of rte_flow ({why}); sluice needs none")
        }
    }
}

/// The device as the machine has it.
fn hardware(machine: &Machine, boot: &Boot, port: &Port) -> Vec<Finding> {
    let about = format!("port {}", port.name);
    if !port.is_pci() {
        let state = format!("virtual device {}", port.device);
        return vec![Finding::good(about, state)];
    }
    let Some(nic) = machine.nic(&port.device) else {
        return vec![Finding::bad(
            about,
            format!("there is no NIC at {}", port.device),
            format!("take one of these: {}", list(machine)),
        )];
    };
    let mut found = vec![driver(&about, nic)];
    let nodes = worker_nodes(machine, boot);
    if let Some(node) = nic.node
        && !nodes.is_empty()
        && nodes != [node]
    {
        let far = format!(
            "its packets cross between NUMA nodes: it is on node {node}, workers are on {}",
            words(&nodes)
        );
        let near: Vec<usize> = machine
            .cores
            .iter()
            .filter(|core| core.node == Some(node))
            .map(|core| core.id)
            .collect();
        found.push(Finding::bad(
            &about,
            far,
            format!("give workers cores of node {node}: {}", words(&near)),
        ));
    }
    found
}

fn driver(about: &str, nic: &Nic) -> Finding {
    let Nic { address, id, .. } = nic;
    let bind = format!("dpdk-devbind.py --bind=vfio-pci {address}");
    match nic.driver.as_deref() {
        Some("vfio-pci") => Finding::good(about, format!("NIC {id}, bound to vfio-pci")),
        Some(driver @ ("mlx5_core" | "mlx4_core" | "mana")) => Finding::good(
            about,
            format!("NIC {id}, driven through the kernel's {driver}, as DPDK wants it"),
        ),
        Some(driver @ ("uio_pci_generic" | "igb_uio")) => Finding::bad(
            about,
            format!("NIC {id}, bound to {driver}: no IOMMU keeps it to its memory"),
            format!("{bind}, where the machine has an IOMMU"),
        ),
        Some(driver) => {
            let used = match &nic.interfaces[..] {
                [] => String::new(),
                names => format!(" as {}", names.join(", ")),
            };
            Finding::bad(
                about,
                format!("NIC {id} is the kernel's ({driver}{used}): DPDK will not find it"),
                format!("{bind}, if you are not logged in by it"),
            )
        }
        None => Finding::bad(about, format!("NIC {id} has no driver"), bind),
    }
}

fn list(machine: &Machine) -> String {
    let each = machine
        .nics
        .iter()
        .map(|nic| format!("{} ({})", nic.address, nic.id));
    let each: Vec<String> = each.collect();
    if each.is_empty() {
        "there is no PCI NIC".into()
    } else {
        each.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::super::tests::MadeUp;
    use super::*;
    use crate::boot;

    /// An X710 as its driver tells it, but for what hashes one end alone.
    fn nic() -> Device {
        Device {
            driver: "net_i40e".into(),
            rx_queues: 64,
            tx_queues: 64,
            rss_table: 512,
            rss_key: 52,
            rss_types: "ipv4 ipv4-fragment ipv4-tcp ipv4-udp ipv4-sctp ipv4-other".into(),
            node: Some(1),
            flow_rules: FlowRules::Taken,
        }
    }

    fn able() -> Device {
        let types = nic().rss_types + " l3-src-only l3-dst-only l4-src-only l4-dst-only";
        Device {
            rss_types: types,
            ..nic()
        }
    }

    fn tap() -> Device {
        Device {
            driver: "net_tap".into(),
            rx_queues: 16,
            tx_queues: 16,
            ..Device::default()
        }
    }

    /// Two ports, told these keys, on three workers.
    fn found(wan: &str, lan: &str, asked: &Result<Asked, String>) -> Vec<Finding> {
        let text = format!(
            "[[port]]\nname = \"wan\"\ndevice = \"0000:81:00.0\"\n{wan}\n\
             [[port]]\nname = \"lan\"\ndevice = \"0000:81:00.1\"\n{lan}\n\
             [workers]\ncores = [5, 6, 7]\ncontrol_core = 4\n"
        );
        let cores = boot::Machine {
            cores: (0..8).collect(),
        };
        let boot = Boot::parse(Path::new("boot.toml"), &text, &cores).unwrap();
        let made = MadeUp::good();
        made.nic("0000:81:00.1", "vfio-pci", "1");
        ports(&made.machine(), &boot, asked)
    }

    fn told(devices: [Device; 2]) -> Result<Asked, String> {
        Ok(Asked {
            ports: devices.map(Answer::Device).to_vec(),
        })
    }

    /// What is said of the port lan beyond its driver, and what to change.
    fn of_lan(found: Vec<Finding>) -> Vec<(String, Option<String>)> {
        let lan = found
            .into_iter()
            .filter(|finding| finding.about == "port lan");
        let said = lan.map(|finding| (finding.state, finding.change));
        said.filter(|(state, _)| !state.contains("bound to vfio-pci"))
            .collect()
    }

    const SIDES: (&str, &str) = ("side = \"clients\"", "side = \"servers\"");

    #[test]
    fn nics_that_can_do_all_are_told_so_and_asked_for_it() {
        let said = of_lan(found(SIDES.0, SIDES.1, &told([able(), able()])));
        let [(queues, None), (nat, None), (flow, None)] = &said[..] else {
            panic!("{said:?}")
        };
        assert!(
            queues.starts_with(
                "driver net_i40e, 3 of 64 receive queues for 3 workers, RSS by a table of 512 entries and a key of 52 bytes"
            ),
            "{queues}"
        );
        assert!(
            queues.ends_with("l3-dst-only l4-dst-only"),
            "it hashes destinations: {queues}"
        );
        assert!(nat.ends_with("none is handed over"), "{nat}");
        assert_eq!(
            flow,
            "says that it takes rules of rte_flow; sluice needs none"
        );
    }

    #[test]
    fn what_is_to_be_changed_is_said_and_only_that() {
        let changes = |wan, lan, devices| -> Vec<String> {
            let said = of_lan(found(wan, lan, &told(devices)));
            said.into_iter().filter_map(|(_, change)| change).collect()
        };
        let [sides, none] = [
            changes("", "", [able(), able()]),
            changes("", "", [nic(), nic()]),
        ];
        assert!(
            matches!(&sides[..], [side] if side.starts_with("side = \"clients\"")),
            "{sides:?}"
        );
        assert!(none.is_empty(), "sides would not help: {none:?}");
        let few = changes(SIDES.0, "side = \"servers\"\nrx_queues = 2", [nic(), nic()]);
        assert_eq!(few, ["rx_queues = 3, or leave it out"]);
        let narrow = Device {
            rx_queues: 2,
            ..nic()
        };
        let few = changes(SIDES.0, SIDES.1, [nic(), narrow]);
        assert_eq!(
            few,
            ["workers.cores with 2 cores, or a NIC with more queues"]
        );
    }

    #[test]
    fn what_follows_without_rss_is_said() {
        let said = of_lan(found(SIDES.0, SIDES.1, &told([able(), tap()])));
        assert!(
            said[0].0.contains("spreads packets as it likes"),
            "{said:?}"
        );
        assert!(said[1].0.ends_with("this port has no RSS"), "{said:?}");
        assert!(said[2].0.starts_with("takes no rules"), "{said:?}");
        let one = Device {
            rx_queues: 1,
            tx_queues: 1,
            flow_rules: FlowRules::Refused("queue 0?".into()),
            ..tap()
        };
        let said = of_lan(found(SIDES.0, SIDES.1, &told([able(), one])));
        assert!(said[0].0.contains("all packets reach worker 0"), "{said:?}");
        assert!(said[0].0.ends_with("hand over"), "{said:?}");
        assert!(said[1].0.starts_with("1 transmit queues for 3"), "{said:?}");
        assert!(said[3].0.contains("(queue 0?)"), "{said:?}");
    }

    #[test]
    fn who_does_not_answer_is_named_with_the_reason() {
        let failed = Answer::Failed("it said: no".into());
        let not_asked = Answer::NotAsked("its peer".into());
        let ports = vec![not_asked, failed];
        let found_two = found("", "", &Ok(Asked { ports }));
        let said = of_lan(found_two.clone());
        assert_eq!(said[0].0, "DPDK cannot use it: it said: no");
        assert!(said[0].1.is_some() && said.len() == 1, "{said:?}");
        let wan = found_two
            .iter()
            .filter(|finding| finding.about == "port wan");
        let asked = "not asked what it can do (RSS, rte_flow): its peer";
        assert!(wan.clone().any(|finding| finding.state == asked));
        let nobody = found("", "", &Err("sluiced runs".into()));
        assert_eq!(nobody[0].about, "devices");
        assert!(nobody[0].state.ends_with(": sluiced runs"));
        assert!(of_lan(nobody).is_empty());
    }
}
