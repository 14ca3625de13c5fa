//! The four forwarding methods, both ways.

use sluice_dataplane::conn::state::{State, StateName};
use sluice_dataplane::drop_reason::DropReason;
use sluice_dataplane::service::{Method, Protocol};

use crate::rig::*;

const SYN_FROM: (std::net::Ipv4Addr, u16) = (CLIENT, 34567);

#[test]
fn nat_translates_both_ways_and_follows_the_state() {
    let mut rig = Rig::new(Protocol::Tcp);
    let id = rig.add_server(1, 8080, Method::Nat);
    let out = rig.packet(CLIENT_SIDE, &tcp(SYN_FROM, (VIP, 80), "S", b""));
    assert_eq!(out.len(), 1);
    assert_eq!(
        (out[0].side, out[0].to, out[0].from),
        (SERVER_SIDE, mac_of(server(1)), mac(SERVER_SIDE))
    );
    assert_eq!(out[0].flow(), (SYN_FROM, (server(1), 8080)));
    assert_eq!(out[0].ttl(), 63);
    let back = rig.packet(SERVER_SIDE, &tcp((server(1), 8080), SYN_FROM, "SA", b""));
    assert_eq!((back.len(), back[0].side), (1, CLIENT_SIDE));
    assert_eq!(back[0].flow(), ((VIP, 80), SYN_FROM));
    rig.packet(CLIENT_SIDE, &tcp(SYN_FROM, (VIP, 80), "A", b"GET /"));
    let rows = rig.connections();
    assert_eq!(
        (rows.len(), rows[0].state, rows[0].server),
        (1, StateName::Of(State::Established), (server(1), 8080))
    );
    let cells = &rig.cells.servers[id.index as usize];
    assert_eq!(
        (
            cells.active.read(),
            cells.inactive.read(),
            cells.conns.read()
        ),
        (1, 0, 1)
    );
    let [inward, outward] = &cells.traffic;
    assert_eq!((inward.packets.read(), outward.packets.read()), (2, 1));
    assert_eq!((inward.bytes.read(), outward.bytes.read()), (85, 40));
}

#[test]
fn fullnat_gives_each_connection_its_own_source() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.set_laddrs(&[LADDR]);
    rig.add_server(1, 80, Method::FullNat);
    let mut sources = Vec::new();
    for port in [1001, 1002] {
        let out = rig.packet(CLIENT_SIDE, &tcp((CLIENT, port), (VIP, 80), "S", b""));
        let (source, to) = out[0].flow();
        assert_eq!((source.0, to), (LADDR, (server(1), 80)));
        sources.push(source);
        let back = rig.packet(SERVER_SIDE, &tcp((server(1), 80), source, "SA", b""));
        assert_eq!(back[0].flow(), ((VIP, 80), (CLIENT, port)));
    }
    assert_ne!(sources[0], sources[1]);
    let stray = rig.packet(SERVER_SIDE, &tcp((server(1), 80), (LADDR, 60000), "A", b""));
    assert!(stray.is_empty() && rig.punted(SERVER_SIDE).is_empty());
    assert_eq!(rig.drops(DropReason::StrayLocalPort), 1);
}

#[test]
fn dr_changes_only_ttl_and_next_hop() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(2, 80, Method::Dr);
    let packet = tcp(SYN_FROM, (VIP, 80), "S", b"");
    let out = rig.packet(CLIENT_SIDE, &packet);
    assert_eq!(
        (out[0].to, out[0].flow()),
        (mac_of(server(2)), (SYN_FROM, (VIP, 80)))
    );
    assert_eq!(out[0].packet[20..], packet[20..]);
    assert_eq!(out[0].ttl(), 63);
}

