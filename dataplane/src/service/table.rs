//! A worker's view of services and real servers: kept by commands, read by packets.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hashbrown::HashMap;

use super::{Protocol, RealServerSpec, Server, ServiceId, ServiceKey, ServiceSpec};
use crate::command::ServiceEdit;
use crate::conn::FlowKey;
use crate::sched::{self, Pool, Request, Scheduler};
use crate::stats::WorkerCells;

type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// All services of one worker.
#[derive(Debug)]
pub struct Services {
    by_address: FastMap<(Protocol, Ipv4Addr, u16), ServiceId>,
    /// How many services use a virtual address.
    vips: FastMap<Ipv4Addr, u32>,
    /// How many services use a local address.
    laddrs: FastMap<Ipv4Addr, u32>,
    services: Vec<Option<Service>>,
    count: usize,
    servers: Vec<Server>,
    cells: Arc<WorkerCells>,
}

#[derive(Debug)]
struct Service {
    spec: Arc<ServiceSpec>,
    scheduler: Box<dyn Scheduler>,
    /// Places of servers whose counts changed since the last choice, for schedulers that follow them.
    changed: Vec<u32>,
}

impl Services {
    /// No services, and room for as many services and servers as `cells` has.
    pub fn new(cells: Arc<WorkerCells>) -> Self {
        let services = cells.services.len();
        Self {
            by_address: FastMap::with_capacity_and_hasher(services, Default::default()),
            vips: FastMap::with_capacity_and_hasher(services, Default::default()),
            laddrs: FastMap::default(),
            services: (0..services).map(|_| None).collect(),
            count: 0,
            servers: vec![Server::default(); cells.servers.len()],
            cells,
        }
    }

    /// The service that a packet with this key opens a connection to (`SEMANTICS.md` section 1).
    #[inline]
    pub fn lookup(&self, key: &FlowKey) -> Option<ServiceId> {
        self.by_address
            .get(&(key.protocol, key.dst, key.dst_port))
            .copied()
    }

    /// Whether there is no service at all: then sluice stands aside for everything (`SEMANTICS.md` section 1).
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether some service has this virtual address.
    pub fn is_vip(&self, addr: Ipv4Addr) -> bool {
        self.vips.contains_key(&addr)
    }

    /// Whether some service has this local address.
    pub fn is_laddr(&self, addr: Ipv4Addr) -> bool {
        self.laddrs.contains_key(&addr)
    }

    /// What control said of a service.
    pub fn spec(&self, id: ServiceId) -> Option<&Arc<ServiceSpec>> {
        self.services
            .get(id.0 as usize)?
            .as_ref()
            .map(|service| &service.spec)
    }

    /// Chooses a real server of the service for a new connection.
    pub fn schedule(&mut self, id: ServiceId, request: &Request<'_>) -> Option<RealServerSpec> {
        let service = self.services.get_mut(id.0 as usize)?.as_mut()?;
        for place in service.changed.drain(..) {
            let server = &service.spec.real_servers[place as usize];
            self.servers[server.id.index as usize].changed = false;
            let pool = Pool::new(&service.spec, &self.servers);
            service.scheduler.counted(&pool, place as usize);
        }
        let pool = Pool::new(&service.spec, &self.servers);
        let place = service.scheduler.choose(&pool, request)?;
        service.spec.real_servers.get(place).copied()
    }

    /// The state of the real server at this place. A place keeps its tenant as long as connections refer to it.
    #[inline]
    pub fn server_at(&self, place: u32) -> &Server {
        &self.servers[place as usize]
    }

    /// Counts a new connection of the server, inactive at first.
    pub fn bind(&mut self, place: u32) {
        let server = &mut self.servers[place as usize];
        server.inactive += 1;
        server.reached();
        self.counted(place);
    }

    /// Counts the end of a connection that was active or not.
    pub fn unbind(&mut self, place: u32, active: bool) {
        let server = &mut self.servers[place as usize];
        let count = if active {
            &mut server.active
        } else {
            &mut server.inactive
        };
        *count = count.saturating_sub(1);
        server.fell();
        self.counted(place);
    }

    /// Counts a connection that became active or inactive.
    pub fn set_active(&mut self, place: u32, active: bool) {
        let server = &mut self.servers[place as usize];
        let (from, to) = if active {
            (&mut server.inactive, &mut server.active)
        } else {
            (&mut server.active, &mut server.inactive)
        };
        *from = from.saturating_sub(1);
        *to += 1;
        self.counted(place);
    }

