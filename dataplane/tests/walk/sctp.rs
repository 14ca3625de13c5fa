//! SCTP associations: who is scheduled, states, timeouts, ports and their checksum (`SEMANTICS.md` sections 2 and 6).

use std::net::Ipv4Addr;

use etherparse::{IpNumber, PacketBuilder};
use sluice_dataplane::command::PortId;
use sluice_dataplane::conn::state::{State, StateName};
use sluice_dataplane::drop_reason::DropReason;
use sluice_dataplane::service::{Method, Protocol};

use crate::rig::*;

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const ABORT: u8 = 6;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;

type End = (Ipv4Addr, u16);

const WEB: End = (VIP, 80);

/// A packet of one chunk without content.
fn sctp(from: End, to: End, chunk: u8) -> Vec<u8> {
    let mut l4 = Vec::new();
    l4.extend(from.1.to_be_bytes());
    l4.extend(to.1.to_be_bytes());
    l4.extend([0, 0, 0, 9]);
    l4.extend([0; 4]);
    l4.extend([chunk, 0, 0, 4]);
    let crc = crc32c(&l4).to_le_bytes();
    l4[8..12].copy_from_slice(&crc);
    let mut packet = Vec::new();
    PacketBuilder::ipv4(from.0.octets(), to.0.octets(), 64)
        .write(&mut packet, IpNumber::SCTP, &l4)
        .unwrap();
    packet
}

/// Bit by bit (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 * (crc & 1))
        })
    })
}

/// Source and destination of a packet, after checking its checksums.
fn ends(packet: &[u8]) -> (End, End) {
    let sum: u32 = packet[..20]
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    let mut l4 = packet[20..].to_vec();
    let crc: [u8; 4] = l4[8..12].try_into().unwrap();
    l4[8..12].fill(0);
    assert_eq!(crc, crc32c(&l4).to_le_bytes());
    let addr =
        |at: usize| Ipv4Addr::new(packet[at], packet[at + 1], packet[at + 2], packet[at + 3]);
    let port = |at: usize| u16::from_be_bytes([l4[at], l4[at + 1]]);
    ((addr(12), port(0)), (addr(16), port(2)))
}

fn client(port: u16) -> End {
    (CLIENT, port)
}

/// Sends it; source and destination of what comes out, if anything does.
fn through(rig: &mut Rig, side: PortId, packet: &[u8]) -> Option<(End, End)> {
    let sent = rig.packet(side, packet);
    assert!(sent.len() <= 1, "{sent:?}");
    sent.first().map(|sent| ends(&sent.packet))
}

fn to_server(rig: &mut Rig, port: u16, chunk: u8) -> Option<(End, End)> {
    through(rig, CLIENT_SIDE, &sctp(client(port), WEB, chunk))
}

/// State and seconds left of the only connection.
fn listed(rig: &mut Rig) -> (StateName, u64) {
    let rows = rig.connections();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0].protocol, Some(Protocol::Sctp));
    (rows[0].state, rows[0].expires_ms / 1000)
}

#[test]
fn an_association_is_opened_by_nat_and_both_ports_are_translated() {
    let mut rig = Rig::new(Protocol::Sctp);
    rig.add_server(1, 8080, Method::Nat);
    let real = (server(1), 8080);
    let reply = |rig: &mut Rig, chunk| through(rig, SERVER_SIDE, &sctp(real, client(5000), chunk));

    assert_eq!(to_server(&mut rig, 5000, INIT), Some((client(5000), real)));
    assert_eq!(listed(&mut rig), (StateName::Of(State::Init1), 4));
    assert_eq!(reply(&mut rig, INIT_ACK), Some((WEB, client(5000))));
    assert_eq!(listed(&mut rig), (StateName::Of(State::CookieSent), 61));
    to_server(&mut rig, 5000, COOKIE_ECHO);
    let active = |rig: &Rig| rig.cells.servers[1].active.read();
    assert_eq!(active(&rig), 0);
    reply(&mut rig, COOKIE_ACK);
    assert_eq!(listed(&mut rig), (StateName::Of(State::Established), 900));
    assert_eq!(active(&rig), 1);
    assert_eq!(to_server(&mut rig, 5000, ABORT), Some((client(5000), real)));
    assert_eq!(listed(&mut rig), (StateName::Of(State::Closed), 61));
    assert_eq!(active(&rig), 0);
    // The next INIT begins another one.
    to_server(&mut rig, 5000, INIT);
    assert_eq!(listed(&mut rig), (StateName::Of(State::Init1), 4));
    rig.sleep(4200);
    assert!(rig.connections().is_empty());
}

