//! What lists and statistics show.

use serde_json::Value;
use sluice_dataplane::command::PortId;
use sluice_dataplane::drop_reason::DropReason;
use sluice_dataplane::service::{Method, RealServerSpec, ServiceSpec};
use sluice_dataplane::stats::{Cell, HandedAs, WorkerCells};
use sluice_dataplane::steer::classes::PORTS;

use super::statistics::{self, Sums};
use super::{Controller, WorkerInfo};
use crate::api::{
    Drop, Drops, ErrorKind, HandedStats, LaddrList, LaddrRef, RealServer, RealServerList,
    RealServerOf, Service, ServiceFilter, ServiceList, ServiceRef, Stats, WorkerStats,
};
use crate::api_error::ApiError;
use crate::config::words;

impl Controller {
    pub(super) fn service_list(&self, filter: ServiceFilter) -> Result<Value, ApiError> {
        let chosen = self.chosen(filter)?;
        to_json(ServiceList {
            revision: self.revision(),
            services: chosen
                .map(|(service, spec)| self.service_view(service, spec))
                .collect(),
        })
    }

    pub(super) fn real_server_list(&self, filter: ServiceFilter) -> Result<Value, ApiError> {
        let chosen = self.chosen(filter)?;
        let of = |(service, spec): (ServiceRef, &'_ ServiceSpec)| -> Vec<RealServerOf> {
            let servers = spec.real_servers.iter();
            servers
                .map(|server| RealServerOf {
                    service,
                    real_server: self.server_view(spec, server),
                })
                .collect()
        };
        to_json(RealServerList {
            revision: self.revision(),
            real_servers: chosen.flat_map(of).collect(),
        })
    }

    pub(super) fn laddr_list(&self, filter: ServiceFilter) -> Result<Value, ApiError> {
        let chosen = self.chosen(filter)?;
        let laddrs = chosen.flat_map(|(service, spec)| {
            let laddrs = spec.laddrs.iter();
            laddrs.map(move |&address| LaddrRef { service, address })
        });
        to_json(LaddrList {
            laddrs: laddrs.collect(),
        })
    }

    pub(super) fn stats(&mut self) -> Result<Value, ApiError> {
        let mut ports = (self.ports)();
        if self.workers.len() > 1 {
            for (id, port) in (0..).map(PortId).zip(&mut ports) {
                port.handed = Some(handed_view(id, port.rx, self.publisher.cells()));
            }
        }
        let workers = self.workers.iter().zip(self.publisher.cells()).zip(0..);
        to_json(Stats {
            revision: self.revision(),
            uptime_s: self.now.as_secs(),
            totals: self.total.counters(self.total_sums()),
            rates: self.total.rates(),
            workers: workers
                .map(|((info, cells), id)| worker_view(id, info, cells))
                .collect(),
            ports,
            kernel: self.kernel.as_ref().map(|report| report()),
        })
    }

    pub(super) fn drops(&self) -> Result<Value, ApiError> {
        let packets = |reason: DropReason| -> u64 {
            let each = self.publisher.cells();
            each.map(|cells| cells.books.drops[reason as usize].read())
                .sum()
        };
        let drops = DropReason::ALL.iter().map(|&reason| Drop {
            reason: reason.name().to_owned(),
            description: reason.description().to_owned(),
            packets: packets(reason),
        });
        to_json(Drops {
            drops: drops.collect(),
        })
    }

    /// Over all services that ever were.
    pub(super) fn total_sums(&self) -> Sums {
        let each =
            (0..self.services.len()).map(|i| statistics::of_service(self.publisher.cells(), i));
        each.fold([0; 5], |sums, one| {
            std::array::from_fn(|i| sums[i].wrapping_add(one[i]))
        })
    }

    /// One service, or all, with their names.
    fn chosen(
        &self,
        filter: ServiceFilter,
    ) -> Result<impl Iterator<Item = (ServiceRef, &ServiceSpec)>, ApiError> {
        let one = filter
            .service
            .map(|service| self.config.service(&service))
            .transpose()?;
        let all = one
            .is_none()
            .then(|| self.config.services())
            .into_iter()
            .flatten();
        let specs = one.into_iter().chain(all);
        Ok(specs.map(|spec| (words::service_ref(&spec.key), &**spec)))
    }

