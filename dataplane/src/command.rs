//! What control sends to a worker, and what the worker answers.
//!
//! One single-producer single-consumer ring a direction and worker. A worker applies commands between bursts, in order,
//! and then publishes the revision of the last one (see [`crate::stats::WorkerCells::applied`]).

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::conn::state::StateName;
use crate::egress::{Fib, Mac};
use crate::service::{Colleagues, MarkRules, Method, Protocol, RsId, ServiceId, ServiceSpec};

use crate::steer::Steering;

pub use crate::settings::{Defence, DefencePolicy, Kept, Settings};

/// An interface, as numbered in the configuration, the same for every worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortId(pub u16);

/// A worker, as numbered in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(pub u16);

/// A command and the revision of the configuration that it belongs to.
#[derive(Debug)]
pub struct Envelope {
    /// Counts up; several commands of one change carry the same one, and it counts as applied after the last.
    pub revision: u64,
    /// Whether more commands of this revision follow.
    pub more: bool,
    /// What to do.
    pub command: Command,
}

/// One step of a change. Cloned once a worker: big objects are behind `Arc`.
#[derive(Clone, Debug)]
pub enum Command {
    /// The service as it is from now on, and what was done to it.
    PutService {
        /// The whole service, after the change.
        service: Arc<ServiceSpec>,
        /// What changed, for the scheduler's state.
        edit: ServiceEdit,
    },
    /// The service and its real servers are gone; connections stay (`SEMANTICS.md` section 1).
    DeleteService(ServiceId),
    /// Routes, whole.
    Fib(Arc<Fib>),
    /// A neighbour is reachable at this MAC, or no more.
    Neighbour {
        /// Where.
        port: PortId,
        /// Its address.
        addr: Ipv4Addr,
        /// Its MAC; `None` forgets it.
        mac: Option<Mac>,
    },
    /// What is known of a port's own side.
    PortState {
        /// Which.
        port: PortId,
        /// Its MAC.
        mac: Mac,
        /// Its MTU: bytes of an IP packet.
        mtu: u16,
    },
    /// The rules that give packets their firewall marks, whole.
    MarkRules(Arc<MarkRules>),
    /// The workers that there are. Before the first service.
    Colleagues(Arc<Colleagues>),
    /// How packets come to the workers, and who owns them. Connections that are there stay where they are.
    Steering(Arc<Steering>),
    /// Settings that connections and forwarding follow.
    Settings(Arc<Settings>),
    /// Fill the slice with connections and send it back as [`Event::Connections`].
    ListConnections(Box<ConnSlice>),
    /// Count the connections of classes of hashes that the worker had before they moved, and send the census back as
    /// [`Event::Counted`].
    CountMoved(Box<Census>),
}

/// What was done to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceEdit {
    /// It is new.
    Created,
    /// Its own attributes changed; schedulers start anew when the scheduler is another one.
    Edited,
    /// A real server joined at the head.
    ServerAdded {
        /// Which.
        id: RsId,
        /// It came back while still referred to: its counts and statistics go on.
        revived: bool,
    },
    /// A real server's weight, method or thresholds changed.
    ServerEdited(RsId),
    /// A real server left; its connections stay.
    ServerDeleted(RsId),
}

/// What a worker tells control.
#[derive(Debug)]
pub enum Event {
    /// A packet waits for this neighbour's MAC: ask the kernel.
    NeighbourMissing {
        /// Where.
        port: PortId,
        /// Whose.
        addr: Ipv4Addr,
    },
    /// A neighbour was used since it was last reported, so it is worth probing.
    NeighbourUsed {
        /// Where.
        port: PortId,
        /// Whose.
        addr: Ipv4Addr,
    },
    /// The answer to [`Command::ListConnections`].
    Connections(Box<ConnSlice>),
    /// The answer to [`Command::CountMoved`].
    Counted(Box<Census>),
}

/// What a worker has left of classes of hashes that are others' since the steering was changed. Control allocates it, the worker fills
/// it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Census {
    /// Chosen by control, to tell answers apart.
    pub round: u64,
    /// Connections of such classes; 0 at first.
    pub connections: u64,
    /// By class, whether there are any; `false` at first.
    pub classes: Box<[bool]>,
}

impl Census {
    /// Of so many classes, with nothing counted.
    pub fn new(round: u64, classes: usize) -> Self {
        Self {
            round,
            connections: 0,
            classes: vec![false; classes].into(),
        }
    }
}

/// A bounded piece of a worker's connection table. Control allocates it, the worker fills it.
#[derive(Clone, Debug)]
pub struct ConnSlice {
    /// Chosen by control, to tell answers apart.
    pub query: u64,
    /// Where in the table to go on; 0 at first. The worker writes where it stopped; `None` at the end.
    pub cursor: Option<u64>,
    /// Only connections that match.
    pub filter: ConnFilter,
    /// Filled up to its capacity.
    pub rows: Vec<ConnRow>,
}

/// Which connections to list; `None` fields match all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnFilter {
    /// Of this protocol.
    pub protocol: Option<Protocol>,
    /// Of this client.
    pub client: Option<Ipv4Addr>,
    /// To this virtual address.
    pub virtual_addr: Option<Ipv4Addr>,
    /// To this virtual port.
    pub virtual_port: Option<u16>,
    /// To this real server address.
    pub server: Option<Ipv4Addr>,
}

impl ConnFilter {
    /// Whether a connection is among those wanted.
    pub fn matches(&self, row: &ConnRow) -> bool {
        fn is<T: PartialEq>(wanted: Option<T>, value: T) -> bool {
            wanted.is_none_or(|wanted| wanted == value)
        }
        (self.protocol.is_none() || self.protocol == row.protocol)
            && is(self.client, row.client.0)
            && is(self.virtual_addr, row.virtual_addr.0)
            && is(self.virtual_port, row.virtual_addr.1)
            && is(self.server, row.server.0)
    }
}

/// One connection, or persistence template, as listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnRow {
    /// Protocol; `None` for a template of a mark, which is for all.
    pub protocol: Option<Protocol>,
    /// It is a persistence template.
    pub template: bool,
    /// Client address and port.
    pub client: (Ipv4Addr, u16),
    /// Virtual address and port.
    pub virtual_addr: (Ipv4Addr, u16),
    /// Real server address and port.
    pub server: (Ipv4Addr, u16),
    /// FULLNAT's local address and port.
    pub local: Option<(Ipv4Addr, u16)>,
    /// How packets get to the server.
    pub method: Method,
    /// State.
    pub state: StateName,
    /// Milliseconds until it expires.
    pub expires_ms: u64,
    /// The worker that owns it.
    pub worker: WorkerId,
}
