//! Schedulers, one file each, behind one trait (`SEMANTICS.md` section 4).
//!
//! A scheduler's state belongs to one worker and one service. It walks the service's real servers in kernel order: the
//! latest added first. Three kinds:
//! - rr, wrr, twos, lblc and lblcr keep state of their own;
//! - lc, wlc, sed, nq, fo and ovf are each a rule that ranks one server, and share a `tournament` over the ranks, which
//!   a change of one server's connections costs O(log n) and a choice nothing;
//! - sh, dh and mh read a [`SchedulerTable`] that control builds once for all workers.

mod cache;
mod dh;
mod fo;
mod lblc;
mod lblcr;
mod lc;
mod locality;
mod members;
mod mh;
mod nq;
mod ovf;
mod rr;
mod sed;
mod sh;
mod shares;
mod siphash;
mod tournament;
mod twos;
mod wlc;
mod wrr;

use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::Arc;

use crate::command::{ServiceEdit, Settings};
use crate::conn::FlowKey;
use crate::service::{RealServerSpec, RsId, SchedulerFlags, SchedulerKind, Server, ServiceSpec};
use crate::time::{TickRate, Ticks};
use tournament::Tournament;

pub use mh::MAX_SERVERS as MH_MAX_SERVERS;

/// For every value of a hash the place of a server in the list, or [`NOBODY`].
pub type SchedulerTable = Arc<[u16]>;

/// No server's place.
pub const NOBODY: u16 = u16::MAX;

/// Chooses a real server for a new connection.
pub trait Scheduler: Debug + Send {
    /// The place in `pool` of the server that a new connection goes to; `None` when none may take it.
    fn choose(&mut self, pool: &Pool<'_>, request: &Request<'_>) -> Option<usize>;

    /// The servers were `before`, and are from now on those of `pool`.
    fn edited(&mut self, before: &[RealServerSpec], pool: &Pool<'_>, edit: ServiceEdit);

    /// Since the last choice connections of the server at `place` came, went, or became active or inactive. Called
    /// for kinds that follow counts ([`follows_counts`]), and before the next choice.
    fn counted(&mut self, pool: &Pool<'_>, place: usize) {
        let _ = (pool, place);
    }
}

/// Where a worker's turn begins among all workers', so that together they are even (contract 3 of the design).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The worker's number.
    pub worker: u16,
    /// How many there are.
    pub workers: u16,
}

impl Start {
    /// Of a worker that is alone.
    pub const ALONE: Self = Self {
        worker: 0,
        workers: 1,
    };
}

/// A scheduler of the service's kind.
pub fn scheduler(kind: SchedulerKind, pool: &Pool<'_>, start: Start) -> Box<dyn Scheduler> {
    use SchedulerKind as Kind;
    match kind {
        Kind::Rr => Box::new(rr::RoundRobin::new(start)),
        Kind::Wrr => Box::new(wrr::WeightedRoundRobin::new(pool.list, start)),
        Kind::Lc => Box::new(Tournament::new(lc::rank, pool)),
        Kind::Wlc => Box::new(Tournament::new(wlc::rank, pool)),
        Kind::Sed => Box::new(Tournament::new(sed::rank, pool)),
        Kind::Nq => Box::new(Tournament::new(nq::rank, pool)),
        Kind::Fo => Box::new(Tournament::new(fo::rank, pool)),
        Kind::Ovf => Box::new(Tournament::new(ovf::rank, pool)),
        Kind::Lblc => Box::new(lblc::Lblc::new(pool)),
        Kind::Lblcr => Box::new(lblcr::Lblcr::new(pool)),
        Kind::Dh => Box::new(dh::DestinationHash),
        Kind::Sh => Box::new(sh::SourceHash),
        Kind::Mh => Box::new(mh::Maglev),
        Kind::Twos => Box::new(twos::Twos::new(pool)),
    }
}

/// The table that a service with these servers needs, for the kinds that choose by one. Control thread: costs up to
/// a millisecond for mh with many servers.
pub fn table(kind: SchedulerKind, servers: &[RealServerSpec]) -> Option<SchedulerTable> {
    match kind {
        SchedulerKind::Dh => Some(dh::table(servers)),
        SchedulerKind::Sh => Some(sh::table(servers)),
        SchedulerKind::Mh => Some(mh::table(servers)),
        _ => None,
    }
}

