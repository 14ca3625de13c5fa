//! Counts the walk's instructions a packet in each method and holds them against stored ceilings, and those of many workers against
//! one's. Exits with 1 when one has grown.

#![expect(clippy::print_stdout, reason = "a command line tool")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use sluice_control::api::Method;
use sluice_dataplane::io::rss_nic::Model;
use sluice_perf::instructions::{Ceilings, Verdict, per_packet};
use sluice_perf::scale::cabling::Cabling;
use sluice_perf::scale::steady::grows;
use sluice_perf::scale::trial::Trial;
use sluice_perf::scenario::{METHODS, Scenario, name};

/// Counts instructions a packet with valgrind and compares them with ceilings.
#[derive(Parser)]
struct Options {
    /// Where the ceilings are.
    #[arg(long, default_value = "perf/ceilings.toml")]
    ceilings: PathBuf,

    /// Write what is counted instead of comparing.
    #[arg(long)]
    write: bool,

    /// Only forward packets by many workers: what is counted.
    #[arg(long, hide = true)]
    steady: Option<Trial>,
}

/// What many workers are held against one with: a NIC and a cabling where nothing is handed over.
const NOTHING_HANDED_OVER: (Model, Cabling) = (Model::Full, Cabling::TwoArms);

/// How many.
const MANY: [usize; 2] = [4, 16];

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if let Some(trial) = options.steady {
        trial.forward_steadily()?;
        return Ok(ExitCode::SUCCESS);
    }
    let this = std::env::current_exe()?;
    let programs = this.parent().context("no folder")?;
    let stored = if options.write {
        Ceilings::default()
    } else {
        Ceilings::load(&options.ceilings)?
    };
    let mut counted = Ceilings::default();
    let mut grown = 0;
    for method in METHODS {
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
                "{scenario:<19} {count:7.1} instructions a packet, ceiling {ceiling:7.1}{remark}",
                scenario = scenario.to_string()
            );
        }
    }
    if options.write {
        counted.store(&options.ceilings)?;
    } else {
        for method in METHODS {
            grown += by_many(&this, method)?;
        }
    }
    Ok(if grown == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Counts by one and by many workers. Returns how many of those take more a packet than one.
fn by_many(this: &Path, method: Method) -> anyhow::Result<u32> {
    let (model, cabling) = NOTHING_HANDED_OVER;
    let count = |workers| {
        let trial = Trial {
            model,
            cabling,
            method,
            workers,
            flows: 0,
        };
        trial.instructions(this)
    };
    let one = count(1)?;
    let mut grown = 0;
    for workers in MANY {
        let many = count(workers)?;
        let remark = if grows(one, many) {
            grown += 1;
            "  takes MORE than one worker"
        } else {
            ""
        };
        let line = format!("{}, {workers} workers", name(method));
        println!("{line:<19} {many:7.1} instructions a packet, by one {one:7.1}{remark}");
    }
    Ok(grown)
}
