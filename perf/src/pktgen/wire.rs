//! Frames: written from templates, read and checked when they come back.
//!
//! Every packet carries its number. In TCP it stands in the window and the urgent pointer, which nobody on the way changes, so
//! that segments without data have it too; in UDP, and again in TCP segments with data, it begins the payload. Behind it is the
//! answering real server, and then a fixed pattern.

use std::sync::LazyLock;

use sluice_dataplane::egress::Mac;
use sluice_dataplane::io::Frame;
use sluice_dataplane::packet::checksum::Sum;
use sluice_dataplane::packet::tcp::ACK;

use super::fault::Fault;
use super::tuple::Endpoint;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;

/// Bytes of an IPv4 header without options.
const IP: usize = 20;

/// Where the transport header begins, in a frame without options and tunnels.
const L4: usize = ETHERNET + IP;

/// Number and real server, in front of the pattern.
const TAG: usize = 6;

/// Shortest frame in memory.
const SHORTEST: usize = 60;

const IP_IN_IP: u8 = 4;
const TTL: u8 = 64;

/// TCP's PSH.
pub(crate) const PSH: u8 = 0x08;

/// Transport protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Tcp = 6,
    Udp = 17,
}

impl Protocol {
    /// Bytes of its header.
    pub(crate) fn header(self) -> usize {
        match self {
            Self::Tcp => 20,
            Self::Udp => 8,
        }
    }
}

/// What follows the tag, whatever the packet.
static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let byte = |n: u32| (n.wrapping_mul(0x9e37_79b1) >> 24) as u8;
    (0..2048).map(byte).collect()
});

/// What differs from packet to packet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Header {
    pub(crate) src: Endpoint,
    pub(crate) dst: Endpoint,
    pub(crate) number: u32,
    /// TCP only, as are the next two.
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
}

/// A frame with all that packets of a size and protocol have in common, and what that adds to the checksums.
#[derive(Debug)]
pub(crate) struct Template {
    bytes: Vec<u8>,
    protocol: Protocol,
    payload: usize,
    ip: Sum,
    l4: Sum,
}

impl Template {
    /// Frames of `len` bytes, full of data.
    pub(crate) fn full(protocol: Protocol, macs: (Mac, Mac), len: u16) -> Self {
        let len = usize::from(len);
        Self::new(protocol, macs, len, len - L4 - protocol.header())
    }

    /// The shortest frames, padded, without data.
    pub(crate) fn bare(protocol: Protocol, macs: (Mac, Mac)) -> Self {
        Self::new(protocol, macs, SHORTEST, 0)
    }

    fn new(protocol: Protocol, (from, to): (Mac, Mac), len: usize, payload: usize) -> Self {
        let mut bytes = vec![0; len];
        bytes[..6].copy_from_slice(&to.0);
        bytes[6..12].copy_from_slice(&from.0);
        bytes[12] = 8;
        let l4_len = protocol.header() + payload;
        let ip = &mut bytes[ETHERNET..L4];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&((IP + l4_len) as u16).to_be_bytes());
        // Do not fragment.
        ip[6] = 0x40;
        ip[8] = TTL;
        ip[9] = protocol as u8;
        let ip = Sum::default().bytes(ip);
        match protocol {
            Protocol::Tcp => bytes[L4 + 12] = 5 << 4,
            Protocol::Udp => bytes[L4 + 4..L4 + 6].copy_from_slice(&(l4_len as u16).to_be_bytes()),
        }
        let start = L4 + protocol.header();
        if payload > TAG {
            bytes[start + TAG..start + payload].copy_from_slice(&PATTERN[TAG..payload]);
        }
        let l4 = Sum::default()
            .word(protocol as u16)
            .word(l4_len as u16)
            .bytes(&bytes[L4..L4 + l4_len]);
        Self {
            bytes,
            protocol,
            payload,
            ip,
            l4,
        }
    }

    /// Bytes of data.
    pub(crate) fn payload(&self) -> usize {
        self.payload
    }

    /// Bytes of a frame.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Makes an empty frame one of these. `false` if it does not fit.
    #[inline]
    pub(crate) fn stamp<F: Frame>(&self, frame: &mut F, header: &Header) -> bool {
        let fits = frame.push_back(self.bytes.len());
        if fits {
            self.write(frame.bytes_mut(), header);
        }
        fits
    }

    fn write(&self, bytes: &mut [u8], header: &Header) {
        let Header {
            src,
            dst,
            number,
            seq,
            ack,
            flags,
        } = *header;
        bytes.copy_from_slice(&self.bytes);
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        let addresses = Sum::default().long(src.addr).long(dst.addr);
        put(26, &src.addr.to_be_bytes());
        put(30, &dst.addr.to_be_bytes());
        put(24, &joined(self.ip, addresses).checksum().to_be_bytes());
        put(L4, &src.port.to_be_bytes());
        put(L4 + 2, &dst.port.to_be_bytes());
        let mut sum = joined(self.l4, addresses).word(src.port).word(dst.port);
        let start = L4 + self.protocol.header();
        if self.payload >= TAG {
            put(start, &number.to_be_bytes());
            sum = sum.long(number);
        }
        match self.protocol {
            Protocol::Tcp => {
                put(L4 + 4, &seq.to_be_bytes());
                put(L4 + 8, &ack.to_be_bytes());
                put(L4 + 13, &[flags]);
                let [a, b, c, d] = number.to_be_bytes();
                put(L4 + 14, &[a, b]);
                put(L4 + 18, &[c, d]);
                sum = sum.long(seq).long(ack).word(flags.into()).long(number);
                put(L4 + 16, &sum.checksum().to_be_bytes());
            }
            Protocol::Udp => put(L4 + 6, &sum.udp_checksum().to_be_bytes()),
        }
    }
}

