//! `lblcr`: lblc with replication: a destination has a set of servers, which grows under load and shrinks with time
//! (`SEMANTICS.md` section 4).
//!
//! Cost: O(servers of the destination), and O(log n) for each server whose connections changed since the last choice. After an edit of the service each
//! destination costs O(n) once.

use super::cache::{self, Cache};
use super::locality::{Idlers, Remembered};
use super::members::{List, Members};
use super::tournament::{Rank, Tournament};
use super::{Pool, Request, Scheduler, wlc};
use crate::command::ServiceEdit;
use crate::service::{RealServerSpec, RsId};
use crate::time::Ticks;

/// Servers in the sets of all destinations together: two each, when there are as many destinations as can be. Beyond that sets
/// do not grow.
const MEMBERS: usize = 2 * cache::HARD_LIMIT;

#[derive(Debug)]
pub(super) struct Lblcr {
    least: Tournament,
    idlers: Idlers,
    cache: Cache<Set>,
    members: Members,
}

/// The servers of a destination, the latest first.
#[derive(Debug)]
struct Set {
    members: List,
    modified: Ticks,
}

impl Set {
    /// The usable member with the least load for its weight.
    fn least(&self, members: &mut Members, pool: &Pool<'_>) -> Option<usize> {
        let mut best: Option<(usize, Rank)> = None;
        members.each(&self.members, |member| {
            if let Some(place) = member.place(pool.list()).filter(|at| pool.usable(*at))
                && let Some(rank) = wlc::rank(pool.standing(place))
                && best.is_none_or(|(_, best)| rank.beats(best))
            {
                best = Some((place, rank));
            }
        });
        best.map(|(place, _)| place)
    }

    /// Removes the member with the most load for its weight, overloaded and deleted ones among them.
    fn shrink(&mut self, members: &mut Members, pool: &Pool<'_>, now: Ticks) {
        let mut most: Option<(RsId, Rank)> = None;
        members.each(&self.members, |member| {
            if let Some(rank) = pool.standing_of(member.id).and_then(wlc::rank)
                && most.is_none_or(|(_, most)| most.beats(rank))
            {
                most = Some((member.id, rank));
            }
        });
        if let Some((most, _)) = most {
            members.retain(&mut self.members, |member| member.id != most);
            self.modified = now;
        }
    }

    fn insert(&mut self, members: &mut Members, pool: &Pool<'_>, place: usize, now: Ticks) {
        let list = pool.list();
        if self.members.len() > 2 * list.len() {
            // Of servers that come and go for good not all are remembered.
            members.retain(&mut self.members, |member| member.place(list).is_some());
        }
        let mut known = false;
        members.each(&self.members, |member| {
            known |= member.place(list) == Some(place);
        });
        if !known && members.push(&mut self.members, Remembered::new(list, place)) {
            self.modified = now;
        }
    }
}

impl Lblcr {
    pub(super) fn new(pool: &Pool<'_>) -> Self {
        Self {
            least: Tournament::new(wlc::rank, pool),
            idlers: Idlers::new(pool),
            cache: Cache::default(),
            members: Members::with_capacity(MEMBERS),
        }
    }
}

impl Scheduler for Lblcr {
    fn choose(&mut self, pool: &Pool<'_>, request: &Request<'_>) -> Option<usize> {
        let now = request.now;
        let expiration = request.settings.lblcr_expiration_s;
        let Self {
            least,
            idlers,
            cache,
            members,
        } = self;
        let forget = |set: &mut Set| members.clear(&mut set.members);
        let Some(set) = cache.find(request, expiration, forget) else {
            let place = least.best()?;
            let mut set = Set {
                members: List::EMPTY,
                modified: now,
            };
            let remembered = Remembered::new(pool.list(), place);
            if cache.has_room() && members.push(&mut set.members, remembered) {
                cache.put(request, set);
            }
            return Some(place);
        };
        let known = set.least(members, pool);
        if set.members.len() > 1 && now > set.modified + request.rate.seconds(expiration) {
            // After the choice: who is removed may serve this last connection.
            set.shrink(members, pool, now);
        }
        if let Some(place) = known
            && !idlers.relieve(pool, place)
        {
            return Some(place);
        }
        let place = least.best()?;
        set.insert(members, pool, place, now);
        Some(place)
    }

