use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

fn scramble(n: u64) -> u64 {
    let mut x = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[test]
fn a_bucket_is_one_cache_line() {
    assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
}

#[test]
fn the_other_bucket_leads_back() {
    for entries in [10, 1000, 12345] {
        let index = Index::with_capacity(entries);
        for n in 0..10_000 {
            let Place { first, tag } = index.place(scramble(n));
            assert_eq!(index.other(index.other(first, tag), tag), first);
        }
    }
}

/// Buckets whose counter says less than there is, or of which an entry lies where it is not looked for.
fn lost(index: &Index) -> usize {
    let mut homes = HashMap::<(usize, u16), u32>::new();
    let mut astray = 0;
    for at in 0..index.buckets.len() {
        for way in (0..WAYS).filter(|way| index.buckets[at].tags[*way] != 0) {
            let entry = index.entry(at, way);
            astray += usize::from(index.scale.at(entry.fine) != at);
            if entry.is_second() {
                let home = index.other(entry.fine, entry.tag);
                let kind = entry.tag & 0xe;
                *homes.entry((index.scale.at(home), kind)).or_default() += 1;
            }
        }
    }
    let unknown = |((at, tag), second): (&(usize, u16), &u32)| {
        index.buckets[*at].overflow.count(*tag) < (*second).min(Overflow::STUCK)
    };
    astray + homes.iter().filter(|home| unknown(*home)).count()
}

#[test]
fn a_growing_index_loses_nothing_and_stays_dense() {
    for capacity in [2000, 10_000, 30_000] {
        let mut index = Index::with_capacity(capacity);
        let mut live = Vec::new();
        for n in 0..capacity as u32 {
            let hash = scramble(u64::from(n) << 8);
            assert_eq!(index.insert(index.place(hash), Reference::new(n)), Ok(()));
            live.push((hash, n));
            if n % 5 == 4 {
                let (hash, n) = live.swap_remove(scramble(u64::from(n)) as usize % live.len());
                assert!(index.remove(index.place(hash), Reference::new(n)));
                assert!(!index.remove(index.place(hash), Reference::new(n)));
            }
            assert_eq!(index.entries, live.len());
            if n % 997 == 0 || n + 1 == capacity as u32 {
                assert_eq!(lost(&index), 0, "entry {n} of {capacity}");
                for (hash, n) in &live {
                    let found = index.find(index.place(*hash), |found| found.value() == *n);
                    assert_eq!(found.map(Reference::value), Some(*n));
                }
                let most = (n as usize * CROWD.1).div_ceil(CROWD.0 * WAYS) + 1;
                assert!(
                    index.scale.buckets() <= most.max(512),
                    "entry {n} of {capacity}"
                );
            }
        }
    }
}

#[test]
fn while_it_grows_few_entries_are_in_their_second_bucket() {
    let mut index = Index::with_capacity(200_000);
    for n in 0..200_000u32 {
        let hash = scramble(u64::from(n) << 8);
        assert_eq!(index.insert(index.place(hash), Reference::new(n)), Ok(()));
        if n % 10_000 == 9_999 {
            let second = |at: usize| {
                let taken = (0..WAYS).filter(|way| index.buckets[at].tags[*way] != 0);
                taken
                    .filter(|way| index.entry(at, *way).is_second())
                    .count()
            };
            let second: usize = (0..index.buckets.len()).map(second).sum();
            assert!(second * 40 < n as usize, "{second} of {n}");
        }
    }
}

#[test]
fn a_planned_load_always_fits_and_a_tenth_more() {
    for seed in 0..5 {
        let mut index = Index::with_capacity(100_000);
        for n in 0..110_000u32 {
            let hash = scramble(u64::from(n) << 8 | seed);
            assert_eq!(
                index.insert(index.place(hash), Reference::new(n)),
                Ok(()),
                "seed {seed}, entry {n}"
            );
        }
    }
}

proptest! {
    #[test]
    fn the_index_agrees_with_a_map(
        steps in prop::collection::vec((any::<bool>(), 0u32..120, 0u64..40), 1..400),
    ) {
        // Few distinct hashes over few buckets: tags collide, buckets overflow and entries move.
        let mut index = Index::with_capacity(64);
        let mut model: HashMap<u32, u64> = HashMap::new();
        for (add, value, spread) in steps {
            match (add, model.get(&value).copied()) {
                (true, None) => {
                    let hash = scramble(spread);
                    if index.insert(index.place(hash), Reference::new(value)).is_ok() {
                        model.insert(value, hash);
                    }
                }
                (false, Some(hash)) => {
                    prop_assert!(index.remove(index.place(hash), Reference::new(value)));
                    model.remove(&value);
                }
                (true, Some(_)) => {}
                (false, None) => prop_assert!(!index.remove(index.place(scramble(spread)), Reference::new(value))),
            }
            for (value, hash) in &model {
                let found = index.find(index.place(*hash), |reference| reference.value() == *value);
                prop_assert_eq!(found.map(Reference::value), Some(*value));
            }
            let overflow = |bucket: &Bucket| -> u32 { (0..8).map(|kind| bucket.overflow.count(kind << 1)).sum() };
            let overflow: u32 = index.buckets.iter().map(overflow).sum();
            let second = index.buckets.iter().flat_map(|bucket| bucket.tags.iter().zip(&bucket.refs))
                .filter(|(tag, reference)| **tag != 0 && **reference & Reference::SECOND != 0).count();
            prop_assert_eq!(overflow as usize, second);
        }
    }
}
