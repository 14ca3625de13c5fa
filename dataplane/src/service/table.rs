//! A worker's view of services and real servers: kept by commands, read by packets.

mod among_others;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hashbrown::HashMap;

use among_others::{share, shared_load};

use super::{
    AddressFamily, Colleagues, Method, Protocol, RealServerSpec, RsId, Server, ServiceId,
    ServiceKey, ServiceSpec,
};
use crate::command::ServiceEdit;
use crate::conn::FlowKey;
use crate::egress::HopRef;
use crate::sched::{self, Pool, Request, Scheduler, Start};
use crate::stats::WorkerCells;
use crate::time::Ticks;

/// FTP's control port: its service also takes the data connections that clients open (`SEMANTICS.md` section 1).
pub(crate) const FTP: u16 = 21;

/// FTP's data port.
pub(crate) const FTP_DATA: u16 = 20;

/// Ports from here on may be those of passive FTP data connections.
const FIRST_UNPRIVILEGED: u16 = 1024;

type FastMap<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// All services of one worker.
#[derive(Debug)]
pub struct Services {
    /// By [`Protocol::with`].
    by_address: FastMap<u64, ServiceId>,
    by_mark: FastMap<u32, ServiceId>,
    /// Services on port 21: while there are none, nothing is FTP.
    ftp: u32,
    /// Services on port 0, which stands for every port.
    any_port: u32,
    /// How many NAT servers have this address, under a service of this protocol (`None`: of a mark).
    masqueraded: FastMap<(Option<Protocol>, Ipv4Addr, u16), u32>,
    /// How many services use a virtual address.
    vips: FastMap<Ipv4Addr, u32>,
    /// How many services use a local address.
    laddrs: FastMap<Ipv4Addr, u32>,
    services: Vec<Option<Service>>,
    count: usize,
    servers: Vec<Server>,
    cells: Arc<WorkerCells>,
    start: Start,
    colleagues: Option<Arc<Colleagues>>,
    /// A place in what all workers share that was taken for a connection which is to come.
    reserved: Option<u32>,
}

#[derive(Debug)]
struct Service {
    spec: Arc<ServiceSpec>,
    scheduler: Box<dyn Scheduler>,
    /// Places of servers whose counts changed since the last choice, for schedulers that follow them.
    changed: Vec<u32>,
    /// When other workers' counts are read again.
    next_fold: Ticks,
}

impl Services {
    /// No services, and room for as many services and servers as `cells` has.
    pub fn new(cells: Arc<WorkerCells>) -> Self {
        let services = cells.services.len();
        Self {
            by_address: FastMap::with_capacity_and_hasher(services, Default::default()),
            by_mark: FastMap::default(),
            ftp: 0,
            any_port: 0,
            masqueraded: FastMap::default(),
            vips: FastMap::with_capacity_and_hasher(services, Default::default()),
            laddrs: FastMap::default(),
            services: (0..services).map(|_| None).collect(),
            count: 0,
            servers: vec![Server::default(); cells.servers.len()],
            cells,
            start: Start::ALONE,
            colleagues: None,
            reserved: None,
        }
    }

    /// The service that a packet with this key and mark opens a connection to (`SEMANTICS.md` section 1): that of the mark, that of
    /// its port, FTP's for a data connection, that of every port.
    #[inline]
    pub fn lookup(&self, key: &FlowKey, mark: u32) -> Option<ServiceId> {
        let at = |port| {
            let address = key.protocol.with(key.dst, port);
            self.by_address.get(&address).copied()
        };
        let port = key.dst_port;
        let of_mark = || (mark != 0).then(|| self.by_mark.get(&mark).copied())?;
        let ftp_data = self.ftp > 0
            && key.protocol == Protocol::Tcp
            && (port == FTP_DATA || port >= FIRST_UNPRIVILEGED);
        of_mark()
            .or_else(|| at(port))
            .or_else(|| ftp_data.then(|| at(FTP))?)
            .or_else(|| (self.any_port > 0).then(|| at(0))?)
    }