    fn edited(&mut self, _before: &[RealServerSpec], pool: &Pool<'_>, _edit: ServiceEdit) {
        self.least.replay(pool);
        self.idlers.recount(pool);
    }

    fn counted(&mut self, pool: &Pool<'_>, place: usize) {
        self.least.update(pool, place);
        self.idlers.update(pool, place);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use crate::service::SchedulerKind::Lblcr;

    /// Two servers of weight 2, both in the destination's set: 1 was added to it last.
    fn replicated() -> Bench {
        let mut bench = Bench::new(Lblcr, &[(1, 2), (2, 2)]);
        assert_eq!(bench.choose(), Some(2));
        bench.load(2, 3, 0);
        assert_eq!(bench.choose(), Some(1), "2 has enough");
        bench
    }

    #[test]
    fn the_set_grows_and_the_least_loaded_member_serves() {
        let mut bench = replicated();
        bench.load(2, 1, 0);
        bench.load(1, 1, 0);
        assert_eq!(bench.choose(), Some(1), "the latest member is first");
        bench.load(1, 1, 1);
        assert_eq!(bench.choose(), Some(2));
        bench.add(3, 2);
        assert_eq!(bench.choose(), Some(2), "no member");
    }

    #[test]
    fn the_set_shrinks_by_its_most_loaded_member_when_left_alone() {
        let mut bench = replicated();
        bench.settings.lblcr_expiration_s = 10;
        bench.pass(10);
        bench.load(2, 0, 0);
        bench.load(1, 0, 5);
        assert_eq!(bench.choose(), Some(2));
        bench.load(2, 0, 9);
        assert_eq!(bench.choose(), Some(1), "not yet: 10 s are not over 10 s");
        bench.pass(1);
        bench.load(1, 0, 0);
        assert_eq!(bench.choose(), Some(1));
        bench.load(1, 1, 0);
        assert_eq!(bench.choose(), Some(1), "2 was removed");
    }

    #[test]
    fn who_is_removed_may_serve_a_last_time() {
        let mut bench = replicated();
        bench.settings.lblcr_expiration_s = 10;
        bench.pass(11);
        // 2 is overloaded, so 1 serves although it is the most loaded, and goes.
        bench.load(2, 0, 0);
        bench.load(1, 1, 0);
        bench.set_overloaded(2, true);
        assert_eq!(bench.choose(), Some(1));
        bench.set_overloaded(2, false);
        bench.load(2, 1, 0);
        bench.load(1, 0, 0);
        assert_eq!(bench.choose(), Some(2));
    }

    #[test]
    fn of_equally_loaded_members_the_latest_is_removed() {
        let mut bench = replicated();
        bench.settings.lblcr_expiration_s = 10;
        bench.pass(11);
        bench.load(1, 1, 1);
        bench.load(2, 1, 1);
        assert_eq!(bench.choose(), Some(1), "a last time");
        bench.load(1, 0, 0);
        assert_eq!(bench.choose(), Some(2));
    }

    #[test]
    fn overloaded_and_deleted_members_are_passed_over() {
        let mut bench = replicated();
        bench.load(2, 1, 0);
        bench.set_overloaded(1, true);
        assert_eq!(bench.choose(), Some(2));
        bench.set_overloaded(1, false);
        bench.delete(1);
        assert_eq!(bench.choose(), Some(2));
        bench.delete(2);
        assert_eq!(bench.choose(), None);
        bench.add(2, 1);
        assert_eq!(bench.choose(), Some(2));
    }
}
