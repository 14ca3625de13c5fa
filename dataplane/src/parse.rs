//! Bytes to [`Parsed`], once. Past this nobody indexes a slice or checks a length again.

use std::net::Ipv4Addr;

use crate::conn::{Endpoint, Ends, FlowKey};
use crate::drop_reason::DropReason;
use crate::egress::Mac;
use crate::packet::checksum::Sum;
use crate::packet::ethernet::{self, Ethernet};
use crate::packet::icmp::{IcmpError, PASSED_ON};
use crate::packet::ipv4::{Ipv4, OFFSET, protocol};
use crate::packet::sctp::{Chunk, Sctp};
use crate::packet::tcp::{self, Tcp};
use crate::packet::udp::Udp;
use crate::packet::usual::Usual;
use crate::service::Protocol;

/// What a frame is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A whole TCP, UDP or SCTP packet over IPv4.
    Flow(Flow),
    /// A fragment of one.
    Fragment {
        /// Whom it is addressed to.
        dst: Ipv4Addr,
    },
    /// An ICMP error about a TCP, UDP or SCTP packet over IPv4.
    Related(Related),
    /// The kernel's business: ARP, IPv6, other ICMP, multicast, anything we do not know.
    Kernel,
    /// Not fit to be passed on.
    Drop(DropReason),
}

/// What the walk needs to know of a TCP, UDP or SCTP packet. It describes the frame that it was parsed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Addresses and ports, as in the packet.
    pub ends: Ends,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Bytes of the IP header, options included.
    pub header_len: u8,
    /// TCP control bits; 0 for others.
    pub tcp_flags: u8,
    /// What an SCTP packet is about; [`Chunk::Missing`] for others.
    pub chunk: Chunk,
    /// UDP without checksum.
    pub no_checksum: bool,
    /// Bytes of the IP packet.
    pub total_len: u16,
    /// Time to live as received.
    pub ttl: u8,
    /// Whether it may not be fragmented.
    pub dont_fragment: bool,
}

/// What the walk needs to know of an ICMP error. It describes the frame that it was parsed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Related {
    /// Addresses and ports of the packet quoted.
    pub quoted: Ends,
    /// Its transport protocol.
    pub protocol: Protocol,
    /// Bytes of the IP header of the packet quoted.
    pub quoted_header_len: u8,
    /// Bytes of the error's own IP header.
    pub header_len: u8,
    /// Bytes of the error's IP packet.
    pub total_len: u16,
    /// The error's time to live as received.
    pub ttl: u8,
    /// Whether the error may not be fragmented.
    pub dont_fragment: bool,
}

impl Related {
    /// The key of an answer to the packet quoted: the error goes where that would.
    pub fn answer(&self) -> FlowKey {
        self.quoted.reversed().key(self.protocol)
    }
}

impl Flow {
    /// Addresses, ports and protocol, decoded.
    pub fn key(&self) -> FlowKey {
        self.ends.key(self.protocol)
    }

    /// Whether it opens a connection, when it comes from a client: SYN, whatever else is set, or INIT.
    #[inline]
    pub fn opens(&self) -> bool {
        self.tcp_flags & tcp::SYN != 0 || self.chunk == Chunk::Init
    }
}

/// Views a frame that arrived on a port whose own address is `mac`, if it is a whole TCP or UDP packet without anything
/// unusual about it: most are, and one check of the length does for them. For all others ask [`parse`].
#[inline(always)]
pub(crate) fn usual(frame: &[u8], mac: Mac) -> Option<&Usual> {
    let usual = Usual::view(frame)?;
    let least = match usual.protocol() {
        protocol::TCP => Ipv4::LEN + Tcp::LEN,
        protocol::UDP => Ipv4::LEN + Udp::LEN,
        _ => return None,
    };
    let total_len = usize::from(usual.total_len());
    let whole = least <= total_len && Ethernet::LEN + total_len <= frame.len();
    (whole && usual.is_right(mac)).then_some(usual)
}

impl From<&Usual> for Flow {
    /// Of a packet that [`usual`] has accepted.
    #[inline(always)]
    fn from(usual: &Usual) -> Self {
        let (protocol, tcp_flags, no_checksum) = if usual.protocol() == protocol::TCP {
            (Protocol::Tcp, usual.tcp_flags(), false)
        } else {
            (Protocol::Udp, 0, !usual.has_udp_checksum())
        };
        Self {
            ends: *usual.ends(),
            protocol,
            header_len: Ipv4::LEN as u8,
            tcp_flags,
            chunk: Chunk::Missing,
            no_checksum,
            total_len: usual.total_len(),
            ttl: usual.ttl(),
            dont_fragment: usual.dont_fragment(),
        }
    }
}

