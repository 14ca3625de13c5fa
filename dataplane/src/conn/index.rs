//! From a key's hash to connections: 64-byte buckets of eight 16-bit tags and eight references.
//!
//! Partial-key cuckoo hashing (Fan et al., MemC3, NSDI 2013): an entry is in its first bucket, or in the one that its first
//! bucket and its tag name; either leads to the other, so an entry moves without its key being looked at. A
//! counter in the first bucket tells whether the second must be searched at all. An insertion moves at most one
//! other entry. Random keys fit up to a load of 0.6 with room to spare; [`Index::with_capacity`] plans for half.

use std::arch::x86_64::{
    __m128i, _mm_cmpeq_epi16, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16, _mm_setzero_si128,
};

use super::huge::HugeSlice;

/// Entries of one bucket.
const WAYS: usize = 8;

/// Share of places that may be filled: `LOAD.0 / LOAD.1`. A first failure was seen from 0.66 on.
const LOAD: (usize, usize) = (1, 2);

/// What an entry refers to: a connection and a direction, 30 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reference(u32);

impl Reference {
    /// The largest value.
    pub(super) const MAX: u32 = (1 << 30) - 1;
    const SECOND: u32 = 1 << 31;

    pub(super) fn new(value: u32) -> Self {
        debug_assert!(value <= Self::MAX);
        Self(value)
    }

    pub(super) fn value(self) -> u32 {
        self.0 & Self::MAX
    }
}

#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
struct Bucket {
    /// 0 where the place is free.
    tags: [u16; WAYS],
    refs: [u32; WAYS],
    /// Entries whose first bucket is this one and that are in their second.
    overflow: u32,
}

impl Bucket {
    /// A bit for each place with this tag.
    #[inline]
    fn matches(&self, tag: u16) -> u32 {
        let tags: __m128i = zerocopy::transmute!(self.tags);
        // SAFETY: SSE2 is part of x86-64, and these touch registers only. Compared one by one the tags cost a fifth of the
        // whole walk.
        unsafe {
            let equal = _mm_cmpeq_epi16(tags, _mm_set1_epi16(tag as i16));
            _mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128())) as u32
        }
    }

    #[inline]
    fn free_way(&self) -> Option<usize> {
        let mask = self.matches(0);
        (mask != 0).then(|| mask.trailing_zeros() as usize)
    }
}

/// Where an entry belongs: what a hash comes down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    first: u32,
    tag: u16,
}

impl Place {
    /// In every index, and nothing belongs there: no tag is 0.
    pub(super) const NONE: Self = Self { first: 0, tag: 0 };
}

/// The index. Its size is fixed.
#[derive(Debug)]
pub(super) struct Index {
    buckets: HugeSlice<Bucket>,
}

/// No place for an entry in either of its buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crowded;

impl Index {
    /// For so many entries.
    pub(super) fn with_capacity(entries: usize) -> Self {
        Self {
            buckets: HugeSlice::from_fn(Self::buckets_for(entries), |_| Bucket::default()),
        }
    }

    fn buckets_for(entries: usize) -> usize {
        (entries * LOAD.1).div_ceil(LOAD.0 * WAYS).max(2)
    }

