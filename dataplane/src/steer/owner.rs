//! Whose connection a packet is of, computed by every worker alike from the packet and the services (contract 4 of the design).
//!
//! | the packet | its owner |
//! | --- | --- |
//! | to a service that has a NAT server | [`Steering::owner_of_client`] of its source |
//! | to any service, by a port that does not spread packets over all workers | the same |
//! | from a NAT server | [`Steering::owner_of_client`] of its destination |
//! | from a FULLNAT server to a local address | [`Steering::owner_of_reply`] |
//! | any other | whoever received it |
//!
//! What NAT hands over where NICs hash both ends: the Toeplitz hash is linear over XOR, so a client's packet comes in by the entry of its
//! owner XOR a constant of the virtual address and port, and a reply by that entry XOR a constant of the server's. Clients and ports
//! lie evenly over the entries, under a symmetric key as under any other, but each of these constants moves all of them by the same
//! bits: the share is one draw for each service and server, not for each connection. Among `n` workers its mean over addresses is `1 -
//! 1/n`. One draw may lie far from that, as `entry % n` keeps low bits together: with a power of two of workers it is nothing or all,
//! with three of them a half to all (0.78 of the packets in `make scale` with 128 entries). No key changes that.
//!
//! Connections outlive what they were made by: a service that ever had a NAT server is steered as one for as long as sluice runs,
//! even deleted and made again. That costs hand-offs where the last NAT server is gone for good, which `stats` counts under NAT until a
//! restart, and loses no packet. It is not enough to wait until the NAT connections have gone. Those by other methods, made meanwhile,
//! are with the owners of their clients as well; and workers hear of a change one after the other, so that a connection which one
//! hands over as it opens would be kept, and not found, by the same worker a moment later.

use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use hashbrown::HashSet;

use super::classes::FIRST_PORT;
use super::{Packet, Steering};
use crate::command::{Census, PortId, ServiceEdit, WorkerId};
use crate::conn::template::TemplateKey;
use crate::conn::{Conn, Endpoint, Ends, FlowKey};
use crate::service::{Method, RealServerSpec, ServiceKey, ServiceSpec};

/// Who owns a connection, and what follows for how it is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Who.
    pub worker: WorkerId,
    /// The method because of which it is not just whoever receives the packets; `None` if that is the port's doing.
    pub method: Option<Method>,
}

/// What one worker knows of who owns what. All workers that were told the same services say the same.
#[derive(Debug)]
pub struct Owners {
    id: WorkerId,
    steering: Arc<Steering>,
    /// Services that there are or were.
    services: Remembered<ServiceKey>,
    /// Services that have or had a NAT server.
    nat_services: Remembered<ServiceKey>,
    /// Addresses of servers that are or were reached by NAT.
    nat_servers: Remembered<Ipv4Addr>,
    /// Addresses of servers that are or were reached by FULLNAT.
    fullnat_servers: Remembered<Ipv4Addr>,
    /// Local addresses that FULLNAT takes or took.
    laddrs: Remembered<Ipv4Addr>,
}

impl Owners {
    /// As worker `id` of so many sees it, with ports of which nothing is known. Knows no services.
    pub fn new(id: WorkerId, workers: u16) -> Self {
        Self {
            id,
            steering: Arc::new(Steering::new(workers.max(1), Vec::new())),
            services: Remembered::default(),
            nat_services: Remembered::default(),
            nat_servers: Remembered::default(),
            fullnat_servers: Remembered::default(),
            laddrs: Remembered::default(),
        }
    }

    /// Whose view this is.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// Whether there is nobody else, who could own anything.
    #[inline]
    pub fn alone(&self) -> bool {
        self.steering.workers() == 1
    }

    /// The worker after this one, round again after the last.
    pub fn next(&self) -> WorkerId {
        WorkerId((self.id.0 + 1) % self.steering.workers())
    }

    /// The owner of a persistence template.
    pub fn of_template(&self, key: &TemplateKey) -> WorkerId {
        let protocol = key
            .protocol
            .map_or(0, |protocol| u64::from(protocol.number()));
        let client = u64::from(key.client.to_bits()) << 32 | u64::from(key.vaddr.to_bits());
        self.of_words(client, u64::from(key.vport) << 8 | protocol)
    }

    /// The owner of what lblc and lblcr remember of a destination.
    pub fn of_destination(&self, addr: Ipv4Addr) -> WorkerId {
        self.of_words(u64::from(addr.to_bits()), 0)
    }