/// Reads any frame that arrived on a port whose own address is `mac`.
#[inline(never)]
pub fn parse(frame: &[u8], mac: Mac) -> Parsed {
    match parse_ethernet(frame, mac) {
        Ok(parsed) => parsed,
        Err(reason) => Parsed::Drop(reason),
    }
}

fn parse_ethernet(frame: &[u8], mac: Mac) -> Result<Parsed, DropReason> {
    let (ethernet, packet) = Ethernet::view(frame)?;
    if ethernet.dst() != mac {
        let group = ethernet.dst().0[0] & 1 == 1;
        return if group {
            Ok(Parsed::Kernel)
        } else {
            Err(DropReason::NotOurMac)
        };
    }
    if ethernet.ether_type() == ethernet::IPV4 {
        parse_ipv4(packet)
    } else {
        Ok(Parsed::Kernel)
    }
}

/// Reads an IPv4 packet, padding behind it allowed.
fn parse_ipv4(packet: &[u8]) -> Result<Parsed, DropReason> {
    let (ip, _) = Ipv4::view(packet)?;
    let header_len = ip.header_len();
    let total_len = usize::from(ip.total_len());
    if ip.version() != 4
        || header_len < Ipv4::LEN
        || total_len < header_len
        || packet.len() < total_len
    {
        return Err(DropReason::BadIpv4Header);
    }
    let (header, payload) = packet[..total_len].split_at(header_len);
    let right = match header.as_array() {
        Some(header) => Sum::is_right(header),
        None => Sum::default().bytes(header).folded() == 0xffff,
    };
    if !right {
        return Err(DropReason::BadIpv4Checksum);
    }
    let transport = match ip.protocol() {
        protocol::TCP => Protocol::Tcp,
        protocol::UDP => Protocol::Udp,
        protocol::SCTP => Protocol::Sctp,
        protocol::ICMP => return Ok(related(ip, payload).map_or(Parsed::Kernel, Parsed::Related)),
        _ => return Ok(Parsed::Kernel),
    };
    if ip.is_fragment() {
        return Ok(Parsed::Fragment { dst: ip.dst() });
    }
    let mut chunk = Chunk::Missing;
    let (src_port, dst_port, tcp_flags, no_checksum) = match transport {
        Protocol::Tcp => {
            let tcp = Tcp::view(payload)?;
            (tcp.src_port(), tcp.dst_port(), tcp.flags(), false)
        }
        Protocol::Udp => {
            let udp = Udp::view(payload)?;
            (udp.src_port(), udp.dst_port(), 0, !udp.has_checksum())
        }
        Protocol::Sctp => {
            let (sctp, chunks) = Sctp::view(payload)?;
            chunk = Chunk::first(chunks);
            (sctp.src_port(), sctp.dst_port(), 0, false)
        }
    };
    Ok(Parsed::Flow(Flow {
        ends: Ends::new(
            Endpoint::new(ip.src(), src_port),
            Endpoint::new(ip.dst(), dst_port),
        ),
        protocol: transport,
        header_len: header_len as u8,
        tcp_flags,
        chunk,
        no_checksum,
        total_len: total_len as u16,
        ttl: ip.ttl(),
        dont_fragment: ip.dont_fragment(),
    }))
}

