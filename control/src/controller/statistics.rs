//! Counters and rates as IPVS shows them (`SEMANTICS.md` section 9).
//!
//! Counters belong to the workers and only grow. A [`Meter`] remembers where its tenant's zero is, and smooths rates in
//! the kernel's fixed point. Zeroing moves that zero; the workers never hear of it.

use std::time::Duration;

use serde_json::Value;

use sluice_dataplane::service::ServiceSpec;
use sluice_dataplane::stats::{Cell, ServerCells, ServiceCells, Traffic, WorkerCells};
use tracing::info;

use super::view::to_json;
use super::{Controller, Peer};
use crate::api::{Applied, Counters, Rates, ServiceFilter};
use crate::api_error::ApiError;

/// How often rates are estimated.
pub(super) const ESTIMATE_PERIOD: Duration = Duration::from_secs(2);

/// Connections, packets in, packets out, bytes in, bytes out.
pub(super) type Sums = [u64; 5];

/// The kernel's fixed point for each of [`Sums`]: bits behind the point, and what is added before rounding down.
const POINT: [(u32, u64); 5] = [(10, 511), (10, 511), (10, 511), (5, 15), (5, 15)];

/// One tenant's zero, and its rates.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    zero: Sums,
    last: Sums,
    average: Sums,
}

impl Meter {
    /// Starts at zero while the workers' counters stand at `now`.
    pub(super) fn starting_at(now: Sums) -> Self {
        Self {
            zero: now,
            last: now,
            average: [0; 5],
        }
    }

    /// What has been counted since the start.
    pub(super) fn counters(&self, now: Sums) -> Counters {
        let [conns, in_packets, out_packets, in_bytes, out_bytes] =
            std::array::from_fn(|i| now[i].wrapping_sub(self.zero[i]));
        Counters {
            conns,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
        }
    }

    /// One step of smoothing, each [`ESTIMATE_PERIOD`]: a quarter of the way to the rate of the last period.
    pub(super) fn estimate(&mut self, now: Sums) {
        for (i, (bits, _)) in POINT.into_iter().enumerate() {
            // Per second, with `bits` behind the point: the period is two seconds.
            let rate = now[i].wrapping_sub(self.last[i]) << (bits - 1);
            let step = (rate as i64).wrapping_sub(self.average[i] as i64) >> 2;
            self.average[i] = self.average[i].wrapping_add_signed(step);
        }
        self.last = now;
    }

    /// The rates, rounded as the kernel rounds them.
    pub(super) fn rates(&self) -> Rates {
        let [cps, in_pps, out_pps, in_bps, out_bps] = std::array::from_fn(|i| {
            let (bits, half) = POINT[i];
            (self.average[i] + half) >> bits
        });
        Rates {
            cps,
            in_pps,
            out_pps,
            in_bps,
            out_bps,
        }
    }
}

/// Meters by place, for as many places as were ever used.
#[derive(Debug, Default)]
pub(super) struct Meters(Vec<Meter>);

impl Meters {
    /// A new tenant at this place.
    pub(super) fn start(&mut self, index: u32, now: Sums) {
        let index = index as usize;
        if self.0.len() <= index {
            self.0.resize(index + 1, Meter::default());
        }
        self.0[index] = Meter::starting_at(now);
    }

    /// The meter at this place.
    pub(super) fn at(&self, index: u32) -> Meter {
        self.0.get(index as usize).copied().unwrap_or_default()
    }

    /// The meter at this place, to step it.
    pub(super) fn at_mut(&mut self, index: u32) -> Option<&mut Meter> {
        self.0.get_mut(index as usize)
    }

    /// How many places were ever used.
    pub(super) fn len(&self) -> u32 {
        self.0.len() as u32
    }
}

