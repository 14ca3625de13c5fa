//! Counters, rates, and what of a deleted server is kept.

use serde_json::json;

use super::*;

#[test]
fn counters_are_sums_over_workers_and_a_new_service_starts_at_zero() {
    let mut rig = with_a_server(2);
    for worker in &rig.1.channels {
        worker.cells.services[0].conns.add(2);
        worker.cells.services[0].traffic[0].bytes.add(70);
        worker.cells.servers[0].conns.add(2);
        worker.cells.servers[0].active.add(1);
        worker.cells.books.drops[0].add(4);
        worker.cells.books.rx.add(9);
    }
    let service = ok(&mut rig, "service_list", json!({}))["services"][0].clone();
    assert_eq!(service["stats"]["conns"], 4);
    assert_eq!(service["stats"]["in_bytes"], 140);
    assert_eq!(service["real_servers"][0]["stats"]["conns"], 4);
    assert_eq!(service["real_servers"][0]["active"], 2);
    assert_eq!(ok(&mut rig, "drops", json!({}))["drops"][0]["packets"], 8);
    let stats = ok(&mut rig, "stats", json!({}));
    assert_eq!(stats["totals"]["conns"], 4);
    assert_eq!(stats["workers"][1]["rx"], 9);
    assert_eq!(stats["workers"][1]["dropped"], 4);

    // A server that returns to the same service goes on counting; in a new service it starts anew.
    let server = json!({"service": web(), "address": "192.168.1.1:80", "method": "nat"});
    ok(
        &mut rig,
        "real_server_delete",
        json!({"service": web(), "address": "192.168.1.1:80"}),
    );
    ok(&mut rig, "real_server_add", server.clone());
    let listed = ok(&mut rig, "service_list", json!({}))["services"][0].clone();
    assert_eq!(listed["real_servers"][0]["stats"]["conns"], 4);
    ok(&mut rig, "service_delete", json!({"service": web()}));
    ok(&mut rig, "service_add", json!({"service": web()}));
    ok(&mut rig, "real_server_add", server);
    let listed = ok(&mut rig, "service_list", json!({}))["services"][0].clone();
    assert_eq!(listed["stats"]["conns"], 0);
    assert_eq!(listed["real_servers"][0]["stats"]["conns"], 0);
    assert_eq!(
        listed["real_servers"][0]["active"], 2,
        "its connections are still there"
    );
    assert_eq!(ok(&mut rig, "stats", json!({}))["totals"]["conns"], 4);
}

#[test]
fn zeroing_a_service_leaves_others_and_zeroing_all_takes_the_totals_too() {
    let mut rig = with_a_server(2);
    let dns = json!({"protocol": "udp", "address": "10.0.0.1:53"});
    ok(&mut rig, "service_add", json!({"service": dns}));
    for worker in &rig.1.channels {
        worker.cells.services[0].conns.add(2);
        worker.cells.servers[0].traffic[0].packets.add(300);
        worker.cells.servers[0].active.set(1);
        worker.cells.services[1].conns.add(5);
    }
    rig.0.tick(Duration::from_secs(2));
    let revision = rig.0.revision();
    let answer = ok(&mut rig, "service_zero", json!({"service": web()}));
    assert_eq!(answer, json!({"revision": revision}));
    let list = ok(&mut rig, "service_list", json!({}))["services"].clone();
    assert_eq!(list[0]["stats"]["conns"], 0);
    let server = &list[0]["real_servers"][0];
    assert_eq!(server["stats"]["in_packets"], 0);
    assert_eq!(server["rates"]["in_pps"], 0);
    assert_eq!(server["active"], 2, "connections are no statistics");
    assert_eq!(list[1]["stats"]["conns"], 10);
    assert_eq!(ok(&mut rig, "stats", json!({}))["totals"]["conns"], 14);

    rig.1.channels[0].cells.services[0].conns.add(1);
    let list = ok(&mut rig, "service_list", json!({}))["services"].clone();
    assert_eq!(list[0]["stats"]["conns"], 1);
    ok(&mut rig, "service_zero", json!({}));
    let list = ok(&mut rig, "service_list", json!({}))["services"].clone();
    assert_eq!(list[0]["stats"]["conns"], 0);
    assert_eq!(list[1]["stats"]["conns"], 0);
    let stats = ok(&mut rig, "stats", json!({}));
    assert_eq!(stats["totals"]["conns"], 0);
    assert_eq!(stats["rates"]["cps"], 0);
    let error = call(
        &mut rig,
        "service_zero",
        json!({"service": {"protocol": "tcp", "address": "10.0.0.9:80"}}),
    );
    assert_eq!(error.unwrap_err().kind(), ErrorKind::NoSuchService);
}