    /// Bytes of an index for so many entries.
    pub(super) fn bytes_for(entries: usize) -> usize {
        Self::buckets_for(entries) * size_of::<Bucket>()
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// Where an entry with this hash belongs: the upper half of the hash, scaled to the number of buckets, and of the lowest
    /// bits the tag, which is odd and so never 0.
    #[inline]
    pub(super) fn place(&self, hash: u64) -> Place {
        let first = (((hash >> 32) * self.buckets.len() as u64) >> 32) as u32;
        Place {
            first,
            tag: hash as u16 | 1,
        }
    }

    /// The other bucket of an entry with this tag: the same rule leads there and back.
    #[inline]
    fn other(&self, bucket: usize, tag: u16) -> usize {
        let len = self.buckets.len();
        let mixed = u64::from(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let spread = ((mixed * len as u64) >> 32) as usize;
        if spread >= bucket {
            spread - bucket
        } else {
            spread + len - bucket
        }
    }

    /// Hints that this place will be looked up soon.
    #[inline]
    pub(super) fn prefetch(&self, place: Place) {
        crate::prefetch::read(&self.buckets, place.first as usize);
    }

    /// The first entry whose tag fits, likely but not surely the right one.
    #[inline]
    pub(super) fn candidate(&self, place: Place) -> Option<Reference> {
        let bucket = &self.buckets[place.first as usize];
        let mask = bucket.matches(place.tag);
        (mask != 0).then(|| Reference(bucket.refs[mask.trailing_zeros() as usize % WAYS]))
    }

    /// The entry at this place that `is` accepts.
    #[inline(always)]
    pub(super) fn find(
        &self,
        place: Place,
        mut is: impl FnMut(Reference) -> bool,
    ) -> Option<Reference> {
        let first = place.first as usize;
        if let Some((_, reference)) = self.find_in(first, place.tag, &mut is) {
            return Some(reference);
        }
        if self.buckets[first].overflow == 0 {
            return None;
        }
        self.find_in(self.other(first, place.tag), place.tag, &mut is)
            .map(|(_, reference)| reference)
    }

    #[inline(always)]
    fn find_in(
        &self,
        at: usize,
        tag: u16,
        is: &mut impl FnMut(Reference) -> bool,
    ) -> Option<(usize, Reference)> {
        let bucket = &self.buckets[at];
        let mut mask = bucket.matches(tag);
        while mask != 0 {
            let way = mask.trailing_zeros() as usize % WAYS;
            let reference = Reference(bucket.refs[way]);
            if is(reference) {
                return Some((way, reference));
            }
            mask &= mask - 1;
        }
        None
    }

    /// Adds an entry; equal ones are not looked for.
    pub(super) fn insert(&mut self, place: Place, reference: Reference) -> Result<(), Crowded> {
        let Place { first, tag } = place;
        let first = first as usize;
        let second = self.other(first, tag);
        let place = |index: &Self, at: usize| index.buckets[at].free_way().map(|way| (at, way));
        let (at, way) = place(self, first)
            .or_else(|| place(self, second))
            .or_else(|| self.make_room(first))
            .or_else(|| self.make_room(second))
            .ok_or(Crowded)?;
        let is_second = at != first;
        self.buckets[at].tags[way] = tag;
        self.buckets[at].refs[way] =
            reference.value() | if is_second { Reference::SECOND } else { 0 };
        self.buckets[first].overflow += u32::from(is_second);
        Ok(())
    }

    /// Moves one entry of a full bucket to its other bucket.
    fn make_room(&mut self, at: usize) -> Option<(usize, usize)> {
        for way in 0..WAYS {
            let tag = self.buckets[at].tags[way];
            let to = self.other(at, tag);
            if to == at {
                continue;
            }
            if let Some(free) = self.buckets[to].free_way() {
                let moved = self.buckets[at].refs[way] ^ Reference::SECOND;
                self.buckets[to].tags[free] = tag;
                self.buckets[to].refs[free] = moved;
                if moved & Reference::SECOND != 0 {
                    self.buckets[at].overflow += 1;
                } else {
                    self.buckets[to].overflow -= 1;
                }
                self.buckets[at].tags[way] = 0;
                return Some((at, way));
            }
        }
        None
    }

    /// Removes this entry, if it is there.
    pub(super) fn remove(&mut self, place: Place, reference: Reference) -> bool {
        let Place { first, tag } = place;
        let first = first as usize;
        let mut is = |other: Reference| other.value() == reference.value();
        if let Some((way, _)) = self.find_in(first, tag, &mut is) {
            self.buckets[first].tags[way] = 0;
            return true;
        }
        let second = self.other(first, tag);
        let Some((way, _)) = self.find_in(second, tag, &mut is) else {
            return false;
        };
        self.buckets[second].tags[way] = 0;
        self.buckets[first].overflow -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
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
                let hash = scramble(n);
                let Place { first, tag } = index.place(hash);
                let first = first as usize;
                assert_eq!(index.other(index.other(first, tag), tag), first);
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
                let overflow: u32 = index.buckets.iter().map(|bucket| bucket.overflow).sum();
                let second = index.buckets.iter().flat_map(|bucket| bucket.tags.iter().zip(&bucket.refs))
                    .filter(|(tag, reference)| **tag != 0 && **reference & Reference::SECOND != 0).count();
                prop_assert_eq!(overflow as usize, second);
            }
        }
    }
}
