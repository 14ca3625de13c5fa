//! One worker's choices in view of the others': their connections count, and thresholds hold for all together (contracts 1 and 3 of
//! the design).

use std::sync::Arc;

use super::Services;
use crate::command::WorkerId;
use crate::sched::{Request, Start};
use crate::service::colleagues::{SharedLoad, Thresholds};
use crate::service::{Colleagues, RealServerSpec, Server, ServiceId};
use crate::time::Span;

/// Counts of others that are read in a millisecond: with more of them they are read less often.
const READS_A_FOLD: usize = 2048;

/// Thresholds of a server that this worker has yet to hear of: they leave the overload as it is.
const UNHEARD: Thresholds = (u32::MAX, 0);

impl Services {
    /// There are these workers, of which this is one. To be told before the first service.
    pub fn meet(&mut self, me: WorkerId, colleagues: Arc<Colleagues>) {
        self.start = Start {
            worker: me.0,
            workers: colleagues.workers(),
        };
        self.colleagues = (colleagues.workers() > 1).then_some(colleagues);
    }

    /// As [`Self::schedule`], in view of other workers' connections and without exceeding any threshold together.
    #[cold]
    #[inline(never)]
    pub(super) fn schedule_among_others(
        &mut self,
        id: ServiceId,
        request: &Request<'_>,
    ) -> Option<RealServerSpec> {
        self.release_reserved();
        self.fold(id, request);
        let most = self.spec(id)?.real_servers.len();
        for _ in 0..=most {
            let chosen = self.choose(id, request)?;
            let place = chosen.id.index;
            let server = &mut self.servers[place as usize];
            // Some schedulers take no notice of overload.
            let Some(load) =
                shared_load(&self.colleagues, server, place).filter(|_| !server.overloaded())
            else {
                return Some(chosen);
            };
            if load.try_enter(server.thresholds()) {
                self.reserved = Some(place);
                return Some(chosen);
            }
            server.set_overloaded(true);
            self.counted(place);
        }
        None
    }

    /// Gives a place back that no connection came to take.
    pub fn release_reserved(&mut self) {
        if let Some(place) = self.reserved.take()
            && let Some(colleagues) = &self.colleagues
        {
            let server = &self.servers[place as usize];
            let thresholds = if server.shared {
                server.thresholds()
            } else {
                UNHEARD
            };
            colleagues.load(place).leave(1, thresholds);
        }
    }

    /// Whether a place is taken for a connection of this server: from now on that is another worker's.
    pub fn give_reserved(&mut self, place: u32) -> bool {
        self.reserved.take_if(|taken| *taken == place).is_some()
    }

    /// Another worker took a place for a connection of this server, which comes now.
    pub fn take_reserved(&mut self, place: u32) {
        self.release_reserved();
        self.reserved = Some(place);
    }

    /// Takes over what other workers have of the service's servers, if that is due.
    fn fold(&mut self, id: ServiceId, request: &Request<'_>) {
        let (Some(colleagues), Some(Some(service))) =
            (&self.colleagues, self.services.get_mut(id.0 as usize))
        else {
            return;
        };
        if request.now < service.next_fold {
            return;
        }
        let spec = &service.spec;
        let reads = spec.real_servers.len() * usize::from(colleagues.workers());
        let again = Span(request.rate.millis(1).0 * reads.div_ceil(READS_A_FOLD).max(1) as u64);
        service.next_fold = request.now + again;
        for (at, real) in spec.real_servers.iter().enumerate() {
            let place = real.id.index;
            let server = &mut self.servers[place as usize];
            let before = (server.others, server.overloaded());
            if server.followed {
                server.others = colleagues.others(WorkerId(self.start.worker), place);
            }
            if server.shared {
                server.set_overloaded(colleagues.load(place).overloaded());
            }
            let changed = before != (server.others, server.overloaded());
            if changed && server.followed && !server.changed {
                server.changed = true;
                service.changed.push(at as u32);
            }
        }
    }
}

/// The counter that all workers share of a server with thresholds.
pub(super) fn shared_load<'a>(
    colleagues: &'a Option<Arc<Colleagues>>,
    server: &Server,
    place: u32,
) -> Option<&'a SharedLoad> {
    let colleagues = colleagues.as_ref().filter(|_| server.shared)?;
    Some(colleagues.load(place))
}

/// After a server's thresholds changed: its connections here are counted in what all workers share from now on, or no more.
pub(super) fn share(
    colleagues: &Option<Arc<Colleagues>>,
    server: &mut Server,
    place: u32,
    before: Option<(&SharedLoad, Thresholds)>,
) {
    let Some(colleagues) = colleagues else {
        return;
    };
    let (load, now) = (colleagues.load(place), server.thresholds());
    server.shared = now.0 != 0;
    match before {
        None if server.shared => load.enter(server.total(), now),
        Some((load, before)) if !server.shared => load.leave(server.total(), before),
        _ => {}
    }
    if server.shared && before.is_none_or(|(_, before)| before != now) {
        load.retune(now);
    }
    if server.shared {
        server.set_overloaded(load.overloaded());
    }
}
