//! Packets that arrive at the wrong worker (contract 4 of the design).

use std::net::Ipv4Addr;
use std::sync::Arc;

use sluice_dataplane::command::{PortId, ServiceEdit};
use sluice_dataplane::conn::{Endpoint, Ends};
use sluice_dataplane::drop_reason::DropReason;
use sluice_dataplane::service::{Method, Protocol};
use sluice_dataplane::steer::{HashTypes, Packet, Steering};

use crate::related::{TOO_LONG, error};
use crate::rig::*;
use crate::team::Team;

const WEB: (Ipv4Addr, u16) = (VIP, 80);
const METHODS: [Method; 4] = [Method::Nat, Method::FullNat, Method::Dr, Method::Tun];

/// A connection's packets, each received by another worker: how often one was handed off. `None` is any worker.
fn serve(team: &mut Team, port: u16, client_at: Option<usize>) -> u64 {
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
fn served_here(team: &mut Team, here: Ipv4Addr) {
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

/// The worker that a packet reaches by such a steering.
fn arrival(steering: &Steering, side: PortId, src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16)) -> usize {
    let [src, dst] = [src, dst].map(|(addr, port)| Endpoint::new(addr, port));
    let packet = Packet::flow(Protocol::Tcp, &Ends::new(src, dst));
    steering.reaches(side, &packet).unwrap().0.into()
}

#[test]
fn connections_stay_where_they_are_when_a_worker_is_taken_out() {
    let ports = || (0..30).map(|n| 2000 + n * 997);
    for method in METHODS {
        let mut team = Team::of(3, method);
        let old = team.spread(HashTypes::EVERY_KIND);
        for port in ports() {
            let at = arrival(&old, CLIENT_SIDE, (CLIENT, port), WEB);
            serve(&mut team, port, Some(at));
        }
        let before = team.connections();
        assert!(before.iter().all(|count| *count > 0));

        let new = team.move_all(&old, 0, 1);
        for port in ports() {
            let client = (CLIENT, port);
            let at = arrival(&new, CLIENT_SIDE, client, WEB);
            assert_ne!(at, 0);
            let out = team.packet(at, CLIENT_SIDE, &tcp(client, WEB, "A", b"more"));
            assert_eq!(number_of(&out), Some(1), "{method:?}");
            if matches!(method, Method::Nat | Method::FullNat) {
                let (src, server) = out[0].flow();
                let at = arrival(&new, SERVER_SIDE, server, src);
                let out = team.packet(at, SERVER_SIDE, &tcp(server, src, "A", b"answer"));
                assert_eq!((out[0].side, out[0].flow()), (CLIENT_SIDE, (WEB, client)));
            }
        }
        assert_eq!(
            team.connections(),
            before,
            "{method:?}: nothing was opened anew"
        );
        assert!(team.handed_out() > 0);

        for port in ports().map(|port| port + 1) {
            let at = arrival(&new, CLIENT_SIDE, (CLIENT, port), WEB);
            serve(&mut team, port, Some(at));
        }
        let after = team.connections();
        assert_eq!(
            after[0], before[0],
            "{method:?}: who was taken out gets nothing new"
        );
        assert_eq!(after.iter().sum::<u64>(), 60);
    }
}

/// A team of three, of which worker 0 was taken out: what it had is worker 1's now. Connections of each worker from before.
fn taken_out(method: Method) -> (Team, Vec<u16>, [Arc<Steering>; 2]) {
    let ports: Vec<u16> = (0..30).map(|n| 2000 + n * 997).collect();
    let mut team = Team::of(3, method);
    let old = team.spread(HashTypes::EVERY_KIND);
    for port in &ports {
        let at = arrival(&old, CLIENT_SIDE, (CLIENT, *port), WEB);
        serve(&mut team, *port, Some(at));
    }
    let new = team.move_all(&old, 0, 1);
    (team, ports, [old, new])
}

const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

#[test]
fn errors_about_connections_of_a_worker_that_was_taken_out_reach_it() {
    for method in [Method::Nat, Method::FullNat] {
        let (mut team, ports, [_, new]) = taken_out(method);
        let mut longest = 0;
        for port in ports {
            let client = (CLIENT, port);
            let owner = match method {
                Method::Nat => new
                    .owner_of_client(Endpoint::new(client.0, client.1))
                    .0
                    .into(),
                _ => arrival(&new, CLIENT_SIDE, client, WEB),
            };
            for at in 0..3 {
                let about = tcp(WEB, client, "SA", b"");
                let before = team.handed_out();
                let wrong = error(ROUTER, VIP, TOO_LONG, &about);
                let out = team.packet(at, CLIENT_SIDE, &wrong);
                assert_eq!(number_of(&out), Some(1), "{method:?}");
                let hops = team.handed_out() - before;
                // To the owner, and from there to who had such connections before.
                assert!(hops <= u64::from(at != owner) + 1, "{method:?} {hops}");
                longest = hops.max(longest);
            }
        }
        assert_eq!(longest, 2, "some are the former owner's");
        let answer = |team: &mut Team, at| {
            // From the servers' side, about what a client's router must hear of.
            let (src, dst) = match method {
                Method::Nat => ((CLIENT, 2000), (server(1), 8080)),
                _ => return None,
            };
            let wrong = error(server(7), CLIENT, TOO_LONG, &tcp(src, dst, "A", b""));
            Some(team.packet(at, SERVER_SIDE, &wrong))
        };
        for at in 0..3 {
            if let Some(out) = answer(&mut team, at) {
                assert_eq!((out.len(), out[0].side), (1, CLIENT_SIDE));
            }
        }
    }
}

#[test]
fn what_nobody_knows_is_asked_of_each_former_owner_once_and_ends_at_the_owner() {
    for method in METHODS {
        let (mut team, ports, [_, new]) = taken_out(method);
        // And on to worker 2, and back to 0 and away again: worker 0, 1 and 2 all had some.
        let again = team.move_all(&new, 1, 2);
        let last = team.move_all(&again, 2, 0);
        assert!(last.owners().iter().all(|owner| owner.0 == 0));
        for port in ports.iter().map(|port| port + 1) {
            for at in 0..3 {
                let before = team.handed_out();
                let stranger = tcp(WEB, (CLIENT, port), "SA", b"");
                let wrong = error(ROUTER, VIP, TOO_LONG, &stranger);
                assert!(team.packet(at, CLIENT_SIDE, &wrong).is_empty());
                let hops = team.handed_out() - before;
                assert!(hops <= u64::from(at != 0) + 3, "{method:?} {hops}");
                assert_eq!(team.punted(CLIENT_SIDE).len(), 1, "the kernel's in the end");
            }
        }
        let before = (team.handed_out(), team.connections());
        serve(&mut team, 60_001, Some(0));
        let opened = team.connections();
        assert_eq!(opened[0], before.1[0] + 1, "{method:?}: the owner opens it");
        assert_eq!(opened[1..], before.1[1..]);
        let hops = team.handed_out() - before.0;
        assert!(hops <= 4, "the first packet asks, the others know: {hops}");
    }
}

#[test]
fn replies_of_the_kernel_reach_a_worker_that_was_taken_out() {
    let here = Ipv4Addr::new(10, 0, 0, 1);
    let ports = || (0..24).map(|n| 2000 + n * 997);
    let mut team = Team::new(3, 64, Protocol::Tcp);
    served_here(&mut team, here);
    let old = team.spread(HashTypes::EVERY_KIND);
    for port in ports() {
        assert!(
            team.packet(0, CLIENT_SIDE, &tcp((CLIENT, port), WEB, "S", b""))
                .is_empty()
        );
    }
    let before = team.connections();
    assert!(before[0] > 0);
    team.move_all(&old, 0, 1);
    for port in ports() {
        for by in 0..3 {
            let handed = team.handed_out();
            let reply = tcp((here, 8080), (CLIENT, port), "SA", b"");
            let out = team.kernel_sends_by(by, CLIENT_SIDE, &reply);
            assert_eq!(out[0].flow(), (WEB, (CLIENT, port)));
            assert!(team.handed_out() - handed <= 2);
        }
    }
    assert_eq!(team.connections(), before);
    // What is nobody's goes out as it is, after all who might know it were asked once.
    for by in 0..3 {
        let handed = team.handed_out();
        for port in 7..27 {
            let own = tcp((here, 8080), (CLIENT, port), "SA", b"");
            let out = team.kernel_sends_by(by, CLIENT_SIDE, &own);
            assert_eq!(out[0].flow(), ((here, 8080), (CLIENT, port)));
        }
        assert!(team.handed_out() - handed <= 2 * 20);
    }
}

#[test]
fn more_than_64_workers_have_connections_that_move() {
    let mut team = Team::new(70, 8, Protocol::Tcp);
    team.each(|rig| {
        rig.add_server(1, 80, Method::Dr);
    });
    let old = team.spread(HashTypes::EVERY_KIND);
    let of_the_last = |port: &u16| arrival(&old, CLIENT_SIDE, (CLIENT, *port), WEB) == 69;
    let port = (2000..9000).find(of_the_last).unwrap();
    serve(&mut team, port, Some(69));
    let new = team.move_all(&old, 69, 66);
    assert_eq!(arrival(&new, CLIENT_SIDE, (CLIENT, port), WEB), 66);
    serve(&mut team, port, Some(66));
    assert_eq!(team.connections()[66], 0);
    assert_eq!(team.connections()[69], 1);
}
