//! `ovf`: as fo, until a server has more active connections than weight (`SEMANTICS.md` section 4).
//!
//! Cost: see [`super::tournament`].

use super::Standing;
use super::tournament::Rank;

pub(super) fn rank(server: Standing) -> Option<Rank> {
    if server.active > server.weight {
        return None;
    }
    super::fo::rank(server)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use crate::service::SchedulerKind::Ovf;

    #[test]
    fn a_server_takes_one_connection_more_than_its_weight_and_then_overflows() {
        let mut bench = Bench::new(Ovf, &[(1, 1), (2, 2)]);
        bench.load(2, 2, 50);
        assert_eq!(bench.choose(), Some(2));
        bench.load(2, 3, 0);
        assert_eq!(bench.choose(), Some(1));
        bench.load(1, 2, 0);
        assert_eq!(bench.choose(), None);
        bench.load(2, 2, 1);
        assert_eq!(bench.choose(), Some(2));
    }
}
