//! When connections expire: a wheel of two turns, arrays only, lazily re-armed (contract 6).
//!
//! A packet only stores when it was seen. An entry that comes due is asked for its true deadline and filed again if
//! that is later. A deadline that moved to an earlier time is filed at once; the older entry then finds that its place
//! is filed for another moment, and is forgotten. An entry outlives its connection and serves the next one at that place, so that
//! opening and closing leaves nothing behind. Should stale entries fill the store all the same, [`TimerWheel::retain`] sweeps them
//! out. Entries lie in fixed chunks from one preallocated store: nothing is
//! allocated after start, and a slot is read in a straight line.

use super::huge::HugeSlice;
use super::table::ConnId;
use crate::time::Grain;

/// Slots of a turn. The near turn reaches 16 s and more, the far one 4.6 hours and more; later deadlines come due early and are filed again.
const SLOTS: u64 = 1024;

/// Grains of a slot, as a shift.
const SLOT_SHIFT: u32 = 3;

/// Entries of a chunk: with its header 512 bytes.
const CHUNK: usize = 63;

const NONE: u32 = u32::MAX;

/// A filed deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    /// Whose.
    pub id: ConnId,
    /// The moment it was filed for ([`Grain::short`]).
    pub filed: u32,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Chunk {
    next: u32,
    len: u32,
    timers: [Timer; CHUNK],
}

/// One worker's timers. Fires up to two slots (64 ms) late, never early.
#[derive(Debug)]
pub struct TimerWheel {
    chunks: HugeSlice<Chunk>,
    free: u32,
    near: Box<[u32]>,
    far: Box<[u32]>,
    /// Number of the slot to be fired next.
    next: u64,
    /// The chunk being fired.
    due: u32,
}

impl TimerWheel {
    /// An empty wheel that starts at `now`, for `capacity` connections with up to two entries each.
    pub fn new(capacity: usize, now: Grain) -> Self {
        let count = Self::chunks_for(capacity);
        let chunk = |n: usize| Chunk {
            next: if n + 1 < count { n as u32 + 1 } else { NONE },
            len: 0,
            timers: [Timer::default(); CHUNK],
        };
        let turn = || vec![NONE; SLOTS as usize].into_boxed_slice();
        Self {
            chunks: HugeSlice::from_fn(count, chunk),
            free: 0,
            near: turn(),
            far: turn(),
            next: now.0 >> SLOT_SHIFT,
            due: NONE,
        }
    }

    fn chunks_for(capacity: usize) -> usize {
        (capacity * 2).div_ceil(CHUNK) + 2 * SLOTS as usize + 1
    }

    /// Bytes of a wheel for so many connections, before it is made.
    pub fn bytes_for(capacity: usize) -> usize {
        Self::chunks_for(capacity) * size_of::<Chunk>()
    }

