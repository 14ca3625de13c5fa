//! Which service an opening packet is for, and one-packet scheduling (`SEMANTICS.md` sections 1, 2 and 6).

use std::net::Ipv4Addr;
use std::sync::Arc;

use sluice_dataplane::command::{Command, ServiceEdit};
use sluice_dataplane::egress::{Fib, Route};
use sluice_dataplane::service::{AddressFamily, MarkRule, MarkRules, Method, Protocol, ServiceKey};

use crate::rig::*;

const FROM: (Ipv4Addr, u16) = (CLIENT, 34567);

fn marked(mark: u32) -> ServiceKey {
    ServiceKey::Mark {
        mark,
        family: AddressFamily::V4,
    }
}

fn rules(rig: &mut Rig, rules: Vec<MarkRule>) {
    rig.command(Command::MarkRules(Arc::new(MarkRules(rules))));
}

/// Who takes a SYN to that port: its number, or 0 for the kernel.
fn taken(rig: &mut Rig, port: u16) -> u8 {
    taken_from(rig, CLIENT, port)
}

fn taken_from(rig: &mut Rig, client: Ipv4Addr, port: u16) -> u8 {
    let out = rig.packet(
        CLIENT_SIDE,
        &tcp((client, 1000 + port), (VIP, port), "S", b""),
    );
    let punted = rig.punted(CLIENT_SIDE).len();
    match number_of(&out) {
        Some(number) => number,
        None => {
            assert_eq!(punted, 1, "port {port}");
            0
        }
    }
}

#[test]
fn a_mark_comes_before_the_port_and_the_port_before_ftp_and_all_ports() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(1, 80, Method::Dr);
    let mut ftp = Rig::new(Protocol::Tcp);
    std::mem::swap(&mut rig.service, &mut ftp.service);
    // FTP and the service of all ports, both persistent.
    rig.service.id = sluice_dataplane::service::ServiceId(1);
    rig.service.key = address(Protocol::Tcp, 21);
    rig.service.real_servers.clear();
    rig.persist(300, [255; 4]);
    rig.add_server(2, 21, Method::Dr);
    assert_eq!(
        [20, 21, 1023, 1024, 40000].map(|port| taken(&mut rig, port)),
        [2, 2, 0, 2, 2]
    );
    rig.service.id = sluice_dataplane::service::ServiceId(2);
    rig.service.key = address(Protocol::Tcp, 0);
    rig.service.real_servers.clear();
    rig.persist(300, [255; 4]);
    rig.add_server(3, 0, Method::Dr);
    // Templates of FTP and of all ports look alike: for the client of before, FTP's would do.
    assert_eq!(taken(&mut rig, 22), 2);
    let other = Ipv4Addr::new(198, 51, 100, 8);
    assert_eq!(
        [22, 80, 81, 1023].map(|port| taken_from(&mut rig, other, port)),
        [3, 1, 3, 3]
    );
    rig.beside(3, marked(5), 4, 0, Method::Dr);
    rules(&mut rig, vec![MarkRule::of(5)]);
    assert_eq!(
        [82, 443].map(|port| taken_from(&mut rig, other, port)),
        [4, 4]
    );
    let known = rig.packet(CLIENT_SIDE, &tcp((other, 1080), (VIP, 80), "A", b""));
    assert_eq!(
        number_of(&known),
        Some(1),
        "known connections are not asked about"
    );
    rules(&mut rig, vec![MarkRule::of(6)]);
    assert_eq!(
        taken_from(&mut rig, other, 444),
        3,
        "a mark without service counts for nothing"
    );
}

#[test]
fn a_data_port_of_ftp_without_persistence_is_the_kernels() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.service.key = address(Protocol::Tcp, 21);
    rig.put(ServiceEdit::Edited);
    rig.add_server(1, 21, Method::Dr);
    assert_eq!([21, 40000, 20].map(|port| taken(&mut rig, port)), [1, 0, 0]);
}

