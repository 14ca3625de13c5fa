//! HTTP through each of the four forwarding modes, by one worker and by three, on taps and on memif.

use std::io::{Read, Write};

use serde_json::json;

use crate::netns::Netns;
use crate::rig::{LADDR, Rig, Service, Shape, VIP};
use crate::traffic::{PATIENCE, Server, connect, expect_pattern, http_get, send_pattern};
use crate::tunnel::Decapsulator;

const REQUESTS: usize = 20;

#[test]
fn http_by_nat() {
    by_nat(Shape::ONE);
}

#[test]
fn http_by_nat_with_three_workers() {
    by_nat(Shape::THREE);
}

#[test]
fn http_by_nat_with_three_workers_on_memif() {
    by_nat(Shape::THREE_ON_MEMIF);
}

fn by_nat(shape: Shape) {
    let mut rig = Rig::two_arms_with(2, shape);
    let service = rig.service("tcp", 80, "rr");
    rig.real_server(&service, "192.168.1.1:8080", "nat");
    rig.real_server(&service, "192.168.1.2:8080", "nat");
    let servers = web_servers(&rig, |n| format!("192.168.1.{n}:8080"));

    share_evenly(&mut rig, &service, shape.workers);

    // The servers saw the client itself.
    assert!(
        servers[0]
            .peers()
            .iter()
            .all(|peer| peer.ip().to_string() == "10.0.0.100")
    );
    counted(&mut rig, &service, shape.workers, true);
    rig.close();
}

#[test]
fn http_by_fullnat() {
    by_fullnat(Shape::ONE);
}

#[test]
fn http_by_fullnat_with_three_workers() {
    by_fullnat(Shape::THREE);
}

#[test]
fn http_by_fullnat_with_three_workers_on_memif() {
    by_fullnat(Shape::THREE_ON_MEMIF);
}

fn by_fullnat(shape: Shape) {
    let mut rig = Rig::two_arms_with(2, shape);
    for server in &rig.servers {
        // Nothing leads back to the client but the local address.
        server.ip("route del default");
    }
    let service = rig.service("tcp", 80, "rr");
    rig.laddr(&service, LADDR);
    rig.real_server(&service, "192.168.1.1:8080", "fullnat");
    rig.real_server(&service, "192.168.1.2:8080", "fullnat");
    let servers = web_servers(&rig, |n| format!("192.168.1.{n}:8080"));

    share_evenly(&mut rig, &service, shape.workers);

    assert!(
        servers[0]
            .peers()
            .iter()
            .all(|peer| peer.ip().to_string() == LADDR)
    );
    counted(&mut rig, &service, shape.workers, true);
    rig.close();
}

#[test]
fn http_by_direct_routing() {
    by_direct_routing(Shape::ONE);
}

#[test]
fn http_by_direct_routing_with_three_workers() {
    by_direct_routing(Shape::THREE);
}

#[test]
fn http_by_direct_routing_with_three_workers_on_memif() {
    by_direct_routing(Shape::THREE_ON_MEMIF);
}

fn by_direct_routing(shape: Shape) {
    let mut rig = Rig::one_arm_with(2, shape);
    for server in &rig.servers {
        vip_on_loopback(server);
    }
    let service = rig.service("tcp", 80, "rr");
    rig.real_server(&service, "10.0.0.11:80", "dr");
    rig.real_server(&service, "10.0.0.12:80", "dr");
    let _servers = web_servers(&rig, |_| format!("{VIP}:80"));

    share_evenly(&mut rig, &service, shape.workers);

    // Replies go from server to client without us.
    counted(&mut rig, &service, shape.workers, false);
    rig.close();
}

#[test]
fn http_by_tunnel() {
    by_tunnel(Shape::ONE);
}

#[test]
fn http_by_tunnel_with_three_workers() {
    by_tunnel(Shape::THREE);
}

#[test]
fn http_by_tunnel_with_three_workers_on_memif() {
    by_tunnel(Shape::THREE_ON_MEMIF);
}

fn by_tunnel(shape: Shape) {
    let mut rig = Rig::one_arm_with(2, shape);
    let ends: Vec<_> = rig
        .servers
        .iter()
        .enumerate()
        .map(|(n, server)| {
            vip_on_loopback(server);
            Decapsulator::start(server, &format!("10.0.0.{}", 11 + n))
        })
        .collect();
    let service = rig.service("tcp", 80, "rr");
    rig.real_server(&service, "10.0.0.11:80", "tun");
    rig.real_server(&service, "10.0.0.12:80", "tun");
    let _servers = web_servers(&rig, |_| format!("{VIP}:80"));

    share_evenly(&mut rig, &service, shape.workers);

    for end in ends {
        let packets = end.finish();
        assert!(packets > 3 * REQUESTS / 2, "{packets} tunnelled packets");
    }
    counted(&mut rig, &service, shape.workers, false);
    rig.close();
}

