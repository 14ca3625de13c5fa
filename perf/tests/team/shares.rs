//! Each real server's share of the connections, with four workers and with one.

use std::collections::VecDeque;
use std::net::SocketAddrV4;

use serde_json::json;
use sluice_perf::frame::{ACK, SYN};

use crate::crowd::{Crowd, FIN, Packet, client};

/// Connections of a run.
const CONNECTIONS: u32 = 100_000;

/// New connections in a millisecond: 10,000 a second.
const A_MILLISECOND: u32 = 10;

/// How long a connection lasts, in milliseconds; those of the first real server last longer.
const LASTS_MS: u32 = 400;
const LASTS_LONGER_MS: u32 = 2500;

/// Connections where there are few at a time, and how many begin in a second.
const FEW: u32 = 20_000;
const FEW_A_SECOND: u64 = 10;

/// How far a share may be from what one worker gives, of everything.
const BOUND: f64 = 0.02;

/// The real servers' weights. The first is slow: its connections last longer.
const WEIGHTS: [u32; 6] = [3, 1, 2, 4, 1, 3];

/// What share of the connections each server gets. Connections are opened at a rate, established a millisecond later, and
/// closed by their clients.
fn shares(crowd: &mut Crowd, scheduler: &str) -> Vec<f64> {
    crowd.serve(json!({"scheduler": scheduler}), json!({}), &WEIGHTS);
    let mut counts = [0u32; WEIGHTS.len()];
    let mut ends: VecDeque<Vec<SocketAddrV4>> = VecDeque::new();
    let mut fresh: Vec<SocketAddrV4> = Vec::new();
    for now in 0..CONNECTIONS / A_MILLISECOND {
        let clients: Vec<_> = (0..A_MILLISECOND)
            .map(|n| client(now * A_MILLISECOND + n))
            .collect();
        let over = ends.pop_front().unwrap_or_default();
        let packets = |clients: &[SocketAddrV4], flags| -> Vec<Packet> {
            let packet = |client: &SocketAddrV4| Packet {
                client: *client,
                flags,
            };
            clients.iter().map(packet).collect()
        };
        let all = [
            packets(&clients, SYN),
            packets(&fresh, ACK),
            packets(&over, FIN | ACK),
        ]
        .concat();
        let got = crowd.send(&all);
        for (client, server) in clients.iter().zip(&got) {
            let server = usize::from(server.unwrap());
            counts[server] += 1;
            let lasts = if server == 0 {
                LASTS_LONGER_MS
            } else {
                LASTS_MS
            } as usize;
            if ends.len() < lasts {
                ends.resize(lasts, Vec::new());
            }
            ends[lasts - 1].push(*client);
        }
        fresh = clients;
        crowd.fleet.pass(1_000_000);
    }
    let share = |count: &u32| f64::from(*count) / f64::from(CONNECTIONS);
    counts.iter().map(share).collect()
}

fn four_share_as_one(scheduler: &str) {
    let mut four = Crowd::of_four();
    let of_four = shares(&mut four, scheduler);
    let of_one = shares(&mut Crowd::of(1, false), scheduler);
    compare(scheduler, &four, &of_four, &of_one);
}

fn compare(scheduler: &str, four: &Crowd, of_four: &[f64], of_one: &[f64]) {
    let received = four.fleet.cells().iter();
    let each: Vec<u64> = received.map(|cells| cells.books.rx.read()).collect();
    let (most, all) = (each[0], each.iter().sum::<u64>());
    assert!(
        most * 2 > all && each.iter().all(|count| count * 20 > all),
        "not skewed: {each:?}"
    );
    for (four, one) in of_four.iter().zip(of_one) {
        assert!(
            (four - one).abs() <= BOUND,
            "{scheduler}: {of_four:.3?} instead of {of_one:.3?}"
        );
    }
}

/// The same with few connections at a time: 10 a second, each of which lives for one. Most workers have one or none. Who knew only
/// its own would give too many to the first servers.
fn shares_of_few(crowd: &mut Crowd, scheduler: &str) -> Vec<f64> {
    prepare_few(crowd, scheduler);
    let mut counts = [0u32; 8];
    for n in 0..FEW {
        let server = crowd.send_datagram(client(n)).unwrap();
        counts[usize::from(server)] += 1;
        crowd.fleet.pass(1_000_000_000 / FEW_A_SECOND);
    }
    let share = |count: &u32| f64::from(*count) / f64::from(FEW);
    counts.iter().map(share).collect()
}

fn prepare_few(crowd: &mut Crowd, scheduler: &str) {
    crowd.call("setting_set", json!({"settings": {"timeout_udp": 1}}));
    crowd.serve_udp(json!({"scheduler": scheduler}), &[1; 8]);
}

fn few_are_shared_as_by_one(scheduler: &str) {
    let mut four = Crowd::of_four();
    let of_four = shares_of_few(&mut four, scheduler);
    let of_one = shares_of_few(&mut Crowd::of(1, false), scheduler);
    compare(scheduler, &four, &of_four, &of_one);
}

/// What [`few_are_shared_as_by_one`] finds: four appliances that know nothing of each other are far from one.
#[test]
fn four_that_knew_only_their_own_would_not_share_few_connections_as_one() {
    let of_one = shares_of_few(&mut Crowd::of(1, false), "lc");
    let mut strangers = [(); 4].map(|()| Crowd::of(1, false));
    for stranger in &mut strangers {
        prepare_few(stranger, "lc");
    }
    let mut counts = [0u32; 8];
    for n in 0..FEW {
        let turn = [0, 0, 0, 0, 0, 1, 2, 3][(n.wrapping_mul(0x9e37_79b1) >> 29) as usize];
        let server = strangers[turn].send_datagram(client(n)).unwrap();
        counts[usize::from(server)] += 1;
        for stranger in &mut strangers {
            stranger.fleet.pass(1_000_000_000 / FEW_A_SECOND);
        }
    }
    let far = counts.iter().zip(&of_one).any(|(count, one)| {
        let share = f64::from(*count) / f64::from(FEW);
        (share - one).abs() > BOUND
    });
    assert!(far, "{counts:?} beside {of_one:.3?}");
}

#[test]
fn four_workers_share_few_connections_as_one_by_lc() {
    few_are_shared_as_by_one("lc");
}

#[test]
fn four_workers_share_few_connections_as_one_by_wlc() {
    few_are_shared_as_by_one("wlc");
}

#[test]
fn four_workers_share_as_one_by_rr() {
    four_share_as_one("rr");
}

#[test]
fn four_workers_share_as_one_by_wrr() {
    four_share_as_one("wrr");
}

#[test]
fn four_workers_share_as_one_by_lc() {
    four_share_as_one("lc");
}

#[test]
fn four_workers_share_as_one_by_wlc() {
    four_share_as_one("wlc");
}

#[test]
fn four_workers_share_as_one_by_sh() {
    four_share_as_one("sh");
}

#[test]
fn four_workers_share_as_one_by_mh() {
    four_share_as_one("mh");
}
