//! What a worker publishes for others to read: counters it alone writes, by plain stores (contract 1).
//!
//! Each worker has one [`WorkerCells`], its own allocation. The worker adds; anybody may read at any
//! time and gets values at most a burst old. Nothing here is an atomic read-modify-write.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::utils::CachePadded;

use crate::command::PortId;
use crate::drop_reason::DropReason;
use crate::service::Method;

/// A number with one writer and any number of readers.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Adds `n`. Only the owning worker may call this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Takes `n` away. Only the owning worker may call this.
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_sub(n),
            Ordering::Relaxed,
        );
    }

    /// Sets it. Only the owning worker may call this.
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// Reads it.
    #[inline]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What passed one way.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Packets.
    pub packets: Cell,
    /// Bytes, from the IP header on.
    pub bytes: Cell,
}

impl Traffic {
    /// Counts a packet of so many bytes. Only the owning worker may call this.
    #[inline(always)]
    pub fn count(&self, bytes: u16) {
        self.packets.add(1);
        self.bytes.add(u64::from(bytes));
    }
}

/// The counters of a real server, as `ipvsadm --stats` shows them, and its connections of now.
#[derive(Debug, Default)]
pub struct ServerCells {
    /// Connections ever bound.
    pub conns: Cell,
    /// From clients, and to clients, by [`crate::conn::Direction`].
    pub traffic: [Traffic; 2],
    /// Active connections now (`SEMANTICS.md` section 3).
    pub active: Cell,
    /// Inactive connections now.
    pub inactive: Cell,
    /// Persistence templates now.
    pub templates: Cell,
    /// The service that it is in: one more than [`crate::service::ServiceId`], so that 0 is none.
    pub service: Cell,
}

/// The counters of a service.
#[derive(Debug, Default)]
pub struct ServiceCells {
    /// Connections ever bound.
    pub conns: Cell,
    /// From clients, and to clients, by [`crate::conn::Direction`].
    pub traffic: [Traffic; 2],
}

/// Every packet is in exactly one of these sums:
/// `rx + from_kernel + handed_in + generated + extra_fragments
///  = tx + punted + handed_out + Σ drops + merged + held`.
#[derive(Debug, Default)]
pub struct Books {
    /// Taken off ports.
    pub rx: Cell,
    /// Bytes of those.
    pub rx_bytes: Cell,
    /// Come from the kernel.
    pub from_kernel: Cell,
    /// Come from other workers.
    pub handed_in: Cell,
    /// Made by sluice itself.
    pub generated: Cell,
    /// Fragments beyond the first, of packets that were cut.
    pub extra_fragments: Cell,
    /// Put on ports.
    pub tx: Cell,
    /// Bytes of those.
    pub tx_bytes: Cell,
    /// Given to the kernel.
    pub punted: Cell,
    /// Given to other workers.
    pub handed_out: Cell,
    /// Fragments that became part of another packet.
    pub merged: Cell,
    /// Waiting inside for a next hop, now.
    pub held: Cell,
    /// Stopped, by [`DropReason`].
    pub drops: [Cell; DropReason::COUNT],
}

impl Books {
    /// Counts a stop.
    #[inline]
    pub fn dropped(&self, reason: DropReason) {
        self.drops[reason as usize].add(1);
    }

    /// What came in, of whatever source.
    pub fn sources(&self) -> u64 {
        self.rx.read()
            + self.from_kernel.read()
            + self.handed_in.read()
            + self.generated.read()
            + self.extra_fragments.read()
    }

    /// What went, of whatever way, and what is held.
    pub fn sinks(&self) -> u64 {
        self.tx.read()
            + self.punted.read()
            + self.handed_out.read()
            + self.merged.read()
            + self.held.read()
            + self.drops.iter().map(Cell::read).sum::<u64>()
    }

    /// Whether every packet is accounted for. Only meaningful between bursts of the owning worker.
    pub fn balance(&self) -> bool {
        self.sources() == self.sinks()
    }
}

/// How a packet that goes to another worker is forwarded, as far as can be told before its connection is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandedAs {
    /// By this method: of a service that has several, NAT if it is among them, else its first server's.
    Method(Method),
    /// That cannot be told: an ICMP error, or a service that is gone.
    Unknown,
    /// It is forwarded already, and another worker's queue sends it.
    Finished,
}

/// Packets of one port that went to other workers, by what they are.
#[derive(Debug, Default)]
pub struct HandedCells([Cell; HandedAs::COUNT]);

impl HandedAs {
    const COUNT: usize = 6;

