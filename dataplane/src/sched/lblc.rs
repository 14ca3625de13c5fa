//! `lblc`: locality-based least connections: a destination stays with its server while that can take more (`SEMANTICS.md`
//! section 4). Meant for caches behind a firewall mark.
//!
//! Cost: O(1), and O(log n) for each server whose connections changed since the last choice. After an edit of the service each
//! destination costs O(n) once.

use super::cache::Cache;
use super::locality::{Idlers, Remembered};
use super::tournament::Tournament;
use super::{Pool, Request, Scheduler, wlc};
use crate::command::ServiceEdit;
use crate::service::RealServerSpec;

#[derive(Debug)]
pub(super) struct Lblc {
    least: Tournament,
    idlers: Idlers,
    cache: Cache<Remembered>,
}

impl Lblc {
    pub(super) fn new(pool: &Pool<'_>) -> Self {
        Self {
            least: Tournament::new(wlc::rank, pool),
            idlers: Idlers::new(pool),
            cache: Cache::default(),
        }
    }
}

impl Scheduler for Lblc {
    fn choose(&mut self, pool: &Pool<'_>, request: &Request<'_>) -> Option<usize> {
        let expiration = request.settings.lblc_expiration_s;
        let known = self
            .cache
            .find(request, expiration, |_| ())
            .and_then(|server| server.place(pool.list()));
        // Its own overload flag is not looked at.
        if let Some(place) = known
            && pool.list()[place].weight > 0
            && !self.idlers.relieve(pool, place)
        {
            return Some(place);
        }
        let place = self.least.best()?;
        self.cache.put(request, Remembered::new(pool.list(), place));
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
    use std::net::Ipv4Addr;

    use super::super::tests::Bench;
    use crate::service::SchedulerKind::Lblc;

    #[test]
    fn a_destination_stays_with_its_server_and_another_goes_to_the_least_loaded() {
        let mut bench = Bench::new(Lblc, &[(1, 2), (2, 2)]);
        assert_eq!(bench.choose(), Some(2));
        bench.load(2, 2, 7);
        assert_eq!(bench.choose(), Some(2));
        bench.flow.dst = Ipv4Addr::new(10, 0, 0, 2);
        assert_eq!(bench.choose(), Some(1));
    }

    #[test]
    fn it_moves_when_its_server_has_too_many_and_another_is_half_empty() {
        let mut bench = Bench::new(Lblc, &[(1, 2), (2, 2)]);
        assert_eq!(bench.choose(), Some(2));
        bench.load(1, 1, 0);
        bench.load(2, 3, 0);
        assert_eq!(bench.choose(), Some(2), "1 is half full");
        bench.load(1, 0, 0);
        assert_eq!(bench.choose(), Some(1));
        bench.load(2, 0, 0);
        assert_eq!(bench.choose(), Some(1), "and stays there");
    }

    #[test]
    fn overload_does_not_move_it_but_weight_0_and_deletion_do() {
        let mut bench = Bench::new(Lblc, &[(1, 1), (2, 1), (3, 1)]);
        bench.set_overloaded(2, true);
        assert_eq!(bench.choose(), Some(3));
        bench.set_overloaded(3, true);
        assert_eq!(bench.choose(), Some(3));
        bench.set_weight(3, 0);
        assert_eq!(bench.choose(), Some(1));
        bench.set_overloaded(2, false);
        bench.delete(1);
        bench.add(1, 1);
        assert_eq!(bench.choose(), Some(1), "back before it was missed");
        bench.delete(1);
        assert_eq!(bench.choose(), Some(2));
    }

    #[test]
    fn a_destination_is_forgotten_when_unused_for_its_expiration() {
        let mut bench = Bench::new(Lblc, &[(1, 1), (2, 1)]);
        bench.settings.lblc_expiration_s = 3600;
        assert_eq!(bench.choose(), Some(2));
        bench.load(2, 1, 0);
        bench.pass(3599);
        assert_eq!(bench.choose(), Some(2));
        bench.pass(5401);
        assert_eq!(bench.choose(), Some(1));
    }
}
