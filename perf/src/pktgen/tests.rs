//! The generator against the appliance's worker in memory, over a wire that may be bad.

use std::cell::Cell;
use std::sync::Arc;

use sluice_control::api::Method;
use sluice_dataplane::io::memory::{MemoryFrame, MemoryPort};
use sluice_dataplane::io::{Frame, Port};
use sluice_dataplane::packet::checksum::Sum;
use sluice_dataplane::time::{TickRate, Ticks};
use sluice_dataplane::worker::Worker;

use super::client::Client;
use super::engine::{Engine, Run, Task, Trial};
use super::fault::Fault;
use super::outcome::Outcome;
use super::plan::tests::plan;
use super::plan::{Plan, Role, Traffic};
use super::rate::Rate;
use super::servers::Servers;
use super::shared::{DIRECT, Shared};
use crate::scenario::{Balanced, ROUTER_MAC, SERVERS, Scenario, VIP, WIRE_MAC, server};
use crate::walk::{WIRE, assemble};

const METHODS: [Method; 4] = [Method::Nat, Method::FullNat, Method::Dr, Method::Tun];

/// Time that a turn takes.
const TURN_NS: u64 = 10_000;

/// A trial of 5,000 packets in 50 ms.
const RUN: Run = Run {
    rate: Rate::Fixed(100_000.0),
    seconds: 10.0,
    packets: Some(5000),
    flood: 0,
    churn: 0.0,
};

/// What the wire makes of the frames of a turn.
type Wire<'a> = &'a mut dyn FnMut(&mut Vec<MemoryFrame>);

/// A generator, its worker, and the time.
struct Rig {
    engine: Engine<MemoryPort>,
    worker: Worker<MemoryPort>,
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    now: Cell<u64>,
}

fn for_appliance(traffic: Traffic, method: Method) -> Plan {
    Plan {
        traffic,
        vip: VIP,
        first_server: std::net::SocketAddrV4::new(server(0), 80),
        servers: SERVERS.into(),
        method: Some(method),
        client_mac: ROUTER_MAC,
        appliance_mac: WIRE_MAC,
        ..plan()
    }
}

impl Rig {
    fn new(plan: Plan, method: Method) -> Self {
        plan.check().unwrap();
        let tcp = plan.traffic != Traffic::Udp;
        let service = Balanced {
            protocol: if tcp { "tcp" } else { "udp" },
            scheduler: "rr",
            weight: |_| 1,
        };
        let flows = 1 << 17;
        let scenario = Scenario { method, flows };
        let (worker, _, now) = assemble(&scenario, &service, MemoryPort::default).unwrap();
        let (plan, shared) = (Arc::new(plan), Arc::new(Shared::new()));
        let (to_clients, from_servers) = rtrb::RingBuffer::new(DIRECT);
        let rate = TickRate::NANOSECONDS;
        let client = Client::new(Arc::clone(&plan), Arc::clone(&shared), from_servers, rate);
        let servers = (plan.role == Role::Both)
            .then(|| Servers::new(Arc::clone(&plan), Arc::clone(&shared), to_clients, rate));
        let ports = vec![MemoryPort::default()];
        let client = Some(client.unwrap());
        Self {
            engine: Engine::new(ports, client, servers, Arc::clone(&shared), plan.role, rate),
            worker,
            plan,
            shared,
            now: Cell::new(now.0),
        }
    }

    fn run(&mut self, task: Task, wire: Wire<'_>) -> Outcome {
        let Self {
            engine,
            worker,
            now,
            ..
        } = self;
        self.shared.begin();
        let trial = Trial {
            task,
            drain_s: 0.01,
            naps: false,
        };
        engine.run(
            trial,
            || Ticks(now.get()),
            |engine| {
                let mut frames: Vec<_> = engine.port_mut(0).outgoing.drain(..).collect();
                wire(&mut frames);
                let port = &mut worker.port_mut(WIRE).unwrap().port;
                port.incoming.extend(frames);
                while worker.poll(Ticks(now.get())) {}
                let port = &mut worker.port_mut(WIRE).unwrap().port;
                let out: Vec<_> = port.outgoing.drain(..).collect();
                engine.port_mut(0).incoming.extend(out);
                now.set(now.get() + TURN_NS);
            },
        );
        let client = engine.client().unwrap().figures();
        let servers = engine.servers().map(Servers::figures);
        Outcome::new(task, self.plan.role, client, servers, &[engine.timing()])
    }
}

fn good(_: &mut Vec<MemoryFrame>) {}

