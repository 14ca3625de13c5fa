//! A line on standard error while a trial runs.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use super::rate::Pps;
use super::shared::Shared;

/// Says how far things are, each second.
pub(super) struct Watch {
    on: bool,
    start: Instant,
    last: (Instant, [u64; 3]),
    said: bool,
}

impl Watch {
    /// Says nothing if not `on`.
    pub(super) fn new(on: bool) -> Self {
        let now = Instant::now();
        Self {
            on,
            start: now,
            last: (now, [0; 3]),
            said: false,
        }
    }

    /// Says something if it is time to.
    pub(super) fn look(&mut self, shared: &Shared) {
        let (now, (then, before)) = (Instant::now(), self.last);
        let seconds = (now - then).as_secs_f64();
        if !self.on || seconds < 1.0 {
            return;
        }
        let client = &shared.client;
        let counts = [
            client.sent.read(),
            shared.servers.arrived.read(),
            client.answered.read(),
        ];
        let rate = |n: usize| Pps((counts[n] - before[n]) as f64 / seconds);
        let line = format!(
            "{:5.0} s  sent {}pps  arrived {}pps  answered {}pps  {} answers awaited",
            (now - self.start).as_secs_f64(),
            rate(0),
            rate(1),
            rate(2),
            client.answers_due.read().saturating_sub(counts[2])
        );
        self.last = (now, counts);
        self.said = true;
        let mut out = std::io::stderr();
        // A terminal has one line of it, a file all.
        let _ = if out.is_terminal() {
            write!(out, "\r{line:<100}")
        } else {
            writeln!(out, "{line}")
        };
    }

    /// Ends the line.
    pub(super) fn finish(&self) {
        let mut out = std::io::stderr();
        if self.said && out.is_terminal() {
            let _ = writeln!(out);
        }
    }
}
