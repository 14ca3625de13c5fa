//! Ports on DPDK's virtual devices: bring-up, what is refused, and what they tell.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::fs::{self, File};
use std::time::Duration;

use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};
use sluice_dataplane::command::WorkerId;
use sluice_dataplane::dpdk::{Eal, EthPort, Mempool, PoolConfig, PortConfig, PortError};
use sluice_dataplane::egress::Mac;
use sluice_dataplane::io::{Burst, Frame, Port};
use sluice_dataplane::steer::Spread;
use support::{in_own_process, start};

fn pool(eal: &Eal) -> Mempool {
    Mempool::new(eal, &PoolConfig::new("frames", 4095)).unwrap()
}

#[test]
fn a_device_that_is_not_there_is_refused_with_a_list_of_those_that_are() {
    in_own_process(
        "a_device_that_is_not_there_is_refused_with_a_list_of_those_that_are",
        || {
            let eal = start(&["net_null0", "net_ring7"]);
            let pool = pool(&eal);
            assert_eq!(EthPort::devices(&eal), ["net_null0", "net_ring7"]);
            for name in ["net_tap9", "0000:99:00.0", "zero\0", ""] {
                let error = EthPort::open(&eal, &PortConfig::new(name, 1), &[pool]).unwrap_err();
                assert!(matches!(error, PortError::NoSuchDevice { .. }), "{error}");
                assert!(
                    error.to_string().contains("net_null0, net_ring7"),
                    "{error}"
                );
            }
        },
    );
}

#[test]
fn workers_beyond_the_transmit_queues_have_others_send() {
    in_own_process(
        "workers_beyond_the_transmit_queues_have_others_send",
        || {
            let eal = start(&["net_ring0"]);
            let pool = pool(&eal);
            let port = EthPort::open(&eal, &PortConfig::new("net_ring0", 18), &[pool]).unwrap();
            let senders: Vec<_> = (0..18)
                .map(|worker| port.queue(worker).unwrap().sent_by())
                .collect();
            let own = senders.iter().position(Option::is_some).unwrap();
            assert!((1..18).contains(&own));
            for (worker, sender) in senders.iter().enumerate() {
                let other = WorkerId((worker % own) as u16);
                assert_eq!(*sender, (worker >= own).then_some(other));
            }
        },
    );
}

#[test]
fn what_the_device_cannot_do_is_refused_and_can_be_asked_again() {
    in_own_process(
        "what_the_device_cannot_do_is_refused_and_can_be_asked_again",
        || {
            let eal = start(&["net_ring0"]);
            let pool = pool(&eal);
            let config = PortConfig::new("net_ring0", 1);

            let error = EthPort::open(&eal, &PortConfig::new("net_ring0", 0), &[pool]).unwrap_err();
            assert!(matches!(error, PortError::NoQueues { .. }), "{error}");
            let error = EthPort::open(&eal, &config, &[]).unwrap_err();
            assert!(matches!(error, PortError::NoQueues { .. }), "{error}");

            let want = PortConfig {
                mtu: 10,
                ..config.clone()
            };
            let error = EthPort::open(&eal, &want, &[pool]).unwrap_err();
            assert!(
                matches!(error, PortError::BadMtu { want: 10, .. }),
                "{error}"
            );

            let want = PortConfig {
                mtu: 2031,
                ..config.clone()
            };
            let error = EthPort::open(&eal, &want, &[pool]).unwrap_err();
            assert!(
                matches!(
                    error,
                    PortError::BuffersTooShort {
                        need: 2049,
                        have: 2048,
                        ..
                    }
                ),
                "{error}"
            );

            EthPort::open(&eal, &config, &[pool]).unwrap();
        },
    );
}

#[test]
fn a_queue_has_one_owner_and_a_device_one_port() {
    in_own_process("a_queue_has_one_owner_and_a_device_one_port", || {
        let eal = start(&["net_null0"]);
        let pool = pool(&eal);
        let config = PortConfig::new("net_null0", 2);
        let port = EthPort::open(&eal, &config, &[pool]).unwrap();
        let again = EthPort::open(&eal, &config, &[pool]).unwrap_err();
        assert!(matches!(again, PortError::InUse { .. }), "{again}");

        let queue = port.queue(0).unwrap();
        let other = port.queue(1).unwrap();
        assert_eq!((queue.queue(), other.queue()), (0, 1));
        let error = port.queue(0).unwrap_err();
        assert!(
            matches!(error, PortError::QueueTaken { queue: 0, .. }),
            "{error}"
        );
        let error = port.queue(2).unwrap_err();
        assert!(
            matches!(
                error,
                PortError::NoSuchQueue {
                    queue: 2,
                    queues: 2,
                    ..
                }
            ),
            "{error}"
        );
        drop(queue);
        let mut queue = port.queue(0).unwrap();
        drop(other);

        let error = port.close().unwrap_err();
        assert!(matches!(error, PortError::InUse { .. }), "{error}");
        assert_eq!(
            queue.rx(&mut Burst::new()),
            32,
            "the device runs while a queue is held"
        );
        drop(queue);
        assert!(
            EthPort::devices(&eal).is_empty(),
            "the last queue closes the device"
        );
        assert_eq!(pool.available(), 4095);
    });
}

