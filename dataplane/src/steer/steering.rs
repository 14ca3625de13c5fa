//! The steering of a whole appliance: where packets arrive on each port, and who owns them.

use std::net::Ipv4Addr;
use std::sync::Arc;

use super::classes::{FIRST_PORT, PORTS, PortClasses};
use super::former::Formers;
use super::plan::{MOST_CLASSES, Side, default_owners};
use super::rss::{HashTypes, Packet, RssPlan};
use super::toeplitz::{KEY_LEN, Key, Toeplitz};
use crate::command::{PortId, WorkerId};
use crate::conn::{Endpoint, Ends};

/// How the packets of a port come to the workers.
#[derive(Clone, Debug)]
pub enum Spread {
    /// All of them to one: there is one queue.
    One(WorkerId),
    /// As the NIC hashes.
    Rss(RssPlan),
    /// In a way that is not known: several queues of a device without RSS.
    Unknown,
}

/// Who owns what. All workers have the same one, read only, and so compute the same owners; a change is a new one.
///
/// Owners are found in one table, by a software hash that is the hardware's where that helps.
#[derive(Clone, Debug)]
pub struct Steering {
    workers: u16,
    toeplitz: Arc<Toeplitz>,
    /// The owner of each class of hashes. A power of two of entries.
    owners: Box<[WorkerId]>,
    former: Option<Formers>,
    /// The owner of each class of replies to local addresses. It never changes, so that no port is ever given out twice.
    reply_owners: Box<[WorkerId]>,
    /// Whether replies are hashed by their destination alone.
    by_destination: bool,
    ports: Vec<Spread>,
    classes: Option<Arc<PortClasses>>,
    /// By worker: the classes of which it takes local ports.
    entries: Vec<Box<[u16]>>,
}

impl Steering {
    /// One worker, which owns everything.
    pub fn single() -> Self {
        Self::new(1, Vec::new())
    }

    /// So many workers, and ports that spread like this, by [`PortId`].
    ///
    /// The first of them that hashes packets of servers decides how owners are found, one that hashes their destinations alone before
    /// others, or else the first that hashes at all: the others agree with it if they took the plan they were given.
    pub fn new(workers: u16, ports: Vec<Spread>) -> Self {
        let rss = || {
            ports.iter().filter_map(|spread| match spread {
                Spread::Rss(plan) => Some(plan),
                Spread::One(_) | Spread::Unknown => None,
            })
        };
        let hears_servers = |plan: &&RssPlan| !plan.types().intersects(HashTypes::SOURCE);
        let only_servers = |plan: &&RssPlan| plan.types().contains(HashTypes::DESTINATION);
        let reference = rss()
            .find(only_servers)
            .or_else(|| rss().find(hears_servers))
            .or_else(|| rss().next());
        let (toeplitz, owners, types) = match reference {
            Some(plan) if plan.workers().len() >= usize::from(workers) => (
                Arc::clone(plan.toeplitz()),
                plan.owners().collect(),
                plan.types(),
            ),
            // Workers without a queue live from what others hand over.
            Some(plan) => (
                Arc::clone(plan.toeplitz()),
                default_owners(plan.table().len() as u16, workers),
                plan.types(),
            ),
            None => (
                Arc::new(Toeplitz::new(Key::symmetric(KEY_LEN))),
                default_owners(MOST_CLASSES, workers),
                HashTypes::NONE,
            ),
        };
        Self::with_owners(
            workers,
            ports,
            toeplitz,
            owners,
            types.contains(HashTypes::DESTINATION),
        )
    }

    fn with_owners(
        workers: u16,
        ports: Vec<Spread>,
        toeplitz: Arc<Toeplitz>,
        owners: Vec<WorkerId>,
        by_destination: bool,
    ) -> Self {
        let classes = (workers > 1).then(|| Arc::new(PortClasses::new(&toeplitz, owners.len())));
        Self {
            workers,
            toeplitz,
            entries: local_entries(workers, &owners, &owners),
            reply_owners: owners.clone().into(),
            owners: owners.into(),
            former: None,
            by_destination,
            ports,
            classes,
        }
    }

