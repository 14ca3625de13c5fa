//! A service with its scheduler, edited as control would.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::*;
use crate::service::{Method, Protocol, ServiceId, ServiceKey, Services, Tunnel};
use crate::stats::WorkerCells;

/// Servers there can be.
const SERVERS: usize = 64;

/// A service whose servers are named by number.
pub(crate) struct Bench {
    spec: ServiceSpec,
    services: Services,
    /// Numbers given so far: who comes back is revived.
    known: Vec<u32>,
    now: Ticks,
    /// What the next choices are for.
    pub(crate) flow: FlowKey,
    pub(crate) settings: Settings,
}

/// One tick a second.
const RATE: u64 = 1;

fn id(number: u32) -> RsId {
    RsId {
        index: number,
        generation: 0,
    }
}

/// A real server by number.
pub(crate) fn server(number: u32, weight: u32) -> RealServerSpec {
    RealServerSpec {
        id: id(number),
        addr: IpAddr::V4(Ipv4Addr::from_bits(0xc0a8_0100 + number)),
        port: 80,
        method: Method::Nat,
        tunnel: Tunnel::Ipip,
        weight,
        last_weight: weight,
        upper_threshold: 0,
        lower_threshold: 0,
    }
}

impl Bench {
    pub(crate) fn new(kind: SchedulerKind, weights: &[(u32, u32)]) -> Self {
        Self::with_room(kind, weights, SERVERS)
    }

    /// With room for server numbers below `room`.
    pub(crate) fn with_room(kind: SchedulerKind, weights: &[(u32, u32)], room: usize) -> Self {
        let vip = Ipv4Addr::new(10, 0, 0, 1);
        let key = ServiceKey::Address {
            protocol: Protocol::Tcp,
            addr: IpAddr::V4(vip),
            port: 80,
        };
        let spec = ServiceSpec {
            scheduler: kind,
            scheduler_table: table(kind, &[]),
            ..ServiceSpec::new(ServiceId(0), key)
        };
        let mut bench = Self {
            services: Services::new(Arc::new(WorkerCells::new(1, room))),
            spec,
            known: Vec::new(),
            now: Ticks(1_000_000),
            flow: FlowKey {
                protocol: Protocol::Tcp,
                src: Ipv4Addr::new(10, 0, 0, 9),
                dst: vip,
                src_port: 1024,
                dst_port: 80,
            },
            settings: Settings::default(),
        };
        bench.put(ServiceEdit::Created);
        for (number, weight) in weights {
            bench.add(*number, *weight);
        }
        bench
    }

    pub(crate) fn add(&mut self, number: u32, weight: u32) {
        let server = server(number, weight);
        let id = server.id;
        self.spec.real_servers.insert(0, server);
        let revived = self.known.contains(&number);
        self.known.push(number);
        self.put(ServiceEdit::ServerAdded { id, revived });
    }

    pub(crate) fn set_weight(&mut self, number: u32, weight: u32) {
        for server in &mut self.spec.real_servers {
            if server.id == id(number) {
                server.weight = weight;
                if weight > 0 {
                    server.last_weight = weight;
                }
            }
        }
        self.put(ServiceEdit::ServerEdited(id(number)));
    }

    pub(crate) fn delete(&mut self, number: u32) {
        self.spec.real_servers.retain(|s| s.id != id(number));
        self.put(ServiceEdit::ServerDeleted(id(number)));
    }

    pub(crate) fn set_flags(&mut self, flags: SchedulerFlags) {
        self.spec.scheduler_flags = flags;
        self.put(ServiceEdit::Edited);
    }

    pub(crate) fn set_scheduler(&mut self, kind: SchedulerKind) {
        self.spec.scheduler = kind;
        self.put(ServiceEdit::Edited);
    }

    pub(crate) fn set_overloaded(&mut self, number: u32, overloaded: bool) {
        self.services.force_overloaded(number, overloaded);
    }

    pub(crate) fn load(&mut self, number: u32, active: u32, inactive: u32) {
        self.services.load(number, active, inactive);
    }

    /// Lets so many seconds pass.
    pub(crate) fn pass(&mut self, seconds: u64) {
        self.now = Ticks(self.now.0 + seconds * RATE);
    }

    pub(crate) fn list(&self) -> Vec<RealServerSpec> {
        self.spec.real_servers.clone()
    }

    fn put(&mut self, edit: ServiceEdit) {
        self.spec.scheduler_table = table(self.spec.scheduler, &self.spec.real_servers);
        self.services.put(Arc::new(self.spec.clone()), edit);
    }

    pub(crate) fn choose(&mut self) -> Option<u32> {
        let request = Request {
            flow: &self.flow,
            now: self.now,
            rate: TickRate::new(RATE),
            settings: &self.settings,
        };
        let server = self.services.schedule(self.spec.id, &request)?;
        Some(server.id.index)
    }

    pub(crate) fn run(&mut self, count: usize) -> Vec<u32> {
        (0..count).map_while(|_| self.choose()).collect()
    }
}

#[test]
fn every_scheduler_knows_its_name_and_refuses_an_empty_pool() {
    for kind in SchedulerKind::ALL {
        assert_eq!(SchedulerKind::from_name(kind.name()), Some(kind));
        assert_eq!(Bench::new(kind, &[]).choose(), None, "{}", kind.name());
    }
}

#[test]
fn every_scheduler_finds_the_only_usable_server_and_nobody_when_there_is_none() {
    for kind in SchedulerKind::ALL {
        let mut bench = Bench::new(kind, &[(1, 3)]);
        assert_eq!(bench.run(3), [1, 1, 1], "{}", kind.name());
        bench.set_weight(1, 0);
        assert_eq!(bench.choose(), None, "{}", kind.name());
        bench.set_weight(1, 2);
        assert_eq!(bench.choose(), Some(1), "{}", kind.name());
        bench.delete(1);
        assert_eq!(bench.choose(), None, "{}", kind.name());
    }
}

#[test]
fn editing_the_service_itself_leaves_the_schedulers_state() {
    for kind in [SchedulerKind::Rr, SchedulerKind::Wrr] {
        let mut bench = Bench::new(kind, &[(1, 1), (2, 1), (3, 1)]);
        assert_eq!(bench.run(1), [3]);
        bench.set_flags(SchedulerFlags(4));
        assert_eq!(bench.run(1), [2]);
        bench.set_scheduler(SchedulerKind::Fo);
        bench.set_scheduler(kind);
        assert_eq!(
            bench.run(1),
            [3],
            "another scheduler and back: it starts anew"
        );
    }
}

#[test]
fn counts_that_changed_before_an_edit_are_not_forgotten() {
    let mut bench = Bench::new(SchedulerKind::Wlc, &[(1, 1), (2, 1)]);
    bench.load(2, 1, 0);
    bench.set_flags(SchedulerFlags(4));
    assert_eq!(bench.choose(), Some(1));
    bench.load(1, 2, 0);
    bench.set_scheduler(SchedulerKind::Lc);
    assert_eq!(bench.choose(), Some(2));
    bench.load(2, 3, 0);
    bench.set_weight(1, 5);
    assert_eq!(bench.choose(), Some(1));
}
