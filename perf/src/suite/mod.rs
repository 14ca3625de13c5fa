//! What `make perf` looks at beyond the targets: one file a question. Each answers with an [`Experiment`], which has samples of
//! every round.
//!
//! [`rig`] runs the appliance itself on prepared captures, as `make bench` does; [`memif`] with a generator at its other end.

pub mod changes;
pub mod flood;
pub mod memif;
pub mod rig;
pub mod services;
pub mod sizes;

use std::time::Duration;

use clap::ValueEnum;

use crate::report::experiment::Experiment;
use crate::several;
use rig::Rig;

/// Hugepages that the suite needs, in megabytes.
pub const MEMORY_MB: u64 = 1280;

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Question {
    /// Two workers beside one.
    Workers,
    /// Throughput by size of packets and method.
    Sizes,
    /// 10,000 services of 100 real servers.
    Services,
    /// A SYN flood of ten times the traffic.
    Flood,
    /// 1,000 changes a second under full load, and over memif.
    Changes,
    /// Loss-free rate and latency over memif.
    Latency,
    /// New connections and churn over memif.
    LifeCycles,
    /// A SYN flood over memif.
    FloodLatency,
}

impl Question {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 8] = [
        Self::Workers,
        Self::Sizes,
        Self::Latency,
        Self::LifeCycles,
        Self::Flood,
        Self::FloodLatency,
        Self::Services,
        Self::Changes,
    ];

    /// Finds the answer.
    pub fn answer(
        self,
        rig: &Rig<'_>,
        rounds: usize,
        window: Duration,
    ) -> anyhow::Result<Vec<Experiment>> {
        Ok(match self {
            Self::Workers => vec![several::run(rig.core, rounds, window)?],
            Self::Sizes => vec![sizes::run(rig, rounds, window)?],
            Self::Services => vec![services::run(rig, rounds, window)?],
            Self::Flood => vec![flood::run(rig, rounds, window)?],
            Self::Changes => {
                let mut all = Vec::from(changes::run(rig, rounds, window)?);
                all.extend(changes::packets(rig, rounds)?);
                all
            }
            Self::Latency => memif::latency(rig, rounds)?,
            Self::LifeCycles => memif::life_cycles(rig, rounds)?,
            Self::FloodLatency => memif::flood(rig, rounds)?,
        })
    }
}
