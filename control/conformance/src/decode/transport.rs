//! TCP, UDP, SCTP, and the tunnel headers GRE and GUE.

use super::ip::{Payload, packet};
use super::{Reader, digits};
use crate::checksum;

/// The start of a GUE header (draft-ietf-intarea-gue, version 0) whose inner protocol is IPIP or IPv6.
const GUE: [[u8; 4]; 2] = [[0, 4, 0, 0], [0, 41, 0, 0]];

pub(super) fn tcp(reader: &mut Reader<'_>, payload: &Payload) {
    let sum = right(reader, payload);
    reader.inside("tcp", |reader| {
        if ports(reader, payload) && reader.left(payload.end) >= 16 {
            reader.number(4, "seq");
            reader.number(4, "ack");
            let header = usize::from(reader.packet[reader.at] >> 4) * 4;
            reader.take(1, "header", |_| format!("{header} bytes"));
            reader.take(1, "flags", |byte| tcp_flags(byte[0]));
            reader.number(2, "window");
            reader.checksum("checksum", sum);
            reader.number(2, "urgent");
            let options_end = reader.at + header.saturating_sub(20);
            reader.rest(options_end.min(payload.end), "options");
        }
        reader.rest(payload.end, "payload");
    });
}

pub(super) fn udp(reader: &mut Reader<'_>, payload: &Payload) {
    let sum = right(reader, payload);
    reader.inside("udp", |reader| {
        if ports(reader, payload) && reader.left(payload.end) >= 4 {
            reader.number(2, "length");
            let none = reader.packet[reader.at..reader.at + 2] == [0, 0];
            reader.checksum("checksum", sum.filter(|_| !none));
        }
    });
    if GUE
        .iter()
        .any(|gue| reader.packet[reader.at..payload.end].starts_with(gue))
    {
        reader.take(4, "gue", digits);
        reader.inside("inner", |reader| packet(reader, payload.end));
    } else {
        reader.rest(payload.end, "udp.payload");
    }
}

pub(super) fn sctp(reader: &mut Reader<'_>, payload: &Payload) {
    reader.inside("sctp", |reader| {
        if ports(reader, payload) && reader.left(payload.end) >= 8 {
            reader.take(4, "tag", digits);
            reader.take(4, "crc32c", digits);
        }
        reader.rest(payload.end, "chunks");
    });
}

pub(super) fn gre(reader: &mut Reader<'_>, payload: &Payload) {
    if reader.left(payload.end) < 4 {
        return reader.rest(payload.end, "gre");
    }
    let with_checksum = reader.packet[reader.at] & 0x80 != 0;
    let sum = checksum::internet(&[&reader.packet[reader.at..payload.end]]);
    reader.inside("gre", |reader| {
        reader.take(2, "flags", digits);
        reader.take(2, "protocol", digits);
        if with_checksum && reader.left(payload.end) >= 4 {
            reader.checksum("checksum", payload.whole.then_some(sum == 0));
            reader.take(2, "reserved", digits);
        }
    });
    reader.inside("inner", |reader| packet(reader, payload.end));
}

/// Both ports; of less than four bytes, those bytes. Whether there were ports.
fn ports(reader: &mut Reader<'_>, payload: &Payload) -> bool {
    let there = reader.left(payload.end) >= 4;
    if there {
        reader.number(2, "sport");
        reader.number(2, "dport");
    }
    there
}

/// Whether the checksum of the TCP or UDP segment here is right; `None` where parts of it are missing.
fn right(reader: &Reader<'_>, payload: &Payload) -> Option<bool> {
    let l4 = &reader.packet[reader.at..payload.end];
    payload
        .whole
        .then(|| checksum::transport(payload.src, payload.dst, payload.protocol, l4) == 0)
}

fn tcp_flags(flags: u8) -> String {
    const LETTERS: [(u8, char); 8] = [
        (0x02, 'S'),
        (0x01, 'F'),
        (0x04, 'R'),
        (0x08, 'P'),
        (0x10, 'A'),
        (0x20, 'U'),
        (0x40, 'E'),
        (0x80, 'C'),
    ];
    let letters = LETTERS.iter().filter(|(bit, _)| flags & bit != 0);
    letters.map(|(_, letter)| *letter).collect()
}