    /// Bytes of memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.chunks)
    }

    /// Files a deadline of `due`. `false` when the store is full: then sweep it and file again.
    pub fn file(&mut self, id: ConnId, due: Grain) -> bool {
        let timer = Timer {
            id,
            filed: due.short(),
        };
        self.place(timer, due.0)
    }

    /// Files a deadline of `due` for a place whose older entries count no more; should such entries fill the store, those that
    /// `counts` does not accept are swept out first.
    pub fn file_for_place(&mut self, id: ConnId, due: Grain, counts: impl Fn(&Timer) -> bool) {
        if !self.file(id, due) {
            self.retain(counts);
            let filed = self.file(id, due);
            debug_assert!(filed, "the store has room for two timers a place");
        }
    }

    fn place(&mut self, timer: Timer, due: u64) -> bool {
        let at = ((due >> SLOT_SHIFT) + 1).max(self.next);
        if at - self.next < SLOTS {
            let slot = (at % SLOTS) as usize;
            Self::push(
                &mut self.chunks,
                &mut self.free,
                &mut self.near[slot],
                timer,
            )
        } else {
            let turn = (at / SLOTS).min(self.next / SLOTS + SLOTS - 1);
            let slot = (turn % SLOTS) as usize;
            Self::push(&mut self.chunks, &mut self.free, &mut self.far[slot], timer)
        }
    }

    fn push(chunks: &mut [Chunk], free: &mut u32, head: &mut u32, timer: Timer) -> bool {
        let full = *head == NONE || chunks[*head as usize].len as usize == CHUNK;
        if full {
            if *free == NONE {
                return false;
            }
            let fresh = *free;
            let chunk = &mut chunks[fresh as usize];
            *free = chunk.next;
            (chunk.next, chunk.len) = (*head, 0);
            *head = fresh;
        }
        let chunk = &mut chunks[*head as usize];
        chunk.timers[chunk.len as usize] = timer;
        chunk.len += 1;
        true
    }

    /// Takes one timer that is due at `now`, or `None`. The caller asks the connection for its true
    /// deadline and files it again if that is still to come.
    pub fn pop(&mut self, now: Grain) -> Option<Timer> {
        loop {
            while self.due != NONE {
                let chunk = &mut self.chunks[self.due as usize];
                if chunk.len > 0 {
                    chunk.len -= 1;
                    return Some(chunk.timers[chunk.len as usize]);
                }
                let done = self.due;
                self.due = chunk.next;
                self.chunks[done as usize].next = self.free;
                self.free = done;
            }
            if self.next > now.0 >> SLOT_SHIFT {
                return None;
            }
            self.turn();
        }
    }

    /// Keeps only the entries that `wanted` accepts. Costs a look at every entry: for when the store is full of stale ones, which
    /// then make room for at least as many new entries as there are connections.
    pub fn retain(&mut self, wanted: impl Fn(&Timer) -> bool) {
        let Self {
            chunks,
            free,
            near,
            far,
            due,
            ..
        } = self;
        for head in near.iter_mut().chain(far.iter_mut()).chain([due]) {
            let mut old = std::mem::replace(head, NONE);
            while old != NONE {
                let chunk = chunks[old as usize];
                chunks[old as usize].next = *free;
                *free = old;
                for timer in chunk.timers[..chunk.len as usize]
                    .iter()
                    .filter(|timer| wanted(timer))
                {
                    // A chunk was freed for each that is filled again.
                    Self::push(chunks, free, head, *timer);
                }
                old = chunk.next;
            }
        }
    }

    /// Moves on by a slot. At the start of a near turn the far slot of that turn is handed down whole.
    fn turn(&mut self) {
        let at = self.next;
        if at.is_multiple_of(SLOTS) {
            let slot = (at / SLOTS % SLOTS) as usize;
            let mut head = std::mem::replace(&mut self.far[slot], NONE);
            while head != NONE {
                let chunk = self.chunks[head as usize];
                self.chunks[head as usize].next = self.free;
                self.free = head;
                for timer in &chunk.timers[..chunk.len as usize] {
                    self.place(*timer, extend(timer.filed, at << SLOT_SHIFT));
                }
                head = chunk.next;
            }
        }
        self.next = at + 1;
        self.due = std::mem::replace(&mut self.near[(at % SLOTS) as usize], NONE);
    }
}

/// The moment near `around` whose low 32 bits are `short`.
fn extend(short: u32, around: u64) -> u64 {
    let ahead = short.wrapping_sub(around as u32) as i32;
    around.saturating_add_signed(i64::from(ahead))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fired(wheel: &mut TimerWheel, now: Grain) -> Vec<u32> {
        std::iter::from_fn(|| wheel.pop(now))
            .map(|timer| timer.filed)
            .collect()
    }

    #[test]
    fn a_far_deadline_fires_in_its_second_not_before() {
        let start = Grain(u64::from(u32::MAX) - 5000);
        let mut wheel = TimerWheel::new(1, start);
        let due = Grain(start.0 + 900_000);
        assert!(wheel.file(ConnId::default(), due));
        assert!(fired(&mut wheel, Grain(due.0 - 1)).is_empty());
        assert_eq!(fired(&mut wheel, Grain(due.0 + 32)), [due.short()]);
    }

    #[test]
    fn a_full_store_refuses_and_recovers() {
        let mut wheel = TimerWheel::new(0, Grain(0));
        let mut filed = 0;
        while wheel.file(ConnId::default(), Grain(100)) {
            filed += 1;
        }
        assert_eq!(filed, wheel.chunks.len() * CHUNK);
        let kept = std::cell::Cell::new(0usize);
        wheel.retain(|_| {
            kept.set(kept.get() + 1);
            kept.get().is_multiple_of(3)
        });
        assert_eq!(kept.get(), filed);
        assert!(wheel.file(ConnId::default(), Grain(100)));
        assert_eq!(fired(&mut wheel, Grain(200)).len(), filed / 3 + 1);
        assert!(wheel.file(ConnId::default(), Grain(300)));
    }

    proptest! {
        #[test]
        fn every_deadline_within_reach_fires_once_and_no_earlier(
            start in 0u64..1 << 34,
            delays in prop::collection::vec(0u64..8_000_000, 1..60),
            step in 1u64..100_000,
        ) {
            let mut wheel = TimerWheel::new(60, Grain(start));
            for delay in &delays {
                prop_assert!(wheel.file(ConnId::default(), Grain(start + delay)));
            }
            let (mut now, mut count) = (start, 0);
            while count < delays.len() && now < start + 8_200_000 {
                let before = now;
                now += step;
                for filed in fired(&mut wheel, Grain(now)) {
                    let due = extend(filed, now);
                    prop_assert!(due <= now);
                    prop_assert!(due + 40 >= before, "fired too late");
                    count += 1;
                }
            }
            prop_assert_eq!(count, delays.len());
        }
    }
}