    /// Multiply and fold, and take the high bits (as wyhash does, and Lemire, 2019). Anybody may know it: no table is built on it.
    fn of_words(&self, a: u64, b: u64) -> WorkerId {
        let fold = |a: u64, b: u64| {
            let product = u128::from(a) * u128::from(b);
            product as u64 ^ (product >> 64) as u64
        };
        let mixed = fold(a ^ 0x2d35_8dcc_aa6c_78a5, b ^ 0x8bb8_4b93_962e_acc9);
        let hash = fold(mixed ^ 0x4b33_a62e_d433_d4a3, 0x4d5a_2da5_1de1_aa47);
        let workers = u128::from(self.steering.workers());
        WorkerId(((u128::from(hash) * workers) >> 64) as u16)
    }

    /// Learns a service as it is from now on. Costs what was edited.
    pub fn learn(&mut self, service: &ServiceSpec, edit: ServiceEdit) {
        if self.alone() {
            return;
        }
        self.services.insert(service.key);
        for laddr in &service.laddrs {
            self.laddrs.insert(*laddr);
        }
        let edited = |real: &&RealServerSpec| match edit {
            ServiceEdit::Created | ServiceEdit::Edited => true,
            ServiceEdit::ServerAdded { id, .. } | ServiceEdit::ServerEdited(id) => real.id == id,
            ServiceEdit::ServerDeleted(_) => false,
        };
        for real in service.real_servers.iter().filter(edited) {
            let IpAddr::V4(addr) = real.addr else {
                continue;
            };
            match real.method {
                Method::Nat => {
                    self.nat_services.insert(service.key);
                    self.nat_servers.insert(addr);
                }
                Method::FullNat => self.fullnat_servers.insert(addr),
                Method::Dr | Method::Tun => {}
            }
        }
    }

    /// The other worker that owns the connection which a packet with this key is of, or may open: `None` when it is this one, or
    /// whoever received it. `service` is the one that the packet, which came in on `port`, may open a connection to.
    pub fn elsewhere(
        &self,
        port: PortId,
        service: Option<ServiceKey>,
        key: &FlowKey,
    ) -> Option<Owner> {
        let owner = self.owner(port, service, key)?;
        (owner.worker != self.id).then_some(owner)
    }

    /// [`Owners::owner`] without the method.
    pub fn of(&self, port: PortId, service: Option<ServiceKey>, key: &FlowKey) -> Option<WorkerId> {
        self.owner(port, service, key).map(|owner| owner.worker)
    }

    /// The owner of a connection which a packet with this key is of, or may open: `None` for whoever received it.
    pub fn owner(&self, port: PortId, service: Option<ServiceKey>, key: &FlowKey) -> Option<Owner> {
        let (src, dst) = (
            Endpoint::new(key.src, key.src_port),
            Endpoint::new(key.dst, key.dst_port),
        );
        let local = key.dst_port >= FIRST_PORT
            && self.laddrs.contains(&key.dst)
            && self.fullnat_servers.contains(&key.src);
        if local {
            return Some(Owner {
                worker: self.steering.owner_of_reply(src, dst),
                method: Some(Method::FullNat),
            });
        }
        let by = |client, method| Owner {
            worker: self.steering.owner_of_client(client),
            method,
        };
        match service.or_else(|| self.deleted_service(key)) {
            Some(service) => {
                let nat = self.nat_services.contains(&service);
                let by_client = nat || !self.steering.shares_out(port);
                by_client.then(|| by(src, nat.then_some(Method::Nat)))
            }
            None => {
                let reply = self.nat_servers.contains(&key.src);
                reply.then(|| by(dst, Some(Method::Nat)))
            }
        }
    }

    /// The next worker to be asked for the connection of a packet with this key, which `owner` owns and does not know: those that had
    /// such connections before the steering was changed are asked in order of their ids, each once. So this worker, unless it is the
    /// owner, was asked after all before it.
    #[cold]
    pub fn former(
        &self,
        port: PortId,
        service: Option<ServiceKey>,
        key: &FlowKey,
        owner: WorkerId,
    ) -> Option<WorkerId> {
        let steering = &self.steering;
        let client = |addr, port| steering.former_of_client(Endpoint::new(addr, port));
        let arrived = || steering.former_of_arrival(port, &Packet::from(key));
        let (by_client, by_arrival): (&[_], &[_]) = match service
            .or_else(|| self.deleted_service(key))
        {
            // What came before the service had a NAT server stays with who received it.
            Some(service) if self.nat_services.contains(&service) || !steering.shares_out(port) => {
                (client(key.src, key.src_port), arrived())
            }
            Some(_) => (&[], arrived()),
            None if self.nat_servers.contains(&key.src) => (client(key.dst, key.dst_port), &[]),
            None => (&[], &[]),
        };
        let had = by_client.iter().chain(by_arrival).copied();
        let to_ask =
            |worker: &WorkerId| *worker != owner && (self.id == owner || *worker > self.id);
        had.filter(to_ask).min()
    }