    fn service_view(&self, service: ServiceRef, spec: &ServiceSpec) -> Service {
        let meter = self.services.at(spec.id.0);
        Service {
            service,
            scheduler: spec.scheduler.name().to_owned(),
            scheduler_flags: words::scheduler_flags(spec.scheduler, spec.scheduler_flags),
            persistence_s: spec
                .persistence
                .map_or(0, |persistence| persistence.timeout_s),
            persistence_mask: spec
                .persistence
                .and_then(|persistence| words::mask(persistence.mask)),
            persistence_engine: spec.engine.map(|engine| words::engine(engine).to_owned()),
            one_packet: spec.one_packet,
            vip_local: spec.vip_local,
            laddrs: spec.laddrs.clone(),
            laddrs_not_local: self.config.not_local(&spec.laddrs),
            stats: meter.counters(statistics::of_service(self.publisher.cells(), spec.id.0)),
            rates: meter.rates(),
            real_servers: spec
                .real_servers
                .iter()
                .map(|server| self.server_view(spec, server))
                .collect(),
        }
    }

    fn server_view(&self, spec: &ServiceSpec, server: &RealServerSpec) -> RealServer {
        let index = server.id.index;
        let meter = self.servers.at(index);
        let (active, inactive) = statistics::connections(self.publisher.cells(), index);
        RealServer {
            address: words::server_address(server),
            method: words::api_method(server.method),
            tunnel: words::api_tunnel(server.tunnel),
            weight: server.weight,
            upper_threshold: server.upper_threshold,
            lower_threshold: server.lower_threshold,
            active,
            inactive,
            templates: statistics::templates(self.publisher.cells(), index),
            local_ports_free: (server.method == Method::FullNat).then(|| {
                let all = spec.laddrs.len() as u64 * u64::from(PORTS);
                all.saturating_sub(active + inactive)
            }),
            stats: meter.counters(statistics::of_server(self.publisher.cells(), index)),
            rates: meter.rates(),
        }
    }
}

fn worker_view(id: u16, info: &WorkerInfo, cells: &WorkerCells) -> WorkerStats {
    let books = &cells.books;
    WorkerStats {
        worker: id,
        core: info.core,
        applied: cells.applied(),
        connections: cells.connections.read(),
        max_connections: info.max_connections as u64,
        rx: books.rx.read(),
        rx_bytes: books.rx_bytes.read(),
        from_kernel: books.from_kernel.read(),
        handed_in: books.handed_in.read(),
        generated: books.generated.read(),
        extra_fragments: books.extra_fragments.read(),
        tx: books.tx.read(),
        tx_bytes: books.tx_bytes.read(),
        punted: books.punted.read(),
        handed_out: books.handed_out.read(),
        merged: books.merged.read(),
        held: books.held.read(),
        dropped: books.drops.iter().map(Cell::read).sum(),
        polls: cells.polls.read(),
        busy_polls: cells.busy_polls.read(),
        ports_passed_over: cells.ports_passed_over.read(),
    }
}

/// Over all workers, of a port that has received so many.
fn handed_view<'a>(
    port: PortId,
    received: u64,
    workers: impl Iterator<Item = &'a WorkerCells>,
) -> HandedStats {
    let workers: Vec<_> = workers.map(|cells| cells.handed(port)).collect();
    let of = |kind| workers.iter().map(|cells| cells.of(kind).read()).sum();
    let mut handed = HandedStats {
        nat: of(HandedAs::Method(Method::Nat)),
        fullnat: of(HandedAs::Method(Method::FullNat)),
        dr: of(HandedAs::Method(Method::Dr)),
        tun: of(HandedAs::Method(Method::Tun)),
        other: of(HandedAs::Unknown),
        to_send: of(HandedAs::Finished),
        share_ppm: 0,
    };
    let millionths = u128::from(handed.total()) * 1_000_000 / u128::from(received.max(1));
    handed.share_ppm = u64::try_from(millionths).unwrap_or(u64::MAX);
    handed
}

/// Any answer as JSON.
pub(super) fn to_json(answer: impl serde::Serialize) -> Result<Value, ApiError> {
    serde_json::to_value(answer)
        .map_err(|error| ApiError::new(ErrorKind::Internal, error.to_string()))
}
