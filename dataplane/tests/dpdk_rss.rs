//! Receive queues of DPDK's virtual devices: how many each worker polls, and what is told of how they are filled.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pcap_file::pcap::{PcapPacket, PcapWriter};
use sluice_dataplane::command::WorkerId;
use sluice_dataplane::dpdk::{Eal, EthPort, Mempool, PoolConfig, PortConfig, PortError};
use sluice_dataplane::io::{Burst, Frame, Port};
use sluice_dataplane::steer::check::Difference;
use sluice_dataplane::steer::toeplitz::{Key, Toeplitz};
use sluice_dataplane::steer::{
    HashTypes, PortNeeds, PortPlan, RssCapabilities, RssPlan, Side, Spread, plan,
};
use support::{in_own_process, start};

fn pool(eal: &Eal) -> Mempool {
    Mempool::new(eal, &PoolConfig::new("frames", 4095)).unwrap()
}

fn folder() -> PathBuf {
    let folder = std::env::temp_dir().join(format!("sluice-rss-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A file of one frame that is made of this byte.
fn capture(folder: &Path, byte: u8) -> String {
    let path = folder.join(format!("{byte}.pcap"));
    let mut writer = PcapWriter::new(File::create(&path).unwrap()).unwrap();
    let frame = [byte; 60];
    let packet = PcapPacket::new(Duration::ZERO, 60, &frame);
    writer.write_packet(&packet).unwrap();
    path.display().to_string()
}

/// What a worker receives: the first byte of each frame.
fn received(port: &EthPort, worker: u16) -> Vec<u8> {
    let mut queue = port.queue(worker).unwrap();
    let mut burst = Burst::new();
    queue.rx(&mut burst);
    burst.iter().map(|frame| frame.bytes()[0]).collect()
}

#[test]
fn workers_share_out_more_queues_than_there_are_workers() {
    in_own_process(
        "workers_share_out_more_queues_than_there_are_workers",
        || {
            let folder = folder();
            let files = (1..=5).map(|byte| format!(",rx_pcap={}", capture(&folder, byte)));
            let eal = start(&[&format!("net_pcap0{}", files.collect::<String>())]);
            let pool = pool(&eal);
            let can = EthPort::capabilities(&eal, "net_pcap0").unwrap();
            assert_eq!((can.queues, can.can_spread()), (5, false));
            let needs = PortNeeds {
                queues: Some(5),
                can,
                ..PortNeeds::default()
            };
            let config = PortConfig {
                plan: plan(&[needs], 2).pop(),
                ..PortConfig::new("net_pcap0", 2)
            };
            let port = EthPort::open(&eal, &config, &[pool]).unwrap();
            assert_eq!(received(&port, 0), [1, 3, 5]);
            assert_eq!(received(&port, 1), [2, 4]);
            assert!(matches!(port.rss().spread, Spread::Unknown));
            let error = port.queue(2).unwrap_err();
            assert!(matches!(error, PortError::NoSuchQueue { .. }), "{error}");
            fs::remove_dir_all(folder).unwrap();
        },
    );
}

#[test]
fn a_worker_without_a_receive_queue_can_send() {
    in_own_process("a_worker_without_a_receive_queue_can_send", || {
        let folder = folder();
        let input = capture(&folder, 7);
        let [one, two] = ["a.pcap", "b.pcap"].map(|name| folder.join(name).display().to_string());
        let vdev = format!("net_pcap0,rx_pcap={input},tx_pcap={one},tx_pcap={two}");
        let eal = start(&[&vdev]);
        let pool = pool(&eal);
        let port = EthPort::open(&eal, &PortConfig::new("net_pcap0", 2), &[pool]).unwrap();
        assert!(matches!(port.rss().spread, Spread::One(WorkerId(0))));
        let mut first = port.queue(0).unwrap();
        let mut burst = Burst::new();
        assert_eq!(first.rx(&mut burst), 1);
        let mut second = port.queue(1).unwrap();
        assert_eq!(second.rx(&mut Burst::new()), 0);
        assert_eq!(second.tx(&mut burst), 1);
        drop((first, second));
        port.close().unwrap();
        let sent = |path: &str| fs::metadata(path).unwrap().len();
        assert!(
            sent(&two) > sent(&one),
            "the frame is not in the second file"
        );
        fs::remove_dir_all(folder).unwrap();
    });
}

#[test]
fn a_device_is_told_key_and_table_and_tells_them_back() {
    in_own_process("a_device_is_told_key_and_table_and_tells_them_back", || {
        let eal = start(&["net_null0"]);
        let pool = pool(&eal);
        let can = EthPort::capabilities(&eal, "net_null0").unwrap();
        assert_eq!((can.table, can.can_spread()), (128, true));
        let needs = PortNeeds {
            queues: Some(4),
            can,
            side: Side::Both,
        };
        // As if another port had a table of 64.
        let small = PortNeeds {
            can: RssCapabilities { table: 64, ..can },
            ..needs
        };
        let plans = plan(&[needs, small], 3);
        let asked = plans[0].rss.clone().unwrap();
        let config = PortConfig {
            plan: Some(plans[0].clone()),
            ..PortConfig::new("net_null0", 3)
        };
        let port = EthPort::open(&eal, &config, &[pool]).unwrap();
        let check = port.rss();
        assert_eq!(check.differences, []);
        assert_eq!(check.told.table.as_deref(), Some(asked.table()));
        let key = check.told.key.as_deref();
        assert_eq!(key, Some(asked.toeplitz().key().bytes()));
        assert_eq!(check.queues, 4);
        assert_eq!(port.samples(), (0, 0));
        let moved: Vec<u16> = (0..can.table).map(|entry| entry % 2).collect();
        port.set_table(&moved).unwrap();
        let error = port.set_table(&moved[..64]).unwrap_err().to_string();
        assert!(error.contains("redirection table"), "{error}");
        port.set_table(asked.table()).unwrap();
    });
}

#[test]
fn a_device_that_refuses_to_hash_one_end_alone_hashes_both() {
    in_own_process(
        "a_device_that_refuses_to_hash_one_end_alone_hashes_both",
        || {
            let eal = start(&["net_null0"]);
            let pool = pool(&eal);
            let can = EthPort::capabilities(&eal, "net_null0").unwrap();
            // DPDK itself refuses what the device does not offer: a sign that it was asked for.
            let claims = RssCapabilities {
                hash_types: can.hash_types | HashTypes::SOURCE | HashTypes::DESTINATION,
                ..can
            };
            let needs = [Side::Clients, Side::Servers].map(|side| PortNeeds {
                queues: None,
                can: claims,
                side,
            });
            let [clients, _] = plan(&needs, 3).try_into().unwrap();
            let asked = clients.rss.clone().unwrap().types();
            assert!(asked.contains(HashTypes::SOURCE), "{asked}");
            let config = PortConfig {
                plan: Some(clients),
                ..PortConfig::new("net_null0", 3)
            };
            let port = EthPort::open(&eal, &config, &[pool]).unwrap();
            let check = port.rss();
            let found = asked.without(HashTypes::SOURCE);
            assert_eq!(
                check.differences,
                [Difference::HashTypes { asked, found }],
                "{}",
                check.summary()
            );
            assert!(matches!(&check.spread, Spread::Rss(plan) if plan.types() == found));
        },
    );
}

#[test]
fn a_table_that_is_not_the_one_asked_for_is_found() {
    in_own_process("a_table_that_is_not_the_one_asked_for_is_found", || {
        let eal = start(&["net_null0"]);
        let pool = pool(&eal);
        let can = EthPort::capabilities(&eal, "net_null0").unwrap();
        let types = can.hash_types & HashTypes::EVERY_KIND;
        // Of another size than the device's, so that it cannot be programmed.
        let workers = vec![WorkerId(0), WorkerId(1)];
        let toeplitz = Arc::new(Toeplitz::new(Key::symmetric(40)));
        let asked = RssPlan::new(toeplitz, types, vec![1; 256], workers).unwrap();
        let config = PortConfig {
            plan: Some(PortPlan {
                queues: 2,
                rss: Some(asked),
            }),
            ..PortConfig::new("net_null0", 2)
        };
        let port = EthPort::open(&eal, &config, &[pool]).unwrap();
        let check = port.rss();
        let [Difference::Table(entries)] = check.differences[..] else {
            panic!("{:?}", check.differences);
        };
        let Spread::Rss(found) = &check.spread else {
            panic!("{}", check.summary());
        };
        assert_eq!(found.table().len(), 128);
        let others = found.table().iter().filter(|queue| **queue == 0).count();
        assert_eq!(entries, 2 * others);
    });
}

#[test]
fn a_tap_with_several_queues_spreads_as_it_likes() {
    in_own_process("a_tap_with_several_queues_spreads_as_it_likes", || {
        let eal = start(&["net_tap0,iface=slrss0"]);
        let pool = pool(&eal);
        let port = EthPort::open(&eal, &PortConfig::new("net_tap0", 2), &[pool]).unwrap();
        let check = port.rss();
        assert!(matches!(check.spread, Spread::Unknown), "{check:?}");
        assert!(check.summary().contains("no RSS"), "{}", check.summary());
    });
}
