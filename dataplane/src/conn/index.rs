//! From a key's hash to connections: 64-byte buckets of eight 16-bit tags and eight references.
//!
//! Partial-key cuckoo hashing (Fan et al., MemC3, NSDI 2013): an entry is in its first bucket, or in the one that its first
//! bucket and its tag name; either leads to the other, so an entry moves without its key being looked at.
//! Counters in the first bucket tell whether the second must be searched at all. An insertion moves at most two
//! other entries. [`Index::with_capacity`] plans for half of the places to be filled.
//!
//! A large index begins small and grows with its entries, a bucket at a time, within memory that is there from the start (linear
//! hashing, Litwin, VLDB 1980): few entries lie in few cache lines. `growth` has how. It does not shrink.

mod growth;

use std::arch::x86_64::{
    __m128i, _mm_cmpeq_epi16, _mm_movemask_epi8, _mm_packs_epi16, _mm_set1_epi16, _mm_setzero_si128,
};

use super::huge::HugeSlice;
use growth::Scale;

/// Entries of one bucket.
const WAYS: usize = 8;

/// Share of places that may be filled: `LOAD.0 / LOAD.1`.
const LOAD: (usize, usize) = (1, 2);

/// Share of the places in use that are filled when another bucket is split. At a half, 4 % of the entries were in their second
/// bucket while the index grew; at this, 1.5 %.
const CROWD: (usize, usize) = (2, 5);

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
    /// The lowest bits of the fine buckets that entries belong to here.
    lows: [u8; WAYS],
    /// The entries whose first bucket is this one and that are in their second, or more than these.
    overflow: Overflow,
}

/// Counts entries by three bits of their tags, in four bits each: for most tags there is none. A split bucket's entries are counted
/// in both halves, since it is not known whose they are.
#[derive(Clone, Copy, Debug, Default)]
struct Overflow(u32);

impl Overflow {
    /// A count that stays: it may have been more.
    const STUCK: u32 = 15;

    /// The place of a tag's count. The lowest bit of all tags is the same.
    #[inline(always)]
    fn place(tag: u16) -> u32 {
        u32::from(tag >> 1 & 7) * 4
    }

    /// How many may have this tag.
    #[inline(always)]
    fn count(self, tag: u16) -> u32 {
        self.0 >> Self::place(tag) & Self::STUCK
    }

    fn add(&mut self, tag: u16) {
        if self.count(tag) < Self::STUCK {
            self.0 += 1 << Self::place(tag);
        }
    }

    fn remove(&mut self, tag: u16) {
        if (1..Self::STUCK).contains(&self.count(tag)) {
            self.0 -= 1 << Self::place(tag);
        }
    }
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

    fn put(&mut self, way: usize, entry: Entry) {
        self.tags[way] = entry.tag;
        self.refs[way] = entry.bits;
        self.lows[way] = entry.fine as u8;
    }
}

/// An entry in a bucket.
#[derive(Clone, Copy)]
struct Entry {
    tag: u16,
    /// The reference, and [`Reference::SECOND`] in the entry's second bucket.
    bits: u32,
    /// The fine bucket that it belongs to where it is.
    fine: u32,
}

impl Entry {
    fn is_second(self) -> bool {
        self.bits & Reference::SECOND != 0
    }
}

/// Where an entry belongs: what a hash comes down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The first of its fine buckets.
    first: u32,
    tag: u16,
}

impl Place {
    /// In every index, and nothing belongs there: no tag is 0.
    pub(super) const NONE: Self = Self { first: 0, tag: 0 };
}

/// The index. Its memory is fixed, and how much of it is in use follows the entries.
#[derive(Debug)]
pub(super) struct Index {
    buckets: HugeSlice<Bucket>,
    scale: Scale,
    entries: usize,
    /// With so many entries another bucket is split; never, once the index is fully grown.
    crowded: usize,
    /// Buckets to be looked through, from this one on, for entries that have room in their first bucket by now.
    untidy: usize,
    next: usize,
}

/// Entries with which so many buckets are crowded.
fn crowded(scale: Scale) -> usize {
    (scale.buckets() * WAYS * CROWD.0).div_ceil(CROWD.1)
}

/// No place for an entry in either of its buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Crowded;

impl Index {
    /// For so many entries.
    pub(super) fn with_capacity(entries: usize) -> Self {
        let buckets = Self::buckets_for(entries);
        let scale = Scale::new(buckets);
        Self {
            buckets: HugeSlice::from_fn(buckets, |_| Bucket::default()),
            scale,
            entries: 0,
            crowded: crowded(scale),
            untidy: 0,
            next: 0,
        }
    }

