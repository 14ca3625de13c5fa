//! A burst of one packet, in memory: what a packet pays that has nobody to share the worker's turn with.

use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::frame::Wire;
use crate::scenario::Scenario;
use crate::timing::own_cpu_ns;
use crate::walk::Walk;

/// Packets of a window.
const PACKETS: usize = 100_000;

/// Packets before it: branch predictors have seen bursts of one, and no caches hold what they do not in traffic.
const WARM_UP: usize = 2_000;

/// A timed window: turns of the worker with one packet each, from before it is received until after it is sent. Reading the
/// clock is in it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Turns {
    /// How many.
    pub packets: u64,
    /// Half of them took no longer, in nanoseconds.
    pub median_ns: f64,
    /// 99 of 100 took no longer: with what others did on that core.
    pub p99_ns: f64,
    /// CPU time of the thread, all told.
    pub cpu_ns: u64,
}

/// Windows of one scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Single {
    /// Which.
    pub scenario: Scenario,
    /// A window a round.
    pub windows: Vec<Turns>,
}

impl Turns {
    /// Replays `frames` from the first one, one a turn.
    pub fn measure(walk: &mut Walk, frames: &Arc<[Wire]>) -> Self {
        walk.load(frames);
        for _ in 0..WARM_UP {
            walk.one();
        }
        let mut took = Vec::with_capacity(PACKETS);
        let start = own_cpu_ns();
        for _ in 0..PACKETS {
            let before = Instant::now();
            walk.one();
            took.push(before.elapsed().as_nanos() as u64);
        }
        let cpu_ns = own_cpu_ns() - start;
        took.sort_unstable();
        Self {
            packets: PACKETS as u64,
            median_ns: took[PACKETS / 2] as f64,
            p99_ns: took[PACKETS / 100 * 99] as f64,
            cpu_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_control::api::Method;

    use super::*;
    use crate::traffic::Traffic;

    #[test]
    fn each_turn_forwards_one_packet() {
        let scenario = Scenario {
            method: Method::Nat,
            flows: 100,
        };
        let mut walk = Walk::new(&scenario).unwrap();
        let traffic = Traffic::new(&scenario, &mut walk).unwrap();
        let sent = walk.cells.books.tx.read();
        let turns = Turns::measure(&mut walk, &traffic.steady);
        assert_eq!(
            walk.cells.books.tx.read() - sent,
            (PACKETS + WARM_UP) as u64
        );
        assert!(turns.median_ns > 0.0 && turns.median_ns <= turns.p99_ns);
    }
}