#[test]
fn ftps_rule_is_for_tcp_only_and_for_clients_not_from_port_20() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.service.key = address(Protocol::Tcp, 21);
    rig.persist(300, [255; 4]);
    rig.add_server(1, 21, Method::Dr);
    let out = rig.packet(CLIENT_SIDE, &udp(FROM, (VIP, 40000), b"x"));
    assert_eq!((out.len(), rig.punted(CLIENT_SIDE).len()), (0, 1));
    let out = rig.packet(CLIENT_SIDE, &tcp((CLIENT, 20), (VIP, 21), "S", b""));
    assert_eq!((out.len(), rig.punted(CLIENT_SIDE).len()), (0, 1));
}

#[test]
fn only_what_is_addressed_to_this_machine_has_a_mark() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.beside(1, marked(5), 4, 0, Method::Dr);
    rules(&mut rig, vec![MarkRule::of(5)]);
    let elsewhere = Ipv4Addr::new(203, 0, 113, 9);
    let out = rig.packet(
        SERVER_SIDE,
        &tcp((server(1), 4000), (elsewhere, 443), "S", b""),
    );
    assert_eq!((out.len(), rig.punted(SERVER_SIDE).len()), (0, 1));
    let mut fib = Fib::default();
    fib.insert("203.0.113.0/24".parse().unwrap(), Route::Local);
    let on_link = Route::Via {
        port: SERVER_SIDE,
        gateway: None,
        source: server(254),
        mtu: None,
    };
    fib.insert("192.168.1.0/24".parse().unwrap(), on_link);
    rig.command(Command::Fib(Arc::new(fib)));
    assert_eq!(rig.syn(FROM, (elsewhere, 443)), Some(4));
}

#[test]
fn rules_tell_ports_of_the_appliance_apart() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.beside(1, marked(5), 4, 0, Method::Dr);
    let outside = MarkRule {
        ingress: Some(CLIENT_SIDE),
        ..MarkRule::of(5)
    };
    rules(&mut rig, vec![outside]);
    let to = (VIP, 8443);
    let inside = rig.packet(SERVER_SIDE, &tcp(FROM, to, "S", b""));
    assert_eq!((inside.len(), rig.punted(SERVER_SIDE).len()), (0, 1));
    assert_eq!(rig.syn(FROM, to), Some(4));
}

#[test]
fn one_packet_scheduling_leaves_nothing_behind_and_replies_unchanged() {
    let mut rig = Rig::new(Protocol::Udp);
    rig.service.one_packet = true;
    rig.put(ServiceEdit::Edited);
    rig.add_server(1, 8053, Method::Nat);
    rig.add_server(2, 8053, Method::Nat);
    let mut seen = Vec::new();
    for _ in 0..4 {
        let out = rig.packet(CLIENT_SIDE, &udp(FROM, (VIP, 80), b"?"));
        assert_eq!(out[0].flow().1.1, 8053);
        seen.extend(number_of(&out));
    }
    assert_eq!(seen, [2, 1, 2, 1]);
    assert!(rig.connections().is_empty());
    let reply = udp((server(1), 8053), FROM, b"!");
    assert!(rig.packet(SERVER_SIDE, &reply).is_empty());
    assert_eq!(rig.punted(SERVER_SIDE)[0][14..], reply[..]);
    let cells = &rig.cells.servers[1];
    let counts = [
        &cells.conns,
        &cells.traffic[0].packets,
        &cells.active,
        &cells.inactive,
    ];
    assert_eq!(counts.map(|cell| cell.read()), [2, 2, 0, 0]);
}

#[test]
fn one_packet_scheduling_of_a_mark_is_for_its_udp_only() {
    let mut rig = Rig::new(Protocol::Udp);
    rig.service.key = marked(5);
    rig.service.one_packet = true;
    rig.put(ServiceEdit::Edited);
    rig.add_server(1, 0, Method::Nat);
    rules(&mut rig, vec![MarkRule::of(5)]);
    rig.packet(CLIENT_SIDE, &udp(FROM, (VIP, 53), b"?"));
    assert!(rig.connections().is_empty());
    rig.syn(FROM, (VIP, 80));
    assert_eq!(rig.connections().len(), 1);
}
