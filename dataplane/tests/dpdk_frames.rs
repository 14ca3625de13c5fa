//! Frames through DPDK's virtual devices: byte for byte, none lost, none leaked.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::mem;

use dpdk_sys as sys;
use sluice_dataplane::dpdk::{Eal, EthPort, Mbuf, Mempool, PoolConfig, PortConfig};
use sluice_dataplane::io::{BURST, Burst, Frame, HEADROOM, Port};
use support::{in_own_process, start};

fn pool(eal: &Eal, name: &str) -> Mempool {
    let config = PoolConfig {
        cache: 32,
        ..PoolConfig::new(name, 1023)
    };
    Mempool::new(eal, &config).unwrap()
}

/// A ring that sends to itself, with `queues` queue pairs.
fn ring(eal: &Eal, pool: Mempool, queues: u16) -> EthPort {
    EthPort::open(eal, &PortConfig::new("net_ring0", queues), &[pool]).unwrap()
}

fn fill<F: Frame>(mut frame: F, bytes: &[u8]) -> F {
    assert!(frame.push_back(bytes.len()));
    frame.bytes_mut().copy_from_slice(bytes);
    frame
}

#[test]
fn a_burst_comes_back_byte_for_byte_and_every_buffer_returns() {
    in_own_process(
        "a_burst_comes_back_byte_for_byte_and_every_buffer_returns",
        || {
            let eal = start(&["net_ring0"]);
            let pool = pool(&eal, "frames");
            let port = ring(&eal, pool, 1);
            let mut queue = port.queue(0).unwrap();
            assert_eq!(pool.available(), 1023);

            let sent: Vec<Vec<u8>> = (0..BURST)
                .map(|n| (0..60 + n * 40).map(|byte| (byte * 7 + n) as u8).collect())
                .collect();
            let mut burst = Burst::new();
            for bytes in &sent {
                burst.push(fill(queue.alloc().unwrap(), bytes));
            }
            assert_eq!(queue.tx(&mut burst), BURST);
            assert!(burst.is_empty());
            assert_eq!(queue.rx(&mut burst), BURST);
            for (frame, bytes) in burst.iter().zip(&sent) {
                assert_eq!(frame.bytes(), bytes);
            }
            assert_eq!(pool.available(), 1023 - BURST as u32);

            drop(burst.pop());
            assert_eq!(pool.available(), 1024 - BURST as u32);
            queue.free(&mut burst);
            assert!(burst.is_empty());
            assert_eq!(pool.available(), 1023);
            let stats = port.stats().unwrap();
            assert_eq!((stats.rx, stats.tx), (BURST as u64, BURST as u64));
        },
    );
}

#[test]
fn a_frame_grows_and_shrinks_at_both_ends() {
    in_own_process("a_frame_grows_and_shrinks_at_both_ends", || {
        let eal = start(&[]);
        let pool = pool(&eal, "frames");
        let mut frame = fill(pool.take().unwrap(), &[1, 2, 3]);

        assert!(frame.push_front(HEADROOM));
        assert_eq!(frame.bytes()[..HEADROOM], [0; HEADROOM], "pools are zeroed");
        assert!(!frame.push_front(2048));
        assert!(frame.pull_front(HEADROOM));
        assert_eq!(frame.bytes(), [1, 2, 3]);

        assert!(!frame.pull_front(4));
        assert!(frame.pull_front(1));
        assert!(frame.push_back(2045));
        assert!(!frame.push_back(1), "2048 bytes are all there is");
        assert!(!frame.push_back(usize::MAX));
        assert!(!frame.push_front(usize::MAX));
        assert!(!frame.push_front(70_000));
        frame.truncate(5000);
        assert_eq!(frame.bytes().len(), 2047);
        frame.truncate(1);
        assert_eq!(frame.bytes(), [2]);
    });
}

#[test]
fn what_a_full_ring_refuses_stays_in_order() {
    in_own_process("what_a_full_ring_refuses_stays_in_order", || {
        let eal = start(&["net_ring0"]);
        let pool = Mempool::new(&eal, &PoolConfig::new("frames", 2047)).unwrap();
        let port = ring(&eal, pool, 1);
        let mut queue = port.queue(0).unwrap();
        let mut burst = Burst::new();
        let mut sent = 0_u32;
        while burst.is_empty() {
            for n in 0..30 {
                burst.push(fill(queue.alloc().unwrap(), &(sent + n).to_be_bytes()));
            }
            sent += queue.tx(&mut burst) as u32;
        }
        assert_eq!(sent, 1023, "what a ring of net_ring holds");
        for (n, frame) in (sent..).zip(&burst) {
            assert_eq!(frame.bytes(), n.to_be_bytes());
        }
        assert_eq!((sent + burst.len() as u32) % 30, 0, "none was lost");
    });
}

#[test]
fn an_empty_pool_gives_none_until_a_frame_comes_back() {
    in_own_process("an_empty_pool_gives_none_until_a_frame_comes_back", || {
        let eal = start(&[]);
        let pool = pool(&eal, "frames");
        let mut taken: Vec<_> = (0..1023).map(|_| pool.take().unwrap()).collect();
        assert!(pool.take().is_none());
        taken.pop();
        assert!(pool.take().is_some());
    });
}

#[test]
fn frames_in_several_segments_become_one_or_are_refused_and_counted() {
    in_own_process(
        "frames_in_several_segments_become_one_or_are_refused_and_counted",
        || {
            let eal = start(&["net_ring0"]);
            let pool = pool(&eal, "frames");
            let port = ring(&eal, pool, 1);
            let mut queue = port.queue(0).unwrap();
            let single = |byte| fill(pool.take().unwrap(), &[byte; 60]);
            let pair = |first: usize, second: usize| {
                let head = fill(pool.take().unwrap(), &vec![1; first]);
                chain(head, fill(pool.take().unwrap(), &vec![2; second]))
            };

            // A NIC that splits headers makes such frames.
            let mut burst = Burst::new();
            burst.extend([
                single(7),
                pair(54, 1000),
                pair(1000, 1049),
                single(8),
                pair(1, 2047),
            ]);
            assert_eq!(queue.tx(&mut burst), 5);
            assert_eq!(queue.rx(&mut burst), 4);

            assert_eq!(burst[0].bytes(), [7; 60]);
            assert_eq!(burst[1].bytes(), [[1; 54].as_slice(), &[2; 1000]].concat());
            assert_eq!(burst[2].bytes(), [8; 60]);
            assert_eq!(burst[3].bytes(), [[1].as_slice(), &[2; 2047]].concat());
            assert_eq!(queue.refused().oversize, 1);
            assert_eq!(queue.refused().oversize, 0, "told once");
            // All segments but the four single ones are back.
            assert_eq!(pool.available(), 1023 - 4);
        },
    );
}

/// One frame of two segments, which the safe layer itself never hands out.
fn chain(head: Mbuf, tail: Mbuf) -> Mbuf {
    // SAFETY: a `Mbuf` is a transparent pointer to a packet that it owns; the head owns the tail afterwards.
    unsafe {
        let raw: *mut sys::rte_mbuf = mem::transmute_copy(&head);
        assert_eq!(
            sys::sluice_pktmbuf_chain(raw, mem::transmute::<Mbuf, *mut sys::rte_mbuf>(tail)),
            0
        );
    }
    head
}