    /// Counts a connection that this worker has if packets of it are another one's since they moved: those that [`Owners::former`]
    /// has come here.
    pub fn count_moved(&self, conn: &Conn, census: &mut Census) {
        let key = Ends::new(conn.client(), conn.virtual_endpoint()).key(conn.protocol());
        let (steering, packet) = (&self.steering, Packet::from(&key));
        let nat = conn.method() == Method::Nat;
        let by_client = nat
            || steering.ports().any(|port| !steering.shares_out(port))
            // A service of a mark, or of another port, may have NAT servers.
            || self.deleted_service(&key).is_none_or(|service| self.nat_services.contains(&service));
        let client = by_client.then(|| steering.class_of_client(conn.client()));
        let arrivals = steering.ports().filter(|_| !nat);
        let arrivals = arrivals.filter_map(|port| steering.class_of_arrival(port, &packet));
        let mut moved = false;
        for class in client.into_iter().chain(arrivals) {
            if steering.former_of_class(class).contains(&self.id)
                && let Some(left) = census.classes.get_mut(class)
            {
                *left = true;
                moved = true;
            }
        }
        census.connections += u64::from(moved);
    }

    /// How packets come to the workers, and who owns them, as long as nothing else is said.
    pub fn steering(&self) -> &Steering {
        &self.steering
    }

    /// Packets come to the workers in another way from now on. Control keeps the way until now, to free it.
    pub fn steer(&mut self, steering: Arc<Steering>) {
        self.steering = steering;
    }

    fn deleted_service(&self, key: &FlowKey) -> Option<ServiceKey> {
        let key = ServiceKey::Address {
            protocol: key.protocol,
            addr: IpAddr::V4(key.dst),
            port: key.dst_port,
        };
        self.services.contains(&key).then_some(key)
    }
}

/// A set that forgets nothing until there is too much of it; then everything.
#[derive(Debug)]
struct Remembered<T>(HashSet<T, foldhash::fast::RandomState>);

/// More than anybody configures, and few enough to keep.
const MOST_REMEMBERED: usize = 1 << 20;

impl<T: Hash + Eq> Remembered<T> {
    fn insert(&mut self, value: T) {
        if self.0.len() >= MOST_REMEMBERED && !self.0.contains(&value) {
            self.0.clear();
        }
        self.0.insert(value);
    }

    fn contains(&self, value: &T) -> bool {
        !self.0.is_empty() && self.0.contains(value)
    }
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self(HashSet::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sched::tests::server;
    use crate::service::{Protocol, ServiceId};
    use crate::steer::toeplitz::{KEY_LEN, Key, Toeplitz};
    use crate::steer::{HashTypes, RssPlan, Spread};

    const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
    const LADDR: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 253);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
    const WEB: ServiceKey = ServiceKey::Address {
        protocol: Protocol::Tcp,
        addr: IpAddr::V4(VIP),
        port: 80,
    };

    fn key(src: Ipv4Addr, src_port: u16, dst: Ipv4Addr, dst_port: u16) -> FlowKey {
        FlowKey {
            src,
            src_port,
            dst,
            dst_port,
            protocol: Protocol::Tcp,
        }
    }

    /// A service of one server, and that one's address.
    fn service(method: Method) -> (ServiceSpec, Ipv4Addr) {
        let real = RealServerSpec {
            method,
            ..server(1, 1)
        };
        let IpAddr::V4(addr) = real.addr else {
            unreachable!("servers of tests have IPv4 addresses")
        };
        let spec = ServiceSpec {
            real_servers: vec![real],
            laddrs: vec![LADDR],
            ..ServiceSpec::new(ServiceId(0), WEB)
        };
        (spec, addr)
    }

    /// One whose NIC spreads packets over four workers.
    const PORT: PortId = PortId(0);
    /// One without RSS.
    const TAP: PortId = PortId(1);

