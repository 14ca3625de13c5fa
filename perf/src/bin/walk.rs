//! Nanoseconds a packet of the whole walk, without a driver.

#![expect(clippy::print_stdout, reason = "a command line tool")]

use std::time::Instant;

use sluice_dataplane::command::PortId;
use sluice_dataplane::io::{Burst, Frame, Port};
use sluice_dataplane::service::Method;
use sluice_perf::bench_port::BenchPort;
use sluice_perf::rig::{Rig, client_frames};

fn main() {
    let packets = 10_000_000;
    for flows in [1000, 100_000, 1_000_000] {
        let mut port = BenchPort::new(client_frames(flows));
        let mut best = f64::MAX;
        for _ in 0..3 {
            port.left = packets;
            let start = Instant::now();
            let mut burst = Burst::new();
            while port.rx(&mut burst) > 0 {
                for frame in &mut burst {
                    let bytes = frame.bytes_mut();
                    for n in 0..6 {
                        bytes.swap(n, n + 6);
                    }
                }
                port.tx(&mut burst);
            }
            best = best.min(start.elapsed().as_secs_f64());
        }
        println!(
            "{flows:>8} macswap   {:6.1} ns",
            best * 1e9 / packets as f64
        );
        for method in [Method::Dr, Method::Tun, Method::Nat, Method::FullNat] {
            let mut rig = Rig::new(method, flows);
            let before = rig.cells.books.tx.read();
            let mut best = f64::MAX;
            for _ in 0..3 {
                let start = Instant::now();
                rig.run(packets);
                best = best.min(start.elapsed().as_secs_f64());
            }
            assert_eq!(
                rig.cells.books.tx.read() - before,
                3 * packets as u64,
                "{:?}",
                rig.cells.books
            );
            assert!(rig.worker.port_mut(PortId(0)).is_some());
            println!(
                "{flows:>8} {method:?} {:6.1} ns",
                best * 1e9 / packets as f64
            );
        }
    }
}
