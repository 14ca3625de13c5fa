//! Instructions a packet of known connections, of all workers together: what callgrind counts of [`Fleet::forward`].

use std::path::Path;

use anyhow::{Context, ensure};

use super::fleet::{Fleet, QUEUE};
use super::flows::{self, STEPS};
use super::trial::Trial;
use crate::instructions;

/// Packets of each worker that are counted.
const PACKETS: u32 = 20_000;

/// Packets of each worker that wait when the workers turn: few turns find less than a burst. No more than one queue holds.
const WAITING: usize = 1024;

/// Connections of each worker.
const FLOWS: u32 = 500;

/// The function whose instructions count, those below it included.
const COUNTED: &str = "*Fleet*forward*";

impl Trial {
    /// Counts, with `program` such that `program --steady` and what else `Trial::arguments` says calls [`Trial::forward_steadily`].
    pub fn instructions(&self, program: &Path) -> anyhow::Result<f64> {
        let mut arguments = vec!["--steady".to_owned()];
        arguments.extend(self.arguments());
        let count = instructions::collect(COUNTED, program, &arguments)?;
        Ok(count as f64 / f64::from(PACKETS * self.workers as u32))
    }

    /// The command line that says which trial it is.
    fn arguments(&self) -> impl Iterator<Item = String> {
        [
            format!("--models={}", self.model.name()),
            format!("--cablings={}", self.cabling.name()),
            format!("--modes={}", format!("{:?}", self.method).to_lowercase()),
            format!("--workers={}", self.workers),
        ]
        .into_iter()
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
        let mut left = PACKETS as usize * self.workers;
        let mut next = frames.iter().cycle();
        while left > 0 {
            let now = left.min(WAITING * self.workers).min(QUEUE);
            for (port, frame) in next.by_ref().take(now) {
                let queue = fleet.receive(*port, frame);
                queue.context("a NIC's queue is full")?;
            }
            fleet.forward()?;
            let out = std::iter::from_fn(|| fleet.sent()).count();
            ensure!(out == now, "{out} of {now} packets came out");
            left -= now;
        }
        Ok(())
    }
}

impl Fleet {
    /// Turns until nobody has anything to do. Not inlined: its instructions are counted.
    #[inline(never)]
    fn forward(&mut self) -> anyhow::Result<()> {
        self.settle()
    }
}
