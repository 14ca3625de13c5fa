//! What control sends to a worker, and what the worker answers.
//!
//! One single-producer single-consumer ring a direction and worker. A worker applies commands between bursts, in order,
//! and then publishes the revision of the last one (see [`crate::stats::WorkerCells::applied`]).

use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::conn::Conn;
use crate::conn::state::{StateName, Timeouts};
use crate::egress::{Fib, Mac};
use crate::service::{Method, Protocol, RsId, ServiceId, ServiceSpec};

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
    /// Settings that connections and forwarding follow.
    Settings(Arc<Settings>),
    /// Fill the slice with connections and send it back as [`Event::Connections`].
    ListConnections(Box<ConnSlice>),
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

/// Settings under `net.ipv4.vs`' names where IPVS has them (`SEMANTICS.md` section 8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// State timeouts.
    pub timeouts: Timeouts,
    /// Packets of a connection whose server was deleted: 0 drop silently, 1 expire and schedule anew.
    pub expire_nodest_conn: bool,
    /// When a SYN may take over a finished connection: 0, 1, 2 or 3.
    pub conn_reuse_mode: u8,
    /// Schedule TCP packets that are not SYN.
    pub sloppy_tcp: bool,
    /// Send ICMP "fragmentation needed" about packets too long for a tunnel.
    pub pmtu_disc: bool,
    /// Seconds after which lblc forgets a destination that nobody asked for.
    pub lblc_expiration_s: u32,
    /// Seconds after which lblcr forgets a destination, and after which a destination's set of servers shrinks.
    pub lblcr_expiration_s: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeouts: Timeouts::default(),
            expire_nodest_conn: false,
            conn_reuse_mode: 1,
            sloppy_tcp: false,
            pmtu_disc: true,
            lblc_expiration_s: 86_400,
            lblcr_expiration_s: 86_400,
        }
    }
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
    pub fn matches(&self, conn: &Conn) -> bool {
        fn is<T: PartialEq>(wanted: Option<T>, value: T) -> bool {
            wanted.is_none_or(|wanted| wanted == value)
        }
        is(self.protocol, conn.protocol())
            && is(self.client, conn.client().addr)
            && is(self.virtual_addr, conn.virtual_endpoint().addr)
            && is(self.virtual_port, conn.virtual_endpoint().port)
            && is(self.server, conn.server().addr)
    }
}

/// One connection, as listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnRow {
    /// Protocol.
    pub protocol: Protocol,
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