    fn buckets_for(entries: usize) -> usize {
        growth::len((entries * LOAD.1).div_ceil(LOAD.0 * WAYS).max(2))
    }

    /// Bytes of an index for so many entries.
    pub(super) fn bytes_for(entries: usize) -> usize {
        Self::buckets_for(entries) * size_of::<Bucket>()
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.buckets)
    }

    /// Where an entry with this hash belongs: the upper half of the hash, scaled to the number of fine buckets, and of the
    /// lowest bits the tag, which is odd and so never 0.
    #[inline]
    pub(super) fn place(&self, hash: u64) -> Place {
        let first = (((hash >> 32) * self.buckets.len() as u64) >> 32) as u32;
        Place {
            first,
            tag: hash as u16 | 1,
        }
    }

    /// The other fine bucket of an entry with this tag: the same rule leads there and back.
    #[inline]
    fn other(&self, fine: u32, tag: u16) -> u32 {
        let len = self.buckets.len() as u64;
        let mixed = u64::from(tag).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let spread = ((mixed * len) >> 32) as u32;
        if spread >= fine {
            spread - fine
        } else {
            spread + len as u32 - fine
        }
    }

    /// Hints that this place will be looked up soon. Returns its first bucket, for [`Index::candidate`].
    #[inline(always)]
    pub(super) fn prefetch(&self, place: Place) -> u32 {
        let first = self.scale.at(place.first);
        crate::prefetch::read(&self.buckets, first);
        first as u32
    }

    /// The first entry whose tag fits, likely but not surely the right one. `first` is the place's first bucket; the index may have
    /// grown since it was found, and then the right one may be missed.
    #[inline(always)]
    pub(super) fn candidate(&self, place: Place, first: u32) -> Option<Reference> {
        let bucket = &self.buckets[first as usize];
        let mask = bucket.matches(place.tag);
        if mask != 0 {
            return Some(Reference(
                bucket.refs[mask.trailing_zeros() as usize % WAYS],
            ));
        }
        if bucket.overflow.count(place.tag) == 0 {
            return None;
        }
        self.second_candidate(place)
    }

    /// It waits for memory, but spares the packet, and those of the same burst, all that is done for packets of no connection.
    #[cold]
    #[inline(never)]
    fn second_candidate(&self, place: Place) -> Option<Reference> {
        let second = self.scale.at(self.other(place.first, place.tag));
        self.find_in(second, place.tag, &mut |_| true)
            .map(|(_, reference)| reference)
    }

    /// The entry at this place that `is` accepts.
    #[inline(always)]
    pub(super) fn find(
        &self,
        place: Place,
        mut is: impl FnMut(Reference) -> bool,
    ) -> Option<Reference> {
        let first = self.scale.at(place.first);
        if let Some((_, reference)) = self.find_in(first, place.tag, &mut is) {
            return Some(reference);
        }
        if self.buckets[first].overflow.count(place.tag) == 0 {
            return None;
        }
        let second = self.scale.at(self.other(place.first, place.tag));
        self.find_in(second, place.tag, &mut is)
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
        if self.entries >= self.crowded || self.untidy > 0 {
            self.rearrange();
        }
        let first = self.scale.at(place.first);
        let Some(way) = self.buckets[first].free_way() else {
            return self.insert_elsewhere(place, reference);
        };
        let entry = Entry {
            tag: place.tag,
            bits: reference.value(),
            fine: place.first,
        };
        self.buckets[first].put(way, entry);
        self.entries += 1;
        Ok(())
    }

    /// The same where the first bucket is full.
    #[cold]
    #[inline(never)]
    fn insert_elsewhere(&mut self, place: Place, reference: Reference) -> Result<(), Crowded> {
        let first = self.scale.at(place.first);
        let other = self.other(place.first, place.tag);
        let second = self.scale.at(other);
        let free = self.buckets[second].free_way();
        let (at, way) = (free.map(|way| (second, way)))
            .or_else(|| self.make_room(first, 1))
            .or_else(|| self.make_room(second, 1))
            .ok_or(Crowded)?;
        let (bits, fine) = if at == first {
            (reference.value(), place.first)
        } else {
            self.buckets[first].overflow.add(place.tag);
            (reference.value() | Reference::SECOND, other)
        };
        let tag = place.tag;
        self.buckets[at].put(way, Entry { tag, bits, fine });
        self.entries += 1;
        Ok(())
    }

    /// The entry at this place of a bucket.
    fn entry(&self, at: usize, way: usize) -> Entry {
        let bucket = &self.buckets[at];
        Entry {
            tag: bucket.tags[way],
            bits: bucket.refs[way],
            fine: self.scale.fine(at, bucket.lows[way]),
        }
    }

    /// Moves an entry to its other bucket, where this way is free.
    fn move_over(&mut self, from: (usize, usize), to: (usize, usize)) {
        let mut entry = self.entry(from.0, from.1);
        entry.fine = self.other(entry.fine, entry.tag);
        entry.bits ^= Reference::SECOND;
        if entry.is_second() {
            self.buckets[from.0].overflow.add(entry.tag);
        } else {
            self.buckets[to.0].overflow.remove(entry.tag);
        }
        self.buckets[to.0].put(to.1, entry);
        self.buckets[from.0].tags[from.1] = 0;
    }

    /// Moves one entry of a full bucket to its other bucket; with `deeper`, where none of those has room either, after
    /// making some in one of them.
    fn make_room(&mut self, at: usize, deeper: u32) -> Option<(usize, usize)> {
        for deeper in 0..=deeper {
            for way in 0..WAYS {
                let entry = self.entry(at, way);
                let to = self.scale.at(self.other(entry.fine, entry.tag));
                if to == at {
                    continue;
                }
                let free = match self.buckets[to].free_way() {
                    Some(free) => Some((to, free)),
                    None if deeper > 0 => self.make_room(to, deeper - 1),
                    None => None,
                };
                if let Some(to) = free {
                    self.move_over((at, way), to);
                    return Some((at, way));
                }
            }
        }
        None
    }

    /// What growing takes, a piece for each insertion.
    #[cold]
    #[inline(never)]
    fn rearrange(&mut self) {
        if self.entries >= self.crowded {
            self.grow();
        }
        self.tidy();
    }

    /// Splits the next bucket, unless the index is fully grown.
    fn grow(&mut self) {
        let before = self.scale;
        let Some(at) = self.scale.split() else {
            self.crowded = usize::MAX;
            return;
        };
        self.crowded = crowded(self.scale);
        let old = std::mem::take(&mut self.buckets[at]);
        let halves = [2 * at, 2 * at + 1];
        for half in halves {
            self.buckets[half] = Bucket {
                overflow: old.overflow,
                ..Bucket::default()
            };
        }
        for way in 0..WAYS {
            let fine = before.fine(at, old.lows[way]);
            let entry = Entry {
                tag: old.tags[way],
                bits: old.refs[way],
                fine,
            };
            // Of 8 entries each finds a way.
            if entry.tag != 0
                && let half = self.scale.at(fine)
                && let Some(free) = self.buckets[half].free_way()
            {
                self.buckets[half].put(free, entry);
            }
        }
        self.untidy = self.scale.buckets();
    }

    /// Looks through one bucket, while that is of use: splits leave entries in their second bucket whose first has room again.
    fn tidy(&mut self) {
        let Some(untidy) = self.untidy.checked_sub(1) else {
            return;
        };
        self.untidy = untidy;
        let at = self.scale.used(self.next);
        self.next = at + 1;
        let bucket = self.buckets[at];
        if bucket.refs.iter().all(|bits| bits & Reference::SECOND == 0) {
            return;
        }
        for way in (0..WAYS).filter(|way| bucket.tags[*way] != 0) {
            let entry = self.entry(at, way);
            if entry.is_second() {
                let home = self.scale.at(self.other(entry.fine, entry.tag));
                if let Some(free) = self.buckets[home].free_way() {
                    self.move_over((at, way), (home, free));
                }
            }
        }
    }

    /// Removes this entry, if it is there.
    pub(super) fn remove(&mut self, place: Place, reference: Reference) -> bool {
        let first = self.scale.at(place.first);
        let mut is = |other: Reference| other.value() == reference.value();
        if let Some((way, _)) = self.find_in(first, place.tag, &mut is) {
            self.buckets[first].tags[way] = 0;
            self.entries -= 1;
            return true;
        }
        self.remove_elsewhere(place, reference)
    }

    /// The same where it is not in the first bucket.
    #[cold]
    #[inline(never)]
    fn remove_elsewhere(&mut self, place: Place, reference: Reference) -> bool {
        let first = self.scale.at(place.first);
        let mut is = |other: Reference| other.value() == reference.value();
        let second = self.scale.at(self.other(place.first, place.tag));
        let Some((way, _)) = self.find_in(second, place.tag, &mut is) else {
            return false;
        };
        self.buckets[second].tags[way] = 0;
        self.buckets[first].overflow.remove(place.tag);
        self.entries -= 1;
        true
    }
}

#[cfg(test)]
mod tests;