#[test]
fn every_method_carries_every_traffic_without_a_fault() {
    for method in METHODS {
        for traffic in [Traffic::Udp, Traffic::Tcp, Traffic::Syn] {
            let mut plan = for_appliance(traffic, method);
            plan.sizes = "64:3,100:1".parse().unwrap();
            let mut rig = Rig::new(plan, method);
            if traffic != Traffic::Syn {
                let opening = rig.run(Task::Open, &mut good);
                assert!(
                    rig.engine.client().unwrap().all_open(),
                    "{method:?} {opening}"
                );
                assert_eq!(opening.began, 100);
            }
            let outcome = rig.run(Task::Run(RUN), &mut good);
            assert_eq!(
                outcome.complaints(0.0),
                [""; 0],
                "{method:?} {traffic:?} {outcome}"
            );
            assert_eq!((outcome.sent, outcome.arrived), (5000, Some(5000)));
            assert_eq!(outcome.answered, 5000, "{method:?} {traffic:?}");
            assert!(
                outcome.by_server.iter().all(|count| *count > 0),
                "{outcome:?}"
            );
            assert!((outcome.seconds - 0.05).abs() < 0.001, "{outcome}");
            assert_eq!(outcome.forward.unwrap().corrected.packets, 5000);
            let through_us = matches!(method, Method::Nat | Method::FullNat);
            assert_eq!(outcome.round_trip.is_some(), through_us);
        }
    }
}

#[test]
fn connections_live_and_die_with_true_sequence_numbers() {
    for method in METHODS {
        let mut plan = for_appliance(Traffic::Tcp, method);
        plan.life = Some(3);
        let mut rig = Rig::new(plan, method);
        let outcome = rig.run(Task::Run(RUN), &mut good);
        assert_eq!(outcome.complaints(0.0), [""; 0], "{method:?} {outcome}");
        // SYN, three with data, FIN, the last acknowledgement.
        assert!(outcome.began.abs_diff(5000 / 6) < 100, "{outcome}");
        assert!(outcome.began - outcome.closed <= 100, "{outcome}");
        assert_eq!(outcome.gave_up, 0);
        // A last acknowledgement follows each answered FIN, and nobody answers it.
        let unanswered = outcome.sent - outcome.answers_due;
        assert!(outcome.closed - unanswered <= 100, "{outcome}");
    }
}

#[test]
fn churn_replaces_so_many_connections_a_second() {
    for traffic in [Traffic::Udp, Traffic::Tcp] {
        let mut rig = Rig::new(for_appliance(traffic, Method::Nat), Method::Nat);
        rig.run(Task::Open, &mut good);
        let run = Run {
            churn: 2000.0,
            ..RUN
        };
        let outcome = rig.run(Task::Run(run), &mut good);
        assert_eq!(outcome.complaints(0.0), [""; 0], "{outcome}");
        // In a twentieth of a second.
        assert!(outcome.began.abs_diff(100) <= 5, "{outcome}");
    }
}

#[test]
fn a_flood_is_sent_beside_the_traffic_and_counted_by_itself() {
    let mut plan = for_appliance(Traffic::Tcp, Method::Dr);
    plan.spread = super::pick::Spread::Zipf(1.0);
    let mut rig = Rig::new(plan, Method::Dr);
    rig.run(Task::Open, &mut good);
    let run = Run { flood: 10, ..RUN };
    let outcome = rig.run(Task::Run(run), &mut good);
    assert_eq!(outcome.complaints(0.0), [""; 0], "{outcome}");
    assert_eq!(outcome.sent, 5000);
    assert!(outcome.flood_sent.abs_diff(50_000) <= 10, "{outcome}");
    assert_eq!(outcome.flood_arrived, outcome.flood_sent);
}

/// Runs over a wire that spoils every 1000th request or so, five in all.
fn spoiled(method: Method, role: Role, spoil: impl Fn(&mut Vec<MemoryFrame>, usize)) -> Outcome {
    let mut plan = for_appliance(Traffic::Udp, method);
    plan.role = role;
    // Of one flow, so that two frames in a turn are of the same.
    plan.flows = 1;
    let mut rig = Rig::new(plan, method);
    let mut count = 0;
    rig.run(Task::Open, &mut good);
    let run = Run {
        rate: Rate::Fixed(1e6),
        ..RUN
    };
    rig.run(Task::Run(run), &mut |frames| {
        let from_client = |frame: &MemoryFrame| frame.bytes()[6..12] == ROUTER_MAC.0;
        let (mut requests, answers): (Vec<_>, _) = frames.drain(..).partition(from_client);
        let before = count;
        count += requests.len();
        if before / 1000 < count / 1000 && requests.len() > 1 {
            spoil(&mut requests, 0);
        }
        frames.extend(requests);
        frames.extend(answers);
    })
}

#[test]
fn whatever_the_wire_does_to_a_frame_is_noticed() {
    let drop_one = spoiled(Method::Nat, Role::Both, |frames, at| {
        drop(frames.remove(at))
    });
    assert_eq!(
        (drop_one.lost, drop_one.faults.total()),
        (5, 0),
        "{drop_one}"
    );

    let twice = spoiled(Method::Nat, Role::Both, |frames, at| {
        frames.push(frames[at].clone())
    });
    assert_eq!(twice.faults.of(Fault::Duplicate), 5, "{twice}");

    let swap = spoiled(Method::Nat, Role::Both, |frames, at| {
        frames.swap(at, at + 1)
    });
    // At the real server, and the answers at the client.
    assert_eq!(swap.faults.of(Fault::Reordered), 10, "{swap}");

    let bit = spoiled(Method::Nat, Role::Both, |frames, at| {
        frames[at].bytes_mut()[50] ^= 1
    });
    assert_eq!(bit.faults.of(Fault::BadChecksum), 5, "{bit}");
    assert_eq!(bit.lost, 5);

    let renumbered = spoiled(Method::Dr, Role::Both, |frames, at| {
        number(&mut frames[at], 0x7fff_0000)
    });
    assert_eq!(renumbered.faults.of(Fault::Unknown), 5, "{renumbered}");
    for outcome in [drop_one, twice, swap, bit, renumbered] {
        assert!(!outcome.complaints(0.0).is_empty());
    }
}