#[test]
fn tun_wraps_the_packet_for_the_server() {
    let mut rig = Rig::new(Protocol::Udp);
    rig.add_server(3, 80, Method::Tun);
    let packet = udp(SYN_FROM, (VIP, 80), b"hello");
    let first = rig.packet(CLIENT_SIDE, &packet);
    let out = rig.packet(CLIENT_SIDE, &packet);
    assert_eq!(
        (first[0].to, first[0].from),
        (mac_of(server(3)), mac(SERVER_SIDE))
    );
    assert_eq!(
        first[0].packet[..],
        out[0].packet[..],
        "what is remembered does the same"
    );
    let outer = etherparse::Ipv4HeaderSlice::from_slice(&out[0].packet).unwrap();
    assert_eq!(
        (outer.source_addr(), outer.destination_addr()),
        ([192, 168, 1, 254].into(), server(3))
    );
    assert_eq!(
        (
            outer.protocol().0,
            outer.ttl(),
            usize::from(outer.total_len())
        ),
        (4, 63, packet.len() + 20)
    );
    assert_eq!(
        outer.to_header().calc_header_checksum(),
        outer.header_checksum()
    );
    assert_eq!(flow(&out[0].packet[20..]), (SYN_FROM, (VIP, 80)));
}

#[test]
fn udp_without_checksum_gets_one_both_ways() {
    let mut rig = Rig::new(Protocol::Udp);
    rig.add_server(1, 53, Method::Nat);
    // The first packets look their way up, the next ones go where those went.
    for client in [SYN_FROM, (SYN_FROM.0, 40_001)] {
        for payload in [&b"hello"[..], b"even", b""] {
            let mut query = udp(client, (VIP, 80), payload);
            query[26..28].fill(0);
            assert_eq!(
                rig.packet(CLIENT_SIDE, &query)[0].flow(),
                (client, (server(1), 53))
            );
            let mut answer = udp((server(1), 53), client, payload);
            answer[26..28].fill(0);
            assert_eq!(
                rig.packet(SERVER_SIDE, &answer)[0].flow(),
                ((VIP, 80), client)
            );
        }
    }
}

#[test]
fn a_remembered_next_hop_does_the_same_and_follows_changes() {
    for method in [Method::Nat, Method::FullNat, Method::Dr] {
        let mut rig = Rig::new(Protocol::Tcp);
        rig.set_laddrs(&[LADDR]);
        rig.add_server(1, 8080, method);
        let packet = tcp(SYN_FROM, (VIP, 80), "S", b"");
        let sent: Vec<Sent> = (0..3)
            .flat_map(|_| rig.packet(CLIENT_SIDE, &packet))
            .collect();
        assert!(
            sent.iter()
                .all(|s| (s.to, &s.packet) == (mac_of(server(1)), &sent[0].packet)),
            "{method:?}"
        );
        rig.command(sluice_dataplane::command::Command::PortState {
            port: SERVER_SIDE,
            mac: mac_of(server(99)),
            mtu: 1500,
        });
        assert_eq!(rig.packet(CLIENT_SIDE, &packet)[0].from, mac_of(server(99)));
        let mut fib = sluice_dataplane::egress::Fib::default();
        let router = server(2);
        fib.insert(
            "0.0.0.0/0".parse().unwrap(),
            sluice_dataplane::egress::Route::Via {
                port: SERVER_SIDE,
                gateway: Some(router),
                source: LADDR,
                mtu: None,
            },
        );
        rig.command(sluice_dataplane::command::Command::Fib(
            std::sync::Arc::new(fib),
        ));
        assert_eq!(rig.packet(CLIENT_SIDE, &packet)[0].to, mac_of(router));
        rig.neighbour(SERVER_SIDE, router, Some(mac_of(server(77))));
        assert_eq!(rig.packet(CLIENT_SIDE, &packet)[0].to, mac_of(server(77)));
        rig.neighbour(SERVER_SIDE, router, None);
        assert!(rig.packet(CLIENT_SIDE, &packet).is_empty());
        assert_eq!(rig.cells.books.held.read(), 1);
    }
}

#[test]
fn a_wrong_tcp_checksum_stays_wrong_by_the_same_difference() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(1, 80, Method::Nat);
    let mut packet = tcp(SYN_FROM, (VIP, 80), "S", b"");
    let good = rig.packet(CLIENT_SIDE, &packet)[0].packet.clone();
    packet[36] ^= 0x10;
    let bad = rig.packet(CLIENT_SIDE, &packet)[0].packet.clone();
    assert_ne!(good[36..38], bad[36..38]);
    assert_eq!(good[..36], bad[..36]);
}

