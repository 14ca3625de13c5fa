//! Instructions a packet of known connections, of all workers together: what callgrind counts of a fleet's turns.
//!
//! What a turn costs beside its packets is shared by those, so every turn of every worker finds as many: queues are filled by whole
//! bursts, the same number each.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, ensure};
use sluice_dataplane::io::BURST;
use sluice_dataplane::io::rss_nic::Model;

use super::cabling::Cabling;
use super::fleet::Fleet;
use super::flows::{self, STEPS};
use super::trial::Trial;
use crate::instructions;
use crate::scenario::{METHODS, name};

/// Packets of each worker that are counted.
const PACKETS: u32 = 20_480;

/// Packets that wait in each queue when the workers turn.
const WAITING: usize = 8 * BURST;

/// Connections of each worker.
const FLOWS: u32 = 500;

/// The function whose instructions count, those below it included.
const COUNTED: &str = "*Fleet*forward*";

/// Many workers may take so much more than one: what differs between compilers' moods.
const TOLERANCE: f64 = 0.01;

/// Whether so many instructions a packet are more than one worker's.
pub fn grows(one: f64, many: f64) -> bool {
    many > one * (1.0 + TOLERANCE)
}

impl Trial {
    /// Counts, with `program` such that `program --steady=TRIAL` calls [`Trial::forward_steadily`].
    pub fn instructions(&self, program: &Path) -> anyhow::Result<f64> {
        let count = instructions::collect(COUNTED, program, &[format!("--steady={self}")])?;
        Ok(count as f64 / f64::from(PACKETS * self.workers as u32))
    }

    /// Opens connections and then forwards packets of both their ends.
    pub fn forward_steadily(&self) -> anyhow::Result<()> {
        let trial = Self {
            flows: FLOWS * self.workers as u32,
            ..*self
        };
        let (mut fleet, seen) = trial.established()?;
        let mut frames = Vec::new();
        for (flow, seen) in (0..).zip(seen) {
            for (step, what) in STEPS.iter().enumerate().skip(4) {
                if what.by_client {
                    let frame = flows::from_client(self.cabling, flow, step);
                    frames.push((self.cabling.clients(), frame));
                } else if self.both_ways() {
                    let seen = seen.context("a connection without a real server")?;
                    let frame = flows::from_server(self.cabling, seen, flow, step);
                    frames.push((self.cabling.replies(), frame));
                }
            }
        }
        // By port and queue.
        let mut queues: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for waiting in frames.chunks(WAITING) {
            for (port, frame) in waiting {
                let queue = fleet
                    .receive(*port, frame)
                    .context("a NIC's queue is full")?;
                queues.entry((*port, queue)).or_default().push(frame);
            }
            fleet.settle()?;
            while fleet.sent().is_some() {}
        }
        let mut queues: Vec<_> = queues
            .into_iter()
            .map(|((port, _), frames)| (port, frames.into_iter().cycle()))
            .collect();
        let mut left = PACKETS as usize * self.workers;
        while left > 0 {
            let before = left;
            for (port, frames) in &mut queues {
                for frame in frames.take(WAITING.min(left)) {
                    let queue = fleet.receive(*port, frame);
                    queue.context("a NIC's queue is full")?;
                    left -= 1;
                }
            }
            fleet.forward()?;
            let (out, now) = (std::iter::from_fn(|| fleet.sent()).count(), before - left);
            ensure!(out == now, "{out} of {now} packets came out");
        }
        Ok(())
    }
}

/// As a command line says it: `full/two-arms/nat/16`.
impl fmt::Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            model,
            cabling,
            method,
            workers,
            ..
        } = self;
        let (model, cabling, mode) = (model.name(), cabling.name(), name(*method).to_lowercase());
        write!(f, "{model}/{cabling}/{mode}/{workers}")
    }
}

/// As many connections as [`Trial::forward_steadily`] takes. `Err` names what is none.
impl FromStr for Trial {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let parts: Vec<_> = text.split('/').collect();
        let [model, cabling, mode, workers] = parts.as_slice() else {
            anyhow::bail!("{text}: MODEL/CABLING/MODE/WORKERS");
        };
        let mut models = Model::ALL.into_iter();
        let model = models.find(|one| one.name() == *model);
        let mut cablings = Cabling::ALL.into_iter();
        let cabling = cablings.find(|one| one.name() == *cabling);
        let mut methods = METHODS.into_iter();
        let method = methods.find(|one| name(*one).eq_ignore_ascii_case(mode));
        let workers = workers.parse().context("WORKERS")?;
        Ok(Self {
            model: model.context("MODEL")?,
            cabling: cabling.context("CABLING")?,
            method: method.context("MODE")?,
            workers,
            flows: FLOWS * workers as u32,
        })
    }
}

impl Fleet {
    /// Turns until nobody has anything to do. Not inlined: its instructions are counted.
    #[inline(never)]
    fn forward(&mut self) -> anyhow::Result<()> {
        self.settle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trial_is_read_as_it_is_written() {
        for text in ["full/two-arms/nat/16", "none/third-port/fullnat/1"] {
            assert_eq!(text.parse::<Trial>().unwrap().to_string(), text);
        }
        for text in ["full/two-arms/nat", "full/two-arms/gre/1", "a/one-arm/dr/1"] {
            assert!(text.parse::<Trial>().is_err(), "{text}");
        }
    }

    #[test]
    fn one_percent_is_no_growth_and_two_are() {
        assert!(!grows(300.0, 302.9) && !grows(300.0, 290.0));
        assert!(grows(300.0, 306.0));
    }
}
