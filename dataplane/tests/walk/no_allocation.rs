//! Whatever a packet meets, the worker allocates nothing for it. Every turn of a [`Rig`] is counted, in all of these tests; what
//! is here are the cases in which something fills up, comes round or is made anew.

use std::net::Ipv4Addr;
use std::sync::Arc;

use sluice_dataplane::command::{Command, ServiceEdit};
use sluice_dataplane::conn::template::Templates;
use sluice_dataplane::drop_reason::DropReason;
use sluice_dataplane::egress::Route;
use sluice_dataplane::sched;
use sluice_dataplane::service::{
    AddressFamily, MarkRule, MarkRules, Method, Protocol, SchedulerKind, ServiceKey,
};

use crate::rig::*;

#[test]
#[should_panic(expected = "AllocationInfo { count_total: 1")]
fn an_allocation_in_a_turn_is_noticed() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.turn(|_, _| drop(std::hint::black_box(Box::new(7))));
}

#[test]
fn established_connections_of_every_method_both_ways() {
    for method in [Method::Nat, Method::FullNat, Method::Dr, Method::Tun] {
        let mut rig = Rig::new(Protocol::Tcp);
        rig.set_laddrs(&[LADDR]);
        for number in 1..=8 {
            rig.add_server(number, 80, method);
        }
        for port in 0..200 {
            let client = (CLIENT, 2000 + port);
            let out = rig.packet(CLIENT_SIDE, &tcp(client, (VIP, 80), "S", b""));
            if matches!(method, Method::Nat | Method::FullNat) {
                let (from, to) = out[0].flow();
                let back = rig.packet(SERVER_SIDE, &tcp(to, from, "SA", b""));
                assert_eq!(back[0].flow(), ((VIP, 80), client));
            }
            for flags in ["A", "A", "FA"] {
                let out = rig.packet(CLIENT_SIDE, &tcp(client, (VIP, 80), flags, b"data"));
                assert_eq!(out.len(), 1, "{method:?}");
            }
        }
        assert_eq!(rig.cells.books.tx.read(), rig.cells.books.rx.read());
    }
}

#[test]
fn connections_come_and_expire_many_times_over_what_the_table_holds() {
    for method in [Method::Nat, Method::FullNat, Method::Dr, Method::Tun] {
        let mut rig = Rig::new(Protocol::Udp);
        rig.set_laddrs(&[LADDR]);
        rig.add_server(1, 80, method);
        for round in 0..4 {
            for port in 0..250 {
                let client = (CLIENT, 1000 + 250 * round + port);
                let out = rig.packet(CLIENT_SIDE, &udp(client, (VIP, 80), b"?"));
                assert_eq!(out.len(), 1, "{method:?}");
            }
            assert_eq!(rig.cells.connections.read(), 250);
            rig.sleep(301_000);
            assert_eq!(rig.cells.connections.read(), 0);
        }
    }
}

#[test]
fn templates_come_and_go_many_times_over_what_their_table_holds() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(1, 80, Method::Nat);
    rig.add_server(2, 80, Method::Nat);
    rig.persist(100, [255; 4]);
    let most = Templates::capacity_beside(256) as u32;
    for round in 0..20 {
        // The last one finds no room.
        for n in 0..=most {
            let client = Ipv4Addr::from_bits(0x0b00_0000 + round * 1000 + n);
            let served = rig.syn((client, 1000), (VIP, 80)).is_some();
            assert_eq!(served, n < most);
        }
        let full = rig.drops(DropReason::TemplatesFull);
        assert_eq!(full, u64::from(round + 1));
        rig.sleep(200_000);
        assert_eq!(rig.templates().len(), 0);
        // After a turn with nothing to do the silent port is asked again.
        rig.poll();
    }
}

#[test]
fn every_scheduler_chooses() {
    for kind in SchedulerKind::ALL {
        let mut rig = Rig::new(Protocol::Udp);
        rig.service.key = ServiceKey::Mark {
            mark: 7,
            family: AddressFamily::V4,
        };
        rig.service.scheduler = kind;
        rig.service.one_packet = true;
        for number in 1..=8 {
            rig.add_server(number, 0, Method::Dr);
        }
        rig.service.scheduler_table = sched::table(kind, &rig.service.real_servers);
        rig.put(ServiceEdit::Edited);
        rig.command(Command::MarkRules(Arc::new(MarkRules(vec![MarkRule::of(
            7,
        )]))));
        let mut fib = fib();
        fib.insert("203.0.0.0/8".parse().unwrap(), Route::Local);
        rig.command(Command::Fib(Arc::new(fib)));
        // These two remember 24,576 destinations at most, and forget idle ones.
        let remembers = matches!(kind, SchedulerKind::Lblc | SchedulerKind::Lblcr);
        let destinations = if remembers { 25_000 } else { 100 };
        for _ in 0..2 {
            for n in 0..destinations {
                let to = Ipv4Addr::from_bits(0xcb00_0000 + n);
                let out = rig.packet(CLIENT_SIDE, &udp((CLIENT, 1000), (to, 53), b"?"));
                assert!(number_of(&out).is_some(), "{kind:?}");
            }
            rig.sleep(500_000);
        }
    }
}

#[test]
fn neighbours_that_never_answer_and_errors_to_those_who_ask() {
    let mut rig = Rig::new(Protocol::Udp);
    // Nobody has told the MAC of this one.
    rig.add_server(9, 80, Method::Nat);
    for round in 0..20 {
        for port in 0..40 {
            let query = udp((CLIENT, 1000 + port), (VIP, 80), b"?");
            assert!(rig.packet(CLIENT_SIDE, &query).is_empty());
        }
        assert_eq!(rig.cells.books.held.read(), 4);
        rig.sleep(4000);
        let unresolved = rig.drops(DropReason::NeighbourUnresolved);
        assert_eq!(unresolved, 4 * (round + 1));
    }
}