    fn index(self) -> usize {
        match self {
            Self::Method(Method::Nat) => 0,
            Self::Method(Method::FullNat) => 1,
            Self::Method(Method::Dr) => 2,
            Self::Method(Method::Tun) => 3,
            Self::Unknown => 4,
            Self::Finished => 5,
        }
    }
}

impl HandedCells {
    /// How many of these there were.
    pub fn of(&self, kind: HandedAs) -> &Cell {
        &self.0[kind.index()]
    }

    /// How many there were in all.
    pub fn total(&self) -> u64 {
        self.0.iter().map(Cell::read).sum()
    }
}

/// Ports that are told apart: DPDK has no more unless it is built for more, and then the last one stands for the rest.
const PORTS: usize = 32;

/// All that one worker publishes.
#[derive(Debug)]
pub struct WorkerCells {
    /// Revision of the last change that the worker has applied whole. Stored with release order: who reads it sees all
    /// that the worker did before.
    applied: CachePadded<AtomicU64>,
    /// Packets.
    pub books: CachePadded<Books>,
    /// Of [`Books::handed_out`] each port's part, [`WorkerCells::handed`].
    handed: Box<[CachePadded<HandedCells>]>,
    /// Connections now.
    pub connections: CachePadded<Cell>,
    /// Turns of the worker's loop.
    pub polls: CachePadded<Cell>,
    /// Turns of the worker's loop that found something to do.
    pub busy_polls: CachePadded<Cell>,
    /// Local ports that FULLNAT found in use: how often a connection's first try was not its last.
    pub ports_passed_over: CachePadded<Cell>,
    /// By [`crate::service::RsId::index`].
    pub servers: Box<[CachePadded<ServerCells>]>,
    /// By [`crate::service::ServiceId`].
    pub services: Box<[CachePadded<ServiceCells>]>,
}

impl WorkerCells {
    /// Room for so many services and real servers.
    pub fn new(services: usize, servers: usize) -> Self {
        Self {
            applied: CachePadded::default(),
            books: CachePadded::default(),
            handed: (0..PORTS).map(|_| CachePadded::default()).collect(),
            connections: CachePadded::default(),
            polls: CachePadded::default(),
            busy_polls: CachePadded::default(),
            ports_passed_over: CachePadded::default(),
            servers: (0..servers).map(|_| CachePadded::default()).collect(),
            services: (0..services).map(|_| CachePadded::default()).collect(),
        }
    }

    /// What came in on a port, or is to leave by it if it is [`HandedAs::Finished`], and went to other workers.
    pub fn handed(&self, port: PortId) -> &HandedCells {
        &self.handed[usize::from(port.0).min(PORTS - 1)]
    }

    /// The cells of the service that this server is in.
    #[inline(always)]
    pub fn service_of(&self, server: &ServerCells) -> Option<&ServiceCells> {
        let service = self
            .services
            .get(server.service.read().wrapping_sub(1) as usize);
        service.map(|cells| &**cells)
    }

    /// Bytes that room for so many takes.
    pub fn bytes_for(services: usize, servers: usize) -> usize {
        size_of::<Self>()
            + PORTS * size_of::<CachePadded<HandedCells>>()
            + services * size_of::<CachePadded<ServiceCells>>()
            + servers * size_of::<CachePadded<ServerCells>>()
    }

    /// The revision of the last change applied whole.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Says that a change is applied whole. Only the owning worker may call this.
    pub fn set_applied(&self, revision: u64) {
        self.applied.store(revision, Ordering::Release);
    }
}

/// What one worker writes often shares no cache line with what another writes, nor the pair of lines that the prefetcher fetches: each
/// of these begins at such a pair and fills whole ones. Checked when compiled.
const _: () = {
    const LINES: usize = 128;
    const fn apart<T>() {
        assert!(align_of::<T>() == LINES && size_of::<T>().is_multiple_of(LINES));
    }
    apart::<WorkerCells>();
    apart::<CachePadded<AtomicU64>>();
    apart::<CachePadded<Books>>();
    apart::<CachePadded<Cell>>();
    apart::<CachePadded<HandedCells>>();
    apart::<CachePadded<ServerCells>>();
    apart::<CachePadded<ServiceCells>>();
    // No more lines than the counters need: real servers are many.
    assert!(size_of::<CachePadded<ServerCells>>() == LINES);
    assert!(size_of::<CachePadded<ServiceCells>>() == LINES);
    assert!(size_of::<Cell>() == size_of::<u64>());
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn books_that_miss_a_packet_do_not_balance() {
        let books = Books::default();
        books.rx.add(3);
        books.tx.add(1);
        books.dropped(DropReason::NoRoute);
        assert!(!books.balance());
        books.held.add(1);
        assert!(books.balance());
    }
}