/// Whether a scheduler of this kind is to be told of every change of connection counts.
pub fn follows_counts(kind: SchedulerKind) -> bool {
    use SchedulerKind as Kind;
    match kind {
        Kind::Lc | Kind::Wlc | Kind::Sed | Kind::Nq | Kind::Fo | Kind::Ovf => true,
        Kind::Lblc | Kind::Lblcr | Kind::Twos => true,
        Kind::Rr | Kind::Wrr | Kind::Dh | Kind::Sh | Kind::Mh => false,
    }
}

/// What a server is chosen for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The packet that opens the connection.
    pub flow: &'a FlowKey,
    /// When.
    pub now: Ticks,
    /// Ticks a second of `now`.
    pub rate: TickRate,
    /// What the operator set.
    pub settings: &'a Settings,
}

/// A service's real servers as a scheduler sees them.
#[derive(Clone, Copy, Debug)]
pub struct Pool<'a> {
    list: &'a [RealServerSpec],
    states: &'a [Server],
    table: &'a [u16],
    flags: SchedulerFlags,
}

/// How a server stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standing {
    weight: u32,
    active: u32,
    total: u32,
}

impl Standing {
    fn of(weight: u32, state: &Server) -> Self {
        Self {
            weight,
            active: state.active_everywhere(),
            total: state.total_everywhere(),
        }
    }

    /// lc's measure: an active connection weighs as much as 257 inactive ones.
    fn overhead(self) -> u64 {
        256 * u64::from(self.active) + u64::from(self.total)
    }
}

impl<'a> Pool<'a> {
    /// The servers of a service, in kernel order; `states` by [`RsId::index`].
    pub fn new(spec: &'a ServiceSpec, states: &'a [Server]) -> Self {
        Self {
            list: &spec.real_servers,
            states,
            table: spec.scheduler_table.as_deref().unwrap_or_default(),
            flags: spec.scheduler_flags,
        }
    }

    /// The servers, in kernel order.
    pub fn list(&self) -> &'a [RealServerSpec] {
        self.list
    }

    /// Whether the server at `place` has reached its upper threshold.
    pub fn overloaded(&self, place: usize) -> bool {
        self.state(place).overloaded()
    }

    /// Whether the server at `place` takes new connections: weight above 0 and not overloaded.
    pub fn usable(&self, place: usize) -> bool {
        self.list[place].weight > 0 && !self.overloaded(place)
    }

    fn state(&self, place: usize) -> &'a Server {
        &self.states[self.list[place].id.index as usize]
    }

    fn standing(&self, place: usize) -> Standing {
        Standing::of(self.list[place].weight, self.state(place))
    }

    /// How a server stands that may be deleted; `None` once its place is another's.
    fn standing_of(&self, id: RsId) -> Option<Standing> {
        let state = self.states.get(id.index as usize)?;
        (state.generation == id.generation).then(|| Standing::of(state.weight, state))
    }

    /// The place that the table has for a hash; `None` where it is empty.
    fn in_table(&self, hash: usize) -> Option<usize> {
        let place = self.table.get(hash).copied().filter(|at| *at != NOBODY)?;
        Some(usize::from(place))
    }
}

/// Where `id` stands in `list`.
fn place_of(id: RsId, list: &[RealServerSpec]) -> Option<usize> {
    list.iter().position(|server| server.id == id)
}

/// An address as the kernel's hashes take it: IPv4 in host order, IPv6 as the sum of its words without carry.
fn folded(addr: IpAddr) -> u32 {
    match addr {
        IpAddr::V4(v4) => v4.to_bits(),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            (0..4).fold(0, |sum, word| sum ^ (bits >> (32 * word)) as u32)
        }
    }
}

/// The kernel's multiplicative hash to 256 buckets.
fn bucket(value: u32) -> usize {
    (value.wrapping_mul(0x61C8_8647) >> 24) as usize
}

#[cfg(test)]
mod against_model;
#[cfg(test)]
mod model;
#[cfg(test)]
pub(crate) mod tests;
