//! Packets that arrive at the wrong worker (contract 4 of the design).

use std::net::Ipv4Addr;

use sluice_dataplane::command::ServiceEdit;
use sluice_dataplane::drop_reason::DropReason;
use sluice_dataplane::service::{Method, Protocol};
use sluice_dataplane::stats::HandedAs;

use crate::related::{TOO_LONG, error};
use crate::rig::*;
use crate::team::Team;

pub(crate) const WEB: (Ipv4Addr, u16) = (VIP, 80);
pub(crate) const METHODS: [Method; 4] = [Method::Nat, Method::FullNat, Method::Dr, Method::Tun];

/// A connection's packets, each received by another worker: how often one was handed off. `None` is any worker.
pub(crate) fn serve(team: &mut Team, port: u16, client_at: Option<usize>) -> u64 {
    let (count, before) = (team.workers.len(), team.handed_out());
    let client = (CLIENT, port);
    let mut at = usize::from(port);
    let mut next = || {
        at += 1;
        at % count
    };
    let syn_at = client_at.unwrap_or_else(&mut next);
    let out = team.packet(syn_at, CLIENT_SIDE, &tcp(client, WEB, "S", b""));
    assert_eq!(number_of(&out), Some(1), "one packet, to the server");
    if let [syn] = &out[..]
        && syn.packet[9] == 6
        && syn.flow().1 == (server(1), 8080)
    {
        let (src, _) = syn.flow();
        let reply = tcp((server(1), 8080), src, "SA", b"");
        let out = team.packet(next(), SERVER_SIDE, &reply);
        assert_eq!(out.len(), 1);
        assert_eq!((out[0].side, out[0].flow()), (CLIENT_SIDE, (WEB, client)));
    }
    for payload in [&b""[..], b"GET /"] {
        let ack = tcp(client, WEB, "A", payload);
        let out = team.packet(client_at.unwrap_or_else(&mut next), CLIENT_SIDE, &ack);
        assert_eq!(number_of(&out), Some(1));
    }
    team.handed_out() - before
}

#[test]
fn a_nat_connection_is_one_workers_whoever_receives_its_packets() {
    for workers in [2, 3, 5] {
        let mut team = Team::of(workers, Method::Nat);
        let handed: Vec<u64> = (0..60)
            .map(|n| 2000 + n * 997)
            .map(|port| serve(&mut team, port, None))
            .collect();
        assert!(handed.iter().all(|n| *n <= 4), "each packet at most once");
        assert_eq!(team.connections().iter().sum::<u64>(), 60);
        assert!(team.connections().iter().all(|count| *count > 0));
    }
}

#[test]
fn what_one_turn_leaves_in_a_ring_the_next_takes_unasked() {
    let mut team = Team::of(2, Method::Nat);
    let rig = &mut team.workers[0];
    let port = &mut rig.worker.port_mut(CLIENT_SIDE).unwrap().port;
    for client in 5000..5200 {
        let syn = tcp((CLIENT, client), WEB, "S", b"");
        port.deliver(&ethernet(mac(CLIENT_SIDE), &syn));
    }
    for _ in 0..20 {
        team.workers[0].poll();
    }
    let handed = team.handed_out();
    assert!(handed > 64, "several bursts: {handed}");
    for _ in 0..20 {
        team.workers[1].poll();
    }
    let taken = team.workers[1].cells.books.handed_in.read();
    assert_eq!(taken, handed, "without a word of the first meanwhile");
}

#[test]
fn clients_of_other_methods_stay_where_they_come_in() {
    for method in METHODS.into_iter().skip(1) {
        let mut team = Team::of(3, method);
        team.spread_by_nics();
        for port in 5000..5030 {
            let at = usize::from(port) % 3;
            let handed = serve(&mut team, port, Some(at));
            let replies = u64::from(method == Method::FullNat);
            assert!(handed <= replies, "only a reply may be received by another");
        }
        assert_eq!(team.connections(), [10, 10, 10]);
        assert_eq!(team.handed_out() > 0, method == Method::FullNat);
    }
}

#[test]
fn who_has_no_transmit_queue_has_another_send() {
    let mut team = Team::sent_by_the_last(3, Protocol::Tcp);
    team.each(|rig| {
        rig.add_server(1, 8080, Method::Nat);
    });
    for port in 5000..5020 {
        serve(&mut team, port, None);
    }
    let books = team.workers.iter().map(|rig| &rig.cells.books);
    let sent: Vec<u64> = books.map(|books| books.tx.read()).collect();
    assert_eq!(sent, [0, 0, 80]);
}

