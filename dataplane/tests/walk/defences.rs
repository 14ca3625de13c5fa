//! What is done against floods, and for servers that answer nobody (`SEMANTICS.md` sections 7 and 8).

use std::net::Ipv4Addr;

use sluice_dataplane::command::ServiceEdit;
use sluice_dataplane::conn::state::{State, StateName};
use sluice_dataplane::drop_reason::DropReason;
use sluice_dataplane::service::{Method, Protocol};

use crate::rig::*;

const WEB: (Ipv4Addr, u16) = (VIP, 80);

#[test]
fn every_third_opening_packet_is_dropped_and_no_other() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(1, 80, Method::Nat);
    rig.settings(|settings| settings.defence.drop_rate = 3);
    let mut taken = Vec::new();
    for port in 1000..1007 {
        taken.push(rig.syn((CLIENT, port), WEB).is_some());
        if taken.last() == Some(&true) {
            // Of known connections, of no service, and what opens nothing: not counted.
            assert_eq!(
                number_of(&rig.packet(CLIENT_SIDE, &tcp((CLIENT, port), WEB, "A", b""))),
                Some(1)
            );
            rig.packet(CLIENT_SIDE, &tcp((CLIENT, port), (VIP, 81), "S", b""));
            rig.packet(CLIENT_SIDE, &tcp((CLIENT, port + 500), WEB, "A", b""));
        }
    }
    assert_eq!(taken, [false, true, true, false, true, true, false]);
    assert_eq!(rig.drops(DropReason::Defence), 3);
}

/// Lets a minute and more pass, in which `drop_entry` looks at every place many times.
fn minutes(rig: &mut Rig, minutes: u32) {
    rig.sleep(minutes * 60_000);
}

#[test]
fn half_open_connections_go_at_once_and_established_ones_when_idle_by_their_packets() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(1, 80, Method::Dr);
    let establish = |rig: &mut Rig, port: u16, packets: u16| {
        rig.syn((CLIENT, port), WEB);
        for _ in 1..packets {
            rig.packet(CLIENT_SIDE, &tcp((CLIENT, port), WEB, "A", b""));
        }
    };
    for port in 1000..1020 {
        rig.syn((CLIENT, port), WEB);
    }
    establish(&mut rig, 2000, 2);
    establish(&mut rig, 2001, 8);
    establish(&mut rig, 2002, 9);
    rig.settings(|settings| settings.defence.drop_entry = true);
    rig.sleep(50_000);
    let half_open = |rig: &mut Rig| {
        let rows = rig.connections();
        rows.iter()
            .filter(|row| row.state == StateName::Of(State::SynRecv))
            .count()
    };
    assert!(half_open(&mut rig) < 20, "their own end comes after 60 s");
    let established = |rig: &mut Rig| {
        let rows = rig.connections().into_iter();
        let mut ports: Vec<_> = rows
            .filter(|row| row.state == StateName::Of(State::Established))
            .map(|row| row.client.1)
            .collect();
        ports.sort_unstable();
        ports
    };
    assert_eq!(established(&mut rig), [2000, 2001, 2002]);
    minutes(&mut rig, 13);
    assert_eq!(established(&mut rig), [2002], "nine packets are enough");
}

#[test]
fn unassured_templates_go_and_those_in_use_or_assured_stay() {
    let mut rig = Rig::new(Protocol::Udp);
    rig.service.one_packet = false;
    rig.put(ServiceEdit::Edited);
    rig.persist(3000, [255; 4]);
    rig.add_server(1, 80, Method::Nat);
    rig.settings(|settings| settings.timeouts.udp_s = 1);
    let client = |n| Ipv4Addr::new(172, 16, 0, n);
    for n in [1, 2] {
        rig.packet(CLIENT_SIDE, &udp((client(n), 1000), WEB, b"?"));
    }
    rig.packet(SERVER_SIDE, &udp((server(1), 80), (client(1), 1000), b"!"));
    rig.sleep(3000);
    let left = |rig: &mut Rig| -> Vec<_> { rig.templates().iter().map(|row| row.0).collect() };
    assert_eq!(left(&mut rig), [client(1), client(2)]);
    rig.settings(|settings| settings.defence.drop_entry = true);
    minutes(&mut rig, 20);
    assert_eq!(left(&mut rig), [client(1)]);
    assert_eq!(rig.cells.servers[1].templates.read(), 1);
}

#[test]
fn a_nat_servers_packet_of_no_connection_is_refused_only_when_asked_for() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(1, 80, Method::Nat);
    rig.add_server(2, 80, Method::Dr);
    let stray = |from: (Ipv4Addr, u16), flags: &str| tcp(from, (CLIENT, 5000), flags, b"");
    assert!(
        rig.packet(SERVER_SIDE, &stray((server(1), 80), "A"))
            .is_empty()
    );
    assert_eq!(rig.punted(SERVER_SIDE).len(), 1);
    rig.settings(|settings| settings.nat_icmp_send = true);
    let out = rig.packet(SERVER_SIDE, &stray((server(1), 80), "A"));
    assert_eq!(
        (out.len(), out[0].side, &out[0].packet[20..22]),
        (1, SERVER_SIDE, &[3, 3][..])
    );
    assert_eq!(
        out[0].packet[28 + 8],
        63,
        "the quote shows the TTL on the way out"
    );
    assert_eq!(rig.drops(DropReason::UnknownReply), 1);
    let others = [
        stray((server(1), 80), "RA"),
        stray((server(1), 81), "A"),
        stray((server(2), 80), "A"),
        udp((server(1), 80), (CLIENT, 5000), b"x"),
    ];
    for other in others {
        assert!(rig.packet(SERVER_SIDE, &other).is_empty());
        assert_eq!(rig.punted(SERVER_SIDE).len(), 1);
    }
    let id = rig.service.real_servers[1].id;
    rig.delete_server(id);
    assert!(
        rig.packet(SERVER_SIDE, &stray((server(1), 80), "A"))
            .is_empty()
    );
}

#[test]
fn secure_tcp_keeps_an_unanswered_connection_half_open() {
    for (secure, state) in [
        (false, StateName::Of(State::Established)),
        (true, StateName::Of(State::SynRecv)),
    ] {
        let mut rig = Rig::new(Protocol::Tcp);
        rig.add_server(1, 80, Method::Nat);
        rig.settings(|settings| settings.defence.secure_tcp = secure);
        rig.syn((CLIENT, 1000), WEB);
        rig.packet(CLIENT_SIDE, &tcp((CLIENT, 1000), WEB, "A", b""));
        assert_eq!(rig.connections()[0].state, state);
    }
}
