//! `wrr`: weighted round robin, interleaved (`SEMANTICS.md` section 4).
//!
//! A weight level sinks from the highest weight to the greatest common divisor of all; at each level the servers of at
//! least that weight take a turn. Levels that no server reaches are jumped over, which the kernel does not do: with one
//! weight in the millions it may try as many levels. Cost: O(n / servers of the present level), O(1) for equal weights, at
//! most five walks over the list.

use super::{Pool, Request, Scheduler, Start};
use crate::command::ServiceEdit;
use crate::service::{RealServerSpec, RsId};

#[derive(Debug)]
pub(super) struct WeightedRoundRobin {
    /// The server chosen last; `None` stands for the list's head.
    current: Option<RsId>,
    /// Where it stands.
    place: usize,
    /// The present level.
    level: i64,
    /// The highest level: the maximum weight, less what the divisor would jump over.
    max: i64,
    /// Greatest common divisor of the weights.
    step: i64,
    start: Start,
    /// It goes on as if it had had some turns before.
    begins: bool,
}

/// Turns that are skipped at most: each costs a look at the list.
const MOST_SKIPPED: u64 = 256;

impl WeightedRoundRobin {
    pub(super) fn new(servers: &[RealServerSpec], start: Start) -> Self {
        let (max, step) = levels(servers);
        Self {
            current: None,
            place: 0,
            level: max,
            max,
            step,
            start,
            begins: true,
        }
    }
}

impl WeightedRoundRobin {
    /// The first level from the present one on that a server reaches which may be chosen, or the last one.
    fn reached(&self, pool: &Pool<'_>) -> i64 {
        let places = (0..pool.list().len()).filter(|place| !pool.overloaded(*place));
        let heaviest = places
            .map(|place| i64::from(pool.list()[place].weight))
            .max();
        let goal = heaviest.unwrap_or(0).max(self.step);
        let above = (self.level - goal).max(0);
        self.level - (above + self.step - 1) / self.step * self.step
    }
}

fn levels(servers: &[RealServerSpec]) -> (i64, i64) {
    let weights = servers
        .iter()
        .map(|server| i64::from(server.weight))
        .filter(|weight| *weight > 0);
    let max = weights.clone().max().unwrap_or(0);
    let step = weights.reduce(gcd).unwrap_or(1);
    (max - (step - 1), step)
}

fn gcd(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl Scheduler for WeightedRoundRobin {
    fn choose(&mut self, pool: &Pool<'_>, _request: &Request<'_>) -> Option<usize> {
        if std::mem::take(&mut self.begins) {
            for _ in 0..self.skipped(pool) {
                self.next(pool);
            }
        }
        self.next(pool)
    }

    fn edited(&mut self, _before: &[RealServerSpec], pool: &Pool<'_>, _edit: ServiceEdit) {
        self.begins = true;
        self.current = None;
        self.place = 0;
        (self.max, self.step) = levels(pool.list());
        if self.level > self.max || self.level == 0 {
            self.level = self.max;
        } else if self.step > 1 {
            self.level = self.level / self.step * self.step + 1;
        }
    }
}

impl WeightedRoundRobin {
    /// Turns of a round that are other workers'.
    fn skipped(&self, pool: &Pool<'_>) -> u64 {
        let Start { worker, workers } = self.start;
        if worker == 0 {
            return 0;
        }
        let weights = pool.list().iter().map(|server| u64::from(server.weight));
        let round = weights.sum::<u64>() / self.step as u64;
        (round * u64::from(worker) / u64::from(workers)) % MOST_SKIPPED
    }

    fn next(&mut self, pool: &Pool<'_>) -> Option<usize> {
        if self.max == 0 {
            return None;
        }
        let list = pool.list();
        let last = self.current;
        let (mut restarted, mut last_pass) = (false, false);
        let mut from = last.map_or(0, |_| self.place + 1);
        // Each pass lowers the level by a step; after a restart at the top the passes are bounded by `last_pass`.
        loop {
            let stop = last.filter(|_| last_pass && restarted);
            for (place, server) in list.iter().enumerate().skip(from) {
                if !pool.overloaded(place) && i64::from(server.weight) >= self.level {
                    self.current = Some(server.id);
                    self.place = place;
                    return Some(place);
                }
                if stop == Some(server.id) {
                    return None;
                }
            }
            from = 0;
            self.level -= self.step;
            if self.level <= 0 {
                self.level = self.max;
                if last_pass || last.is_none() {
                    self.current = None;
                    return None;
                }
                restarted = true;
            }
            self.level = self.reached(pool);
            last_pass = self.level <= self.step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use crate::service::SchedulerKind::Wrr;

    #[test]
    fn heavier_servers_take_more_turns_interleaved() {
        let mut bench = Bench::new(Wrr, &[(1, 3), (2, 2), (3, 1)]);
        // The level was left at 1 by the first server's arrival, alone with its divisor 3.
        assert_eq!(bench.run(6), [3, 2, 1, 1, 2, 1]);
        assert_eq!(bench.run(6), [3, 2, 1, 1, 2, 1]);
    }

    #[test]
    fn a_common_divisor_is_taken_out() {
        let mut bench = Bench::new(Wrr, &[(1, 30), (2, 20), (3, 10)]);
        assert_eq!(
            bench.run(12),
            Bench::new(Wrr, &[(1, 3), (2, 2), (3, 1)]).run(12)
        );
    }

    #[test]
    fn overloaded_servers_are_passed_over_and_nobody_left_ends_the_search() {
        let mut bench = Bench::new(Wrr, &[(1, 1), (2, 1)]);
        bench.set_overloaded(1, true);
        assert_eq!(bench.run(3), [2, 2, 2]);
        bench.set_overloaded(2, true);
        assert_eq!(bench.choose(), None);
        bench.set_overloaded(1, false);
        assert_eq!(bench.run(2), [1, 1]);
    }

    #[test]
    fn a_great_weight_does_not_make_the_walk_longer() {
        let most = i32::MAX as u32;
        let mut bench = Bench::new(Wrr, &[(1, 1), (2, most)]);
        assert_eq!(bench.run(4), [2, 1, 2, 2], "the level was left at 1");
        bench.set_overloaded(2, true);
        for _ in 0..1000 {
            assert_eq!(bench.choose(), Some(1));
        }
        bench.set_overloaded(1, true);
        assert_eq!(bench.choose(), None);
    }

    #[test]
    fn weights_of_zero_leave_nobody() {
        let mut bench = Bench::new(Wrr, &[(1, 0), (2, 0)]);
        assert_eq!(bench.choose(), None);
        bench.set_weight(2, 4);
        assert_eq!(bench.run(2), [2, 2]);
        bench.delete(2);
        assert_eq!(bench.choose(), None);
    }
}