    /// Whether packets need a mark at all: while there is no service of one, none does.
    #[inline]
    pub fn wants_marks(&self) -> bool {
        !self.by_mark.is_empty()
    }

    /// Whether this is the address and port of a NAT server for packets of that protocol.
    pub fn is_masqueraded(&self, protocol: Protocol, addr: Ipv4Addr, port: u16) -> bool {
        [Some(protocol), None]
            .iter()
            .any(|protocol| self.masqueraded.contains_key(&(*protocol, addr, port)))
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
        if self.colleagues.is_some() {
            return self.schedule_among_others(id, request);
        }
        self.choose(id, request)
    }

    fn choose(&mut self, id: ServiceId, request: &Request<'_>) -> Option<RealServerSpec> {
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

    /// What control said of the real server at this place, while it is in a service.
    pub fn real_server(&self, place: u32) -> Option<&RealServerSpec> {
        let server = &self.servers[place as usize];
        let service = self.services.get(server.service.0 as usize)?.as_ref()?;
        let real = service.spec.real_servers.get(server.place as usize)?;
        (server.available && real.id.index == place).then_some(real)
    }

    /// The state of the real server at this place. A place keeps its tenant as long as connections refer to it.
    #[inline]
    pub fn server_at(&self, place: u32) -> &Server {
        &self.servers[place as usize]
    }

    /// Notes the way to a server, for its next connection.
    #[inline]
    pub fn remember_hop(&mut self, place: u32, hop: HopRef) {
        self.servers[place as usize].hop = hop;
    }

    /// Counts a new connection of the server, inactive at first.
    pub fn bind(&mut self, place: u32) {
        let server = &mut self.servers[place as usize];
        server.inactive += 1;
        match shared_load(&self.colleagues, server, place) {
            Some(load) => {
                if self.reserved.take_if(|taken| *taken == place).is_none() {
                    load.enter(1, server.thresholds());
                }
                server.set_overloaded(load.overloaded());
            }
            None => server.reached(),
        }
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
        match shared_load(&self.colleagues, server, place) {
            Some(load) => {
                load.leave(1, server.thresholds());
                server.set_overloaded(load.overloaded());
            }
            None => server.fell(),
        }
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
        self.masquerade(&spec, old.as_ref().map(|old| &*old.spec), edit);
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
            _ => (
                sched::scheduler(spec.scheduler, &pool, self.start),
                Vec::new(),
            ),
        };
        let mut service = Service {
            spec,
            scheduler,
            changed,
            next_fold: Ticks(0),
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
            self.unmasquerade(service.spec.key, server);
        }
        for server in &service.spec.real_servers {
            let at = server.id.index;
            self.servers[at as usize].leave();
            self.publish(at);
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
        let server = &mut self.servers[at as usize];
        let cells = &self.cells.servers[at as usize];
        cells.active.set(u64::from(server.active));
        cells.inactive.set(u64::from(server.inactive));
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
            let before = shared_load(&self.colleagues, server, real.id.index)
                .map(|load| (load, server.thresholds()));
            server.set_spec(real);
            share(&self.colleagues, server, real.id.index, before);
        }
        if let (Some(old), ServiceEdit::ServerDeleted(id)) = (old, edit)
            && old.real_servers.iter().any(|real| real.id == id)
        {
            self.servers[id.index as usize].leave();
            self.publish(id.index);
        }
        for real in &spec.real_servers {
            self.publish(real.id.index);
        }
    }

