//! Entries of the redirection table that move between workers: connections stay, and their packets find them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use sluice_dataplane::command::{PortId, WorkerId};
use sluice_dataplane::conn::{Endpoint, Ends};
use sluice_dataplane::service::{Method, Protocol};
use sluice_dataplane::steer::{HashTypes, Packet, Steering};

use crate::hand_off::{METHODS, WEB, serve, served_here};
use crate::related::{TOO_LONG, error};
use crate::rig::*;
use crate::team::Team;

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
        if method == Method::Nat {
            // And from the servers' side, about what a client sent.
            let about = tcp((CLIENT, 2000), (server(1), 8080), "A", b"");
            let wrong = error(server(7), CLIENT, TOO_LONG, &about);
            for at in 0..3 {
                let out = team.packet(at, SERVER_SIDE, &wrong);
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

/// The number of the entry that a client's packets have in such a steering.
fn entry(steering: &Steering, method: Method, port: u16) -> usize {
    let [client, web] = [(CLIENT, port), WEB].map(|(addr, port)| Endpoint::new(addr, port));
    let owners = |entry| {
        (0..128)
            .map(|at| WorkerId(u16::from(at == entry)))
            .collect()
    };
    let is_of = |entry: &usize| {
        let probe = steering.moved(owners(*entry), Team::spreads(steering, &owners(*entry)));
        let probe = probe.unwrap();
        let owner = match method {
            Method::Nat => probe.owner_of_client(client),
            _ => probe
                .reaches(
                    CLIENT_SIDE,
                    &Packet::flow(Protocol::Tcp, &Ends::new(client, web)),
                )
                .unwrap(),
        };
        owner == WorkerId(1)
    };
    (0..128).find(is_of).unwrap()
}

#[test]
fn hand_off_grows_with_a_move_and_ends_with_the_connections_that_it_left_behind() {
    for method in METHODS {
        let mut team = Team::of(3, method);
        let old = team.spread(HashTypes::EVERY_KIND);
        let ports: Vec<u16> = (0..40).map(|n| 2000 + n * 997).collect();
        let at = |steering: &Steering, port: u16| match method {
            // Whoever receives it hands it to its owner; the owner itself hands nothing over.
            Method::Nat => steering
                .owner_of_client(Endpoint::new(CLIENT, port))
                .0
                .into(),
            _ => arrival(steering, CLIENT_SIDE, (CLIENT, port), WEB),
        };
        for port in &ports {
            serve(&mut team, *port, Some(at(&old, *port)));
        }
        // Of the first worker's entries, those of every other client move.
        let of_the_first: Vec<u16> = ports
            .iter()
            .copied()
            .filter(|port| at(&old, *port) == 0)
            .collect();
        let moving: Vec<usize> = of_the_first
            .iter()
            .step_by(2)
            .map(|port| entry(&old, method, *port))
            .collect();
        let moving = BTreeSet::from_iter(moving);
        let new = team.move_where(&old, |entry, owner| {
            if moving.contains(&entry) {
                WorkerId(1)
            } else {
                owner
            }
        });
        let moved = |port: &&u16| at(&old, **port) == 0 && at(&new, **port) == 1;
        let (gone, kept): (Vec<u16>, Vec<u16>) = of_the_first.iter().partition(moved);
        assert!(gone.len() >= 4 && kept.len() >= 4, "{gone:?} {kept:?}");

        let ack = |team: &mut Team, port: u16| {
            let before = team.handed_out();
            let ack = tcp((CLIENT, port), WEB, "A", b"");
            assert_eq!(
                number_of(&team.packet(at(&new, port), CLIENT_SIDE, &ack)),
                Some(1)
            );
            team.handed_out() - before
        };
        assert!(
            gone.iter().all(|port| ack(&mut team, *port) == 1),
            "{method:?}"
        );
        assert!(
            kept.iter().all(|port| ack(&mut team, *port) == 0),
            "{method:?}"
        );
        let census = team.workers[0].census(128);
        assert_eq!(census.connections, gone.len() as u64, "{method:?}");
        let classes = census.classes.iter().filter(|class| **class).count();
        assert_eq!(classes, moving.len());
        assert_eq!(
            team.settle_moves(&new).map(|_| ()),
            None,
            "nobody can be forgotten"
        );

        // The connections that moved end in their time, the first worker's others live on.
        for _ in 0..10 {
            team.each(|rig| rig.sleep(100_000));
            kept.iter()
                .for_each(|port| assert_eq!(ack(&mut team, *port), 0));
        }
        assert_eq!(team.connections()[0], kept.len() as u64);
        assert_eq!(team.workers[0].census(128).connections, 0);
        // As long as nobody knows that, openings ask.
        let fresh = (20_000..60_000u16).filter(|port| moving.contains(&entry(&new, method, *port)));
        let fresh: Vec<u16> = fresh.take(2).collect();
        let syn = |team: &mut Team, steering: &Steering, port: u16| {
            let before = team.handed_out();
            let syn = tcp((CLIENT, port), WEB, "S", b"");
            assert_eq!(
                number_of(&team.packet(at(steering, port), CLIENT_SIDE, &syn)),
                Some(1)
            );
            team.handed_out() - before
        };
        assert_eq!(
            syn(&mut team, &new, fresh[0]),
            2,
            "{method:?}: there and back"
        );
        let settled = team
            .settle_moves(&new)
            .expect("the first worker is forgotten");
        assert!(!settled.has_moved());
        assert_eq!(syn(&mut team, &settled, fresh[1]), 0, "{method:?}");
        assert_eq!(team.connections()[0], kept.len() as u64);
    }
}
