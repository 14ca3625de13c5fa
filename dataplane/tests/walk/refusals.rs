//! Packets that do not go through, and what their senders are told.

use std::net::Ipv4Addr;

use sluice_dataplane::drop_reason::DropReason;
use sluice_dataplane::service::{Method, Protocol, Tunnel, TunnelChecksum};

use crate::rig::*;

const FROM: (Ipv4Addr, u16) = (CLIENT, 34567);

/// Checks an ICMP error to the client and returns its type, code, MTU field and quote.
fn icmp(sent: &Sent, source: Ipv4Addr) -> (u8, u8, u16, Vec<u8>) {
    let ip = etherparse::Ipv4HeaderSlice::from_slice(&sent.packet).unwrap();
    assert_eq!(
        (ip.source_addr(), ip.destination_addr(), ip.protocol().0),
        (source, CLIENT, 1)
    );
    assert_eq!(ip.to_header().calc_header_checksum(), ip.header_checksum());
    assert!(sent.packet.len() <= 576);
    let body = &sent.packet[20..];
    let icmp = etherparse::Icmpv4Slice::from_slice(body).unwrap();
    assert_eq!(
        icmp.icmp_type().calc_checksum(icmp.payload()),
        icmp.checksum()
    );
    (
        body[0],
        body[1],
        u16::from_be_bytes([body[6], body[7]]),
        body[8..].to_vec(),
    )
}

#[test]
fn without_a_usable_server_the_client_gets_port_unreachable_from_the_vip() {
    let mut rig = Rig::new(Protocol::Tcp);
    let id = rig.add_server(1, 80, Method::Nat);
    rig.set_weight(id, 0);
    let syn = tcp(FROM, (VIP, 80), "S", b"");
    let out = rig.packet(CLIENT_SIDE, &syn);
    assert_eq!(out.len(), 1);
    assert_eq!(icmp(&out[0], VIP), (3, 3, 0, syn));
    assert_eq!(
        (rig.drops(DropReason::NoServer), rig.connections().len()),
        (1, 0)
    );
}

#[test]
fn a_tunnel_that_cannot_be_made_drops_new_connections_and_makes_none() {
    let mut rig = Rig::new(Protocol::Tcp);
    let id = rig.add_server(1, 80, Method::Tun);
    let syn = tcp(FROM, (VIP, 80), "S", b"");
    for tunnel in [
        Tunnel::Gre {
            checksum: TunnelChecksum::None,
        },
        Tunnel::Gue {
            port: 6080,
            checksum: TunnelChecksum::Full,
        },
    ] {
        rig.set_tunnel(id, tunnel);
        assert!(rig.packet(CLIENT_SIDE, &syn).is_empty());
    }
    assert_eq!(
        (
            rig.drops(DropReason::UnsupportedTunnel),
            rig.connections().len()
        ),
        (2, 0)
    );
    rig.set_tunnel(id, Tunnel::Ipip);
    assert_eq!(rig.packet(CLIENT_SIDE, &syn).len(), 1);
}

#[test]
fn a_packet_whose_ttl_runs_out_is_reported_and_counted_all_the_same() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(1, 80, Method::Nat);
    let syn = with_header(tcp(FROM, (VIP, 80), "S", b""), 0, 1);
    let out = rig.packet(CLIENT_SIDE, &syn);
    assert_eq!(icmp(&out[0], VIP), (11, 0, 0, syn));
    assert_eq!(
        (rig.drops(DropReason::TtlExceeded), rig.connections().len()),
        (1, 1)
    );
    assert_eq!(rig.cells.services[0].traffic[0].packets.read(), 1);
}