    /// The service as it is from now on.
    pub fn put(&mut self, spec: Arc<ServiceSpec>, edit: ServiceEdit) {
        let at = spec.id.0 as usize;
        if at >= self.services.len() {
            unreachable!("control numbers services below the agreed maximum");
        }
        let mut old = self.services[at].take();
        match &old {
            Some(old) => self.unlist(&old.spec),
            None => self.count += 1,
        }
        self.list(&spec);
        self.edit_servers(&spec, old.as_ref().map(|old| &*old.spec), edit);
        let pool = Pool::new(&spec, &self.servers);
        let (scheduler, changed) = match old.take() {
            Some(mut old) if old.spec.scheduler == spec.scheduler => {
                // The service's own attributes are no scheduler's business.
                if !matches!(edit, ServiceEdit::Edited) {
                    old.scheduler.edited(&old.spec.real_servers, &pool, edit);
                }
                (old.scheduler, old.changed)
            }
            _ => (sched::scheduler(spec.scheduler, &pool), Vec::new()),
        };
        let mut service = Service {
            spec,
            scheduler,
            changed,
        };
        self.follow(&mut service);
        self.services[at] = Some(service);
    }

    /// Forgets a service. Its servers are gone for the connections that remain.
    pub fn delete(&mut self, id: ServiceId) {
        let Some(service) = self.services.get_mut(id.0 as usize).and_then(Option::take) else {
            return;
        };
        self.count -= 1;
        self.unlist(&service.spec);
        for server in &service.spec.real_servers {
            let server = &mut self.servers[server.id.index as usize];
            server.available = false;
            server.followed = false;
            server.changed = false;
        }
    }

    /// Numbers the servers anew and makes room to note changes of each. Changes so far are noted again: the scheduler may
    /// or may not have seen them.
    fn follow(&mut self, service: &mut Service) {
        let followed = sched::follows_counts(service.spec.scheduler);
        let real_servers = &service.spec.real_servers;
        service.changed.clear();
        if followed {
            service.changed.reserve(real_servers.len());
        }
        for (place, real) in real_servers.iter().enumerate() {
            let server = &mut self.servers[real.id.index as usize];
            server.place = place as u32;
            server.followed = followed;
            server.changed &= followed;
            if server.changed {
                service.changed.push(server.place);
            }
        }
    }

    /// Connections of a server came, went, or became active or inactive.
    fn counted(&mut self, at: u32) {
        self.publish(at);
        let server = &mut self.servers[at as usize];
        if server.followed && !server.changed {
            server.changed = true;
            let (service, place) = (server.service, server.place);
            if let Some(Some(service)) = self.services.get_mut(service.0 as usize) {
                service.changed.push(place);
            }
        }
    }

    fn edit_servers(&mut self, spec: &ServiceSpec, old: Option<&ServiceSpec>, edit: ServiceEdit) {
        for real in &spec.real_servers {
            let server = &mut self.servers[real.id.index as usize];
            let revived =
                matches!(edit, ServiceEdit::ServerAdded { id, revived: true } if id == real.id);
            if server.generation != real.id.generation || !server.available && !revived {
                // A new tenant. Connections of the one before keep its generation and find it gone.
                *server = Server::new(real.id.generation);
            }
            server.available = true;
            server.service = spec.id;
            server.set_spec(real);
        }
        if let (Some(old), ServiceEdit::ServerDeleted(id)) = (old, edit)
            && old.real_servers.iter().any(|real| real.id == id)
        {
            let server = &mut self.servers[id.index as usize];
            server.available = false;
            server.followed = false;
            server.changed = false;
        }
        for real in &spec.real_servers {
            self.publish(real.id.index);
        }
    }

    fn list(&mut self, spec: &ServiceSpec) {
        for laddr in &spec.laddrs {
            *self.laddrs.entry(*laddr).or_insert(0) += 1;
        }
        if let (
            true,
            ServiceKey::Address {
                protocol,
                addr: IpAddr::V4(addr),
                port,
            },
        ) = (spec.vip_local, spec.key)
        {
            self.by_address.insert((protocol, addr, port), spec.id);
            *self.vips.entry(addr).or_insert(0) += 1;
        }
    }

    fn unlist(&mut self, spec: &ServiceSpec) {
        for laddr in &spec.laddrs {
            release(&mut self.laddrs, *laddr);
        }
        if let (
            true,
            ServiceKey::Address {
                protocol,
                addr: IpAddr::V4(addr),
                port,
            },
        ) = (spec.vip_local, spec.key)
        {
            self.by_address.remove(&(protocol, addr, port));
            release(&mut self.vips, addr);
        }
    }

    /// Sets a server's counts.
    #[cfg(test)]
    pub(crate) fn load(&mut self, place: u32, active: u32, inactive: u32) {
        let server = &mut self.servers[place as usize];
        (server.active, server.inactive) = (active, inactive);
        self.counted(place);
    }

    /// Sets or lifts a server's overload.
    #[cfg(test)]
    pub(crate) fn force_overloaded(&mut self, place: u32, overloaded: bool) {
        self.servers[place as usize].force_overloaded(overloaded);
        self.counted(place);
    }

    fn publish(&self, place: u32) {
        let server = &self.servers[place as usize];
        let cells = &self.cells.servers[place as usize];
        cells.active.set(u64::from(server.active));
        cells.inactive.set(u64::from(server.inactive));
    }
}

fn release(counts: &mut FastMap<Ipv4Addr, u32>, addr: Ipv4Addr) {
    if let Some(count) = counts.get_mut(&addr) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&addr);
        }
    }
}