#[test]
fn by_ports_that_spread_nothing_a_client_has_one_worker_whatever_the_method() {
    for method in METHODS {
        let mut team = Team::of(3, method);
        for port in (0..60).map(|n| 2000 + n * 997) {
            let handed = serve(&mut team, port, None);
            assert!(handed <= 4, "each packet at most once");
        }
        assert_eq!(team.connections().iter().sum::<u64>(), 60);
        assert!(team.connections().iter().all(|count| *count > 0));
        // All come in by one queue, and the others live from what is handed over.
        let mut team = Team::of(3, method);
        for port in (0..60).map(|n| 2000 + n * 997) {
            serve(&mut team, port, Some(0));
        }
        assert!(team.connections().iter().all(|count| *count > 10));
    }
}

#[test]
fn what_is_handed_off_is_counted_by_port_and_method() {
    for method in METHODS {
        let mut team = Team::of(3, method);
        for port in (0..60).map(|n| 2000 + n * 997) {
            serve(&mut team, port, None);
        }
        let of = |kind| [CLIENT_SIDE, SERVER_SIDE].map(|side| team.handed_as(side, kind));
        let [from_clients, from_servers] = of(HandedAs::Method(method));
        // Of three packets each, two thirds come to another worker than their owner.
        assert!((90..=150).contains(&from_clients), "{method:?}");
        let replies = matches!(method, Method::Nat | Method::FullNat);
        assert_eq!(from_servers > 0, replies, "{method:?}");
        assert_eq!(team.handed_out(), from_clients + from_servers);
        let (out, other) = (of(HandedAs::Finished), of(HandedAs::Unknown));
        assert_eq!([out, other], [[0; 2]; 2]);
    }
    // An error is of no method, and what another has to send is finished.
    let mut team = Team::of(3, Method::FullNat);
    team.spread_by_nics();
    let stranger = tcp(WEB, (CLIENT, 5000), "SA", b"");
    let wrong = error(Ipv4Addr::new(203, 0, 113, 1), VIP, TOO_LONG, &stranger);
    team.packet(1, CLIENT_SIDE, &wrong);
    assert_eq!(team.handed_as(CLIENT_SIDE, HandedAs::Unknown), 2);
    let mut team = Team::sent_by_the_last(3, Protocol::Tcp);
    team.each(|rig| {
        rig.add_server(1, 8080, Method::Nat);
    });
    let before = team.handed_as(SERVER_SIDE, HandedAs::Finished);
    let syns = (0..30).map(|n| tcp((CLIENT, 2000 + n * 997), WEB, "S", b""));
    let sent: usize = syns
        .map(|syn| team.packet(0, CLIENT_SIDE, &syn).len())
        .sum();
    let finished = team.handed_as(SERVER_SIDE, HandedAs::Finished) - before;
    assert!(sent == 30 && (10..30).contains(&finished), "{finished}");
}

#[test]
fn one_worker_has_nobody_to_hand_off_to() {
    for method in METHODS {
        let mut team = Team::of(1, method);
        assert_eq!(serve(&mut team, 5000, None), 0);
    }
}

#[test]
fn a_full_ring_drops_counted_and_what_went_keeps_its_order() {
    let mut team = Team::new(2, 8, Protocol::Udp);
    team.each(|rig| {
        rig.add_server(1, 8080, Method::Nat);
    });
    // A client whose packets the first worker hands off.
    let client = (CLIENT, owned_by_the_second(&mut team));
    let before = team.workers[0].cells.books.handed_out.read();
    let port = &mut team.workers[0].worker.port_mut(CLIENT_SIDE).unwrap().port;
    for n in 0..20_u8 {
        port.deliver(&ethernet(mac(CLIENT_SIDE), &udp(client, WEB, &[n])));
    }
    team.workers[0].poll();
    let books = &team.workers[0].cells.books;
    assert_eq!(books.handed_out.read() - before, 8);
    assert_eq!(team.drops(DropReason::HandOffFull), 12);
    let counted = books.handed_out.read();
    let of_nat = HandedAs::Method(Method::Nat);
    let kinds = team.workers[0].cells.handed(CLIENT_SIDE);
    assert_eq!((kinds.of(of_nat).read(), kinds.total()), (counted, counted));
    team.settle();
    let out: Vec<u8> = team.sent().iter().map(|sent| sent.packet[28]).collect();
    assert_eq!(out, [0, 1, 2, 3, 4, 5, 6, 7]);
}