#[test]
fn too_long_and_not_to_be_fragmented_tells_the_mtu_less_the_tunnel() {
    for (method, mtu) in [(Method::Dr, 1400), (Method::Nat, 1400), (Method::Tun, 1380)] {
        let mut rig = Rig::new(Protocol::Udp);
        rig.command(sluice_dataplane::command::Command::PortState {
            port: SERVER_SIDE,
            mac: mac(SERVER_SIDE),
            mtu: 1400,
        });
        rig.add_server(1, 80, method);
        let fits = with_header(
            udp(FROM, (VIP, 80), &vec![7; usize::from(mtu) - 28]),
            0x4000,
            64,
        );
        assert_eq!(
            rig.packet(CLIENT_SIDE, &fits)[0].side,
            SERVER_SIDE,
            "{method:?}"
        );
        let long = with_header(
            udp(FROM, (VIP, 80), &vec![7; usize::from(mtu) - 27]),
            0x4000,
            64,
        );
        let out = rig.packet(CLIENT_SIDE, &long);
        let (kind, code, told, quote) = icmp(&out[0], VIP);
        assert_eq!((kind, code, told), (3, 4, mtu), "{method:?}");
        assert_eq!(quote[..20], with_header(long, 0x4000, 63)[..20]);
        assert_eq!(rig.drops(DropReason::FragmentationNeeded), 1);
    }
}

#[test]
fn too_long_but_fragmentable_is_cut_and_nothing_is_lost() {
    for method in [Method::Nat, Method::Dr, Method::Tun] {
        let mut rig = Rig::new(Protocol::Udp);
        rig.add_server(1, 80, method);
        let payload: Vec<u8> = (0..3000u32).map(|n| n as u8).collect();
        let out = rig.packet(CLIENT_SIDE, &udp_without_df(&payload));
        assert_eq!(out.len(), 3, "{method:?}");
        assert_eq!(rig.cells.books.extra_fragments.read(), 2);
        let mut whole = Vec::new();
        for (n, sent) in out.iter().enumerate() {
            let ip = etherparse::Ipv4HeaderSlice::from_slice(&sent.packet).unwrap();
            assert!(sent.packet.len() <= 1500);
            assert_eq!(ip.to_header().calc_header_checksum(), ip.header_checksum());
            assert_eq!(usize::from(ip.fragments_offset().value()) * 8, whole.len());
            assert_eq!(ip.more_fragments(), n < 2);
            whole.extend(&sent.packet[20..]);
        }
        assert!(whole.ends_with(&payload));
    }
}

fn udp_without_df(payload: &[u8]) -> Vec<u8> {
    with_header(udp(FROM, (VIP, 80), payload), 0, 64)
}

#[test]
fn packets_of_a_deleted_server_are_dropped_in_silence() {
    let mut rig = Rig::new(Protocol::Tcp);
    let id = rig.add_server(1, 80, Method::Nat);
    rig.packet(CLIENT_SIDE, &tcp(FROM, (VIP, 80), "S", b""));
    rig.delete_server(id);
    assert!(
        rig.packet(CLIENT_SIDE, &tcp(FROM, (VIP, 80), "A", b""))
            .is_empty()
    );
    assert_eq!(rig.drops(DropReason::ServerGone), 1);
    assert!(rig.punted(CLIENT_SIDE).is_empty());
}

#[test]
fn fullnat_without_a_local_address_is_its_own_drop() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(1, 80, Method::FullNat);
    assert!(
        rig.packet(CLIENT_SIDE, &tcp(FROM, (VIP, 80), "S", b""))
            .is_empty()
    );
    assert_eq!(
        (
            rig.drops(DropReason::NoLocalAddress),
            rig.connections().len()
        ),
        (1, 0)
    );
}

#[test]
fn a_full_table_drops_new_connections_and_keeps_the_old() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(1, 80, Method::Nat);
    for port in 0..256 {
        rig.packet(
            CLIENT_SIDE,
            &tcp((CLIENT, 1000 + port), (VIP, 80), "S", b""),
        );
    }
    assert!(
        rig.packet(CLIENT_SIDE, &tcp((CLIENT, 9), (VIP, 80), "S", b""))
            .is_empty()
    );
    assert_eq!(rig.drops(DropReason::TableFull), 1);
    assert_eq!(
        rig.packet(CLIENT_SIDE, &tcp((CLIENT, 1000), (VIP, 80), "A", b""))
            .len(),
        1
    );
}

#[test]
fn a_full_transmit_queue_is_counted() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(1, 80, Method::Nat);
    rig.worker.port_mut(SERVER_SIDE).unwrap().port.tx_room = Some(0);
    assert!(
        rig.packet(CLIENT_SIDE, &tcp(FROM, (VIP, 80), "S", b""))
            .is_empty()
    );
    assert_eq!(rig.drops(DropReason::TxFull), 1);
}
