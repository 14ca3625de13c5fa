//! `sluice-pktgen`: sends, answers, checks, reports.

#![expect(clippy::print_stdout, reason = "a command line tool")]

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use sluice_perf::interrupt;
use sluice_perf::pktgen::{Options, Report, Session};
use tracing_subscriber::EnvFilter;

/// Something was lost or wrong.
const FAILED: u8 = 1;

/// It could not run.
const ERROR: u8 = 2;

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            eprintln!("sluice-pktgen: {error:#}");
            ExitCode::from(ERROR)
        }
    }
}

/// Whether all is as it should be.
fn run(options: &Options) -> anyhow::Result<bool> {
    interrupt::watch()?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .init();
    let mut session = Session::of(options)?;
    let report = Report::of(&mut session, options)?;
    let json = || serde_json::to_string_pretty(&report);
    match &options.json {
        Some(path) if path.as_os_str() == "-" => println!("{}", json()?),
        Some(path) => {
            print!("{report}");
            std::fs::write(path, json()? + "\n")
                .with_context(|| format!("{}: cannot be written", path.display()))?;
        }
        None => print!("{report}"),
    }
    if options.linger {
        io::copy(&mut io::stdin(), &mut io::sink())?;
    }
    Ok(report.passed())
}
