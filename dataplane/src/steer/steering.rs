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
        let smallest = rss().map(|plan| plan.table().len()).min();
        let classes = smallest.map_or(MOST_CLASSES, |entries| MOST_CLASSES.min(entries as u16));
        let (toeplitz, owners, types) = match reference {
            Some(plan) if plan.workers().len() >= usize::from(workers) => (
                Arc::clone(plan.toeplitz()),
                shortened(plan.owners().collect(), classes.into()),
                plan.types(),
            ),
            // Workers without a queue live from what others hand over.
            Some(plan) => (
                Arc::clone(plan.toeplitz()),
                default_owners(classes, workers),
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

/// As few entries as say the same, but not fewer than `classes`: tables of other ports, with fewer entries, are to agree after a move
/// too.
fn shortened(mut owners: Vec<WorkerId>, classes: usize) -> Vec<WorkerId> {
    while owners.len() > classes {
        let (front, back) = owners.split_at(owners.len() / 2);
        if front != back {
            break;
        }
        owners.truncate(owners.len() / 2);
    }
    owners
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
mod tests;
