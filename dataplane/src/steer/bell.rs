//! Doorbells: what others may have put into a worker's rings costs it one load a turn to find out, however many others there are.
//!
//! Whoever puts something into a ring rings afterwards; the worker looks into its rings only after it has heard that. Both sides store
//! plainly, to one line of the worker that is rung for, and no ring is lost: a fence stands between what was put there and the ring,
//! and one between having heard and looking. Of the two fences one comes first (they have one order, C++20 [atomics.order]). If the
//! ringer's does, the worker finds what was put there. If the worker's does, then the ring comes after the worker took the last one
//! down, and is heard at the next turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam::utils::CachePadded;

/// What may lie in a worker's rings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parcel {
    Frames,
    Notes,
}

/// The bells at one worker's door, on a line of their own.
#[derive(Clone, Debug, Default)]
pub(super) struct Door(Arc<CachePadded<[AtomicBool; 2]>>);

impl Door {
    /// Says that something of the kind may lie there. To be called after [`settle`], and that after it was put there.
    #[inline]
    pub(super) fn ring(&self, parcel: Parcel) {
        self.0[parcel as usize].store(true, Ordering::Relaxed);
    }

    /// Whether it rang since this was last asked. Only the worker behind the door may ask, and it then has to look.
    #[inline]
    pub(super) fn heard(&self, parcel: Parcel) -> bool {
        let rang = self.0[parcel as usize].load(Ordering::Relaxed);
        if rang {
            self.0[parcel as usize].store(false, Ordering::Relaxed);
            fence(Ordering::SeqCst);
        }
        rang
    }
}

/// What was put into rings lies there for whoever hears a bell that is rung from now on. Costs what stores that are under way do.
#[inline]
pub(super) fn settle() {
    fence(Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;
    use std::thread;
    use std::time::{Duration, SystemTime};

    use super::*;

    /// How long it is tried.
    const TRIED: Duration = Duration::from_secs(2);
    /// When nothing comes any more.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn bells_do_not_ring_for_each_other_and_each_ring_is_heard_once() {
        let door = Door::default();
        assert!(!door.heard(Parcel::Frames) && !door.heard(Parcel::Notes));
        door.ring(Parcel::Notes);
        door.ring(Parcel::Notes);
        assert!(!door.heard(Parcel::Frames));
        assert!(door.heard(Parcel::Notes) && !door.heard(Parcel::Notes));
    }

    /// Brings two parcels, one soon after the other, and waits for both: if the second comes while the first is looked for, and its ring
    /// is lost, it lies there for ever.
    #[test]
    fn no_ring_is_lost_however_ringing_and_looking_meet() {
        let door = &Door::default();
        let counts = || [(); 2].map(|()| CachePadded::new(AtomicU64::new(0)));
        let (brought, taken) = (&counts(), &counts());
        let done = &AtomicBool::new(false);
        let all_taken = |parcel| {
            let mut counts = taken.iter();
            counts.all(|count| count.load(Ordering::Acquire) == parcel)
        };
        let begin = SystemTime::now();
        let over = |time| begin.elapsed().is_ok_and(|since| since >= time);
        thread::scope(|scope| {
            scope.spawn(move || {
                for parcel in 1.. {
                    for brought in brought {
                        brought.store(parcel, Ordering::Release);
                        settle();
                        door.ring(Parcel::Frames);
                        for moment in 0..parcel % 97 {
                            std::hint::black_box(moment);
                        }
                    }
                    for wait in 1u64.. {
                        if all_taken(parcel) {
                            break;
                        }
                        if wait.is_multiple_of(1024) {
                            assert!(!over(PATIENCE), "{parcel} was forgotten");
                            thread::yield_now();
                        }
                    }
                    if over(TRIED) {
                        done.store(true, Ordering::Release);
                        break;
                    }
                }
            });
            while !done.load(Ordering::Acquire) && !over(PATIENCE) {
                if door.heard(Parcel::Frames) {
                    for (brought, taken) in brought.iter().zip(taken) {
                        taken.store(brought.load(Ordering::Acquire), Ordering::Release);
                    }
                }
            }
        });
    }
}
