//! Whether packets of NAT reach the worker that has their connection, port by port, and why not, in plain words.
//!
//! NAT alone depends on it: the other methods have no replies, or choose the port by which they come home.

use sluice_dataplane::command::PortId;
use sluice_dataplane::steer::{Obstacle, PortNeeds, Side, Steering};

/// A port as these sentences need it.
#[derive(Clone, Debug)]
pub(crate) struct Spreading {
    /// Its name in the boot file.
    pub name: String,
    /// Its side and its NIC.
    pub needs: PortNeeds,
}

/// What becomes of packets of NAT on each port, with this steering. `None` for each where one worker has all of them.
pub(crate) fn nat(ports: &[Spreading], steering: &Steering) -> Vec<Option<String>> {
    let workers = steering.workers();
    let ids = (0..).map(PortId);
    let homes = ids
        .zip(ports)
        .map(|(id, port)| steering.brings_nat_home(id, port.needs.side));
    let homes: Vec<bool> = homes.collect();
    let each = homes.iter().zip(ports).map(|(home, port)| {
        if workers == 1 {
            return None;
        }
        if *home {
            return Some(
                "packets of NAT come to the worker that has their connection: none is handed over"
                    .to_owned(),
            );
        }
        Some(format!(
            "about {} of {workers} packets of NAT are handed over to the worker that has their connection: {}",
            workers - 1,
            reason(port, ports, workers)
        ))
    });
    each.collect()
}

/// Why packets of NAT that come in on `port` are handed over: its own doing, or another port's.
fn reason(port: &Spreading, all: &[Spreading], workers: u16) -> String {
    if let Some(obstacle) = port.needs.obstacle(workers) {
        return format!("this port {}", words(obstacle, port.needs.side));
    }
    let others = all.iter().filter_map(|other| {
        let obstacle = other.needs.obstacle(workers)?;
        Some(format!(
            "port {} {}",
            other.name,
            words(obstacle, other.needs.side)
        ))
    });
    let others: Vec<String> = others.collect();
    if others.is_empty() {
        "the NIC does otherwise than it was told".to_owned()
    } else {
        others.join(", ")
    }
}

