//! Several workers as an operator sees them: counters, `-Z` and draining cover all, and a port with fewer queues than workers.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::netns::Netns;
use crate::pcap;
use crate::rig::{Rig, Shape, VIP, balances, eventually};
use crate::shell::Shell;
use crate::traffic::{Server, connect, http_get};

/// The numbers of a line of `ipvsadm -Ln --stats` or `--rate` that begins like this.
fn numbers(listing: &str, begin: &str) -> Vec<u64> {
    let line = listing
        .lines()
        .find(|line| line.trim_start().starts_with(begin));
    let line = line.unwrap_or_else(|| panic!("no {begin}: {listing}"));
    let words = line.split_whitespace().rev().take(5);
    let mut numbers: Vec<u64> = words.map(|word| word.parse().expect("a number")).collect();
    numbers.reverse();
    numbers
}

#[test]
fn statistics_and_zeroing_cover_all_workers() {
    const FIRST: u64 = 24;
    const THEN: u64 = 6;
    let mut rig = Rig::two_arms_with(2, Shape::THREE);
    let service = rig.service("tcp", 80, "rr");
    let mut servers = Vec::new();
    for (n, netns) in (1..).zip(&rig.servers) {
        servers.push(Server::http(
            netns,
            &format!("192.168.1.{n}:80"),
            &format!("rs{n}"),
        ));
    }
    for n in 1..=2 {
        rig.real_server(&service, &format!("192.168.1.{n}:80"), "nat");
    }
    let to = service.address();
    let ask = |rig: &Rig, times| {
        rig.client.run(|| {
            for n in 0..times {
                http_get(to).unwrap_or_else(|err| panic!("request {n}: {err:?}"));
            }
        });
    };
    let web = format!("TCP  {VIP}:80");
    let shown = |rig: &Rig| {
        let listing = Shell::on(rig).ipvsadm("-Ln --stats");
        let of = |begin: &str| numbers(&listing, begin);
        (of(&web), [of("-> 192.168.1.1:80"), of("-> 192.168.1.2:80")])
    };
    let conns = |rig: &Rig| shown(rig).0[0];

    ask(&rig, FIRST);
    eventually("all are counted", || conns(&rig) == FIRST);
    let workers = workers(&mut rig);
    let own: Vec<u64> = workers
        .iter()
        .map(|worker| count(worker, "connections"))
        .collect();
    assert_eq!(own.iter().sum::<u64>(), FIRST);
    assert!(
        own.iter().all(|count| *count > 0),
        "each worker has some: {own:?}"
    );
    let (all, each) = shown(&rig);
    for column in 0..5 {
        assert!(all[column] > 0, "{all:?}");
        assert_eq!(each[0][column] + each[1][column], all[column]);
    }

    Shell::on(&rig).ipvsadm("-Z");
    // A client that takes its leave late may still be heard.
    let (all, each) = shown(&rig);
    assert_eq!([all[0], each[0][0], each[1][0]], [0; 3], "{all:?} {each:?}");
    let stats = rig.rpc.call("stats", json!({}));
    assert_eq!(stats["totals"]["conns"], 0);

    ask(&rig, THEN);
    eventually("only these are counted", || conns(&rig) == THEN);
    let all = shown(&rig).0;
    assert!(all[1] >= 4 * THEN && all[1] < 4 * FIRST, "{all:?}");
    rig.close();
}