#[test]
fn a_reply_behind_the_packet_that_takes_it_over_is_the_new_connections() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(1, 8080, Method::Nat);
    rig.beside(1, address(Protocol::Tcp, 81), 1, 8080, Method::Nat);
    let client = (CLIENT, 34567);
    assert_eq!(rig.syn(client, (VIP, 80)), Some(1));
    let burst = [
        tcp(client, (VIP, 81), "S", b""),
        tcp((server(1), 8080), client, "SA", b""),
    ];
    for packet in burst {
        let wire = &mut rig.worker.port_mut(SERVER_SIDE).unwrap().port;
        wire.deliver(&ethernet(mac(SERVER_SIDE), &packet));
    }
    rig.poll();
    let out = rig.sent();
    let flows: Vec<_> = out.iter().map(Sent::flow).collect();
    assert!(flows.contains(&((VIP, 81), client)), "{flows:?}");
}

#[test]
fn a_burst_with_two_packets_of_a_new_connection_makes_one_connection() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(1, 80, Method::Nat);
    rig.add_server(2, 80, Method::Nat);
    let port = &mut rig.worker.port_mut(CLIENT_SIDE).unwrap().port;
    for (flags, payload) in [("S", &b""[..]), ("A", b""), ("A", b"data")] {
        port.deliver(&ethernet(
            mac(CLIENT_SIDE),
            &tcp(SYN_FROM, (VIP, 80), flags, payload),
        ));
    }
    rig.poll();
    let out = rig.sent();
    assert!(out.len() == 3 && out.iter().all(|sent| sent.flow().1 == (server(2), 80)));
    assert_eq!(rig.connections().len(), 1);
}

#[test]
fn connections_end_when_their_state_times_out_not_before() {
    let mut rig = Rig::new(Protocol::Tcp);
    let id = rig.add_server(1, 80, Method::Nat);
    rig.packet(CLIENT_SIDE, &tcp(SYN_FROM, (VIP, 80), "S", b""));
    rig.sleep(59_900);
    assert_eq!(rig.connections().len(), 1);
    // A packet re-arms; the established state lasts longer.
    rig.packet(CLIENT_SIDE, &tcp(SYN_FROM, (VIP, 80), "A", b""));
    rig.sleep(899_900);
    assert_eq!(rig.connections().len(), 1);
    // A shorter timeout holds at once.
    rig.packet(CLIENT_SIDE, &tcp(SYN_FROM, (VIP, 80), "R", b""));
    rig.sleep(9_800);
    assert_eq!(rig.connections().len(), 1);
    rig.sleep(400);
    assert_eq!(rig.connections().len(), 0);
    let cells = &rig.cells.servers[id.index as usize];
    assert_eq!((cells.active.read(), cells.inactive.read()), (0, 0));
    assert_eq!(rig.cells.connections.read(), 0);
}

#[test]
fn a_syn_on_a_finished_connection_starts_a_new_one() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(1, 80, Method::Nat);
    rig.add_server(2, 80, Method::Nat);
    assert_eq!(
        rig.packet(CLIENT_SIDE, &tcp(SYN_FROM, (VIP, 80), "S", b""))[0]
            .flow()
            .1
            .0,
        server(2)
    );
    assert_eq!(
        rig.packet(CLIENT_SIDE, &tcp(SYN_FROM, (VIP, 80), "S", b""))[0]
            .flow()
            .1
            .0,
        server(2)
    );
    rig.packet(CLIENT_SIDE, &tcp(SYN_FROM, (VIP, 80), "A", b""));
    rig.packet(CLIENT_SIDE, &tcp(SYN_FROM, (VIP, 80), "R", b""));
    assert_eq!(
        rig.packet(CLIENT_SIDE, &tcp(SYN_FROM, (VIP, 80), "S", b""))[0]
            .flow()
            .1
            .0,
        server(1)
    );
    assert_eq!(rig.connections().len(), 1);
}
