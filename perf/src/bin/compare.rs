//! What changed between two results of `make bench` or `make perf`: `compare BEFORE.json AFTER.json`.

#![expect(clippy::print_stdout, reason = "a command line tool")]

use std::path::PathBuf;

use clap::Parser;
use sluice_perf::report::Report;
use sluice_perf::report::figure::{Change, Figure};

/// Says what changed between two results. A figure has changed when all its samples lie beyond all samples of before, by more
/// than either scatters.
#[derive(Parser)]
struct Options {
    /// The JSON of the result before.
    before: PathBuf,

    /// The JSON of the result after.
    after: PathBuf,

    /// Show what did not change, too.
    #[arg(long)]
    all: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let (before, after) = (
        Report::load(&options.before)?,
        Report::load(&options.after)?,
    );
    for (name, report) in [("before", &before), ("after", &after)] {
        let machine = &report.machine;
        println!(
            "{name:<7} {} on {}, {} x {}, DPDK {}",
            machine.commit, machine.date, machine.cores, machine.cpu, machine.dpdk
        );
    }
    if before.settings.differ(&after.settings) {
        println!("They were run with different settings: figures may differ for that alone.");
    }
    let (old, new) = (before.figures(), after.figures());
    let (mut better, mut worse, mut noise, mut unknown) = (0, 0, 0, 0);
    println!();
    for figure in &new {
        let Some(known) = old.iter().find(|old| old.name == figure.name) else {
            unknown += 1;
            continue;
        };
        let change = figure.against(known);
        match change {
            Change::Better => better += 1,
            Change::Worse => worse += 1,
            Change::Noise => noise += 1,
        }
        if change != Change::Noise || options.all {
            println!("{}", line(known, figure, change));
        }
    }
    let gone = old
        .iter()
        .filter(|figure| new.iter().all(|new| new.name != figure.name))
        .count();
    println!(
        "\n{better} better, {worse} worse, {noise} within noise; {unknown} only after, {gone} only before"
    );
    Ok(())
}

fn line(before: &Figure, after: &Figure, change: Change) -> String {
    let word = match change {
        Change::Better => "better",
        Change::Worse => "WORSE",
        Change::Noise => "same",
    };
    let percent = 100.0 * (after.median() / before.median() - 1.0);
    format!(
        "{word:<7} {:<46} {:>24} -> {:<24} {percent:+7.1} %",
        after.name,
        shown(before),
        shown(after)
    )
}

/// The median, and the range of the samples.
fn shown(figure: &Figure) -> String {
    let (low, high) = figure.range();
    let digits = if high < 10.0 { 3 } else { 1 };
    format!(
        "{:.digits$} ({low:.digits$}-{high:.digits$}) {}",
        figure.median(),
        figure.unit
    )
}