/// Gives a datagram another number; its checksum follows.
fn number(frame: &mut MemoryFrame, number: u32) {
    let bytes = frame.bytes_mut();
    let old = u32::from_be_bytes([0, 1, 2, 3].map(|n| bytes[42 + n]));
    let sum = u16::from_be_bytes([bytes[40], bytes[41]]);
    let sum = Sum::of_checksum(sum)
        .replace_long(old, number)
        .udp_checksum();
    bytes[40..42].copy_from_slice(&sum.to_be_bytes());
    bytes[42..46].copy_from_slice(&number.to_be_bytes());
}

#[test]
fn packets_that_come_by_another_method_are_faults() {
    let mut plan = for_appliance(Traffic::Udp, Method::Tun);
    plan.flows = 10;
    let mut rig = Rig::new(plan, Method::Dr);
    let outcome = rig.run(Task::Open, &mut good);
    assert_eq!(outcome.faults.of(Fault::WrongMethod), 10, "{outcome}");
    assert_eq!(outcome.answered, 0);
}

/// What something out there does to a frame on its way back.
fn echoed(frame: &mut MemoryFrame) {
    let bytes = frame.bytes_mut();
    let (front, back) = bytes.split_at_mut(6);
    front.swap_with_slice(&mut back[..6]);
}

#[test]
fn whoever_gives_frames_back_is_enough_for_a_client() {
    for traffic in [Traffic::Udp, Traffic::Tcp, Traffic::Syn] {
        let mut plan = for_appliance(traffic, Method::Nat);
        plan.role = Role::Client;
        plan.life = (traffic == Traffic::Tcp).then_some(2);
        let mut rig = Rig::new(plan, Method::Nat);
        let mut back = Vec::new();
        let outcome = echo(&mut rig, &mut back);
        assert_eq!(outcome.complaints(0.0), [""; 0], "{traffic:?} {outcome}");
        assert_eq!(outcome.answered, outcome.answers_due);
        assert_eq!(outcome.round_trip.unwrap().raw.packets, outcome.answered);
    }
}

/// A trial whose frames come back at once instead of going to the worker.
fn echo(rig: &mut Rig, back: &mut Vec<MemoryFrame>) -> Outcome {
    let Rig { engine, now, .. } = rig;
    let trial = Trial {
        task: Task::Run(RUN),
        drain_s: 0.01,
        naps: false,
    };
    engine.run(
        trial,
        || Ticks(now.get()),
        |engine| {
            back.extend(engine.port_mut(0).outgoing.drain(..));
            back.iter_mut().for_each(echoed);
            engine.port_mut(0).incoming.extend(back.drain(..));
            now.set(now.get() + TURN_NS);
        },
    );
    let client = engine.client().unwrap().figures();
    Outcome::new(
        Task::Run(RUN),
        Role::Client,
        client,
        None,
        &[engine.timing()],
    )
}

#[test]
fn what_the_port_does_not_take_is_sent_later_and_in_order() {
    let mut plan = for_appliance(Traffic::Udp, Method::Nat);
    plan.flows = 1;
    let mut rig = Rig::new(plan, Method::Nat);
    rig.engine.port_mut(0).tx_room = Some(3);
    let run = Run {
        rate: Rate::Max,
        ..RUN
    };
    let outcome = rig.run(Task::Run(run), &mut good);
    assert_eq!(outcome.complaints(0.0), [""; 0], "{outcome}");
    assert_eq!(outcome.arrived, Some(5000));
    assert_eq!(rig.engine.port_mut(0).alloc().unwrap().bytes().len(), 0);
}

#[test]
fn a_rate_for_a_time_is_so_many_packets_even_if_the_port_is_slow() {
    // Four frames a turn of 10 µs are enough for all of it, but not for the end of the ramp.
    for (rate, room) in [("100k", None), ("50k..150k", None), ("0.1k..480k", Some(4))] {
        let mut rig = Rig::new(for_appliance(Traffic::Udp, Method::Dr), Method::Dr);
        rig.engine.port_mut(0).tx_room = room;
        let run = Run {
            rate: rate.parse().unwrap(),
            seconds: 0.05,
            packets: None,
            ..RUN
        };
        let wanted = (run.rate.mean().unwrap() * run.seconds) as u64;
        let outcome = rig.run(Task::Run(run), &mut good);
        assert_eq!(
            (outcome.sent, outcome.arrived),
            (wanted, Some(wanted)),
            "{rate}"
        );
        assert_eq!(outcome.kept_up(), room.is_none(), "{outcome}");
    }
}