fn words(obstacle: Obstacle, side: Side) -> &'static str {
    match (obstacle, side) {
        (Obstacle::OneQueue, _) => "has one receive queue",
        (Obstacle::NoRss, _) => "has no RSS",
        (Obstacle::BothEndsOnly, Side::Clients) => "cannot hash sources alone",
        (Obstacle::BothEndsOnly, Side::Servers) => "cannot hash destinations alone",
        (Obstacle::BothEndsOnly, Side::Both) => "cannot hash one end alone",
        (Obstacle::BothSides, _) => {
            "could hash one end alone, but faces clients and real servers: give each side a port of its own"
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use sluice_dataplane::io::rss_nic::{Ends, Model, Rss, RssNic};
    use sluice_dataplane::steer::{HashTypes, RssCapabilities, plan};

    use super::*;
    use crate::boot::{self, Boot};

    /// A NIC with 128 entries, that can hash one end alone or not.
    pub(crate) fn nic(one_end: bool) -> RssCapabilities {
        let ends = HashTypes::SOURCE | HashTypes::DESTINATION;
        RssCapabilities {
            queues: 16,
            table: 128,
            hash_types: if one_end {
                HashTypes::EVERY_KIND | ends
            } else {
                HashTypes::EVERY_KIND
            },
            key_len: 52,
        }
    }

    fn said(workers: u16, ports: &[(Side, RssCapabilities)]) -> Vec<Option<String>> {
        let ports = ports.iter().zip(["wan", "lan"]);
        let ports = ports.map(|((side, can), name)| Spreading {
            name: name.to_owned(),
            needs: PortNeeds {
                side: *side,
                queues: None,
                can: *can,
            },
        });
        let ports: Vec<Spreading> = ports.collect();
        let needs: Vec<PortNeeds> = ports.iter().map(|port| port.needs).collect();
        let spreads = plan(&needs, workers);
        let spreads = spreads.iter().map(|plan| plan.spread()).collect();
        nat(&ports, &Steering::new(workers, spreads))
    }

    fn ends(workers: u16, ports: &[(Side, RssCapabilities)], wanted: &[&str]) {
        let said = said(workers, ports);
        assert_eq!(said.len(), wanted.len());
        for (said, wanted) in said.iter().zip(wanted) {
            let said = said.as_deref().unwrap();
            assert!(said.ends_with(wanted), "{said}");
        }
    }

    #[test]
    fn ports_with_a_side_each_and_able_nics_hand_nothing_over() {
        let able = nic(true);
        ends(
            3,
            &[(Side::Clients, able), (Side::Servers, able)],
            &["none is handed over"; 2],
        );
    }

    #[test]
    fn what_is_in_the_way_is_named_with_its_port() {
        let (able, common, tap) = (nic(true), nic(false), RssCapabilities::default());
        let both = "this port could hash one end alone, but faces clients and real servers: give each side a port of its own";
        ends(3, &[(Side::Both, able)], &[both]);
        ends(
            3,
            &[(Side::Clients, able), (Side::Servers, common)],
            &[
                "about 2 of 3 packets of NAT are handed over to the worker that has their connection: port lan cannot hash destinations alone",
                ": this port cannot hash destinations alone",
            ],
        );
        // One that does not spread anything leaves the other to its own end.
        ends(
            2,
            &[(Side::Clients, able), (Side::Servers, tap)],
            &["none is handed over", ": this port has one receive queue"],
        );
        let queues = RssCapabilities { queues: 8, ..tap };
        ends(2, &[(Side::Clients, queues)], &[": this port has no RSS"]);
    }

    /// A TCP packet, as far as a NIC looks at it.
    fn frame(src: ([u8; 4], u16), dst: ([u8; 4], u16)) -> Vec<u8> {
        let mut frame = vec![0; 54];
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame[14] = 0x45;
        frame[17] = 40;
        frame[23] = 6;
        frame[26..30].copy_from_slice(&src.0);
        frame[30..34].copy_from_slice(&dst.0);
        frame[34..36].copy_from_slice(&src.1.to_be_bytes());
        frame[36..38].copy_from_slice(&dst.1.to_be_bytes());
        frame[46] = 0x50;
        frame
    }

    /// How many of 500 connections of NAT have a reply that reaches another worker than the client's packet does, on NICs in process
    /// that are told what the boot file's ports make of them.
    fn split(boot: &str, model: Model) -> usize {
        let cores = boot::Machine {
            cores: vec![0, 1, 2, 3],
        };
        let boot = Boot::parse(Path::new("boot.toml"), boot, &cores).unwrap();
        let mut can = nic(model.hashes_one_end());
        can.table = model.entries() as u16;
        let needs: Vec<PortNeeds> = boot.ports.iter().map(|port| port.needs(can)).collect();
        let workers = boot.workers.cores.len();
        let nics = plan(&needs, workers as u16).into_iter().map(|plan| {
            let rss = plan.rss.unwrap();
            let types = rss.types();
            let ends = match (
                types.contains(HashTypes::SOURCE),
                types.contains(HashTypes::DESTINATION),
            ) {
                (true, false) => Ends::Source,
                (false, true) => Ends::Destination,
                _ => Ends::Both,
            };
            let (mut nic, _queues) = RssNic::new(model, workers, 1024);
            nic.program(Rss {
                key: rss.toeplitz().key().bytes()[..40].try_into().unwrap(),
                ends,
                table: rss.table().to_vec(),
            })
            .unwrap();
            (nic, _queues)
        });
        let mut nics: Vec<_> = nics.collect();
        let (vip, server) = (([10, 0, 0, 1], 80), ([192, 168, 1, 1], 8080));
        let split = (0..500).filter(|n| {
            let client = ([198, 51, 100, (n % 250) as u8], 2000 + n * 7);
            let came = nics[0].0.receive(&frame(client, vip));
            let replied = nics[1].0.receive(&frame(server, client));
            assert!(came.is_some() && replied.is_some());
            came != replied
        });
        split.count()
    }

    #[test]
    fn sides_of_a_boot_file_bring_both_directions_of_nat_to_one_worker() {
        let boot = |clients: &str, servers: &str| {
            format!(
                "[[port]]\nname = \"wan\"\ndevice = \"0000:01:00.0\"\n{clients}\n\
                 [[port]]\nname = \"lan\"\ndevice = \"0000:01:00.1\"\n{servers}\n\
                 [workers]\ncores = [1, 2, 3]\ncontrol_core = 0\n"
            )
        };
        let sides = boot("side = \"clients\"", "side = \"servers\"");
        assert_eq!(split(&sides, Model::Full), 0);
        // Two of three go elsewhere where a NIC cannot, or the file does not say.
        for (boot, model) in [(sides, Model::Common), (boot("", ""), Model::Full)] {
            let split = split(&boot, model);
            assert!((270..400).contains(&split), "{split}");
        }
    }

    #[test]
    fn one_worker_is_told_nothing() {
        assert_eq!(said(1, &[(Side::Both, nic(true))]), [None]);
    }
}
