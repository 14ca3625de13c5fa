//! `rr`: round robin over the servers whose weight is not 0 (`SEMANTICS.md` section 4).
//!
//! Cost: O(1) where servers are usable, O(n) past those that are not.

use super::{Pool, Request, Scheduler, Start, place_of};
use crate::command::ServiceEdit;
use crate::service::{RealServerSpec, RsId};

/// The server chosen last; `None` stands for the list's head.
#[derive(Debug)]
pub(super) struct RoundRobin {
    last: Option<RsId>,
    /// Where it stood when last seen, so that it need not be searched for.
    place: usize,
    /// How far from the head the first turn is.
    ahead: usize,
}

impl RoundRobin {
    pub(super) fn new(start: Start) -> Self {
        Self {
            last: None,
            place: 0,
            ahead: usize::from(start.worker),
        }
    }
}

impl Scheduler for RoundRobin {
    fn choose(&mut self, pool: &Pool<'_>, _request: &Request<'_>) -> Option<usize> {
        let count = pool.list().len();
        let first = if self.last.is_some() {
            self.place + 1
        } else {
            self.ahead % count.max(1)
        };
        // Comes back to the server chosen last, after all others.
        let place = (first..first + count)
            .map(|n| n % count)
            .find(|place| pool.usable(*place))?;
        self.last = Some(pool.list()[place].id);
        self.place = place;
        Some(place)
    }

    fn edited(&mut self, before: &[RealServerSpec], pool: &Pool<'_>, edit: ServiceEdit) {
        if let ServiceEdit::ServerDeleted(id) = edit
            && self.last == Some(id)
        {
            let predecessor = place_of(id, before).and_then(|place| place.checked_sub(1));
            self.last = predecessor.map(|place| before[place].id);
        }
        self.place = self
            .last
            .and_then(|id| place_of(id, pool.list()))
            .unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use crate::service::SchedulerKind::Rr;

    #[test]
    fn servers_take_turns_the_latest_added_first() {
        assert_eq!(
            Bench::new(Rr, &[(1, 1), (2, 5), (3, 1)]).run(5),
            [3, 2, 1, 3, 2]
        );
    }

    #[test]
    fn weight_0_and_overload_are_passed_over() {
        let mut bench = Bench::new(Rr, &[(1, 1), (2, 0), (3, 1)]);
        assert_eq!(bench.run(4), [3, 1, 3, 1]);
        bench.set_overloaded(3, true);
        assert_eq!(bench.run(2), [1, 1]);
        bench.set_weight(1, 0);
        assert_eq!(bench.choose(), None);
        bench.set_overloaded(3, false);
        assert_eq!(bench.run(2), [3, 3]);
    }

    #[test]
    fn deleting_the_server_chosen_last_goes_on_after_its_predecessor() {
        let mut bench = Bench::new(Rr, &[(1, 1), (2, 1), (3, 1), (4, 1)]);
        assert_eq!(bench.run(2), [4, 3]);
        bench.delete(3);
        assert_eq!(bench.run(2), [2, 1]);
        assert_eq!(bench.run(1), [4]);
        bench.delete(4);
        assert_eq!(bench.run(2), [2, 1]);
    }

    #[test]
    fn a_server_added_in_mid_turn_waits_until_the_head_comes_round() {
        let mut bench = Bench::new(Rr, &[(1, 1), (2, 1)]);
        assert_eq!(bench.run(1), [2]);
        bench.add(3, 1);
        assert_eq!(bench.run(4), [1, 3, 2, 1]);
    }
}
