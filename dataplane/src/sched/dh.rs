//! `dh`: destination hashing to 256 buckets, dealt out in list order, weights ignored (`SEMANTICS.md` section 4).
//!
//! Cost: one read of the table.

use super::{NOBODY, Pool, Request, Scheduler, SchedulerTable, bucket, folded};
use crate::command::ServiceEdit;
use crate::service::RealServerSpec;

/// Whoever owns the bucket takes the connection, or nobody does.
#[derive(Debug)]
pub(super) struct DestinationHash;

/// Servers of weight 0 own buckets too.
pub(super) fn table(servers: &[RealServerSpec]) -> SchedulerTable {
    (0..256_usize)
        .map(|at| at.checked_rem(servers.len()).map_or(NOBODY, |at| at as u16))
        .collect()
}

impl Scheduler for DestinationHash {
    fn choose(&mut self, pool: &Pool<'_>, request: &Request<'_>) -> Option<usize> {
        pool.in_table(bucket(folded(request.flow.dst.into())))
            .filter(|place| pool.usable(*place))
    }

    fn edited(&mut self, _before: &[RealServerSpec], _pool: &Pool<'_>, _edit: ServiceEdit) {}
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::tests::Bench;
    use crate::service::SchedulerKind::Dh;

    /// The bucket of 10.0.0.1: 0x0a000001 * 0x61c88647 is 0x27c88647 mod 2^32.
    const BUCKET: usize = 0x27;

    #[test]
    fn the_bucket_is_the_top_byte_of_the_product() {
        assert_eq!(super::bucket(0x0a00_0001), BUCKET);
    }

    #[test]
    fn buckets_go_round_robin_and_an_unusable_owner_is_not_replaced() {
        let mut bench = Bench::new(Dh, &[(1, 1), (2, 7), (3, 1)]);
        bench.flow.dst = Ipv4Addr::new(10, 0, 0, 1);
        let owner = [3, 2, 1][BUCKET % 3];
        assert_eq!(bench.run(2), [owner, owner]);
        bench.set_weight(owner, 0);
        assert_eq!(bench.choose(), None);
        bench.set_weight(owner, 1);
        bench.set_overloaded(owner, true);
        assert_eq!(bench.choose(), None);
    }
}
