//! `nq`: never queue: the first server without active connections, else as sed (`SEMANTICS.md` section 4).
//!
//! Cost: see [`super::tournament`].

use super::Standing;
use super::tournament::Rank;

pub(super) fn rank(server: Standing) -> Option<Rank> {
    if server.weight > 0 && server.active == 0 {
        return Some(Rank { load: 0, weight: 1 });
    }
    super::sed::rank(server)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use crate::service::SchedulerKind::Nq;

    #[test]
    fn the_first_idle_server_is_taken_whatever_its_weight() {
        let mut bench = Bench::new(Nq, &[(1, 9), (2, 9), (3, 1)]);
        assert_eq!(bench.choose(), Some(3));
        bench.load(3, 1, 0);
        assert_eq!(bench.choose(), Some(2));
        bench.load(2, 1, 4);
        bench.load(1, 1, 0);
        assert_eq!(bench.choose(), Some(2), "all busy: as sed");
        bench.load(2, 2, 0);
        assert_eq!(bench.choose(), Some(1));
        bench.load(3, 0, 9);
        assert_eq!(bench.choose(), Some(3));
        bench.set_weight(3, 0);
        assert_eq!(
            bench.choose(),
            Some(1),
            "an idle server of weight 0 takes none"
        );
    }
}