impl Controller {
    /// `service_zero`: what has been counted so far is the new zero, and rates begin at nothing. Of all services it is the totals,
    /// too. No worker is told, so the revision stays.
    pub(super) fn service_zero(
        &mut self,
        filter: ServiceFilter,
        peer: &Peer,
    ) -> Result<Value, ApiError> {
        let Self {
            config,
            publisher,
            services,
            servers,
            ..
        } = self;
        let mut zero = |spec: &ServiceSpec| {
            let now = of_service(publisher.cells(), spec.id.0);
            services.start(spec.id.0, now);
            for index in spec.real_servers.iter().map(|server| server.id.index) {
                servers.start(index, of_server(publisher.cells(), index));
            }
        };
        match &filter.service {
            Some(service) => zero(config.service(service)?),
            None => {
                config.services().for_each(|spec| zero(spec));
                self.total = Meter::starting_at(self.total_sums());
            }
        }
        info!(who = %peer, service = ?filter.service, "service_zero");
        to_json(Applied {
            revision: self.revision(),
            warnings: Vec::new(),
        })
    }
}

/// In the order of [`Sums`].
fn all<'a>(conns: &'a Cell, inward: &'a Traffic, outward: &'a Traffic) -> [&'a Cell; 5] {
    [
        conns,
        &inward.packets,
        &outward.packets,
        &inward.bytes,
        &outward.bytes,
    ]
}

/// A service's counters over all workers.
pub(super) fn of_service<'a>(cells: impl Iterator<Item = &'a WorkerCells>, index: u32) -> Sums {
    sum(cells
        .filter_map(|worker| worker.services.get(index as usize))
        .map(|cell| {
            let ServiceCells {
                conns,
                traffic: [inward, outward],
            } = &**cell;
            all(conns, inward, outward)
        }))
}

/// A real server's counters over all workers.
pub(super) fn of_server<'a>(cells: impl Iterator<Item = &'a WorkerCells>, index: u32) -> Sums {
    sum(cells
        .filter_map(|worker| worker.servers.get(index as usize))
        .map(|cell| {
            let ServerCells {
                conns,
                traffic: [inward, outward],
                ..
            } = &**cell;
            all(conns, inward, outward)
        }))
}

/// A real server's connections over all workers: active, inactive.
pub(super) fn connections<'a>(
    cells: impl Iterator<Item = &'a WorkerCells>,
    index: u32,
) -> (u64, u64) {
    let servers = cells.filter_map(|worker| worker.servers.get(index as usize));
    servers.fold((0, 0), |(active, inactive), cell| {
        (active + cell.active.read(), inactive + cell.inactive.read())
    })
}

/// A real server's persistence templates over all workers.
pub(super) fn templates<'a>(cells: impl Iterator<Item = &'a WorkerCells>, index: u32) -> u64 {
    let servers = cells.filter_map(|worker| worker.servers.get(index as usize));
    servers.map(|cell| cell.templates.read()).sum()
}

fn sum<'a>(cells: impl Iterator<Item = [&'a Cell; 5]>) -> Sums {
    cells.fold([0; 5], |sums, cells| {
        std::array::from_fn(|i| sums[i].wrapping_add(cells[i].read()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_decay_as_the_recorded_kernel_did() {
        // 300 packets within one interval read 37, then 21 and 12 at steps of four seconds.
        let mut meter = Meter::starting_at([0; 5]);
        let now = [0, 300, 0, 0, 0];
        meter.estimate(now);
        let mut seen = vec![meter.rates().in_pps];
        for _ in 0..2 {
            meter.estimate(now);
            meter.estimate(now);
            seen.push(meter.rates().in_pps);
        }
        assert_eq!(seen, [37, 21, 12]);
    }

    #[test]
    fn a_steady_rate_is_reached_and_given_in_bytes() {
        let mut meter = Meter::default();
        for step in 1..=60 {
            meter.estimate([step * 20, step * 2000, 0, step * 2_000_000, 0]);
        }
        let rates = meter.rates();
        assert_eq!(
            (rates.cps, rates.in_pps, rates.in_bps),
            (10, 1000, 1_000_000)
        );
    }

    #[test]
    fn a_new_tenant_starts_at_zero() {
        let mut meters = Meters::default();
        meters.start(3, [5, 50, 40, 500, 400]);
        let counters = meters.at(3).counters([6, 52, 40, 510, 400]);
        assert_eq!(
            (counters.conns, counters.in_packets, counters.in_bytes),
            (1, 2, 10)
        );
        assert_eq!(meters.len(), 4);
    }
}