#[test]
fn a_wrong_checksum_is_right_after_a_change_of_ports_and_stays_without_one() {
    for (port, wrong) in [(8080, false), (80, true)] {
        let mut rig = Rig::new(Protocol::Sctp);
        rig.add_server(1, port, Method::Nat);
        let mut packet = sctp(client(5000), WEB, INIT);
        packet[28] ^= 1;
        let sent = rig.packet(CLIENT_SIDE, &packet).remove(0);
        if wrong {
            assert_eq!(sent.packet[20..], packet[20..]);
        } else {
            ends(&sent.packet);
        }
    }
}

#[test]
fn fullnat_hides_the_client() {
    let mut rig = Rig::new(Protocol::Sctp);
    rig.set_laddrs(&[LADDR]);
    rig.add_server(1, 80, Method::FullNat);
    let (from, to) = to_server(&mut rig, 5000, INIT).unwrap();
    assert_eq!((from.0, to), (LADDR, (server(1), 80)));
    let back = through(&mut rig, SERVER_SIDE, &sctp(to, from, INIT_ACK));
    assert_eq!(back, Some((WEB, client(5000))));
}

#[test]
fn only_an_init_opens_unless_sloppy() {
    let mut rig = Rig::new(Protocol::Sctp);
    rig.add_server(1, 80, Method::Dr);
    assert_eq!(to_server(&mut rig, 5000, DATA), None);
    assert_eq!(rig.punted(CLIENT_SIDE).len(), 1);
    rig.settings(|settings| settings.sloppy_sctp = true);
    assert_eq!(to_server(&mut rig, 5000, DATA), Some((client(5000), WEB)));
    assert_eq!(listed(&mut rig), (StateName::Of(State::Established), 900));
    let mut no_chunk = sctp(client(5001), WEB, INIT);
    no_chunk.truncate(32);
    no_chunk[3] = 32;
    let no_chunk = with_header(no_chunk, 0, 64);
    assert_eq!(rig.packet(CLIENT_SIDE, &no_chunk).len(), 0);
    assert_eq!(rig.punted(CLIENT_SIDE).len(), 1);
}

#[test]
fn a_packet_too_short_for_its_header_is_dropped() {
    let mut rig = Rig::new(Protocol::Sctp);
    rig.add_server(1, 80, Method::Dr);
    let mut short = sctp(client(5000), WEB, INIT);
    short.truncate(31);
    short[3] = 31;
    let short = with_header(short, 0, 64);
    assert_eq!(rig.packet(CLIENT_SIDE, &short).len(), 0);
    assert_eq!(rig.drops(DropReason::ShortL4), 1);
}

#[test]
fn an_abort_of_no_association_is_not_answered() {
    let mut rig = Rig::new(Protocol::Sctp);
    rig.add_server(1, 80, Method::Nat);
    rig.settings(|settings| settings.nat_icmp_send = true);
    let stray = |chunk| sctp((server(1), 80), client(5000), chunk);
    assert_eq!(rig.packet(SERVER_SIDE, &stray(ABORT)).len(), 0);
    assert_eq!(rig.punted(SERVER_SIDE).len(), 1);
    assert_eq!(rig.packet(SERVER_SIDE, &stray(DATA)).len(), 1);
    assert_eq!(rig.drops(DropReason::UnknownReply), 1);
}
