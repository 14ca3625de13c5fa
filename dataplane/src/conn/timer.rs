//! When connections expire: a wheel of two turns, arrays only, lazily re-armed (contract 6).
//!
//! A packet only stores when it was seen. An entry that comes due is asked for its true deadline and filed again if
//! that is later. A deadline that moved to an earlier time must be filed at once. Entries name a generation,
//! so those of removed connections do nothing.

use super::table::ConnId;
use crate::time::{Span, TickRate, Ticks};

const SLOTS: u64 = 1024;

/// A filed deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// Whose.
    pub id: ConnId,
    /// Which tenant of that place.
    pub generation: u32,
    /// When it was filed for; a connection that has since been filed for another time ignores it.
    pub due: Ticks,
}

/// One worker's timers. Fires up to a slot (16 ms) late, never early.
#[derive(Debug)]
pub struct TimerWheel {
    slot: Span,
    near: Box<[Vec<Timer>]>,
    far: Box<[Vec<Timer>]>,
    /// Number of the slot to be fired next.
    next: u64,
    due: Vec<Timer>,
}

impl TimerWheel {
    /// An empty wheel that starts at `now`.
    pub fn new(rate: TickRate, now: Ticks) -> Self {
        let slot = Span(rate.millis(16).0.max(1));
        let turn = || (0..SLOTS).map(|_| Vec::new()).collect();
        Self {
            slot,
            near: turn(),
            far: turn(),
            next: now.0 / slot.0,
            due: Vec::new(),
        }
    }

    /// Files a deadline. Those beyond the far turn (4.6 hours) come due early and are filed again by then.
    pub fn file(&mut self, timer: Timer) {
        let at = (timer.due.0 / self.slot.0 + 1).max(self.next);
        if at - self.next < SLOTS {
            self.near[(at % SLOTS) as usize].push(timer);
        } else {
            let turn = (at / SLOTS).min(self.next / SLOTS + SLOTS - 1);
            self.far[(turn % SLOTS) as usize].push(timer);
        }
    }

    /// Takes one timer that is due at `now`, or `None`. The caller asks the connection for its true
    /// deadline and files it again if that is still to come.
    pub fn pop(&mut self, now: Ticks) -> Option<Timer> {
        while self.due.is_empty() {
            if self.next > now.0 / self.slot.0 {
                return None;
            }
            self.turn();
        }
        self.due.pop()
    }

    fn turn(&mut self) {
        let at = self.next;
        self.next += 1;
        if at.is_multiple_of(SLOTS) {
            let mut coming = std::mem::take(&mut self.far[(at / SLOTS % SLOTS) as usize]);
            self.next = at;
            for timer in coming.drain(..) {
                self.file(timer);
            }
            self.next = at + 1;
            self.far[(at / SLOTS % SLOTS) as usize] = coming;
        }
        std::mem::swap(&mut self.due, &mut self.near[(at % SLOTS) as usize]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::table::tests_support::any_id as id;
    use super::*;

    fn fired(wheel: &mut TimerWheel, now: Ticks) -> Vec<Ticks> {
        std::iter::from_fn(|| wheel.pop(now))
            .map(|timer| timer.due)
            .collect()
    }

    #[test]
    fn a_far_deadline_fires_in_its_second_not_before() {
        let rate = TickRate::NANOSECONDS;
        let mut wheel = TimerWheel::new(rate, Ticks(12345));
        let due = Ticks(12345) + rate.seconds(900);
        wheel.file(Timer {
            id: id(),
            generation: 0,
            due,
        });
        assert!(fired(&mut wheel, Ticks(due.0 - 1)).is_empty());
        assert_eq!(fired(&mut wheel, due + rate.millis(33)), [due]);
    }

    proptest! {
        #[test]
        fn every_deadline_within_reach_fires_once_and_no_earlier(
            start in 0u64..1 << 40,
            delays in prop::collection::vec(0u32..16_000_000, 1..60),
            step_ms in 1u32..100_000,
        ) {
            let rate = TickRate::new(1_000_000);
            let mut wheel = TimerWheel::new(rate, Ticks(start));
            for ms in &delays {
                wheel.file(Timer { id: id(), generation: 0, due: Ticks(start) + rate.millis(*ms) });
            }
            let (mut now, mut count) = (Ticks(start), 0);
            while count < delays.len() && now < Ticks(start) + rate.millis(16_200_000) {
                let before = now;
                now = now + rate.millis(step_ms);
                for due in fired(&mut wheel, now) {
                    prop_assert!(due <= now);
                    prop_assert!(due + rate.millis(40) >= before, "fired too late");
                    count += 1;
                }
            }
            prop_assert_eq!(count, delays.len());
        }
    }
}
