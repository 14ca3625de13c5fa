//! `mh`: Maglev hashing, so that one real server leaving moves few flows (Eisenbud et al., NSDI 2016, section 3.4), with the
//! kernel's hash and weights (`SEMANTICS.md` section 4).
//!
//! The table is built on the control thread; a worker only reads it. Cost: one hash and one read; with mh-fallback up to
//! 4093 more where owners are unusable.

use super::siphash::siphash13;
use super::{NOBODY, Pool, Request, Scheduler, SchedulerTable, folded};
use crate::command::ServiceEdit;
use crate::service::RealServerSpec;

/// Slots: a prime.
const SLOTS: u32 = 4093;

/// No service of this scheduler can have more servers.
pub const MAX_SERVERS: usize = SLOTS as usize;

/// Keys of the two hashes.
const KEYS: [u64; 2] = [2_654_435_761, 2_654_446_892];

/// Weights are scaled to no more than this many bits.
const WEIGHT_BITS: u32 = 6;

/// Whoever owns the slot takes the connection; with mh-fallback a usable one of other slots.
#[derive(Debug)]
pub(super) struct Maglev;

/// One server on its walk through the slots in its own order of preference.
struct Walk {
    place: u16,
    next: u32,
    skip: u32,
    turns: u32,
}

/// In rounds, each server takes as many slots as its weight gives it turns: the next ones on its walk that are free.
pub(super) fn table(servers: &[RealServerSpec]) -> SchedulerTable {
    let mut slots = vec![NOBODY; MAX_SERVERS];
    let mut walks = walks(servers);
    let mut free = if walks.is_empty() { 0 } else { slots.len() };
    'full: loop {
        for walk in &mut walks {
            for _ in 0..walk.turns {
                if free == 0 {
                    break 'full;
                }
                while slots[walk.next as usize] != NOBODY {
                    walk.next = (walk.next + walk.skip) % SLOTS;
                }
                slots[walk.next as usize] = walk.place;
                free -= 1;
            }
        }
        if free == 0 {
            break;
        }
    }
    slots.into()
}

fn walks(servers: &[RealServerSpec]) -> Vec<Walk> {
    let weights = || servers.iter().map(|server| server.last_weight);
    let divisor = weights().filter(|weight| *weight > 0).reduce(gcd);
    let Some(divisor) = divisor else {
        return Vec::new();
    };
    let bits = u32::BITS - (weights().max().unwrap_or(0) / divisor).leading_zeros();
    let shift = bits.saturating_sub(WEIGHT_BITS);
    let walk = |(place, server): (usize, &RealServerSpec)| {
        let hash = |key| {
            let value = folded(server.addr).wrapping_add(u32::from(server.port));
            siphash13(key, value)
        };
        Walk {
            place: place as u16,
            next: hash(KEYS[0]) % SLOTS,
            skip: hash(KEYS[1]) % (SLOTS - 1) + 1,
            turns: ((server.last_weight / divisor) >> shift).max(1),
        }
    };
    let weighted = |(_, server): &(usize, &RealServerSpec)| server.last_weight > 0;
    let servers = servers.iter().enumerate();
    servers.filter(weighted).map(walk).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl Scheduler for Maglev {
    fn choose(&mut self, pool: &Pool<'_>, request: &Request<'_>) -> Option<usize> {
        let flow = request.flow;
        let port = if pool.flags.port() { flow.src_port } else { 0 };
        let source = folded(flow.src.into()).wrapping_add(u32::from(port));
        let slot = |offset: u32| siphash13(KEYS[0], source.wrapping_add(offset)) % SLOTS;
        let first = slot(0);
        let owner = pool.in_table(first as usize)?;
        if pool.usable(owner) {
            return Some(owner);
        }
        if !pool.flags.fallback() {
            return None;
        }
        (0..SLOTS)
            .map_while(|offset| pool.in_table(slot((offset + first) % SLOTS) as usize))
            .find(|place| pool.usable(*place))
    }

    fn edited(&mut self, _before: &[RealServerSpec], _pool: &Pool<'_>, _edit: ServiceEdit) {}
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use super::*;
    use crate::service::SchedulerFlags;
    use crate::service::SchedulerKind::Mh;

    fn shares(table: &[u16]) -> Vec<usize> {
        let of = |place| table.iter().filter(|slot| **slot == place).count();
        (0..=table.iter().copied().max().unwrap_or(0))
            .map(of)
            .collect()
    }

    #[test]
    fn slots_are_shared_by_weight() {
        let bench = Bench::new(Mh, &[(1, 10), (2, 20), (3, 10)]);
        let shares = shares(&table(&bench.list()));
        assert_eq!(shares.iter().sum::<usize>(), 4093);
        // In rounds of 1 + 2 + 1: 1023 of them and one slot for the head.
        assert_eq!(shares, [1024, 2046, 1023]);
    }

    #[test]
    fn great_weights_are_scaled_to_six_bits_and_small_ones_keep_one_turn() {
        let bench = Bench::new(Mh, &[(1, 1), (2, 1 << 20)]);
        // 1 << 20 has 21 bits: shifted by 15 it is 32 turns.
        let [heavy, light] = shares(&table(&bench.list()))[..] else {
            panic!("two servers")
        };
        assert_eq!((heavy + light, light), (4093, 4093 / 33));
    }

    #[test]
    fn a_leaving_server_moves_few_others() {
        let mut bench = Bench::new(Mh, &[(1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]);
        let ids = |bench: &Bench| -> Vec<u32> {
            let list = bench.list();
            let owner = |place: &u16| list[usize::from(*place)].id.index;
            table(&list).iter().map(owner).collect()
        };
        let before = ids(&bench);
        bench.delete(3);
        let after = ids(&bench);
        let moved = before
            .iter()
            .zip(&after)
            .filter(|(before, after)| **before != 3 && before != after)
            .count();
        assert!(moved < 4093 / 10, "{moved} of 4093 moved");
    }

    #[test]
    fn a_quiesced_server_keeps_its_slots_and_one_added_with_0_has_none() {
        let mut bench = Bench::new(Mh, &[(1, 1), (2, 1)]);
        let before = table(&bench.list());
        bench.set_weight(1, 0);
        assert_eq!(table(&bench.list()), before);
        bench.add(3, 0);
        assert!(!table(&bench.list()).contains(&0));
        let mut empty = Bench::new(Mh, &[(1, 0)]);
        assert_eq!(empty.choose(), None);
    }

    #[test]
    fn fallback_finds_the_last_usable_server() {
        let mut bench = Bench::new(Mh, &[(1, 1), (2, 1), (3, 1)]);
        let owner = bench.choose().expect("all are usable");
        for number in 1..=3 {
            bench.set_overloaded(number, number != owner % 3 + 1);
        }
        assert_eq!(bench.choose(), None);
        bench.set_flags(SchedulerFlags(1));
        assert_eq!(bench.choose(), Some(owner % 3 + 1));
        bench.set_overloaded(owner % 3 + 1, true);
        assert_eq!(bench.choose(), None);
    }
}
