//! Trials as lines of a table.

use super::trial::{Outcome, Trial};
use crate::scenario::name;

/// What the columns are.
pub const HEAD: &str = "model      cabling     mode     workers  connections    packets  handed off  second worker  port tries  instructions";

/// A line. `instructions` of a packet, if they were counted.
pub fn line(trial: &Trial, outcome: &Outcome, instructions: Option<f64>) -> String {
    let counted = instructions.map_or("-".to_owned(), |count| format!("{count:.1}"));
    let tries = trial.tries(outcome);
    let tries = tries.map_or("-".to_owned(), |mean| format!("{mean:.3}"));
    let mut line = format!(
        "{model:<10} {cabling:<11} {mode:<8} {workers:>7}  {connections:>11}  {packets:>9}  {handed:>10}  {split:>13}  {tries:>10}  {counted:>12}",
        model = trial.model.name(),
        cabling = trial.cabling.name(),
        mode = name(trial.method),
        workers = trial.workers,
        connections = outcome.connections,
        packets = outcome.packets,
        handed = outcome.handed_off,
        split = outcome.split,
    );
    for fault in trial.faults(outcome) {
        line += "\n  FAILED: ";
        line += &fault;
    }
    line
}
