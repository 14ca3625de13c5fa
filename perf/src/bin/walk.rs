//! Nanoseconds a packet of the whole walk in memory, without a driver: quick to run while working on it.

#![expect(clippy::print_stdout, reason = "a command line tool")]

use clap::Parser;
use sluice_control::api::Method;
use sluice_perf::churn::Churn;
use sluice_perf::scenario::{Scenario, name};
use sluice_perf::timing::own_cpu_ns;
use sluice_perf::traffic::Traffic;
use sluice_perf::walk::Walk;

const PACKETS: usize = 10_000_000;

/// Times the walk in memory, of packets of known connections and of new ones.
#[derive(Parser)]
struct Options {
    /// Numbers of known connections.
    #[arg(long, num_args = 0.., default_values_t = [1000, 100_000, 1_000_000])]
    flows: Vec<u32>,

    /// Leave known connections out.
    #[arg(long)]
    new_only: bool,

    /// Leave new connections out.
    #[arg(long)]
    established_only: bool,

    /// How packets are forwarded.
    #[arg(long, value_delimiter = ',', default_values = ["dr", "tun", "nat", "fullnat"], value_parser = method)]
    methods: Vec<Method>,

    /// Measurements of each, of which the best counts.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

fn method(name: &str) -> Result<Method, serde_json::Error> {
    serde_json::from_value(name.into())
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let methods = &options.methods;
    for flows in &options.flows {
        for method in methods.iter().filter(|_| !options.new_only) {
            let scenario = Scenario {
                method: *method,
                flows: *flows,
            };
            let ns = known(&scenario, options.rounds)?;
            println!("{:<14} {ns:6.1} ns", scenario.to_string());
        }
    }
    for method in methods.iter().filter(|_| !options.established_only) {
        let mut churn = Churn::new(*method)?;
        let mut best = u64::MAX;
        for _ in 0..options.rounds {
            let opened = churn.measure()?;
            best = best.min(opened.cpu_ns / opened.connections);
        }
        println!("{:<8} new   {best:6} ns", name(*method));
    }
    Ok(())
}

fn known(scenario: &Scenario, rounds: u32) -> anyhow::Result<f64> {
    let mut walk = Walk::new(scenario)?;
    let traffic = Traffic::new(scenario, &mut walk)?;
    walk.load(&traffic.steady);
    let mut best = u64::MAX;
    for _ in 0..rounds {
        let start = own_cpu_ns();
        walk.go_on(PACKETS);
        best = best.min(own_cpu_ns() - start);
    }
    Ok(best as f64 / PACKETS as f64)
}