#[test]
fn draining_waits_for_connections_of_all_workers() {
    const STREAMS: usize = 24;
    let mut rig = Rig::two_arms_with(1, Shape::THREE);
    let service = rig.service("tcp", 7, "rr");
    rig.real_server(&service, "192.168.1.1:7", "nat");
    let _server = Server::tcp_echo(&rig.servers[0], "192.168.1.1:7");
    let to = service.address();
    let streams: Vec<TcpStream> = rig.client.run(|| {
        (0..STREAMS)
            .map(|_| connect(to).expect("a connection"))
            .collect()
    });
    eventually("all are counted", || {
        rig.listed(&service)["real_servers"][0]["active"] == STREAMS
    });
    let listed = rig.rpc.connections(json!({}));
    let workers_of = listed.iter().map(|conn| count(conn, "worker"));
    let worker = workers_of.max().expect("there are some");
    let own = listed.iter().filter(|conn| conn["worker"] == worker);
    let last: Vec<u16> = own.map(port_of_client).collect();
    assert!(last.len() < STREAMS, "one worker has all: {listed:?}");

    // What is heard of again gets the timeout of now, a second. One worker's are not.
    let settings = json!({"settings": {"timeout_tcp": 1, "timeout_tcp_fin": 1}});
    rig.rpc.call("setting_set", settings);
    let speak = |rig: &Rig, chosen: &(dyn Fn(u16) -> bool + Sync)| {
        rig.client.run(|| {
            for mut stream in &streams {
                if chosen(stream.local_addr().expect("it has one").port()) {
                    stream.write_all(b"x").expect("it is open");
                }
            }
        });
    };
    speak(&rig, &|port| !last.contains(&port));
    eventually("the others' have ended", || {
        rig.rpc.connections(json!({})).len() == last.len()
    });
    let drain = format!("server drain tcp {VIP}:7 192.168.1.1:7 --wait --deadline");
    let late = Shell::on(&rig).sluice_with(&format!("{drain} 1"), "");
    assert_eq!((late.code, late.err.as_str()), (3, ""), "{late:?}");
    let remain = format!("{} connections remain", last.len());
    assert!(late.out.contains(&remain), "{late:?}");

    speak(&rig, &|port| last.contains(&port));
    let done = Shell::on(&rig).sluice_with(&format!("{drain} 100"), "");
    assert_eq!((done.code, done.err.as_str()), (0, ""), "{done:?}");
    assert!(done.out.contains(", 0 connections remain"), "{}", done.out);
    assert!(
        workers(&mut rig)
            .iter()
            .all(|worker| count(worker, "connections") == 0)
    );
    drop(streams);
    rig.close();
}

#[test]
fn workers_without_a_queue_live_from_what_others_hand_over() {
    const CLIENTS: u8 = 60;
    let home = TempDir::with_prefix("sluice-e2e-").expect("a temporary directory");
    let frames: Vec<_> = (1..=CLIENTS)
        .map(|client| pcap::syn(pcap::PORT, client, 80))
        .collect();
    pcap::write(&home.path().join("in.pcap"), &frames);
    let boot = pcap::boot(home.path(), 3);
    let netns = Netns::new("pcap");
    let output = home.path().join("lan.pcap.out");
    let daemon = Daemon::spawn_at(&netns, &boot, home).ready();
    let mut rpc = daemon.rpc();
    let mut stats = Value::Null;
    eventually("all frames are through", || {
        stats = rpc.call("stats", json!({}));
        let sent: u64 = stats["ports"][1]["tx"].as_u64().expect("a counter");
        sent == u64::from(CLIENTS)
    });
    let workers = stats["workers"].as_array().expect("a list").clone();
    let each =
        |key: &str| -> Vec<u64> { workers.iter().map(|worker| count(worker, key)).collect() };
    let clients = u64::from(CLIENTS);
    assert!(workers.iter().all(balances), "{workers:?}");
    // The only queues are worker 0's: what comes in, and what goes out.
    assert_eq!(each("rx"), [clients, 0, 0]);
    assert_eq!(each("tx"), [clients, 0, 0]);
    let connections = each("connections");
    assert_eq!(connections.iter().sum::<u64>(), clients);
    assert!(connections.iter().all(|own| *own > 0), "{connections:?}");
    let others = connections[1] + connections[2];
    let handed = |port: usize, kind: &str| count(&stats["ports"][port]["handed"], kind);
    assert_eq!((handed(0, "nat"), handed(0, "to_send")), (others, 0));
    assert_eq!((handed(1, "nat"), handed(1, "to_send")), (0, others));
    assert_eq!(handed(0, "share_ppm"), others * 1_000_000 / clients);
    let said = Shell::at(&netns, daemon.socket()).sluice("stats");
    let share = format!(
        "{}.{:02} %",
        others * 100 / clients,
        others * 10_000 / clients % 100
    );
    assert!(
        said.contains("handed over") && said.contains(&share),
        "{share}: {said}"
    );
    drop(rpc);
    let log = daemon.log();
    assert!(
        log.contains(
            "one receive queue: all packets reach worker 0, which hands over what is others'"
        ),
        "{log}"
    );
    let home = daemon.stop();
    assert_eq!(pcap::read(&output).len(), usize::from(CLIENTS));
    drop(home);
}

fn workers(rig: &mut Rig) -> Vec<Value> {
    let mut stats = rig.rpc.call("stats", json!({}));
    let workers = stats["workers"].take();
    workers.as_array().expect("a list").clone()
}

fn count(of: &Value, key: &str) -> u64 {
    of[key].as_u64().unwrap_or_else(|| panic!("no {key}: {of}"))
}

fn port_of_client(conn: &Value) -> u16 {
    let client = conn["client"].as_str().expect("an address and a port");
    let client: SocketAddr = client.parse().expect("an address and a port");
    client.port()
}