fn owned_by_the_second(team: &mut Team) -> u16 {
    let found = (5000..5100).find(|port| {
        let before = team.handed_out();
        team.packet(0, CLIENT_SIDE, &udp((CLIENT, *port), WEB, b""));
        team.handed_out() > before
    });
    found.expect("a hash that spreads")
}

#[test]
fn an_error_finds_its_connection_whoever_has_it_and_goes_round_no_more_than_once() {
    for method in [Method::Nat, Method::FullNat] {
        for client_at in 0..3 {
            for error_at in 0..3 {
                let mut team = Team::of(3, method);
                team.spread_by_nics();
                serve(&mut team, 5000, Some(client_at));
                let router = Ipv4Addr::new(203, 0, 113, 1);
                let about = tcp(WEB, (CLIENT, 5000), "SA", b"");
                let before = team.handed_out();
                let wrong = error(router, VIP, TOO_LONG, &about);
                let out = team.packet(error_at, CLIENT_SIDE, &wrong);
                assert_eq!(number_of(&out), Some(1), "{method:?}");
                let most = if method == Method::Nat { 1 } else { 2 };
                assert!(team.handed_out() - before <= most);
            }
        }
    }
    let mut team = Team::of(3, Method::FullNat);
    team.spread_by_nics();
    let stranger = tcp(WEB, (CLIENT, 5000), "SA", b"");
    let wrong = error(Ipv4Addr::new(203, 0, 113, 1), VIP, TOO_LONG, &stranger);
    assert!(team.packet(1, CLIENT_SIDE, &wrong).is_empty());
    assert_eq!((team.handed_out(), team.punted(CLIENT_SIDE).len()), (2, 1));
}

/// The service has one server: the machine itself, by this address.
pub(crate) fn served_here(team: &mut Team, here: Ipv4Addr) {
    team.each(|rig| {
        let id = rig.add_server(1, 8080, Method::Nat);
        let mut servers = rig.service.real_servers.iter_mut();
        servers.find(|real| real.id == id).unwrap().addr = here.into();
        rig.put(ServiceEdit::ServerEdited(id));
    });
}

#[test]
fn replies_of_the_kernel_are_translated_by_the_worker_that_has_the_connection() {
    let mut team = Team::new(3, 64, Protocol::Tcp);
    // The machine itself is the real server.
    let here = Ipv4Addr::new(10, 0, 0, 1);
    served_here(&mut team, here);
    for port in (0..24).map(|n| 2000 + n * 997) {
        let client = (CLIENT, port);
        let syn = tcp(client, WEB, "S", b"");
        assert!(team.packet(0, CLIENT_SIDE, &syn).is_empty());
        assert_eq!(team.punted(CLIENT_SIDE).len(), 1);
        let reply = tcp((here, 8080), client, "SA", b"");
        let out = team.kernel_sends(CLIENT_SIDE, &reply);
        assert_eq!(out[0].flow(), (WEB, client));
    }
    assert!(team.connections().iter().all(|count| *count > 0));
    assert!(team.handed_out() > 0);
    // And what is nobody's goes out as it is.
    let own = tcp((here, 8080), (CLIENT, 7), "SA", b"");
    let out = team.kernel_sends(CLIENT_SIDE, &own);
    assert_eq!(out[0].flow(), ((here, 8080), (CLIENT, 7)));
}

#[test]
fn what_nobody_knows_is_the_kernels_or_dropped_by_its_owner() {
    let mut team = Team::of(3, Method::Nat);
    let stray = tcp((server(1), 9999), (CLIENT, 5001), "A", b"");
    for at in 0..3 {
        assert!(team.packet(at, SERVER_SIDE, &stray).is_empty());
    }
    assert_eq!(team.punted(SERVER_SIDE).len(), 3);
    let mut team = Team::of(3, Method::FullNat);
    let stray = tcp((server(1), 8080), (LADDR, 5001), "A", b"");
    for at in 0..3 {
        assert!(team.packet(at, SERVER_SIDE, &stray).is_empty());
    }
    assert_eq!(team.drops(DropReason::StrayLocalPort), 3);
    assert_eq!(team.handed_out(), 2);
}
