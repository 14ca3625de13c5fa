//! IPv4 and IPv6 headers, ICMP, and packets inside packets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Reader, digits, transport};
use crate::checksum;

/// Where the payload of a header belongs, and whose it is.
pub(super) struct Payload {
    pub(super) protocol: u8,
    pub(super) src: IpAddr,
    pub(super) dst: IpAddr,
    /// Whether all of it is here: no fragment, not cut by quoting.
    pub(super) whole: bool,
    pub(super) end: usize,
}

/// A packet from here to `end`.
pub(super) fn packet(reader: &mut Reader<'_>, end: usize) {
    match reader.packet.get(reader.at).map(|byte| byte >> 4) {
        Some(4) if reader.left(end) >= 20 => v4(reader, end),
        Some(6) if reader.left(end) >= 40 => v6(reader, end),
        _ => reader.rest(end, "bytes"),
    }
}

fn v4(reader: &mut Reader<'_>, end: usize) {
    let start = reader.at;
    let header = usize::from(reader.packet[start] & 0x0f) * 4;
    let header_end = (start + header).clamp(start + 20, end);
    let sum = checksum::internet(&[&reader.packet[start..header_end]]);
    let mut payload = None;
    reader.inside("ip", |reader| {
        reader.take(1, "version, header", |byte| {
            format!("4, {} bytes", usize::from(byte[0] & 0x0f) * 4)
        });
        reader.take(1, "tos", |byte| format!("0x{:02x}", byte[0]));
        let length = reader.number(2, "length") as usize;
        reader.number(2, "id");
        let fragment = u16::from_be_bytes([reader.packet[reader.at], reader.packet[reader.at + 1]]);
        reader.take(2, "fragment", |_| fragment_text(fragment));
        reader.number(1, "ttl");
        let protocol = reader.packet[reader.at];
        reader.take(1, "protocol", |byte| protocol_name(byte[0]));
        reader.checksum("checksum", Some(sum == 0));
        let src = address4(reader, "src");
        let dst = address4(reader, "dst");
        reader.rest(header_end, "options");
        let packet_end = (start + length).clamp(reader.at, end);
        payload = Some((
            packet_end,
            fragment & 0x1fff == 0,
            Payload {
                protocol,
                src: src.into(),
                dst: dst.into(),
                whole: fragment & 0x3fff == 0 && start + length <= end,
                end: packet_end,
            },
        ));
    });
    if let Some((packet_end, first, payload)) = payload {
        if first {
            body(reader, &payload);
        } else {
            reader.rest(packet_end, "fragment");
        }
        reader.rest(end, "trailer");
    }
}

fn v6(reader: &mut Reader<'_>, end: usize) {
    let mut payload = None;
    reader.inside("ip", |reader| {
        reader.take(4, "version, class, flow", digits);
        let length = reader.number(2, "payload length") as usize;
        let protocol = reader.packet[reader.at];
        reader.take(1, "protocol", |byte| protocol_name(byte[0]));
        reader.number(1, "hop limit");
        let src = address6(reader, "src");
        let dst = address6(reader, "dst");
        let whole = reader.at + length <= end;
        payload = Some(Payload {
            protocol,
            src: src.into(),
            dst: dst.into(),
            whole,
            end: (reader.at + length).clamp(reader.at, end),
        });
    });
    if let Some(payload) = payload {
        body(reader, &payload);
        reader.rest(end, "trailer");
    }
}

/// What follows the IP header.
fn body(reader: &mut Reader<'_>, payload: &Payload) {
    match payload.protocol {
        1 | 58 => icmp(reader, payload),
        4 | 41 => reader.inside("inner", |reader| packet(reader, payload.end)),
        6 => transport::tcp(reader, payload),
        17 => transport::udp(reader, payload),
        47 => transport::gre(reader, payload),
        132 => transport::sctp(reader, payload),
        _ => reader.rest(payload.end, "payload"),
    }
}

fn icmp(reader: &mut Reader<'_>, payload: &Payload) {
    if reader.left(payload.end) < 8 {
        return reader.rest(payload.end, "icmp");
    }
    let bytes = &reader.packet[reader.at..payload.end];
    let sum = match payload.protocol {
        1 => checksum::internet(&[bytes]),
        _ => checksum::transport(payload.src, payload.dst, 58, bytes),
    };
    let error = is_icmp_error(payload.protocol == 58, bytes[0]);
    reader.inside("icmp", |reader| {
        reader.take(2, "type", |bytes| {
            format!(
                "{}/{} {}",
                bytes[0],
                bytes[1],
                icmp_name(payload.protocol, bytes[0])
            )
        });
        reader.checksum("checksum", payload.whole.then_some(sum == 0));
        reader.take(4, "rest of header", digits);
    });
    if error {
        reader.inside("quoted", |reader| packet(reader, payload.end));
    } else {
        reader.rest(payload.end, "payload");
    }
}

/// Whether an ICMP type is an error that quotes a packet (RFC 792, RFC 4443).
pub(crate) fn is_icmp_error(v6: bool, kind: u8) -> bool {
    if v6 {
        kind < 128
    } else {
        matches!(kind, 3 | 4 | 5 | 11 | 12)
    }
}

fn icmp_name(protocol: u8, kind: u8) -> &'static str {
    match (protocol, kind) {
        (1, 0) | (58, 129) => "echo reply",
        (1, 3) | (58, 1) => "unreachable",
        (1, 4) => "source quench",
        (1, 5) | (58, 137) => "redirect",
        (1, 8) | (58, 128) => "echo request",
        (1, 11) | (58, 3) => "time exceeded",
        (1, 12) | (58, 4) => "parameter problem",
        (58, 2) => "packet too big",
        _ => "",
    }
}

fn protocol_name(protocol: u8) -> String {
    let name = match protocol {
        1 => "ICMP",
        2 => "IGMP",
        4 => "IPIP",
        6 => "TCP",
        17 => "UDP",
        41 => "IPv6",
        47 => "GRE",
        58 => "ICMPv6",
        132 => "SCTP",
        other => return other.to_string(),
    };
    name.to_owned()
}

fn fragment_text(fragment: u16) -> String {
    let offset = u32::from(fragment & 0x1fff) * 8;
    let mut words = Vec::new();
    if fragment & 0x8000 != 0 {
        words.push("reserved".to_owned());
    }
    if fragment & 0x4000 != 0 {
        words.push("DF".to_owned());
    }
    if fragment & 0x2000 != 0 {
        words.push("MF".to_owned());
    }
    if offset != 0 {
        words.push(format!("offset {offset}"));
    }
    if words.is_empty() {
        words.push("whole".to_owned());
    }
    words.join(" ")
}

fn address4(reader: &mut Reader<'_>, name: &str) -> Ipv4Addr {
    let mut octets = [0; 4];
    octets.copy_from_slice(&reader.packet[reader.at..reader.at + 4]);
    let addr = Ipv4Addr::from(octets);
    reader.take(4, name, |_| addr.to_string());
    addr
}

fn address6(reader: &mut Reader<'_>, name: &str) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets.copy_from_slice(&reader.packet[reader.at..reader.at + 16]);
    let addr = Ipv6Addr::from(octets);
    reader.take(16, name, |_| addr.to_string());
    addr
}
