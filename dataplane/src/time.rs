//! Time on the packet path: ticks of the TSC, read once a burst (contract 6 of the design).
//!
//! Nothing here reads a clock. The worker's loop passes [`Ticks`] in; a replay passes whatever it likes.

use std::ops::{Add, Sub};

/// A moment, in ticks since an arbitrary start. Never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticks(pub u64);

/// How many ticks a second has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TickRate(u64);

impl TickRate {
    /// One tick a nanosecond: tests and replays.
    pub const NANOSECONDS: Self = Self(1_000_000_000);

    /// A rate of `hz` ticks a second; zero is taken as one.
    pub fn new(hz: u64) -> Self {
        Self(hz.max(1))
    }

    /// Ticks a second.
    pub fn hz(self) -> u64 {
        self.0
    }

    /// `seconds` as a span of ticks, saturating.
    pub fn seconds(self, seconds: u32) -> Span {
        Span(self.0.saturating_mul(u64::from(seconds)))
    }

    /// `ms` milliseconds as a span of ticks.
    pub fn millis(self, ms: u32) -> Span {
        Span((u128::from(self.0) * u128::from(ms) / 1000) as u64)
    }

    /// Whole seconds in `span`, rounded down.
    pub fn whole_seconds(self, span: Span) -> u64 {
        span.0 / self.0
    }

    /// Whole milliseconds in `span`, rounded down.
    pub fn whole_millis(self, span: Span) -> u64 {
        (u128::from(span.0) * 1000 / u128::from(self.0)) as u64
    }
}

/// A length of time in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub u64);

impl Add<Span> for Ticks {
    type Output = Self;

    fn add(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Sub for Ticks {
    type Output = Span;

    /// The time from `earlier` to `self`; zero if it is the other way round.
    fn sub(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_rounded_down_to_whole_seconds() {
        let rate = TickRate::new(2_600_000_000);
        let start = Ticks(5);
        let deadline = start + rate.seconds(60);
        assert_eq!(rate.whole_seconds(deadline - start), 60);
        assert_eq!(rate.whole_seconds(deadline - Ticks(6)), 59);
        assert_eq!(rate.whole_millis(rate.millis(1500)), 1500);
    }

    #[test]
    fn time_that_ran_backwards_counts_as_none() {
        assert_eq!(Ticks(3) - Ticks(5), Span(0));
    }
}
