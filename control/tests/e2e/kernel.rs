//! What the kernel does for us: ARP, ping, and every service of the appliance itself.

use std::io::{Read, Write};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::netns::Netns;
use crate::rig::{OWN, Rig, VIP, eventually};
use crate::traffic::{Server, connect, http_get, http_get_within};

#[test]
fn the_kernel_answers_arp_and_ping() {
    let mut rig = Rig::two_arms(1);
    rig.service("tcp", 80, "rr");
    for address in [VIP, OWN] {
        ping(&rig.client, address);
    }
    ping(&rig.servers[0], "192.168.1.254");
    // And the other way: the appliance's own traffic leaves by the port.
    ping(&rig.appliance, "10.0.0.100");
    ping(&rig.appliance, "192.168.1.1");

    // The client has learned the port's own MAC, for either address.
    let stats = rig.rpc.call("stats", json!({}));
    let mac = stats["ports"][0]["mac"].as_str().expect("a MAC");
    let neighbours = rig.client.ip("neigh show");
    assert_eq!(neighbours.matches(mac).count(), 2, "{mac} in {neighbours}");
    assert!(stats["workers"][0]["punted"].as_u64() > Some(0), "{stats}");
    rig.close();
}

#[test]
fn a_server_on_the_appliance_itself_is_reached() {
    let mut rig = Rig::two_arms(1);
    rig.service("tcp", 80, "rr");
    // As ssh would be, on its own address and on a VIP's other ports.
    let _server = Server::tcp_echo(&rig.appliance, "0.0.0.0:22");
    rig.client.run(|| {
        for address in [OWN, VIP] {
            let to = format!("{address}:22").parse().expect("an address");
            let mut stream = connect(to).expect("connection");
            let sent: Vec<u8> = (0..100_000_u32).map(|n| n as u8).collect();
            let mut got = vec![0; sent.len()];
            for (sent, got) in sent.chunks(1000).zip(got.chunks_mut(1000)) {
                stream.write_all(sent).expect("send");
                stream.read_exact(got).expect("echo");
            }
            assert_eq!(sent, got);
        }
        // And where nobody listens the kernel says so at once.
        let to = format!("{OWN}:23").parse().expect("an address");
        let refused = connect(to).expect_err("nobody listens");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    });
    rig.close();
}

#[test]
fn a_neighbour_changes_its_mac() {
    let mut rig = Rig::two_arms(1);
    let service = rig.service("tcp", 80, "rr");
    rig.real_server(&service, "192.168.1.1:80", "nat");
    let _server = Server::http(&rig.servers[0], "192.168.1.1:80", "rs1");
    let to = service.address();
    let get = |rig: &Rig| rig.client.run(|| http_get(to));
    get(&rig).expect("before");

    // As a failover pair does: the new MAC is announced.
    rig.servers[0].sysctl("ipv4/conf/eth0/arp_notify", "1");
    change_mac(&rig.servers[0], "02:00:00:00:aa:01");
    eventually("the new MAC is in use", || get(&rig).is_ok());

    // Silently: the kernel finds out when it probes what it has not heard of for a while, here a short one.
    for (key, value) in [
        ("base_reachable_time_ms", "500"),
        ("delay_first_probe_time", "1"),
        ("retrans_time_ms", "200"),
    ] {
        rig.appliance
            .sysctl(&format!("ipv4/neigh/ex1/{key}"), value);
    }
    rig.servers[0].sysctl("ipv4/conf/eth0/arp_notify", "0");
    change_mac(&rig.servers[0], "02:00:00:00:aa:02");
    eventually("the silent change is found out", || get(&rig).is_ok());

    let listed = rig.listed(&service);
    assert!(listed["stats"]["conns"].as_u64() >= Some(3), "{listed}");
    rig.close();
}

#[test]
fn a_vip_that_is_not_local_matches_nothing() {
    let mut rig = Rig::two_arms(1);
    let service = rig.service("tcp", 80, "rr");
    rig.real_server(&service, "192.168.1.1:80", "nat");
    let _server = Server::http(&rig.servers[0], "192.168.1.1:80", "rs1");
    let to = service.address();
    rig.client.run(|| http_get(to)).expect("while it is local");

    rig.appliance.ip(&format!("addr del {VIP}/32 dev ex0"));
    eventually("the VIP is gone", || {
        rig.listed(&service)["vip_local"] == Value::Bool(false)
    });
    let conns = rig.listed(&service)["stats"]["conns"].clone();
    rig.client
        .run(|| http_get_within(to, Duration::from_secs(3)))
        .expect_err("nobody is there");
    assert_eq!(rig.listed(&service)["stats"]["conns"], conns);

    rig.appliance.ip(&format!("addr add {VIP}/32 dev ex0"));
    eventually("the VIP is back", || {
        rig.listed(&service)["vip_local"] == Value::Bool(true)
    });
    rig.client.run(|| http_get(to)).expect("once more");
    rig.close();
}

fn ping(from: &Netns, to: &str) {
    // One at a time: once there was an answer, ping waits for the others only twice as long as that took.
    for _ in 0..3 {
        let (well, text) = from.output(Command::new("ping").args(["-c", "1", "-W", "30", to]));
        assert!(well && text.contains(" 0% packet loss"), "{text}");
    }
}

fn change_mac(server: &Netns, mac: &str) {
    server.ip(&format!("link set eth0 address {mac}"));
}