#[test]
fn an_upload_by_tunnel_learns_the_mtu() {
    const BYTES: usize = 1 << 20;
    let mut rig = Rig::one_arm(1);
    vip_on_loopback(&rig.servers[0]);
    let end = Decapsulator::start(&rig.servers[0], "10.0.0.11");
    let service = rig.service("tcp", 9000, "rr");
    rig.real_server(&service, "10.0.0.11:9000", "tun");
    let _server = Server::tcp(&rig.servers[0], &format!("{VIP}:9000"), |mut stream| {
        stream.set_read_timeout(Some(PATIENCE))?;
        expect_pattern(&mut stream, 7, BYTES)?;
        stream.write_all(b"same")
    });

    // Full frames have no room for the outer header: sluice says so by ICMP, and the client's kernel sends shorter ones.
    let to = service.address();
    rig.client.run(|| {
        let mut stream = connect(to).expect("connection");
        send_pattern(&mut stream, 7, BYTES).expect("upload");
        let mut verdict = [0; 4];
        stream.read_exact(&mut verdict).expect("verdict");
        assert_eq!(&verdict, b"same");
    });

    let learned = rig.client.ip(&format!("route get {VIP}"));
    assert!(learned.contains("mtu 1480"), "{learned}");
    assert!(end.finish() > BYTES / 1480);
    rig.close();
}

/// Every request is answered, by the two servers in turn: each worker's turn is its own.
fn share_evenly(rig: &mut Rig, service: &Service, workers: usize) {
    // Clients whose ports the kernel chose would soon meet their own old connections.
    rig.client.sysctl("ipv4/ip_local_port_range", "40000 40003");
    let to = service.address();
    let answers: Vec<_> = rig.client.run(|| {
        let request = |n| http_get(to).unwrap_or_else(|err| panic!("request {n}: {err:?}"));
        (0..REQUESTS).map(request).collect()
    });
    for name in ["rs1", "rs2"] {
        let count = answers.iter().filter(|answer| *answer == name).count();
        assert!(count.abs_diff(REQUESTS / 2) < workers, "{answers:?}");
    }
    if workers == 1 {
        for pair in answers.windows(2) {
            assert_ne!(pair[0], pair[1], "rr takes turns: {answers:?}");
        }
    } else {
        share_the_work(rig, workers);
    }
}

/// Every worker has connections, and they are listed with it.
fn share_the_work(rig: &mut Rig, workers: usize) {
    let stats = rig.rpc.call("stats", json!({}));
    let listed = rig.rpc.call("connection_list", json!({}))["connections"].take();
    let listed = listed.as_array().expect("a list");
    assert_eq!(listed.len(), REQUESTS);
    let shown = stats["workers"].as_array().expect("a list");
    assert_eq!(shown.len(), workers);
    for (id, worker) in shown.iter().enumerate() {
        let own = listed.iter().filter(|conn| conn["worker"] == id).count();
        assert!(own > 0, "worker {id} has none: {listed:?}");
        assert_eq!(worker["connections"], own, "{worker}");
    }
}

/// sluice's own counters say the same.
fn counted(rig: &mut Rig, service: &Service, workers: usize, replies_seen: bool) {
    crate::rig::eventually("counters are published", || {
        rig.listed(service)["stats"]["conns"] == REQUESTS
    });
    let listed = rig.listed(service);
    for server in listed["real_servers"].as_array().expect("a list") {
        let conns = server["stats"]["conns"].as_u64().expect("a count") as usize;
        assert!(conns.abs_diff(REQUESTS / 2) < workers, "{listed}");
        let replies = server["stats"]["out_packets"].as_u64().expect("a count");
        assert_eq!(replies > 0, replies_seen, "{listed}");
    }
}

fn web_servers(rig: &Rig, at: impl Fn(usize) -> String) -> Vec<Server> {
    let server =
        |(n, netns): (usize, &Netns)| Server::http(netns, &at(n + 1), &format!("rs{}", n + 1));
    rig.servers.iter().enumerate().map(server).collect()
}

/// The VIP on a real server that must not say so: it answers no ARP for it.
fn vip_on_loopback(server: &Netns) {
    server.sysctl("ipv4/conf/all/arp_ignore", "1");
    server.sysctl("ipv4/conf/all/arp_announce", "2");
    server.ip(&format!("addr add {VIP}/32 dev lo"));
}
