//! ICMP errors about packets of connections: to whom they are passed on, and what they quote then (`SEMANTICS.md` section 7).

use std::net::Ipv4Addr;

use etherparse::{IpNumber, PacketBuilder};
use sluice_dataplane::conn::state::{State, StateName};
use sluice_dataplane::drop_reason::DropReason;
use sluice_dataplane::service::{Method, Protocol};

use crate::rig::*;

type End = (Ipv4Addr, u16);

const WEB: End = (VIP, 80);
const FROM: End = (CLIENT, 5000);
const ROUTER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// "Fragmentation needed" for an MTU of 1400.
pub(crate) const TOO_LONG: [u8; 8] = [3, 4, 0, 0, 0, 0, 0x05, 0x78];

/// An error by `src` to `dst` that quotes the front of `about`.
pub(crate) fn error(src: Ipv4Addr, dst: Ipv4Addr, head: [u8; 8], about: &[u8]) -> Vec<u8> {
    let mut message = head.to_vec();
    message.extend(&about[..28]);
    let checksum = !sum(&message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    let mut packet = Vec::new();
    PacketBuilder::ipv4(src.octets(), dst.octets(), 64)
        .write(&mut packet, IpNumber::ICMP, &message)
        .unwrap();
    packet
}

fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Outer addresses and quoted ends of an error, after checking its three checksums and its TTL.
fn read(packet: &[u8]) -> ((Ipv4Addr, Ipv4Addr), (End, End)) {
    assert_eq!((packet[0], packet[8], packet[9]), (0x45, 63, 1));
    for right in [&packet[..20], &packet[20..], &packet[28..48]] {
        assert_eq!(sum(right), 0xffff, "{right:02x?}");
    }
    let addr =
        |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let quoted = ((addr(40), port(48)), (addr(44), port(50)));
    ((addr(12), addr(16)), quoted)
}

/// A rig with one server and one connection to it.
fn connected(method: Method) -> Rig {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.set_laddrs(&[LADDR]);
    let port = if method == Method::Dr { 80 } else { 8080 };
    rig.add_server(1, port, method);
    assert!(rig.syn(FROM, WEB).is_some());
    rig
}

fn about_reply() -> Vec<u8> {
    tcp(WEB, FROM, "SA", b"")
}

#[test]
fn nat_shows_each_side_its_own_packet() {
    let mut rig = connected(Method::Nat);
    let to_server = error(ROUTER, VIP, TOO_LONG, &about_reply());
    let out = rig.packet(CLIENT_SIDE, &to_server);
    let real = (server(1), 8080);
    assert_eq!(out[0].to, mac_of(server(1)));
    assert_eq!(read(&out[0].packet), ((ROUTER, server(1)), (real, FROM)));

    // From a router on the servers' side, in the name of the virtual address.
    let about = tcp(FROM, real, "S", b"");
    let to_client = error(server(7), CLIENT, [11, 0, 0, 0, 0, 0, 0, 0], &about);
    let out = rig.packet(SERVER_SIDE, &to_client);
    assert_eq!(out[0].side, CLIENT_SIDE);
    assert_eq!(read(&out[0].packet), ((VIP, CLIENT), (FROM, WEB)));
    let traffic = &rig.cells.servers[1].traffic;
    assert_eq!([0, 1].map(|way| traffic[way].packets.read()), [2, 1]);
}

#[test]
fn fullnat_hides_both_sides_from_each_other() {
    let mut rig = connected(Method::FullNat);
    let row = rig.connections().remove(0);
    let (local, real) = (row.local.unwrap(), (server(1), 8080));
    let out = rig.packet(CLIENT_SIDE, &error(ROUTER, VIP, TOO_LONG, &about_reply()));
    assert_eq!(read(&out[0].packet), ((LADDR, server(1)), (real, local)));
    let about = tcp(local, real, "S", b"");
    let out = rig.packet(SERVER_SIDE, &error(server(1), LADDR, TOO_LONG, &about));
    assert_eq!(read(&out[0].packet), ((VIP, CLIENT), (FROM, WEB)));
}

#[test]
fn dr_and_tun_pass_it_on_like_data() {
    let packet = error(ROUTER, VIP, TOO_LONG, &about_reply());
    let mut passed = packet.clone();
    passed[8] = 63;
    for (method, outer) in [(Method::Dr, 0), (Method::Tun, 20)] {
        let mut rig = connected(method);
        let out = rig.packet(CLIENT_SIDE, &packet).remove(0);
        assert_eq!(out.to, mac_of(server(1)));
        assert_eq!(out.packet[outer + 12..], passed[12..]);
        assert_eq!(read(&out.packet[outer..]).1, (WEB, FROM));
        // Nothing of it is looked at.
        let mut wrong = packet.clone();
        wrong[22] ^= 1;
        assert_eq!(rig.packet(CLIENT_SIDE, &wrong).len(), 1);
    }
}

#[test]
fn what_nat_cannot_vouch_for_goes_nowhere() {
    let mut rig = connected(Method::Nat);
    let mut wrong = error(ROUTER, VIP, TOO_LONG, &about_reply());
    wrong[22] ^= 1;
    assert!(rig.packet(CLIENT_SIDE, &wrong).is_empty());
    assert_eq!(rig.drops(DropReason::BadIcmpChecksum), 1);
    let last = with_header(error(ROUTER, VIP, TOO_LONG, &about_reply()), 0, 1);
    assert!(rig.packet(CLIENT_SIDE, &last).is_empty());
    assert_eq!(rig.drops(DropReason::TtlExceeded), 1);
}

#[test]
fn everything_else_is_the_kernels() {
    let mut rig = connected(Method::Nat);
    let about = about_reply();
    let parameter_problem = error(ROUTER, VIP, [12, 0, 0, 0, 0, 0, 0, 0], &about);
    let unknown = error(ROUTER, VIP, TOO_LONG, &tcp(WEB, (CLIENT, 5001), "A", b""));
    let later_fragment = error(ROUTER, VIP, TOO_LONG, &with_header(about.clone(), 7, 64));
    let fragment = with_header(error(ROUTER, VIP, TOO_LONG, &about), 0x2000, 64);
    for packet in [parameter_problem, unknown, later_fragment, fragment] {
        assert!(rig.packet(CLIENT_SIDE, &packet).is_empty());
        assert_eq!(rig.punted(CLIENT_SIDE).len(), 1);
    }
}

#[test]
fn an_error_keeps_no_connection_alive() {
    let mut rig = connected(Method::Nat);
    rig.sleep(59_000);
    assert_eq!(rig.connections().len(), 1);
    let packet = error(ROUTER, VIP, TOO_LONG, &about_reply());
    assert_eq!(rig.packet(CLIENT_SIDE, &packet).len(), 1);
    rig.sleep(1500);
    assert!(rig.connections().is_empty());
}

#[test]
fn schedule_icmp_makes_a_connection_of_three_seconds() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.settings(|settings| settings.schedule_icmp = true);
    let packet = error(ROUTER, VIP, TOO_LONG, &about_reply());
    assert!(rig.packet(CLIENT_SIDE, &packet).is_empty(), "no server");
    assert_eq!(rig.drops(DropReason::NoServer), 1);
    rig.add_server(1, 8080, Method::Nat);
    let out = rig.packet(CLIENT_SIDE, &packet);
    assert_eq!(read(&out[0].packet).1, ((server(1), 8080), FROM));
    let row = rig.connections().remove(0);
    assert_eq!(row.state, StateName::Of(State::None));
    assert_eq!((row.client, row.expires_ms / 1000), (FROM, 3));
    rig.sleep(3200);
    assert!(rig.connections().is_empty());
    // To a port without a service: the kernel's.
    let other = error(ROUTER, VIP, TOO_LONG, &tcp((VIP, 81), FROM, "A", b""));
    assert!(rig.packet(CLIENT_SIDE, &other).is_empty());
    assert_eq!(rig.punted(CLIENT_SIDE).len(), 1);
}
