//! `sed`: shortest expected delay: as if the connection were there already, inactive ones do not count (`SEMANTICS.md`
//! section 4).
//!
//! Cost: see [`super::tournament`].

use super::Standing;
use super::tournament::Rank;

pub(super) fn rank(server: Standing) -> Option<Rank> {
    (server.weight > 0).then(|| Rank {
        load: u64::from(server.active) + 1,
        weight: server.weight,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use crate::service::SchedulerKind::Sed;

    #[test]
    fn the_heaviest_server_is_first_and_inactive_connections_do_not_count() {
        let mut bench = Bench::new(Sed, &[(1, 1), (2, 3), (3, 3)]);
        assert_eq!(bench.choose(), Some(3));
        bench.load(3, 0, 9);
        assert_eq!(bench.choose(), Some(3));
        bench.load(3, 1, 0);
        assert_eq!(bench.choose(), Some(2));
        bench.load(2, 2, 0);
        bench.load(3, 2, 0);
        assert_eq!(
            bench.choose(),
            Some(3),
            "3/3 equals 1/1: the first of the list"
        );
        bench.load(3, 3, 0);
        bench.load(2, 3, 0);
        assert_eq!(bench.choose(), Some(1));
    }
}