    /// The same with other owners of the classes, as many as before, and ports that spread by tables that agree with those. Who
    /// owned a class until now is asked for its connections from then on. `None` when these are more or fewer classes.
    pub fn moved(&self, owners: Vec<WorkerId>, ports: Vec<Spread>) -> Option<Self> {
        if owners.len() != self.owners.len() {
            return None;
        }
        Some(Self {
            former: Formers::after_move(self.former.as_ref(), &self.owners, &owners),
            entries: local_entries(self.workers, &self.reply_owners, &owners),
            owners: owners.into(),
            ports,
            ..self.clone()
        })
    }

    /// The same after a worker was found to have connections left of these classes only, by number: it is asked for no others any
    /// more. `None` if that changes nothing.
    pub fn settled(&self, worker: WorkerId, left: &[bool]) -> Option<Self> {
        let former = self.former.as_ref()?;
        former.changes_without(worker, left).then(|| Self {
            former: former.without(worker, left),
            ..self.clone()
        })
    }

    /// Whether any class had another owner, whose connections may go on.
    #[inline]
    pub fn has_moved(&self) -> bool {
        self.former.is_some()
    }

    /// The workers that are asked for connections of classes that they had, in order.
    pub fn formers(&self) -> Vec<WorkerId> {
        self.former.as_ref().map_or_else(Vec::new, Formers::all)
    }

    /// The workers that may still have connections of a client by [`Steering::owner_of_client`], in order.
    pub fn former_of_client(&self, client: Endpoint) -> &[WorkerId] {
        self.former_of_class(self.class_of_client(client))
    }

    /// The workers that packets like this one reached by `port` before, in order.
    pub fn former_of_arrival(&self, port: PortId, packet: &Packet) -> &[WorkerId] {
        let class = self.class_of_arrival(port, packet);
        class.map_or(&[], |class| self.former_of_class(class))
    }

    /// The class by which [`Steering::owner_of_client`] goes, by number.
    #[inline]
    pub(super) fn class_of_client(&self, client: Endpoint) -> usize {
        self.class(self.hash_ends(client, NOBODY))
    }

    /// The class of packets that come in on `port`, if they are spread by classes.
    pub(super) fn class_of_arrival(&self, port: PortId, packet: &Packet) -> Option<usize> {
        match self.spread(port) {
            Spread::Rss(plan) => plan.hash(packet).map(|hash| self.class(hash)),
            Spread::One(_) | Spread::Unknown => None,
        }
    }

    /// The workers that are asked for connections of a class, in order.
    pub(super) fn former_of_class(&self, class: usize) -> &[WorkerId] {
        self.former.as_ref().map_or(&[], |former| former.of(class))
    }

    /// How many workers there are.
    #[inline]
    pub fn workers(&self) -> u16 {
        self.workers
    }

    /// The owner of each class.
    pub fn owners(&self) -> &[WorkerId] {
        &self.owners
    }