#[test]
fn a_port_tells_its_mac_mtu_link_counters_and_how_it_spreads_frames() {
    in_own_process(
        "a_port_tells_its_mac_mtu_link_counters_and_how_it_spreads_frames",
        || {
            let eal = start(&["net_null0", "net_null1"]);
            let pool = pool(&eal);
            let port = EthPort::open(&eal, &PortConfig::new("net_null0", 4), &[pool]).unwrap();
            assert_eq!((port.name(), port.queues()), ("net_null0", 4));
            assert_eq!(port.mtu().unwrap(), 1500);
            assert_ne!(port.mac().0, [0; 6]);
            let link = port.link().unwrap();
            assert!(link.up);
            assert_eq!(link.speed_mbps, 10_000);
            let rss = port.rss();
            assert_eq!(rss.differences, []);
            let Spread::Rss(plan) = &rss.spread else {
                panic!("{}", rss.summary());
            };
            assert!(plan.toeplitz().key().is_symmetric());
            let expected: Vec<u16> = (0..128).map(|entry| entry % 4).collect();
            assert_eq!(plan.table(), expected);
            assert_eq!(rss.told.table.as_ref(), Some(&expected));

            let mut queue = port.queue(3).unwrap();
            let mut burst = Burst::new();
            assert_eq!(queue.rx(&mut burst), 32);
            assert_eq!(queue.tx(&mut burst), 32);
            let stats = port.stats().unwrap();
            assert_eq!((stats.rx, stats.tx), (32, 32));

            let single = EthPort::open(&eal, &PortConfig::new("net_null1", 1), &[pool]).unwrap();
            assert!(matches!(single.rss().spread, Spread::One(WorkerId(0))));
        },
    );
}

#[test]
fn another_mac_is_for_devices_that_filter_by_it() {
    in_own_process("another_mac_is_for_devices_that_filter_by_it", || {
        let eal = start(&["net_ring0", "net_null0"]);
        let pool = pool(&eal);
        let vrrp = Mac([0, 0, 0x5e, 0, 1, 1]);
        let ring = EthPort::open(&eal, &PortConfig::new("net_ring0", 1), &[pool]).unwrap();
        ring.add_mac(vrrp).unwrap();
        let null = EthPort::open(&eal, &PortConfig::new("net_null0", 1), &[pool]).unwrap();
        let error = null.add_mac(vrrp).unwrap_err().to_string();
        assert!(
            error.contains("net_null0: it could not be given another MAC"),
            "{error}"
        );
    });
}

#[test]
fn frames_of_a_file_pass_and_those_too_long_for_a_buffer_are_counted() {
    in_own_process(
        "frames_of_a_file_pass_and_those_too_long_for_a_buffer_are_counted",
        || {
            let folder = std::env::temp_dir().join(format!("sluice-port-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            let (input, output) = (folder.join("in.pcap"), folder.join("out.pcap"));
            let frames: Vec<Vec<u8>> = [60, 3000, 2048, 2049, 9000, 61]
                .iter()
                .map(|len| (0..*len).map(|byte| (byte % 251) as u8).collect())
                .collect();
            let mut writer = PcapWriter::new(File::create(&input).unwrap()).unwrap();
            for frame in &frames {
                let packet = PcapPacket::new(Duration::ZERO, frame.len() as u32, frame);
                writer.write_packet(&packet).unwrap();
            }
            drop(writer);

            let vdev = format!(
                "net_pcap0,rx_pcap={},tx_pcap={}",
                input.display(),
                output.display()
            );
            let eal = start(&[&vdev]);
            let pool = pool(&eal);
            let port = EthPort::open(&eal, &PortConfig::new("net_pcap0", 1), &[pool]).unwrap();
            let mut queue = port.queue(0).unwrap();
            let mut burst = Burst::new();
            assert_eq!(queue.rx(&mut burst), 3);
            assert_eq!(queue.refused().oversize, 3);
            let expected = [&frames[0], &frames[2], &frames[5]];
            for (frame, bytes) in burst.iter().zip(expected) {
                assert_eq!(frame.bytes(), bytes);
            }
            assert_eq!(queue.tx(&mut burst), 3);
            assert_eq!(pool.available(), 4095, "none leaked");
            drop(queue);
            port.close().unwrap();

            let mut reader = PcapReader::new(File::open(&output).unwrap()).unwrap();
            for bytes in expected {
                assert_eq!(*reader.next_packet().unwrap().unwrap().data, **bytes);
            }
            assert!(reader.next_packet().is_none());
            fs::remove_dir_all(folder).unwrap();
        },
    );
}
