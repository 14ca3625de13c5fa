//! `lc`: least connections (`SEMANTICS.md` section 4). Weights only say who takes none.
//!
//! Cost: see [`super::tournament`].

use super::Standing;
use super::tournament::Rank;

pub(super) fn rank(server: Standing) -> Option<Rank> {
    (server.weight > 0).then(|| Rank {
        load: server.overhead(),
        weight: 1,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use crate::service::SchedulerKind::Lc;

    #[test]
    fn an_active_connection_weighs_as_much_as_257_inactive_ones() {
        let mut bench = Bench::new(Lc, &[(1, 1), (2, 9)]);
        bench.load(1, 1, 0);
        bench.load(2, 0, 256);
        assert_eq!(bench.choose(), Some(2));
        bench.load(2, 0, 257);
        assert_eq!(bench.choose(), Some(2), "equal: the first of the list");
        bench.load(2, 0, 258);
        assert_eq!(bench.choose(), Some(1));
    }

    #[test]
    fn weight_0_and_overload_are_passed_over() {
        let mut bench = Bench::new(Lc, &[(1, 1), (2, 1), (3, 0)]);
        bench.load(2, 5, 0);
        assert_eq!(bench.choose(), Some(1));
        bench.set_overloaded(1, true);
        assert_eq!(bench.choose(), Some(2));
        bench.set_weight(2, 0);
        assert_eq!(bench.choose(), None);
    }
}