    /// The ports of which it is known how their packets come.
    pub fn ports(&self) -> impl Iterator<Item = PortId> + '_ {
        (0..self.ports.len() as u16).map(PortId)
    }

    /// How packets of a port come to the workers.
    pub fn spread(&self, port: PortId) -> &Spread {
        self.ports
            .get(usize::from(port.0))
            .unwrap_or(&Spread::Unknown)
    }

    /// Whether the NIC of a port spreads packets over all workers, so that each may be left to whoever receives it.
    #[inline]
    pub fn shares_out(&self, port: PortId) -> bool {
        match self.spread(port) {
            Spread::Rss(plan) => plan.workers().len() >= usize::from(self.workers),
            Spread::One(_) | Spread::Unknown => false,
        }
    }

    /// The worker that such a packet reaches when it comes in on `port`; `None` where that is not known.
    pub fn reaches(&self, port: PortId, packet: &Packet) -> Option<WorkerId> {
        match self.spread(port) {
            Spread::One(worker) => Some(*worker),
            Spread::Rss(plan) => plan.worker_of(packet),
            Spread::Unknown => None,
        }
    }

    /// Whether packets of NAT that come in on a port of this side reach the worker that owns their connection without being handed
    /// over. Control thread: looks at each entry of the port's table.
    pub fn brings_nat_home(&self, port: PortId, side: Side) -> bool {
        if self.workers == 1 {
            return true;
        }
        let only = match side {
            Side::Clients => HashTypes::SOURCE,
            Side::Servers => HashTypes::DESTINATION,
            Side::Both => return false,
        };
        let Spread::Rss(plan) = self.spread(port) else {
            return false;
        };
        let key = plan.toeplitz().key();
        let entries = plan.table().len().max(self.owners.len()) as u32;
        plan.types().contains(only)
            && key.is_symmetric()
            && key.hashes_like(self.toeplitz.key())
            && (0..entries).all(|hash| plan.worker_of_hash(hash) == self.owner_of_hash(hash))
    }

    /// The worker that owns the connections of a client to services with NAT real servers: its address and port are the only
    /// fields that both directions carry unchanged.
    #[inline]
    pub fn owner_of_client(&self, client: Endpoint) -> WorkerId {
        self.owners[self.class_of_client(client)]
    }

    /// The worker that owns the connection of FULLNAT whose server answers from `server` to `local`.
    #[inline]
    pub fn owner_of_reply(&self, server: Endpoint, local: Endpoint) -> WorkerId {
        let class = self.hash_reply(server, local) as usize & (self.reply_owners.len() - 1);
        self.reply_owners[class]
    }

    /// The worker that puts the fragments of a packet together.
    #[inline]
    pub fn owner_of_fragment(&self, src: Ipv4Addr, dst: Ipv4Addr, id: u16) -> WorkerId {
        self.owner_of_hash(self.hash_ends(Endpoint::new(src, id), Endpoint::new(dst, 0)))
    }

    /// How many local ports a worker has at each local address towards each server, or a few more than that.
    #[inline]
    pub fn local_ports(&self, worker: WorkerId) -> u32 {
        match &self.classes {
            None => PORTS,
            Some(classes) => {
                let entries = self.entries_of(worker).len();
                (entries * classes.biggest()) as u32
            }
        }
    }

    /// The `nth` local port of a worker at the local address `laddr` towards `server`, such that [`Steering::owner_of_reply`] is that
    /// worker. `nth` is below [`Steering::local_ports`]; `None` for the few that are not there.
    #[inline]
    pub fn local_port(
        &self,
        worker: WorkerId,
        server: Endpoint,
        laddr: Ipv4Addr,
        nth: u32,
    ) -> Option<u16> {
        let Some(classes) = &self.classes else {
            return Some(FIRST_PORT + nth as u16);
        };
        let base = self.hash_reply(server, Endpoint::new(laddr, 0));
        let entries = self.entries_of(worker);
        let entry = entries.get(nth as usize % entries.len().max(1))?;
        let class = (usize::from(*entry) ^ base as usize) & (self.owners.len() - 1);
        classes
            .ports(class)
            .get(nth as usize / entries.len())
            .copied()
    }

    fn entries_of(&self, worker: WorkerId) -> &[u16] {
        self.entries
            .get(usize::from(worker.0))
            .map_or(&[], |entries| entries)
    }

    #[inline]
    fn hash_reply(&self, server: Endpoint, local: Endpoint) -> u32 {
        let server = if self.by_destination { NOBODY } else { server };
        self.hash_ends(server, local)
    }

    #[inline]
    fn hash_ends(&self, src: Endpoint, dst: Endpoint) -> u32 {
        let input: [u8; 12] = zerocopy::transmute!(Ends::new(src, dst));
        self.toeplitz.hash(&input)
    }

    #[inline]
    fn owner_of_hash(&self, hash: u32) -> WorkerId {
        self.owners[self.class(hash)]
    }

    #[inline]
    fn class(&self, hash: u32) -> usize {
        hash as usize & (self.owners.len() - 1)
    }
}

