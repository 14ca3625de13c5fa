//! Time on the packet path: ticks of the TSC, read once a burst (contract 6 of the design).
//!
//! Nothing here reads a clock. The worker's loop passes [`Ticks`] in; a replay passes whatever it likes. Connections
//! keep time coarsely, in [`Grain`]s of two to four milliseconds (the kernel's tick), so that a moment fits 32 bits.

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

/// Turns ticks into [`Grain`]s: the largest power of two of ticks that is no more than four milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrainRate {
    rate: TickRate,
    shift: u32,
}

impl GrainRate {
    /// For ticks of this rate.
    pub fn new(rate: TickRate) -> Self {
        Self {
            rate,
            shift: rate.millis(4).0.max(1).ilog2(),
        }
    }

    /// The grain that `now` is in.
    #[inline]
    pub fn at(self, now: Ticks) -> Grain {
        Grain(now.0 >> self.shift)
    }

    /// At least `span`, in grains, saturating at 2^31.
    pub fn at_least(self, span: Span) -> u32 {
        u32::try_from((span.0 >> self.shift) + 1)
            .unwrap_or(u32::MAX)
            .min(1 << 31)
    }

    /// So many grains in whole milliseconds, rounded down.
    pub fn millis(self, grains: u32) -> u64 {
        self.rate
            .whole_millis(Span(u64::from(grains) << self.shift))
    }
}

/// A moment to within four milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Grain(pub u64);

impl Grain {
    /// Its low 32 bits, enough to tell moments less than 50 days apart.
    #[inline]
    pub fn short(self) -> u32 {
        self.0 as u32
    }

    /// Grains since `moment`, a [`Grain::short`] of the past.
    #[inline]
    pub fn since(self, moment: u32) -> u32 {
        self.short().wrapping_sub(moment)
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

    #[test]
    fn grains_are_never_short_of_the_span_they_stand_for() {
        for hz in [1, 1000, 1_000_000, 1_000_000_000, 2_593_905_000] {
            let rate = TickRate::new(hz);
            let grains = GrainRate::new(rate);
            let span = rate.seconds(60);
            let start = Ticks(u64::from(u32::MAX) * 77);
            let end = start + span;
            assert!(
                grains.at(end).since(grains.at(start).short()) <= grains.at_least(span),
                "{hz}"
            );
            assert!(grains.millis(grains.at_least(span)) >= 60_000, "{hz}");
        }
        assert_eq!(GrainRate::new(TickRate::NANOSECONDS).millis(1000), 2097);
    }
}
