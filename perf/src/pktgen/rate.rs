//! How fast packets are sent, and when each one is due.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use sluice_dataplane::time::{Span, TickRate, Ticks};

/// A rate that cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no rate: give packets a second (250k, 1.5M), a ramp (10k..1M), or max")]
pub(crate) struct RateError(String);

/// Packets a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rate {
    /// As many as the port takes.
    Max,
    /// Always so many.
    Fixed(f64),
    /// From so many at the start to so many at the end, evenly.
    Ramp(f64, f64),
}

impl Rate {
    /// The average over a run; `None` if it depends on the port.
    pub(crate) fn mean(self) -> Option<f64> {
        match self {
            Self::Max => None,
            Self::Fixed(rate) => Some(rate),
            Self::Ramp(from, to) => Some(f64::midpoint(from, to)),
        }
    }

    /// So many times as fast.
    pub(crate) fn times(self, factor: f64) -> Self {
        match self {
            Self::Max => Self::Max,
            Self::Fixed(rate) => Self::Fixed(rate * factor),
            Self::Ramp(from, to) => Self::Ramp(from * factor, to * factor),
        }
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let error = || RateError(text.to_owned());
        if text.eq_ignore_ascii_case("max") {
            return Ok(Self::Max);
        }
        match text.split_once("..") {
            Some((from, to)) => Ok(Self::Ramp(
                number(from).ok_or_else(error)?,
                number(to).ok_or_else(error)?,
            )),
            None => Ok(Self::Fixed(number(text).ok_or_else(error)?)),
        }
    }
}

/// `250`, `250k`, `1.5M`: positive and finite.
fn number(text: &str) -> Option<f64> {
    let (digits, factor) = match text.as_bytes().last()? {
        b'k' | b'K' => (&text[..text.len() - 1], 1e3),
        b'm' | b'M' => (&text[..text.len() - 1], 1e6),
        _ => (text, 1.0),
    };
    let rate = digits.parse::<f64>().ok()? * factor;
    (rate.is_finite() && rate > 0.0).then_some(rate)
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max => f.write_str("max"),
            Self::Fixed(rate) => write!(f, "{}", Pps(*rate)),
            Self::Ramp(from, to) => write!(f, "{}..{}", Pps(*from), Pps(*to)),
        }
    }
}

impl Serialize for Rate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Packets a second in words that [`Rate`] understands: `1.500M`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pps(pub(crate) f64);

impl fmt::Display for Pps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            rate if rate >= 1e6 => write!(f, "{:.3}M", rate / 1e6),
            rate if rate >= 1e4 => write!(f, "{:.1}k", rate / 1e3),
            rate => write!(f, "{rate:.0}"),
        }
    }
}

/// When each packet of a run is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    rate: Rate,
    start: Ticks,
    hz: f64,
    /// Seconds over which a ramp rises.
    length: f64,
}

impl Schedule {
    /// From `start` on, for a run of so many seconds.
    pub(crate) fn new(rate: Rate, start: Ticks, ticks: TickRate, length: f64) -> Self {
        Self {
            rate,
            start,
            hz: ticks.hz() as f64,
            length,
        }
    }

    /// Ticks a second.
    pub(crate) fn hz(&self) -> f64 {
        self.hz
    }

    /// How many packets are due by `now`. Always so many that the last of them is due by then.
    pub(crate) fn due(&self, now: Ticks) -> u64 {
        let t = (now - self.start).0 as f64 / self.hz;
        match self.rate {
            Rate::Max => u64::MAX,
            Rate::Fixed(rate) => (t * rate) as u64 + 1,
            Rate::Ramp(from, to) => {
                let t = t.min(self.length);
                (from * t + (to - from) * t * t / (2.0 * self.length)) as u64 + 1
            }
        }
    }

    /// When packet number `k`, from 0, is due; `now` if it is due as soon as it can be sent.
    pub(crate) fn when(&self, k: u64, now: Ticks) -> Ticks {
        let k = k as f64;
        let seconds = match self.rate {
            Rate::Max => return now,
            Rate::Fixed(rate) => k / rate,
            Rate::Ramp(from, to) => {
                // t in k = from·t + growth·t²/2, in the form that does not fail where growth is nothing.
                let growth = (to - from) / self.length;
                2.0 * k / (from + (from * from + 2.0 * growth * k).max(0.0).sqrt())
            }
        };
        // What arithmetic makes of a moment that has come is no later than now.
        (self.start + Span((seconds * self.hz) as u64)).min(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Ticks = Ticks(1_000_000);

    fn schedule(rate: &str, seconds: f64) -> Schedule {
        Schedule::new(rate.parse().unwrap(), START, TickRate::NANOSECONDS, seconds)
    }

    fn at(seconds: f64) -> Ticks {
        START + Span((seconds * 1e9) as u64)
    }

    #[test]
    fn at_a_fixed_rate_each_packet_is_due_when_its_time_has_come() {
        let schedule = schedule("1k", 10.0);
        assert_eq!(schedule.due(START), 1);
        assert_eq!(schedule.due(at(2.0)), 2001);
        assert_eq!(schedule.when(2000, at(5.0)), at(2.0));
        assert_eq!(schedule.when(2000, at(1.9)), at(1.9));
    }

    #[test]
    fn a_ramp_sends_the_mean_of_its_ends_and_most_of_it_late() {
        for (rate, half) in [("100..300", 750), ("300..100", 1250), ("200..200", 1000)] {
            let schedule = schedule(rate, 10.0);
            assert_eq!(schedule.due(at(10.0)), 2001, "{rate}");
            assert_eq!(schedule.due(at(99.0)), 2001, "{rate}");
            assert_eq!(schedule.due(at(5.0)), half + 1, "{rate}");
            for k in [0, 1, 2, 777, 1999] {
                let when = schedule.when(k, at(10.0));
                assert!(schedule.due(when + Span(10)) > k, "{rate} {k}");
                assert!(
                    when == START || schedule.due(when - START_MARGIN) <= k,
                    "{rate} {k}"
                );
            }
        }
    }

    /// Arithmetic with fractions may be off by so much.
    const START_MARGIN: Margin = Margin(10);

    struct Margin(u64);

    impl std::ops::Sub<Margin> for Ticks {
        type Output = Ticks;

        fn sub(self, margin: Margin) -> Ticks {
            Ticks(self.0 - margin.0)
        }
    }

    #[test]
    fn rates_are_read_as_they_are_written() {
        assert_eq!("1.5M".parse(), Ok(Rate::Fixed(1_500_000.0)));
        assert_eq!("10k..1M".parse(), Ok(Rate::Ramp(10_000.0, 1_000_000.0)));
        assert_eq!("max".parse(), Ok(Rate::Max));
        for bad in ["", "0", "-1", "x", "1..", "k", "inf", "1G"] {
            assert!(bad.parse::<Rate>().is_err(), "{bad}");
        }
        assert_eq!("250k".parse::<Rate>().unwrap().to_string(), "250.0k");
    }
}
