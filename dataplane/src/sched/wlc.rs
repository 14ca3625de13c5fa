//! `wlc`: weighted least connections, the default (`SEMANTICS.md` section 4).
//!
//! Cost: see [`super::tournament`].

use super::Standing;
use super::tournament::Rank;

pub(super) fn rank(server: Standing) -> Option<Rank> {
    (server.weight > 0).then(|| Rank {
        load: server.overhead(),
        weight: server.weight,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use crate::service::SchedulerKind::Wlc;

    #[test]
    fn load_counts_by_weight_and_ties_go_to_the_head() {
        let mut bench = Bench::new(Wlc, &[(1, 1), (2, 2), (3, 2)]);
        assert_eq!(bench.choose(), Some(3));
        bench.load(3, 0, 2);
        assert_eq!(bench.choose(), Some(2));
        bench.load(2, 0, 2);
        assert_eq!(bench.choose(), Some(1));
        bench.load(1, 0, 1);
        assert_eq!(bench.choose(), Some(3));
    }

    #[test]
    fn connections_of_a_deleted_server_move_nobody() {
        let mut bench = Bench::new(Wlc, &[(1, 1), (2, 1)]);
        bench.load(2, 1, 0);
        bench.delete(2);
        bench.load(2, 0, 1);
        assert_eq!(bench.choose(), Some(1));
        bench.load(1, 0, 1);
        bench.add(2, 1);
        assert_eq!(
            bench.choose(),
            Some(2),
            "its one connection is still counted"
        );
        bench.load(2, 0, 2);
        assert_eq!(bench.choose(), Some(1));
    }
}
