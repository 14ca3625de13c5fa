//! How long packets take, in HDR histograms.
//!
//! *Corrected*: from the moment when the packet was to be sent. A generator that was kept from sending by what it measures would
//! otherwise leave out just those packets that would have waited (coordinated omission). *Raw*: from when it was sent.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use sluice_dataplane::time::{TickRate, Ticks};

use super::flight::Departure;

/// Significant digits.
const DIGITS: u8 = 3;

/// Longest time told apart, in seconds.
const LONGEST_S: u32 = 60;

/// Times of packets, in ticks.
#[derive(Debug)]
pub(crate) struct Latency {
    corrected: Histogram<u64>,
    raw: Histogram<u64>,
    rate: TickRate,
}

impl Latency {
    /// None yet.
    pub(crate) fn new(rate: TickRate) -> Self {
        let longest = rate.seconds(LONGEST_S).0.max(2);
        let histogram = || match Histogram::new_with_max(longest, DIGITS) {
            Ok(histogram) => histogram,
            Err(_) => unreachable!("2 or more ticks and three digits are what a histogram takes"),
        };
        Self {
            corrected: histogram(),
            raw: histogram(),
            rate,
        }
    }

    /// A packet has arrived.
    #[inline]
    pub(crate) fn record(&mut self, packet: &Departure, now: Ticks) {
        self.corrected.saturating_record((now - packet.intended).0);
        self.raw.saturating_record((now - packet.sent).0);
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.corrected.reset();
        self.raw.reset();
    }

    /// What there was; `None` if nothing.
    pub(crate) fn summary(&self) -> Option<LatencySummary> {
        (!self.corrected.is_empty()).then(|| LatencySummary {
            corrected: Percentiles::of(&self.corrected, self.rate),
            raw: Percentiles::of(&self.raw, self.rate),
        })
    }
}

/// Times of the packets of a run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// From when the packets were to be sent.
    pub corrected: Percentiles,
    /// From when they were sent.
    pub raw: Percentiles,
}

/// Microseconds within which such a share of packets came.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// Packets.
    pub packets: u64,
    /// The shortest.
    pub min_us: f64,
    /// The average.
    pub mean_us: f64,
    /// Half.
    pub p50_us: f64,
    /// 90 %.
    pub p90_us: f64,
    /// 99 %.
    pub p99_us: f64,
    /// 99.9 %.
    pub p99_9_us: f64,
    /// 99.99 %.
    pub p99_99_us: f64,
    /// All.
    pub max_us: f64,
}

impl Percentiles {
    fn of(histogram: &Histogram<u64>, rate: TickRate) -> Self {
        let us = |ticks: f64| ticks * 1e6 / rate.hz() as f64;
        let within = |share| us(histogram.value_at_quantile(share) as f64);
        Self {
            packets: histogram.len(),
            min_us: us(histogram.min() as f64),
            mean_us: us(histogram.mean()),
            p50_us: within(0.5),
            p90_us: within(0.9),
            p99_us: within(0.99),
            p99_9_us: within(0.999),
            p99_99_us: within(0.9999),
            max_us: us(histogram.max() as f64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pktgen::tuple::Endpoint;

    #[test]
    fn a_stall_of_the_generator_shows_in_the_corrected_times_only() {
        let mut latency = Latency::new(TickRate::NANOSECONDS);
        assert!(latency.summary().is_none());
        for number in 0..1000 {
            let intended = Ticks(number * 1000);
            // From the 900th on nothing could be sent for a while.
            let sent = if number < 900 {
                intended
            } else {
                Ticks(10_000_000)
            };
            let packet = Departure {
                number,
                flow: 0,
                client: Endpoint::default(),
                end: 0,
                intended,
                sent,
            };
            latency.record(&packet, Ticks(sent.0 + 5000));
        }
        let LatencySummary { corrected, raw } = latency.summary().unwrap();
        assert_eq!(raw.packets, 1000);
        assert!((raw.max_us - 5.0).abs() < 0.01, "{raw:?}");
        assert!((corrected.p50_us - 5.0).abs() < 0.01, "{corrected:?}");
        assert!((corrected.max_us - 9105.0).abs() < 10.0, "{corrected:?}");
        assert!(corrected.p99_us > 9000.0, "{corrected:?}");
    }
}
