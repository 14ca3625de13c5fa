//! `sluice-conformance`: replays recorded traces and says what differs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Parser;
use sluice_conformance::replay::{Verdict, replay};
use sluice_conformance::suite;
use sluice_conformance::trace::Trace;

/// Replays recorded kernel IPVS traces through sluice: a line for each that differs, then `N passed, M failed`.
///
/// Exit code 0 if all agree, 1 if any differs, 2 if there was nothing to replay.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Where the traces are, in the format of the README beside them.
    #[arg(long, value_name = "DIR", default_value = "dataplane/ipvs/golden")]
    traces: PathBuf,
    /// Only these traces, by name.
    #[arg(long, value_name = "NAME", num_args = 1..)]
    only: Vec<String>,
    /// Only the traces named in this file, one a line; `#` begins a comment.
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// Replay this one file in this process. The others run one process each, so that a crash fails one trace only.
    #[arg(long, value_name = "FILE", hide = true)]
    one: Option<PathBuf>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.one {
        Some(path) => one(path),
        None => all(&args),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("sluice-conformance: {error}");
        ExitCode::from(2)
    })
}

/// Replays the traces that were asked for.
fn all(args: &Args) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut wanted = args.only.clone();
    if let Some(list) = &args.list {
        wanted.extend(suite::list(list)?);
    }
    let paths = suite::traces(&args.traces)?;
    let everything = args.only.is_empty() && args.list.is_none();
    let chosen: Vec<_> = paths
        .iter()
        .filter(|path| everything || wanted.contains(&suite::name(path)))
        .collect();
    let mut out = io::stdout().lock();
    let mut failed = 0;
    let there = |name: &&String| !paths.iter().any(|path| suite::name(path) == **name);
    for name in wanted.iter().filter(there) {
        failed += 1;
        writeln!(
            out,
            "FAIL {name}: no such trace in {}",
            args.traces.display()
        )?;
    }
    let mut passed = 0;
    for path in &chosen {
        let (agrees, text) = apart(path)?;
        if agrees {
            passed += 1;
        } else {
            failed += 1;
        }
        if !text.is_empty() {
            writeln!(out, "{text}")?;
        }
        out.flush()?;
    }
    writeln!(out, "{passed} passed, {failed} failed")?;
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// Replays one trace in a process of its own. Whether it agrees, and what to print of it.
fn apart(path: &Path) -> io::Result<(bool, String)> {
    let child = Command::new(std::env::current_exe()?)
        .arg("--one")
        .arg(path)
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&child.stdout).trim_end().to_owned();
    match child.status.code() {
        Some(0) => Ok((true, text)),
        Some(1) if !text.is_empty() => Ok((false, text)),
        _ => {
            let said = String::from_utf8_lossy(&child.stderr);
            let crash = format!(
                "FAIL {}: sluice stopped ({})\n{said}",
                suite::name(path),
                child.status
            );
            Ok((false, indented(&crash)))
        }
    }
}

/// Replays one trace here.
fn one(path: &Path) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let name = suite::name(path);
    let verdict = match Trace::read(path) {
        Ok(trace) => replay(&trace),
        Err(error) => {
            writeln!(io::stdout(), "FAIL {name}: the file {error}")?;
            return Ok(ExitCode::from(1));
        }
    };
    match verdict {
        Verdict::Passed { note } => {
            if let Some(note) = note {
                writeln!(io::stdout(), "note {name}: passes {note}")?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Verdict::Failed(failure) => {
            writeln!(
                io::stdout(),
                "{}",
                indented(&format!("FAIL {name}: {failure}"))
            )?;
            Ok(ExitCode::from(1))
        }
    }
}

/// All lines but the first moved in, and no blank end.
fn indented(text: &str) -> String {
    text.trim_end().replace('\n', "\n    ")
}
