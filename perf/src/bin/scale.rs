//! `make scale`: whether many workers act as one, on every kind of NIC, in every mode. Exits with 1 when anything is wrong.

#![expect(clippy::print_stdout, reason = "a command line tool")]

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use sluice_control::api::Method;
use sluice_dataplane::io::rss_nic::Model;
use sluice_perf::scale::cabling::Cabling;
use sluice_perf::scale::table;
use sluice_perf::scale::trial::Trial;

/// Sends connections through many workers on NICs in process and looks at every packet.
#[derive(Parser)]
struct Options {
    /// Kinds of NIC: full, common, vf, none, foreign.
    #[arg(long, value_delimiter = ',')]
    models: Vec<String>,

    /// Where clients and servers are: two-arms, one-arm, third-port.
    #[arg(long, value_delimiter = ',')]
    cablings: Vec<String>,

    /// Modes: nat, fullnat, dr, tun.
    #[arg(long, value_delimiter = ',', default_values = ["nat", "fullnat", "dr", "tun"])]
    modes: Vec<String>,

    /// Numbers of workers.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 3, 5, 8, 16])]
    workers: Vec<usize>,

    /// Connections of a trial.
    #[arg(long, default_value_t = 200_000)]
    connections: u32,

    /// Do not count instructions, which takes valgrind and most of the time.
    #[arg(long)]
    no_count: bool,

    /// Only forward packets of known connections: what is counted.
    #[arg(long, hide = true)]
    steady: Option<Trial>,
}

fn main() -> anyhow::Result<ExitCode> {
    let options = Options::parse();
    if let Some(trial) = options.steady {
        trial.forward_steadily()?;
        return Ok(ExitCode::SUCCESS);
    }
    let models = chosen(&options.models, &Model::ALL, Model::name)?;
    let cablings = chosen(&options.cablings, &Cabling::ALL, Cabling::name)?;
    let (mut passed, mut failed) = (0, 0);
    println!("{}", table::HEAD);
    for model in models {
        for cabling in &cablings {
            for mode in &options.modes {
                let method: Method =
                    serde_json::from_value(mode.as_str().into()).context("--modes")?;
                for workers in &options.workers {
                    let trial = Trial {
                        model,
                        cabling: *cabling,
                        method,
                        workers: *workers,
                        flows: options.connections,
                    };
                    let outcome = trial.run()?;
                    let this = std::env::current_exe()?;
                    let counted = (!options.no_count).then(|| trial.instructions(&this));
                    println!("{}", table::line(&trial, &outcome, counted.transpose()?));
                    if trial.faults(&outcome).is_empty() {
                        passed += 1;
                    } else {
                        failed += 1;
                    }
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Those of the given names, in the order of `all`; all if no names are given.
fn chosen<T: Copy>(
    names: &[String],
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> anyhow::Result<Vec<T>> {
    let known = |wanted: &String| all.iter().any(|one| name(*one) == wanted);
    if let Some(unknown) = names.iter().find(|wanted| !known(wanted)) {
        let all: Vec<_> = all.iter().map(|one| name(*one)).collect();
        anyhow::bail!("{unknown}: there are {}", all.join(", "));
    }
    let wanted = |one: &T| names.is_empty() || names.iter().any(|wanted| wanted == name(*one));
    Ok(all.iter().copied().filter(wanted).collect())
}