/// By worker, the classes of which it takes local ports: those it owns the replies of, and of these those that come to it straight, if
/// there are any.
fn local_entries(workers: u16, replies: &[WorkerId], owners: &[WorkerId]) -> Vec<Box<[u16]>> {
    let of = |worker| {
        let owned = || {
            (0..)
                .zip(replies.iter().zip(owners))
                .filter(move |(_, (owner, _))| **owner == worker)
        };
        let straight: Box<[u16]> = owned()
            .filter(|(_, (_, now))| **now == worker)
            .map(|(entry, _)| entry)
            .collect();
        if straight.is_empty() {
            owned().map(|(entry, _)| entry).collect()
        } else {
            straight
        }
    };
    (0..workers).map(|worker| of(WorkerId(worker))).collect()
}

/// Adds nothing to a hash.
const NOBODY: Endpoint = Endpoint::new(Ipv4Addr::UNSPECIFIED, 0);

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::super::plan::{PortNeeds, RssCapabilities, Side, plan};
    use super::*;
    use crate::service::Protocol;

    const SERVER: Endpoint = Endpoint::new(Ipv4Addr::new(192, 168, 1, 1), 80);
    const LADDR: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 254);

    /// A port of clients and one of servers, on NICs like these.
    fn two_sided(workers: u16, table: u16, hash_types: HashTypes) -> Steering {
        let can = RssCapabilities {
            queues: 64,
            table,
            hash_types,
            key_len: 40,
        };
        let queues = None;
        let needs = [Side::Clients, Side::Servers].map(|side| PortNeeds { side, queues, can });
        let plans = plan(&needs, workers).into_iter();
        let spread = plans.map(|plan| match plan.rss {
            Some(rss) => Spread::Rss(rss),
            None => Spread::One(WorkerId(0)),
        });
        Steering::new(workers, spread.collect())
    }

    fn full() -> HashTypes {
        HashTypes::EVERY_KIND | HashTypes::SOURCE | HashTypes::DESTINATION
    }

    fn models(workers: u16) -> [Steering; 4] {
        [
            two_sided(workers, 512, full()),
            two_sided(workers, 128, HashTypes::EVERY_KIND),
            two_sided(workers, 64, HashTypes::EVERY_KIND),
            Steering::new(workers, Vec::new()),
        ]
    }

    fn tcp(src: Endpoint, dst: Endpoint) -> Packet {
        Packet::flow(Protocol::Tcp, &Ends::new(src, dst))
    }

    #[test]
    fn workers_share_the_local_ports_out_among_them() {
        for workers in [1, 2, 3, 5, 16] {
            for steering in models(workers) {
                let mut seen = HashSet::new();
                for worker in (0..workers).map(WorkerId) {
                    let count = steering.local_ports(worker);
                    let least = PORTS / u32::from(workers) * 3 / 4;
                    assert!(count >= least, "{workers} {count}");
                    for nth in 0..count {
                        let port = steering.local_port(worker, SERVER, LADDR, nth).unwrap();
                        assert!(port >= FIRST_PORT && seen.insert(port));
                        let local = Endpoint::new(LADDR, port);
                        assert_eq!(steering.owner_of_reply(SERVER, local), worker);
                    }
                }
                assert_eq!(seen.len(), PORTS as usize);
            }
        }
    }

    #[test]
    fn one_worker_owns_all_and_takes_ports_in_order() {
        let single = Steering::single();
        assert_eq!(single.local_ports(WorkerId(0)), PORTS);
        for nth in [0, 1, PORTS - 1] {
            let port = single.local_port(WorkerId(0), SERVER, LADDR, nth);
            assert_eq!(port, Some(FIRST_PORT + nth as u16));
        }
        assert_eq!(single.owner_of_client(SERVER), WorkerId(0));
    }

    #[test]
    fn a_worker_without_entries_has_no_ports() {
        let steering = two_sided(5, 4, HashTypes::EVERY_KIND);
        assert_eq!(steering.local_ports(WorkerId(4)), 0);
        assert_eq!(steering.local_port(WorkerId(4), SERVER, LADDR, 0), None);
    }

    #[test]
    fn workers_without_a_queue_own_something_all_the_same() {
        let can = RssCapabilities {
            queues: 2,
            table: 128,
            hash_types: full(),
            key_len: 40,
        };
        let needs = PortNeeds {
            can,
            ..PortNeeds::default()
        };
        let rss = plan(&[needs], 5)[0].rss.clone().unwrap();
        let steering = Steering::new(5, vec![Spread::Rss(rss)]);
        assert!(!steering.shares_out(PortId(0)));
        let owned = |worker| {
            steering
                .owners()
                .iter()
                .filter(|owner| owner.0 == worker)
                .count()
        };
        assert_eq!([0, 1, 2, 3, 4].map(owned), [26, 26, 26, 25, 25]);
    }

    #[test]
    fn nat_comes_home_where_each_side_is_hashed_by_its_own_end() {
        let home = |steering: &Steering| {
            let ports = [(0, Side::Clients), (1, Side::Servers)];
            ports.map(|(port, side)| steering.brings_nat_home(PortId(port), side))
        };
        let full = two_sided(3, 512, full());
        assert_eq!(home(&full), [true; 2]);
        assert!(!full.brings_nat_home(PortId(0), Side::Both));
        let common = two_sided(3, 128, HashTypes::EVERY_KIND);
        assert_eq!(home(&common), [false; 2]);
        assert_eq!(home(&Steering::new(3, Vec::new())), [false; 2]);
        assert_eq!(home(&Steering::single()), [true; 2]);
        // A NIC that has a table of its own.
        let Spread::Rss(plan) = full.spread(PortId(0)) else {
            unreachable!("it was planned so")
        };
        let table = plan.table().iter().map(|queue| (queue + 1) % 3).collect();
        let toeplitz = Arc::clone(plan.toeplitz());
        let odd = RssPlan::new(toeplitz, plan.types(), table, plan.workers().to_vec());
        let spreads = vec![Spread::Rss(odd.unwrap()), full.spread(PortId(1)).clone()];
        assert_eq!(home(&Steering::new(3, spreads)), [false, true]);
    }

    #[test]
    fn a_clients_nic_that_hashes_both_ends_leaves_replies_of_fullnat_aligned() {
        let full = two_sided(3, 512, full());
        let Spread::Rss(plan) = full.spread(PortId(0)) else {
            unreachable!("it was planned so")
        };
        let both = Spread::Rss(plan.hashing(HashTypes::EVERY_KIND));
        let steering = Steering::new(3, vec![both, full.spread(PortId(1)).clone()]);
        for worker in (0..3).map(WorkerId) {
            for nth in 0..steering.local_ports(worker) {
                let port = steering.local_port(worker, SERVER, LADDR, nth).unwrap();
                let reply = tcp(SERVER, Endpoint::new(LADDR, port));
                assert_eq!(steering.reaches(PortId(1), &reply), Some(worker));
            }
        }
    }

    #[test]
    fn a_class_that_moved_remembers_who_had_it_until_that_one_has_nothing_left() {
        let client = Endpoint::new(Ipv4Addr::new(198, 51, 100, 7), 4711);
        for workers in [3, 100] {
            let steering = two_sided(workers, 128, HashTypes::EVERY_KIND);
            let before = steering.owner_of_client(client);
            let to = WorkerId((before.0 + 1) % workers);
            assert!(!steering.has_moved());
            assert_eq!(steering.former_of_client(client), []);
            let all_to = |to| vec![to; 128];
            let moved = steering.moved(all_to(to), steering.ports.clone()).unwrap();
            assert!(moved.has_moved());
            assert_eq!(moved.owner_of_client(client), to);
            assert_eq!(moved.former_of_client(client), [before]);
            assert_eq!(moved.formers().len(), usize::from(workers) - 1);
            // Back again: now the other one is asked.
            let back = moved.moved(all_to(before), moved.ports.clone()).unwrap();
            assert_eq!(back.former_of_client(client), [to]);
            // It has connections of this class only, and then of none.
            let class = back.class_of_client(client);
            let left: Vec<bool> = (0..128).map(|other| other == class).collect();
            let still = back.settled(to, &left).unwrap();
            assert_eq!(still.former_of_client(client), [to]);
            assert!(still.settled(to, &left).is_none());
            let gone = still.settled(to, &[false; 128]).unwrap();
            assert_eq!(gone.former_of_client(client), []);
            let settled = gone.formers().into_iter().fold(gone, |steering, worker| {
                steering.settled(worker, &[false; 128]).unwrap()
            });
            assert!(!settled.has_moved());
            assert!(steering.moved(vec![to; 64], Vec::new()).is_none());
        }
    }

    #[test]
    fn local_ports_stay_whose_they_were_when_classes_move() {
        let steering = two_sided(3, 128, HashTypes::EVERY_KIND);
        let moved = steering.moved(vec![WorkerId(1); 128], Vec::new()).unwrap();
        for worker in (0..3).map(WorkerId) {
            assert_eq!(moved.local_ports(worker), steering.local_ports(worker));
            for nth in 0..moved.local_ports(worker) {
                let port = moved.local_port(worker, SERVER, LADDR, nth).unwrap();
                let local = Endpoint::new(LADDR, port);
                assert_eq!(steering.owner_of_reply(SERVER, local), worker);
                assert_eq!(moved.owner_of_reply(SERVER, local), worker);
            }
        }
    }

    #[test]
    fn a_port_that_is_not_known_of_tells_nothing() {
        let steering = Steering::new(2, vec![Spread::One(WorkerId(0)), Spread::Unknown]);
        let packet = tcp(SERVER, SERVER);
        let reaches = |port| steering.reaches(PortId(port), &packet);
        assert_eq!([0, 1, 2].map(reaches), [Some(WorkerId(0)), None, None]);
    }

    proptest! {
        #[test]
        fn a_reply_of_fullnat_reaches_the_worker_that_chose_the_port(
            workers in 2u16..=16,
            server in any::<(u32, u16)>(),
            laddr in any::<u32>(),
            nth in any::<u32>(),
        ) {
            let server = Endpoint::new(Ipv4Addr::from_bits(server.0), server.1);
            let laddr = Ipv4Addr::from_bits(laddr);
            for steering in models(workers) {
                for worker in (0..workers).map(WorkerId) {
                    let nth = nth % steering.local_ports(worker);
                    let port = steering.local_port(worker, server, laddr, nth).unwrap();
                    let local = Endpoint::new(laddr, port);
                    prop_assert_eq!(steering.owner_of_reply(server, local), worker);
                    let reaches = steering.reaches(PortId(1), &tcp(server, local));
                    prop_assert!(reaches.is_none_or(|reached| reached == worker));
                    prop_assert_eq!(reaches.is_none(), steering.ports.is_empty());
                }
            }
        }

        #[test]
        fn nat_hands_nothing_over_where_nics_hash_one_end(
            workers in 2u16..=16,
            client in any::<(u32, u16)>(),
            vip in any::<(u32, u16)>(),
        ) {
            let [client, vip] = [client, vip]
                .map(|(addr, port)| Endpoint::new(Ipv4Addr::from_bits(addr), port));
            let steering = two_sided(workers, 512, full());
            let owner = Some(steering.owner_of_client(client));
            prop_assert_eq!(steering.reaches(PortId(0), &tcp(client, vip)), owner);
            prop_assert_eq!(steering.reaches(PortId(1), &tcp(SERVER, client)), owner);
        }

        #[test]
        fn clients_and_fragments_have_owners_that_are_there(
            workers in 1u16..=16,
            ends in any::<(u32, u16, u32, u16)>(),
        ) {
            let (src, src_port, dst, dst_port) = ends;
            let src = Endpoint::new(Ipv4Addr::from_bits(src), src_port);
            let dst = Endpoint::new(Ipv4Addr::from_bits(dst), dst_port);
            for steering in models(workers) {
                for owner in [
                    steering.owner_of_client(src),
                    steering.owner_of_fragment(src.addr, dst.addr, src_port),
                ] {
                    prop_assert!(owner.0 < workers);
                }
            }
        }
    }
}