    fn told(workers: u16, method: Method) -> (Owners, Ipv4Addr) {
        let (spec, addr) = service(method);
        let mut owners = Owners::new(WorkerId(0), workers);
        let toeplitz = Arc::new(Toeplitz::new(Key::symmetric(KEY_LEN)));
        let table = (0..128).map(|entry| entry % workers).collect();
        let polled_by = (0..workers).map(WorkerId).collect();
        let rss = RssPlan::new(toeplitz, HashTypes::EVERY_KIND, table, polled_by).unwrap();
        let spreads = vec![Spread::Rss(rss), Spread::One(WorkerId(0))];
        owners.steer(Arc::new(Steering::new(workers, spreads)));
        owners.learn(&spec, ServiceEdit::Created);
        (owners, addr)
    }

    #[test]
    fn both_directions_of_a_nat_connection_have_one_owner_and_all_workers_get_some() {
        for workers in [2, 3, 5, 16] {
            let (owners, real) = told(workers, Method::Nat);
            let mut count = vec![0u32; usize::from(workers)];
            for port in 0..8000 {
                let owner = owners.of(PORT, Some(WEB), &key(CLIENT, port, VIP, 80));
                assert_eq!(owner, owners.of(PORT, None, &key(real, 80, CLIENT, port)));
                count[usize::from(owner.unwrap().0)] += 1;
            }
            let fair = 8000 / u32::from(workers);
            assert!(
                count.iter().all(|n| n.abs_diff(fair) < fair / 4),
                "{count:?}"
            );
        }
    }

    #[test]
    fn dr_and_fullnat_clients_and_strangers_belong_to_who_received_them() {
        for method in [Method::Dr, Method::Tun, Method::FullNat] {
            let (owners, real) = told(4, method);
            assert_eq!(owners.of(PORT, Some(WEB), &key(CLIENT, 9, VIP, 80)), None);
            assert_eq!(owners.of(PORT, None, &key(real, 80, CLIENT, 9)), None);
        }
        let (owners, _) = told(4, Method::Nat);
        assert_eq!(owners.of(PORT, None, &key(CLIENT, 9, VIP, 81)), None);
    }

    #[test]
    fn a_port_that_spreads_nothing_leaves_no_client_to_who_received_it() {
        for method in [Method::Dr, Method::Tun, Method::FullNat, Method::Nat] {
            let (mut owners, _) = told(4, method);
            let owner = |owners: &Owners, service| {
                let owner = owners.of(TAP, service, &key(CLIENT, 9, VIP, 80));
                assert_eq!(
                    owner,
                    Some(owners.steering.owner_of_client(Endpoint::new(CLIENT, 9)))
                );
            };
            owner(&owners, Some(WEB));
            // A NAT server more makes no other worker the owner.
            owners.learn(&service(Method::Nat).0, ServiceEdit::Edited);
            owner(&owners, Some(WEB));
            // Nor does the service's end.
            owner(&owners, None);
            assert_eq!(owners.of(TAP, None, &key(CLIENT, 9, VIP, 81)), None);
        }
    }

    #[test]
    fn replies_to_a_local_address_go_by_its_port() {
        let (owners, real) = told(3, Method::FullNat);
        let owner = owners.of(PORT, None, &key(real, 80, LADDR, 5002));
        let [src, dst] = [(real, 80), (LADDR, 5002)].map(|(addr, port)| Endpoint::new(addr, port));
        assert_eq!(owner, Some(owners.steering().owner_of_reply(src, dst)));
        assert_eq!(owners.of(PORT, None, &key(CLIENT, 80, LADDR, 5002)), None);
    }

    #[test]
    fn connections_of_a_deleted_service_and_server_are_found_where_they_are() {
        let (mut owners, real) = told(3, Method::Nat);
        let (mut spec, _) = service(Method::Nat);
        let gone = spec.real_servers.remove(0).id;
        owners.learn(&spec, ServiceEdit::ServerDeleted(gone));
        let client = Endpoint::new(CLIENT, 9);
        for service in [Some(WEB), None] {
            let owner = owners.of(PORT, service, &key(CLIENT, 9, VIP, 80));
            assert_eq!(owner, Some(owners.steering().owner_of_client(client)));
        }
        let owner = owners.of(PORT, None, &key(real, 80, CLIENT, 9));
        assert_eq!(owner, Some(owners.steering().owner_of_client(client)));
    }
}
