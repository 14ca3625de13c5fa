//! `sh`: source hashing to 256 buckets, dealt out by weight (`SEMANTICS.md` section 4).
//!
//! Cost: one read of the table; with sh-fallback up to 256 more where owners are unusable.

use super::{NOBODY, Pool, Request, Scheduler, SchedulerTable, bucket, folded};
use crate::command::ServiceEdit;
use crate::service::RealServerSpec;

const BUCKETS: usize = 256;

/// Whoever owns the bucket takes the connection; with sh-fallback the next usable one on a walk that starts at twice the
/// bucket.
#[derive(Debug)]
pub(super) struct SourceHash;

/// Each server in turn gets as many buckets as it weighs; one of weight 0 gets one.
pub(super) fn table(servers: &[RealServerSpec]) -> SchedulerTable {
    if servers.is_empty() {
        return [NOBODY; BUCKETS].into();
    }
    let in_turn = servers.iter().enumerate().flat_map(|(place, server)| {
        let buckets = server.weight.clamp(1, BUCKETS as u32);
        std::iter::repeat_n(place as u16, buckets as usize)
    });
    in_turn.cycle().take(BUCKETS).collect()
}

impl Scheduler for SourceHash {
    fn choose(&mut self, pool: &Pool<'_>, request: &Request<'_>) -> Option<usize> {
        let flow = request.flow;
        let port = if pool.flags.port() { flow.src_port } else { 0 };
        let hash = bucket(folded(flow.src.into()).wrapping_add(u32::from(port)));
        let usable = |place: &usize| pool.usable(*place);
        let owner = pool.in_table(hash).filter(usable);
        if owner.is_some() || !pool.flags.fallback() {
            return owner;
        }
        (0..BUCKETS)
            .filter_map(|offset| pool.in_table((offset + 2 * hash) % BUCKETS))
            .find(usable)
    }

    fn edited(&mut self, _before: &[RealServerSpec], _pool: &Pool<'_>, _edit: ServiceEdit) {}
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::tests::Bench;
    use super::*;
    use crate::service::SchedulerFlags;
    use crate::service::SchedulerKind::Sh;

    fn bench(flags: u8) -> Bench {
        let mut bench = Bench::new(Sh, &[(1, 100), (2, 0), (3, 90)]);
        bench.set_flags(SchedulerFlags(flags));
        bench.flow.src = Ipv4Addr::new(0, 0, 0, 1);
        bench
    }

    #[test]
    fn servers_get_buckets_by_weight_from_the_head_on() {
        let owners = table(&bench(0).list()).to_vec();
        assert!(owners[..90].iter().all(|place| *place == 0));
        assert_eq!(owners[90], 1, "weight 0 gets one");
        assert!(owners[91..191].iter().all(|place| *place == 2));
        assert!(owners[191..].iter().all(|place| *place == 0));
    }

    #[test]
    fn the_port_counts_only_when_asked_to() {
        // 1 hashes to 0x61 = 97, 2 to 0xc3 = 195.
        let mut bench = bench(0);
        bench.flow.src_port = 1;
        assert_eq!(bench.choose(), Some(1));
        bench.set_flags(SchedulerFlags(2));
        assert_eq!(bench.choose(), Some(3));
    }

    #[test]
    fn without_fallback_an_unusable_owner_is_not_replaced() {
        let mut bench = bench(0);
        bench.set_overloaded(1, true);
        assert_eq!(bench.choose(), None);
    }

    #[test]
    fn fallback_starts_at_twice_the_bucket() {
        let mut bench = bench(1);
        bench.set_overloaded(1, true);
        // 2 * 97 = 194: server 3 again, as all buckets from 191 on.
        assert_eq!(bench.choose(), Some(3));
        bench.add(4, 1);
        // The second round begins at 192 with server 4; 193 and on are server 3's.
        assert_eq!(bench.choose(), Some(3));
        bench.set_overloaded(3, true);
        assert_eq!(bench.choose(), Some(4), "after 256 comes 0");
        bench.set_overloaded(4, true);
        assert_eq!(bench.choose(), None);
    }
}
