//! Nanoseconds a packet of the whole walk in memory, without a driver: quick to run while working on it.

#![expect(clippy::print_stdout, reason = "a command line tool")]

use sluice_control::api::Method;
use sluice_perf::scenario::Scenario;
use sluice_perf::timing::own_cpu_ns;
use sluice_perf::traffic::Traffic;
use sluice_perf::walk::Walk;

const PACKETS: usize = 10_000_000;

fn main() -> anyhow::Result<()> {
    for flows in [1000, 100_000, 1_000_000] {
        for method in [Method::Dr, Method::Tun, Method::Nat, Method::FullNat] {
            let scenario = Scenario { method, flows };
            let mut walk = Walk::new(&scenario)?;
            let traffic = Traffic::new(&scenario, &mut walk)?;
            walk.load(&traffic.steady);
            let mut best = u64::MAX;
            for _ in 0..3 {
                let start = own_cpu_ns();
                walk.go_on(PACKETS);
                best = best.min(own_cpu_ns() - start);
            }
            println!(
                "{:<14} {:6.1} ns",
                scenario.to_string(),
                best as f64 / PACKETS as f64
            );
        }
    }
    Ok(())
}
