//! Counts the walk's instructions a packet in each method and holds them against stored ceilings. Exits with 1 when one has
//! grown.

#![expect(clippy::print_stdout, reason = "a command line tool")]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use sluice_control::api::Method;
use sluice_perf::instructions::{Ceilings, Verdict, per_packet};
use sluice_perf::scenario::Scenario;

/// Counts instructions a packet with valgrind and compares them with ceilings.
#[derive(Parser)]
struct Options {
    /// Where the ceilings are.
    #[arg(long, default_value = "perf/ceilings.toml")]
    ceilings: PathBuf,

    /// Write what is counted instead of comparing.
    #[arg(long)]
    write: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    let this = std::env::current_exe()?;
    let programs = this.parent().context("no folder")?;
    let stored = if options.write {
        Ceilings::default()
    } else {
        Ceilings::load(&options.ceilings)?
    };
    let mut counted = Ceilings::default();
    let mut grown = 0;
    for method in [Method::Dr, Method::Tun, Method::Nat, Method::FullNat] {
        for flows in [1000, 100_000] {
            let scenario = Scenario { method, flows };
            let count = per_packet(programs, &scenario)?;
            counted.set(&scenario, count);
            let verdict = stored.judge(&scenario, count);
            grown +=
                u32::from(!options.write && matches!(verdict, Verdict::Grown | Verdict::Unknown));
            let ceiling = stored.of(&scenario).unwrap_or(count);
            let remark = match verdict {
                _ if options.write => "",
                Verdict::Same => "",
                Verdict::Grown => "  has GROWN by more than 3 %",
                Verdict::Shrunk => "  has shrunk: lower its ceiling with `make ceilings`",
                Verdict::Unknown => "  has no ceiling: write one with `make ceilings`",
            };
            println!(
                "{scenario:<14} {count:7.1} instructions a packet, ceiling {ceiling:7.1}{remark}",
                scenario = scenario.to_string()
            );
        }
    }
    if options.write {
        counted.store(&options.ceilings)?;
    }
    Ok(if grown == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