#[test]
fn what_is_handed_over_is_summed_by_port_and_method_and_set_against_what_came_in() {
    use sluice_dataplane::stats::HandedAs;

    let ports = ["wan", "lan"].map(|name| PortStats {
        name: name.to_owned(),
        rx: 1000,
        ..PortStats::default()
    });
    let with_ports = |workers| {
        let mut rig = with_a_server(workers);
        let ports = ports.to_vec();
        rig.0.ports = Box::new(move || ports.clone());
        rig
    };
    let mut rig = with_ports(2);
    for worker in &rig.1.channels {
        let [wan, lan] = [0, 1].map(|id| worker.cells.handed(PortId(id)));
        wan.of(HandedAs::Method(Method::Nat)).add(100);
        wan.of(HandedAs::Unknown).add(5);
        wan.of(HandedAs::Finished).add(70);
        lan.of(HandedAs::Method(Method::FullNat)).add(1);
    }
    let stats = ok(&mut rig, "stats", json!({}));
    let handed = |port: usize| stats["ports"][port]["handed"].clone();
    let wan = json!({
        "nat": 200, "fullnat": 0, "dr": 0, "tun": 0, "other": 10, "to_send": 140, "share_ppm": 210_000
    });
    assert_eq!(handed(0), wan);
    let lan = &handed(1);
    assert_eq!(
        (&lan["fullnat"], &lan["share_ppm"]),
        (&json!(2), &json!(2000))
    );
    // One worker has nobody to hand anything to.
    let stats = ok(&mut with_ports(1), "stats", json!({}));
    assert!(stats["ports"][0].get("handed").is_none());
}

#[test]
fn a_deleted_server_is_forgotten_two_minutes_after_its_last_connection() {
    let mut rig = with_a_server(1);
    let server = json!({"service": web(), "address": "192.168.1.1:80"});
    rig.1.channels[0].cells.servers[0].inactive.set(1);
    ok(&mut rig, "real_server_delete", server.clone());
    rig.0.tick(Duration::from_secs(1000));
    assert_eq!(rig.0.config().trash_len(), 1);
    rig.1.channels[0].cells.servers[0].inactive.set(0);
    rig.0.tick(Duration::from_secs(1060));
    rig.0.tick(Duration::from_secs(1139));
    assert_eq!(rig.0.config().trash_len(), 1);
    rig.0.tick(Duration::from_secs(1180));
    assert_eq!(rig.0.config().trash_len(), 0);
    ok(&mut rig, "real_server_add", server);
    assert_eq!(
        rig.1.last_put().real_servers[0].id,
        RsId {
            index: 0,
            generation: 1
        }
    );
}

#[test]
fn rates_are_estimated_every_two_seconds() {
    let mut rig = with_a_server(1);
    rig.1.channels[0].cells.services[0].traffic[0]
        .packets
        .add(300);
    rig.1.channels[0].cells.servers[0].traffic[0]
        .packets
        .add(300);
    rig.0.tick(Duration::from_millis(1999));
    let listed = ok(&mut rig, "service_list", json!({}))["services"][0].clone();
    assert_eq!(listed["rates"]["in_pps"], 0);
    rig.0.tick(Duration::from_secs(2));
    let listed = ok(&mut rig, "service_list", json!({}))["services"][0].clone();
    assert_eq!(listed["rates"]["in_pps"], 37);
    assert_eq!(listed["real_servers"][0]["rates"]["in_pps"], 37);
    assert_eq!(ok(&mut rig, "stats", json!({}))["rates"]["in_pps"], 37);
}

#[test]
fn what_is_free_of_local_ports_is_told_of_fullnat_servers_alone() {
    let mut rig = with_a_server(2);
    let address = "192.168.1.9:80";
    let with_laddr = |laddr| json!({"service": web(), "address": laddr});
    ok(&mut rig, "laddr_add", with_laddr("10.1.0.1"));
    ok(
        &mut rig,
        "real_server_add",
        json!({"service": web(), "address": address, "method": "fullnat"}),
    );
    let free = |rig: &mut (Controller, Crew)| {
        let services = ok(rig, "service_list", json!({}));
        let servers = services["services"][0]["real_servers"].as_array().unwrap();
        let of = |fullnat: bool| {
            let mut servers = servers.iter();
            let server = servers.find(|server| (server["address"] == address) == fullnat);
            server.unwrap()["local_ports_free"].clone()
        };
        (of(true), of(false))
    };
    assert_eq!(free(&mut rig), (json!(64_512), Value::Null));
    ok(&mut rig, "laddr_add", with_laddr("10.1.0.2"));
    assert_eq!(free(&mut rig), (json!(2 * 64_512), Value::Null));
    // The second server, by its place; each worker has its own cells.
    for (channels, active) in rig.1.channels.iter().zip([3, 4]) {
        channels.cells.servers[1].active.set(active);
    }
    rig.1.channels[0].cells.servers[1].inactive.set(5);
    assert_eq!(free(&mut rig).0, json!(2 * 64_512 - 12));
}