/// Both together.
#[inline]
fn joined(a: Sum, b: Sum) -> Sum {
    a.word(b.folded())
}

/// A packet of ours, as it was received; what can be checked without knowing what was sent is right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// The frame's receiver.
    pub(crate) dst_mac: Mac,
    /// The end of the tunnel that it came by.
    pub(crate) tunnel: Option<u32>,
    pub(crate) protocol: Protocol,
    pub(crate) header: Header,
    /// Bytes of data.
    pub(crate) payload: usize,
    /// The real server that answered, from 0.
    pub(crate) server: Option<u16>,
}

impl Seen {
    /// How far the packet takes its sender's sequence numbers.
    pub(crate) fn advance(&self) -> u32 {
        use sluice_dataplane::packet::tcp::{FIN, SYN};
        let flag = |flag| u32::from(self.header.flags & flag != 0);
        self.payload as u32 + flag(SYN) + flag(FIN)
    }
}

/// Reads a frame. `Ok(None)` if it is none that we could have sent, `Err` if it is one gone wrong.
#[inline]
pub(crate) fn read(frame: &[u8]) -> Result<Option<Seen>, Fault> {
    let Some((ethernet, packet)) = frame.split_at_checked(ETHERNET) else {
        return Ok(None);
    };
    let group = ethernet[0] & 1 != 0;
    if group || ethernet[12..] != [8, 0] || packet.first() != Some(&0x45) {
        return Ok(None);
    }
    let dst_mac = [0, 1, 2, 3, 4, 5].map(|at| ethernet[at]);
    let (mut ip, mut l4) = ip_packet(packet)?;
    let mut tunnel = None;
    if ip.protocol == IP_IN_IP {
        tunnel = Some(ip.dst);
        (ip, l4) = ip_packet(l4)?;
    }
    let protocol = match ip.protocol {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        _ => return Ok(None),
    };
    let Some((head, payload)) = l4.split_at_checked(protocol.header()) else {
        return Err(Fault::BadLength);
    };
    let sum = Sum::default()
        .long(ip.src)
        .long(ip.dst)
        .word(protocol as u16);
    if sum.word(l4.len() as u16).bytes(l4).folded() != 0xffff {
        return Err(Fault::BadChecksum);
    }
    let mut header = Header {
        src: Endpoint {
            addr: ip.src,
            port: word(head, 0),
        },
        dst: Endpoint {
            addr: ip.dst,
            port: word(head, 2),
        },
        ..Header::default()
    };
    match protocol {
        Protocol::Tcp => {
            // Ours have no options.
            if head[12] != 5 << 4 {
                return Ok(None);
            }
            header.seq = long(head, 4);
            header.ack = long(head, 8);
            header.flags = head[13];
            header.number = u32::from(word(head, 14)) << 16 | u32::from(word(head, 18));
        }
        // The checksum may be left out, but not on the way.
        Protocol::Udp if word(head, 6) == 0 => return Err(Fault::BadChecksum),
        Protocol::Udp => {}
    }
    let server = tag(protocol, payload, &mut header)?;
    Ok(Some(Seen {
        dst_mac: Mac(dst_mac),
        tunnel,
        protocol,
        header,
        payload: payload.len(),
        server,
    }))
}