/// Reads an ICMP message that may be an error about a connection's packet.
#[cold]
fn related(ip: &Ipv4, message: &[u8]) -> Option<Related> {
    let (icmp, quote) = IcmpError::view(message)?;
    let (quoted, _) = Ipv4::view(quote).ok()?;
    let about_ports = quoted.version() == 4 && quoted.flags_offset() & OFFSET == 0;
    if ip.is_fragment() || !PASSED_ON.contains(&icmp.kind()) || !about_ports {
        return None;
    }
    let protocol = match quoted.protocol() {
        protocol::TCP => Protocol::Tcp,
        protocol::UDP => Protocol::Udp,
        protocol::SCTP => Protocol::Sctp,
        _ => return None,
    };
    let header_len = quoted.header_len();
    if header_len < Ipv4::LEN {
        return None;
    }
    let [a, b, c, d] = *quote.get(header_len..)?.first_chunk()?;
    Some(Related {
        quoted: Ends::new(
            Endpoint::new(quoted.src(), u16::from_be_bytes([a, b])),
            Endpoint::new(quoted.dst(), u16::from_be_bytes([c, d])),
        ),
        protocol,
        quoted_header_len: header_len as u8,
        header_len: ip.header_len() as u8,
        total_len: ip.total_len(),
        ttl: ip.ttl(),
        dont_fragment: ip.dont_fragment(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

    /// A SYN from 198.51.100.7:34567 to 10.0.0.1:80, in an Ethernet frame to [`MAC`].
    pub(crate) fn syn() -> Vec<u8> {
        let mut frame = vec![
            2, 0, 0, 0, 0, 1, // to us
            2, 0, 0, 0, 0xfe, 1, // from the client's router
            0x08, 0x00, // IPv4
        ];
        frame.extend([
            0x45, 0x10, 0x00, 0x28, // version and length, TOS, total length 40
            0x11, 0x11, 0x40, 0x00, // id, DF
            0x39, 0x06, 0xfc, 0x73, // TTL 57, TCP, checksum
            198, 51, 100, 7, // source
            10, 0, 0, 1, // destination
        ]);
        frame.extend([
            0x87, 0x07, 0x00, 0x50, // ports 34567, 80
            0x00, 0x00, 0x00, 0x64, // sequence
            0x00, 0x00, 0x00, 0x00, // acknowledgement
            0x50, 0x02, 0xff, 0xff, // length 20, SYN, window
            0xf3, 0xdd, 0x00, 0x00, // checksum, urgent
        ]);
        frame
    }

    fn reason(frame: &[u8]) -> Option<DropReason> {
        match parse(frame, MAC) {
            Parsed::Drop(reason) => Some(reason),
            _ => None,
        }
    }

    #[test]
    fn a_syn_is_read_whole() {
        let Parsed::Flow(flow) = parse(&syn(), MAC) else {
            panic!("{:?}", parse(&syn(), MAC))
        };
        let key = flow.key();
        assert_eq!(key.src, Ipv4Addr::new(198, 51, 100, 7));
        assert_eq!((key.src_port, key.dst_port), (34567, 80));
        assert_eq!(
            (flow.header_len, flow.total_len, flow.ttl, flow.tcp_flags),
            (20, 40, 57, 2)
        );
        assert!(flow.dont_fragment);
    }

    #[test]
    fn padding_behind_the_packet_is_no_part_of_it() {
        let mut frame = syn();
        frame.resize(60, 0xaa);
        assert_eq!(parse(&frame, MAC), parse(&syn(), MAC));
    }

    #[test]
    fn the_short_way_and_the_long_way_agree() {
        let mut frames = vec![syn()];
        for at in 0..syn().len() {
            for bit in 0..8 {
                let mut frame = syn();
                frame[at] ^= 1 << bit;
                frames.push(frame);
            }
        }
        for ihl in [5u8, 6, 8] {
            let mut frame = syn();
            frame.resize(14 + 4 * usize::from(ihl) + 20, 0);
            frame[14] = 0x40 | ihl;
            frame[24..26].fill(0);
            frame[16..18].copy_from_slice(&(20 + 4 * u16::from(ihl)).to_be_bytes());
            let sum = Sum::default()
                .bytes(&frame[14..14 + 4 * usize::from(ihl)])
                .checksum();
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
            frames.push(frame);
        }
        let mut count = 0;
        for frame in frames {
            if let Some(flow) = usual(&frame, MAC).map(Flow::from) {
                count += 1;
                assert_eq!(parse(&frame, MAC), Parsed::Flow(flow), "{frame:02x?}");
            }
        }
        // Whole, without options, and whatever bits of the source MAC and the TCP header say.
        assert_eq!(count, 2 + 48 + 160);
    }

    #[test]
    fn a_packet_cut_at_any_place_is_refused_with_a_reason() {
        let whole = syn();
        for len in 0..whole.len() {
            let expected = if len < 14 {
                DropReason::ShortEthernet
            } else {
                DropReason::BadIpv4Header
            };
            assert_eq!(reason(&whole[..len]), Some(expected), "cut to {len} bytes");
        }
    }

    #[test]
    fn a_tcp_header_longer_than_its_packet_is_refused() {
        let mut frame = syn();
        frame[14 + 3] = 39;
        let sum = Sum::of_checksum(0xfc73).replace_word(40, 39).checksum();
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(reason(&frame), Some(DropReason::ShortL4));
    }

    #[test]
    fn a_wrong_header_checksum_is_refused() {
        let mut frame = syn();
        frame[24] ^= 1;
        assert_eq!(reason(&frame), Some(DropReason::BadIpv4Checksum));
    }

    #[test]
    fn frames_to_others_are_dropped_and_broadcast_goes_to_the_kernel() {
        let mut frame = syn();
        frame[5] = 9;
        assert_eq!(reason(&frame), Some(DropReason::NotOurMac));
        frame[..6].fill(0xff);
        assert_eq!(parse(&frame, MAC), Parsed::Kernel);
    }

    #[test]
    fn a_fragment_is_told_from_a_whole_packet() {
        let mut frame = syn();
        let (ip, _) = Ipv4::view_mut(&mut frame[14..]).unwrap();
        ip.set_fragment(8, false, 40);
        assert_eq!(
            parse(&frame, MAC),
            Parsed::Fragment {
                dst: Ipv4Addr::new(10, 0, 0, 1)
            }
        );
    }
}