    /// Keeps [`Self::is_masqueraded`] right, at the cost of what was edited.
    fn masquerade(&mut self, spec: &ServiceSpec, old: Option<&ServiceSpec>, edit: ServiceEdit) {
        let find = |spec: &ServiceSpec, id: RsId| {
            let mut servers = spec.real_servers.iter();
            servers.find(|real| real.id == id).copied()
        };
        match (old, edit) {
            (None, _) => {
                for real in &spec.real_servers {
                    self.masquerade_one(spec.key, real);
                }
            }
            (Some(old), ServiceEdit::ServerEdited(id) | ServiceEdit::ServerDeleted(id)) => {
                if let Some(real) = find(old, id) {
                    self.unmasquerade(spec.key, &real);
                }
                if let Some(real) = find(spec, id) {
                    self.masquerade_one(spec.key, &real);
                }
            }
            (Some(_), ServiceEdit::ServerAdded { id, .. }) => {
                if let Some(real) = find(spec, id) {
                    self.masquerade_one(spec.key, &real);
                }
            }
            (Some(_), ServiceEdit::Created | ServiceEdit::Edited) => {}
        }
    }

    fn masquerade_one(&mut self, service: ServiceKey, real: &RealServerSpec) {
        if let Some(key) = masquerade_key(service, real) {
            *self.masqueraded.entry(key).or_insert(0) += 1;
        }
    }

    fn unmasquerade(&mut self, service: ServiceKey, real: &RealServerSpec) {
        if let Some(key) = masquerade_key(service, real) {
            release(&mut self.masqueraded, key);
        }
    }

    fn list(&mut self, spec: &ServiceSpec) {
        for laddr in &spec.laddrs {
            *self.laddrs.entry(*laddr).or_insert(0) += 1;
        }
        match listed(spec) {
            Some(Listed::Address((protocol, addr, port))) => {
                self.by_address.insert(protocol.with(addr, port), spec.id);
                *self.vips.entry(addr).or_insert(0) += 1;
                self.ftp += u32::from(port == FTP);
                self.any_port += u32::from(port == 0);
            }
            Some(Listed::Mark(mark)) => {
                self.by_mark.insert(mark, spec.id);
            }
            None => {}
        }
    }

    fn unlist(&mut self, spec: &ServiceSpec) {
        for laddr in &spec.laddrs {
            release(&mut self.laddrs, *laddr);
        }
        match listed(spec) {
            Some(Listed::Address((protocol, addr, port))) => {
                self.by_address.remove(&protocol.with(addr, port));
                release(&mut self.vips, addr);
                self.ftp -= u32::from(port == FTP);
                self.any_port -= u32::from(port == 0);
            }
            Some(Listed::Mark(mark)) => {
                self.by_mark.remove(&mark);
            }
            None => {}
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
        self.servers[place as usize].set_overloaded(overloaded);
        self.counted(place);
    }

    fn publish(&self, place: u32) {
        let server = &self.servers[place as usize];
        let cells = &self.cells.servers[place as usize];
        cells.active.set(u64::from(server.active));
        cells.inactive.set(u64::from(server.inactive));
        let service = if server.available {
            u64::from(server.service.0) + 1
        } else {
            0
        };
        cells.service.set(service);
    }
}

/// Where a service is looked up.
enum Listed {
    Address((Protocol, Ipv4Addr, u16)),
    Mark(u32),
}

/// `None` for what no packet can belong to: a VIP that is not local, IPv6.
fn listed(spec: &ServiceSpec) -> Option<Listed> {
    match spec.key {
        ServiceKey::Address {
            protocol,
            addr: IpAddr::V4(addr),
            port,
        } if spec.vip_local => Some(Listed::Address((protocol, addr, port))),
        ServiceKey::Mark {
            mark,
            family: AddressFamily::V4,
        } => Some(Listed::Mark(mark)),
        ServiceKey::Address { .. } | ServiceKey::Mark { .. } => None,
    }
}

fn masquerade_key(
    service: ServiceKey,
    real: &RealServerSpec,
) -> Option<(Option<Protocol>, Ipv4Addr, u16)> {
    let IpAddr::V4(addr) = real.addr else {
        return None;
    };
    let protocol = match service {
        ServiceKey::Address { protocol, .. } => Some(protocol),
        ServiceKey::Mark { .. } => None,
    };
    (real.method == Method::Nat).then_some((protocol, addr, real.port))
}

fn release<K: std::hash::Hash + Eq + Copy>(counts: &mut FastMap<K, u32>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}
