//! Schedulers, one file each, behind one trait (`SEMANTICS.md` section 4).
//!
//! A scheduler's state belongs to one worker and one service. It walks the service's real servers in kernel order: the
//! latest added first.

mod rr;
mod wrr;

use std::fmt::Debug;

use crate::command::ServiceEdit;
use crate::conn::FlowKey;
use crate::service::{RealServerSpec, SchedulerKind, Server};

/// Chooses a real server for a new connection.
pub trait Scheduler: Debug + Send {
    /// The place in `pool` of the server that `flow` goes to; `None` when none may take it.
    fn choose(&mut self, pool: &Pool<'_>, flow: &FlowKey) -> Option<usize>;

    /// The list was edited from `before` to `after`.
    fn edited(&mut self, before: &[RealServerSpec], after: &[RealServerSpec], edit: ServiceEdit);
}

/// A scheduler of that kind for a service with these servers.
pub fn scheduler(kind: SchedulerKind, servers: &[RealServerSpec]) -> Box<dyn Scheduler> {
    match kind {
        SchedulerKind::Rr => Box::new(rr::RoundRobin::default()),
        SchedulerKind::Wrr => Box::new(wrr::WeightedRoundRobin::new(servers)),
    }
}

/// A service's real servers as a scheduler sees them.
#[derive(Clone, Copy, Debug)]
pub struct Pool<'a> {
    list: &'a [RealServerSpec],
    states: &'a [Server],
}

impl<'a> Pool<'a> {
    /// The servers in kernel order; `states` by [`crate::service::RsId::index`].
    pub fn new(list: &'a [RealServerSpec], states: &'a [Server]) -> Self {
        Self { list, states }
    }

    /// The servers, in kernel order.
    pub fn list(&self) -> &'a [RealServerSpec] {
        self.list
    }

    /// Whether the server at `place` has reached its upper threshold.
    pub fn overloaded(&self, place: usize) -> bool {
        self.states[self.list[place].id.index as usize].overloaded()
    }

    /// Whether the server at `place` takes new connections: weight above 0 and not overloaded.
    pub fn usable(&self, place: usize) -> bool {
        self.list[place].weight > 0 && !self.overloaded(place)
    }
}

/// Where `id` stands in `list`.
fn place_of(id: crate::service::RsId, list: &[RealServerSpec]) -> Option<usize> {
    list.iter().position(|server| server.id == id)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::service::{Method, Protocol, RsId};

    /// A scheduler with its servers, named by number, edited as control would.
    pub(crate) struct Bench {
        kind: SchedulerKind,
        pub(crate) list: Vec<RealServerSpec>,
        states: Vec<Server>,
        scheduler: Box<dyn Scheduler>,
    }

    impl Bench {
        pub(crate) fn new(kind: SchedulerKind, weights: &[(u32, u32)]) -> Self {
            let states = vec![Server::default(); 16];
            let mut bench = Self {
                kind,
                list: Vec::new(),
                states,
                scheduler: scheduler(kind, &[]),
            };
            for (number, weight) in weights {
                bench.add(*number, *weight);
            }
            bench
        }

        pub(crate) fn add(&mut self, number: u32, weight: u32) {
            let id = RsId {
                index: number,
                generation: 0,
            };
            let server = RealServerSpec {
                id,
                addr: IpAddr::V4(Ipv4Addr::from_bits(0xc0a8_0100 + number)),
                port: 80,
                method: Method::Nat,
                weight,
                upper_threshold: 0,
                lower_threshold: 0,
            };
            self.edit(ServiceEdit::ServerAdded { id, revived: false }, |list| {
                list.insert(0, server)
            });
        }

        pub(crate) fn set_weight(&mut self, number: u32, weight: u32) {
            let id = RsId {
                index: number,
                generation: 0,
            };
            self.edit(ServiceEdit::ServerEdited(id), |list| {
                list.iter_mut()
                    .filter(|s| s.id == id)
                    .for_each(|s| s.weight = weight);
            });
        }

        pub(crate) fn delete(&mut self, number: u32) {
            let id = RsId {
                index: number,
                generation: 0,
            };
            self.edit(ServiceEdit::ServerDeleted(id), |list| {
                list.retain(|s| s.id != id)
            });
        }

        pub(crate) fn set_overloaded(&mut self, number: u32, overloaded: bool) {
            self.states[number as usize].force_overloaded(overloaded);
        }

        fn edit(&mut self, edit: ServiceEdit, change: impl FnOnce(&mut Vec<RealServerSpec>)) {
            let before = self.list.clone();
            change(&mut self.list);
            self.scheduler.edited(&before, &self.list, edit);
        }

        pub(crate) fn choose(&mut self) -> Option<u32> {
            let flow = FlowKey {
                protocol: Protocol::Tcp,
                src: Ipv4Addr::new(10, 0, 0, 9),
                dst: Ipv4Addr::new(10, 0, 0, 1),
                src_port: 1024,
                dst_port: 80,
            };
            let place = self
                .scheduler
                .choose(&Pool::new(&self.list, &self.states), &flow)?;
            Some(self.list[place].id.index)
        }

        pub(crate) fn run(&mut self, count: usize) -> Vec<u32> {
            (0..count).map_while(|_| self.choose()).collect()
        }
    }

    #[test]
    fn every_scheduler_knows_its_name_and_refuses_an_empty_pool() {
        for kind in SchedulerKind::ALL {
            assert_eq!(SchedulerKind::from_name(kind.name()), Some(kind));
            let mut bench = Bench::new(kind, &[]);
            assert_eq!(bench.choose(), None);
            assert_eq!(bench.kind, kind);
        }
    }
}
