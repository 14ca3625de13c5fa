//! What workers know of each other's connections (contract 3 of the design).
//!
//! Counts of connections are read out of what each worker publishes, a millisecond old at most: the least-connection family goes by the
//! sum. A threshold must never be exceeded, so real servers with one have a counter that all workers share, touched once when a
//! connection comes and once when it goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::command::WorkerId;
use crate::stats::WorkerCells;

/// All workers of an appliance, as each of them sees the others. Control makes it, before any connection.
#[derive(Debug)]
pub struct Colleagues {
    cells: Vec<Arc<WorkerCells>>,
    loads: Box<[SharedLoad]>,
}

impl Colleagues {
    /// The workers by their ids. All have room for as many real servers.
    pub fn new(cells: Vec<Arc<WorkerCells>>) -> Self {
        let servers = cells.first().map_or(0, |cells| cells.servers.len());
        Self {
            cells,
            loads: (0..servers).map(|_| SharedLoad::default()).collect(),
        }
    }

    /// How many workers there are.
    pub fn workers(&self) -> u16 {
        self.cells.len() as u16
    }

    /// Active and inactive connections of the real server at a place, over all workers but this one.
    pub(super) fn others(&self, me: WorkerId, place: u32) -> (u32, u32) {
        let others = self
            .cells
            .iter()
            .zip(0..)
            .filter(|(_, id)| WorkerId(*id) != me);
        others.fold((0, 0), |(active, inactive), (cells, _)| {
            let server = &cells.servers[place as usize];
            (
                active + server.active.read() as u32,
                inactive + server.inactive.read() as u32,
            )
        })
    }

    /// The counter of the real server at a place.
    pub(super) fn load(&self, place: u32) -> &SharedLoad {
        &self.loads[place as usize]
    }
}

/// Connections of one real server over all workers, and whether it is overloaded: from its upper threshold on, until it falls below
/// the lower one (`SEMANTICS.md` section 3).
#[derive(Debug, Default)]
pub(super) struct SharedLoad(AtomicU64);

/// The bit above the count.
const OVERLOADED: u64 = 1 << 63;

/// An upper and a lower threshold; an upper one of 0 is none.
pub(super) type Thresholds = (u32, u32);

impl SharedLoad {
    pub(super) fn overloaded(&self) -> bool {
        self.0.load(Ordering::Relaxed) & OVERLOADED != 0
    }

    /// One more, unless it is overloaded.
    pub(super) fn try_enter(&self, thresholds: Thresholds) -> bool {
        let entered = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                (word & OVERLOADED == 0).then(|| after_gain(word, 1, thresholds))
            });
        entered.is_ok()
    }

    /// So many more, whatever the load.
    pub(super) fn enter(&self, count: u32, thresholds: Thresholds) {
        self.change(|word| after_gain(word, count, thresholds));
    }

    /// So many less.
    pub(super) fn leave(&self, count: u32, thresholds: Thresholds) {
        self.change(|word| {
            let left = (word & !OVERLOADED).saturating_sub(u64::from(count));
            settle(left | word & OVERLOADED, thresholds)
        });
    }

    /// Other thresholds hold from now on: they set or lift the overload, or leave it as it is between the two.
    pub(super) fn retune(&self, thresholds: Thresholds) {
        self.change(|word| settle(after_gain(word, 0, thresholds), thresholds));
    }

    fn change(&self, after: impl Fn(u64) -> u64) {
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
                Some(after(word))
            });
    }
}

fn after_gain(word: u64, count: u32, (upper, _): Thresholds) -> u64 {
    let more = word + u64::from(count);
    if upper != 0 && more & !OVERLOADED >= u64::from(upper) {
        more | OVERLOADED
    } else {
        more
    }
}

fn settle(word: u64, (upper, lower): Thresholds) -> u64 {
    if upper == 0 || word & !OVERLOADED < u64::from(lower) {
        word & !OVERLOADED
    } else {
        word
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const FOUR: Thresholds = (4, 2);

    #[test]
    fn the_overload_begins_at_the_upper_threshold_and_ends_below_the_lower() {
        let load = SharedLoad::default();
        assert!((0..4).all(|_| load.try_enter(FOUR)));
        assert!(load.overloaded() && !load.try_enter(FOUR));
        load.leave(2, FOUR);
        assert!(load.overloaded(), "2 is not below 2");
        load.leave(1, FOUR);
        assert!(!load.overloaded() && load.try_enter(FOUR));
        load.retune((2, 1));
        assert!(load.overloaded());
        load.retune((9, 1));
        assert!(load.overloaded(), "2 is not below 1");
        load.retune((9, 5));
        assert!(!load.overloaded());
    }

    #[test]
    fn no_more_enter_than_the_threshold_allows_however_many_try() {
        const MOST: Thresholds = (1000, 1);
        let load = SharedLoad::default();
        let entered: usize = thread::scope(|scope| {
            let tries = || (0..2000).filter(|_| load.try_enter(MOST)).count();
            let each: Vec<_> = (0..4).map(|_| scope.spawn(tries)).collect();
            each.into_iter().map(|one| one.join().unwrap()).sum()
        });
        assert_eq!(entered, 1000);
    }
}