/// Reads the tag and checks the pattern behind it.
#[inline]
fn tag(protocol: Protocol, payload: &[u8], header: &mut Header) -> Result<Option<u16>, Fault> {
    let Some((tag, rest)) = payload.split_at_checked(TAG) else {
        let fine = payload.is_empty() && protocol == Protocol::Tcp;
        return if fine {
            Ok(None)
        } else {
            Err(Fault::BadPayload)
        };
    };
    let number = long(tag, 0);
    if protocol == Protocol::Udp {
        header.number = number;
    }
    let intact = PATTERN.get(TAG..payload.len()) == Some(rest);
    if !intact || number != header.number {
        return Err(Fault::BadPayload);
    }
    Ok(word(tag, 4).checked_sub(1))
}

#[derive(Clone, Copy)]
struct Ip {
    protocol: u8,
    src: u32,
    dst: u32,
}

/// A whole packet without options, and what is in it.
#[inline]
fn ip_packet(packet: &[u8]) -> Result<(Ip, &[u8]), Fault> {
    let (head, _) = packet.split_first_chunk::<IP>().ok_or(Fault::BadLength)?;
    let fragment = word(head, 6) & 0x3fff != 0;
    if head[0] != 0x45 || fragment || !Sum::is_right(head) {
        return Err(Fault::BadIpHeader);
    }
    let len = usize::from(word(head, 2));
    let content = packet.get(IP..len).ok_or(Fault::BadLength)?;
    let ip = Ip {
        protocol: head[9],
        src: long(head, 12),
        dst: long(head, 16),
    };
    Ok((ip, content))
}

/// Makes a received frame, one without a tunnel, the answer of real server `server` to it. In TCP it has these sequence numbers
/// and flags.
#[inline]
pub(crate) fn answer(bytes: &mut [u8], seen: &Seen, server: u16, tcp: (u32, u32, u8)) {
    let (seq, ack, flags) = tcp;
    swap(bytes, 0, 6, 6);
    swap(bytes, 26, 30, 4);
    swap(bytes, L4, L4 + 2, 2);
    bytes[ETHERNET + 8] = TTL;
    bytes[24..26].fill(0);
    let sum = Sum::default().bytes(&bytes[ETHERNET..L4]).checksum();
    bytes[24..26].copy_from_slice(&sum.to_be_bytes());
    let at = match seen.protocol {
        Protocol::Tcp => L4 + 16,
        Protocol::Udp => L4 + 6,
    };
    let mut sum = Sum::of_checksum(word(bytes, at));
    if seen.payload >= TAG {
        let place = L4 + seen.protocol.header() + 4;
        // The pattern goes on where the tag ends, so both begin at even places and a word is a word.
        sum = sum.replace_word(word(bytes, place), server + 1);
        bytes[place..place + 2].copy_from_slice(&(server + 1).to_be_bytes());
    }
    let checksum = match seen.protocol {
        Protocol::Udp => sum.udp_checksum(),
        Protocol::Tcp => {
            let old = seen.header;
            bytes[L4 + 4..L4 + 8].copy_from_slice(&seq.to_be_bytes());
            bytes[L4 + 8..L4 + 12].copy_from_slice(&ack.to_be_bytes());
            bytes[L4 + 13] = flags;
            sum.replace_long(old.seq, seq)
                .replace_long(old.ack, ack)
                .replace_word(old.flags.into(), flags.into())
                .checksum()
        }
    };
    bytes[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
}

/// Flags of a segment with data.
pub(crate) const DATA: u8 = PSH | ACK;

#[inline]
fn swap(bytes: &mut [u8], a: usize, b: usize, len: usize) {
    let (front, back) = bytes.split_at_mut(b);
    front[a..a + len].swap_with_slice(&mut back[..len]);
}

#[inline]
fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([0, 1, 2, 3].map(|n| bytes[at + n]))
}

#[cfg(test)]
mod tests;
