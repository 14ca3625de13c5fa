//! `fo`: the heaviest server takes all, until it fails (`SEMANTICS.md` section 4).
//!
//! Cost: see [`super::tournament`].

use super::Standing;
use super::tournament::Rank;

pub(super) fn rank(server: Standing) -> Option<Rank> {
    (server.weight > 0).then(|| Rank {
        load: u64::from(u32::MAX - server.weight),
        weight: 1,
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use crate::service::SchedulerKind::Fo;

    #[test]
    fn the_heaviest_usable_server_takes_all_and_the_first_of_equals() {
        let mut bench = Bench::new(Fo, &[(1, 5), (2, 9), (3, 9)]);
        bench.load(3, 100, 100);
        assert_eq!(bench.choose(), Some(3));
        bench.set_overloaded(3, true);
        assert_eq!(bench.choose(), Some(2));
        bench.set_weight(2, 0);
        assert_eq!(bench.choose(), Some(1));
        bench.set_overloaded(3, false);
        assert_eq!(bench.choose(), Some(3));
    }
}
