//! Instructions a packet of the walk in memory, counted by callgrind: unlike times they are the same each time.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::scenario::{Scenario, name};

/// The program that does nothing but walk.
pub const PROGRAM: &str = "walk_count";

/// The function whose instructions count, those below it included.
const COUNTED: &str = "*Walk*go_on*";

/// Packets walked under callgrind.
pub const PACKETS: u32 = 100_000;

/// A count may exceed its ceiling by so much: what differs between compilers' moods, not between algorithms.
const TOLERANCE: f64 = 0.03;

/// Instructions a packet, by method and flows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ceilings(pub BTreeMap<String, BTreeMap<String, f64>>);

/// What a count means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it was.
    Same,
    /// It grew too much.
    Grown,
    /// It shrank as much: the ceiling should follow.
    Shrunk,
    /// Nobody said what it may be.
    Unknown,
}

impl Ceilings {
    /// Reads the stored ones.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("{}: no ceilings", path.display()))?;
        Ok(toml::from_str(&text)?)
    }

    /// Stores them.
    pub fn store(&self, path: &Path) -> anyhow::Result<()> {
        let text = toml::to_string(self)?;
        let head = "# Instructions a packet of the whole walk in memory, by method and flows. `make test` fails when one grows by more than\n\
                    # 3 %; `make ceilings` writes what they are now, to be committed with the change that made them so.\n\n";
        Ok(std::fs::write(path, format!("{head}{text}"))?)
    }

    /// Notes a count.
    pub fn set(&mut self, scenario: &Scenario, count: f64) {
        let of_method = self.0.entry(name(scenario.method).to_owned()).or_default();
        of_method.insert(scenario.flows.to_string(), (count * 10.0).round() / 10.0);
    }

    /// The stored count.
    pub fn of(&self, scenario: &Scenario) -> Option<f64> {
        let of_method = self.0.get(name(scenario.method))?;
        of_method.get(&scenario.flows.to_string()).copied()
    }

    /// Compares a count with the stored one.
    pub fn judge(&self, scenario: &Scenario, count: f64) -> Verdict {
        match self.of(scenario) {
            None => Verdict::Unknown,
            Some(ceiling) if count > ceiling * (1.0 + TOLERANCE) => Verdict::Grown,
            Some(ceiling) if count < ceiling * (1.0 - TOLERANCE) => Verdict::Shrunk,
            Some(_) => Verdict::Same,
        }
    }
}

/// Counts, with `programs` the folder of [`PROGRAM`].
pub fn per_packet(programs: &Path, scenario: &Scenario) -> anyhow::Result<f64> {
    let arguments = [
        name(scenario.method).to_lowercase(),
        scenario.flows.to_string(),
        PACKETS.to_string(),
    ];
    let count = collect(COUNTED, &programs.join(PROGRAM), &arguments)?;
    Ok(count as f64 / f64::from(PACKETS))
}

/// Instructions of the functions whose names match, and of those below them, when a program is run with these arguments.
pub fn collect(functions: &str, program: &Path, arguments: &[String]) -> anyhow::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={functions}"))
        .arg(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .context("valgrind does not start; is it installed?")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{arguments:?} under valgrind: {said}"
    );
    let count = collected(&said).with_context(|| format!("valgrind counts nothing: {said}"))?;
    ensure!(count > 0, "{functions} was never called: {said}");
    Ok(count)
}

/// The number in valgrind's line `==123== Collected : 4567`.
fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use sluice_control::api::Method;

    use super::*;

    #[test]
    fn three_percent_more_is_the_same_and_four_is_not() {
        let scenario = Scenario {
            method: Method::Nat,
            flows: 1000,
        };
        let mut ceilings = Ceilings::default();
        assert_eq!(ceilings.judge(&scenario, 100.0), Verdict::Unknown);
        ceilings.set(&scenario, 100.0);
        assert_eq!(ceilings.judge(&scenario, 102.9), Verdict::Same);
        assert_eq!(ceilings.judge(&scenario, 104.0), Verdict::Grown);
        assert_eq!(ceilings.judge(&scenario, 96.0), Verdict::Shrunk);
    }

    #[test]
    fn valgrinds_count_is_found_among_what_it_says() {
        let said = "==7== \n==7== Events    : Ir\n==7== Collected : 123456\n==7== \n";
        assert_eq!(collected(said), Some(123_456));
        assert_eq!(collected("==7== killed"), None);
    }
}
