//! Whether the hashes that a NIC gives with packets are ours, looked at now and then while it works.

use std::net::Ipv6Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::rss::{Addresses, Packet, RssPlan, Transport};
use crate::packet::ethernet::{self, Ethernet};
use crate::packet::ipv4::{Ipv4, protocol};
use crate::service::Protocol;
use crate::stats::Cell;

/// What came of the samples of one worker and port. The worker writes, anybody reads.
#[derive(Debug, Default)]
pub struct SampleCells {
    /// Packets whose hash was compared.
    pub compared: Cell,
    /// Those whose hash, or whose queue by the hash, was not the one computed.
    pub wrong: Cell,
}

/// The redirection table of a NIC as it is, by queue: control writes it when it moves entries, workers look at it with a sample.
#[derive(Debug)]
pub struct SampledTable(Box<[AtomicU32]>);

impl SampledTable {
    /// With these queues, a power of two of them.
    pub fn new(queues: &[u16]) -> Self {
        let each = queues
            .iter()
            .map(|queue| AtomicU32::new(both(*queue, *queue)));
        Self(each.collect())
    }

    /// The NIC is about to be given these queues. What waits in queues meanwhile came by those of before: until the next time, they
    /// are right as well.
    pub fn replace(&self, queues: &[u16]) {
        for (entry, queue) in self.0.iter().zip(queues) {
            let before = entry.load(Ordering::Relaxed) as u16;
            entry.store(both(before, *queue), Ordering::Relaxed);
        }
    }

    fn leads(&self, hash: u32, queue: u16) -> bool {
        let entry = &self.0[hash as usize & (self.0.len() - 1)];
        let queues = entry.load(Ordering::Relaxed);
        queue == queues as u16 || queue == (queues >> 16) as u16
    }
}

/// The queue of before the last move in the upper half.
fn both(before: u16, now: u16) -> u32 {
    u32::from(before) << 16 | u32::from(now)
}

const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const FRAGMENT_HEADER: u8 = 44;

#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Vlan {
    _tag: U16,
    ether_type: U16,
}

/// IPv6 header (RFC 8200, section 3).
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Ipv6 {
    _front: [u8; 6],
    next_header: u8,
    _hop_limit: u8,
    src: [u8; 16],
    dst: [u8; 16],
}

/// The front of what has ports.
#[derive(FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Ports {
    src: U16,
    dst: U16,
}

/// What a NIC sees in a frame, behind a VLAN tag too; `None` if it is neither IPv4 nor IPv6 or is cut short.
pub fn seen(frame: &[u8]) -> Option<Packet> {
    let (ethernet, mut packet) = Ethernet::view(frame).ok()?;
    let mut ether_type = ethernet.ether_type();
    if ether_type == VLAN {
        let (vlan, rest) = Vlan::ref_from_prefix(packet).ok()?;
        (ether_type, packet) = (vlan.ether_type.get(), rest);
    }
    match ether_type {
        ethernet::IPV4 => seen_ipv4(packet),
        IPV6 => seen_ipv6(packet),
        _ => None,
    }
}

fn seen_ipv4(packet: &[u8]) -> Option<Packet> {
    let (ip, _) = Ipv4::view(packet).ok()?;
    let (src, dst) = (ip.src(), ip.dst());
    let transport = if ip.is_fragment() {
        Transport::Fragment
    } else {
        transport(ip.protocol(), packet.get(ip.header_len()..)?)?
    };
    Some(Packet {
        addresses: Addresses::V4 { src, dst },
        transport,
    })
}

fn seen_ipv6(packet: &[u8]) -> Option<Packet> {
    let (ip, rest) = Ipv6::ref_from_prefix(packet).ok()?;
    let transport = match ip.next_header {
        FRAGMENT_HEADER => Transport::Fragment,
        next => transport(next, rest)?,
    };
    Some(Packet {
        addresses: Addresses::V6 {
            src: Ipv6Addr::from(ip.src),
            dst: Ipv6Addr::from(ip.dst),
        },
        transport,
    })
}

fn transport(number: u8, l4: &[u8]) -> Option<Transport> {
    let protocol = match number {
        protocol::TCP => Protocol::Tcp,
        protocol::UDP => Protocol::Udp,
        protocol::SCTP => Protocol::Sctp,
        _ => return Some(Transport::Other),
    };
    let (ports, _) = Ports::ref_from_prefix(l4).ok()?;
    Some(Transport::Ports {
        protocol,
        src: ports.src.get(),
        dst: ports.dst.get(),
    })
}

/// Whether a frame that came in by `queue` with this hash did so by the plan and the NIC's table; `None` if the plan says nothing of
/// such a frame.
pub fn agrees(
    plan: &RssPlan,
    table: &SampledTable,
    frame: &[u8],
    hash: u32,
    queue: u16,
) -> Option<bool> {
    let ours = plan.hash(&seen(frame)?)?;
    Some(ours == hash && table.leads(hash, queue))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use super::super::rss::HashTypes;
    use super::super::toeplitz::{Key, Toeplitz};
    use super::*;
    use crate::command::WorkerId;

    const ETHERNET: [u8; 12] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    /// 66.9.149.187 to 161.142.100.80, TCP.
    const IPV4: [u8; 20] = [
        0x45, 0, 0, 40, // version, length
        0, 0, 0, 0, // identification, flags
        64, 6, 0, 0, // TTL, protocol, checksum
        66, 9, 149, 187, // source
        161, 142, 100, 80, // destination
    ];
    const PORTS: [u8; 4] = [0x0a, 0xea, 0x06, 0xe6];
    const HASH: u32 = 0x51cc_c178;

    fn frame(parts: &[&[u8]]) -> Vec<u8> {
        [&ETHERNET[..]]
            .iter()
            .chain(parts)
            .copied()
            .flatten()
            .copied()
            .collect()
    }

    fn plan() -> RssPlan {
        let toeplitz = Arc::new(Toeplitz::new(Key::microsoft()));
        let table = (0..128).map(|entry| entry % 4).collect();
        let workers = vec![WorkerId(0); 4];
        RssPlan::new(toeplitz, HashTypes::EVERY_KIND, table, workers).unwrap()
    }

    fn agrees(frame: &[u8], hash: u32, queue: u16) -> Option<bool> {
        let plan = plan();
        super::agrees(&plan, &SampledTable::new(plan.table()), frame, hash, queue)
    }

    #[test]
    fn a_moved_entry_is_no_wrong_queue() {
        let (plan, frame) = (plan(), frame(&[&[8, 0], &IPV4, &PORTS]));
        let table = SampledTable::new(plan.table());
        let right = || -> Vec<u16> {
            let by = |queue: &u16| super::agrees(&plan, &table, &frame, HASH, *queue);
            (0..4).filter(|queue| by(queue) == Some(true)).collect()
        };
        assert_eq!(right(), [0]);
        table.replace(&[3; 128]);
        assert_eq!(right(), [0, 3], "some wait where they came before");
        table.replace(&[2; 128]);
        assert_eq!(right(), [2, 3]);
        table.replace(&[2; 128]);
        assert_eq!(right(), [2]);
    }

    #[test]
    fn a_frame_is_right_with_our_hash_in_our_queue() {
        let plain = frame(&[&[8, 0], &IPV4, &PORTS]);
        let tagged = frame(&[&[0x81, 0, 0, 7, 8, 0], &IPV4, &PORTS]);
        let queue = (HASH % 4) as u16;
        for frame in [&plain, &tagged] {
            assert_eq!(agrees(frame, HASH, queue), Some(true));
            assert_eq!(agrees(frame, HASH ^ 4, queue), Some(false));
            assert_eq!(agrees(frame, HASH, queue ^ 1), Some(false));
        }
    }

    #[test]
    fn fragments_and_other_protocols_show_addresses_only() {
        let (src, dst) = (
            Ipv4Addr::new(66, 9, 149, 187),
            Ipv4Addr::new(161, 142, 100, 80),
        );
        let mut ip = IPV4;
        ip[6] = 0x20;
        let of = |ip: &[u8]| seen(&frame(&[&[8, 0], ip, &PORTS]));
        assert_eq!(of(&ip), Some(Packet::fragment(src, dst)));
        ip[6] = 0;
        ip[9] = 1;
        assert_eq!(of(&ip), Some(Packet::other(src, dst)));
    }

    #[test]
    fn ipv6_is_seen_too() {
        let ip: Vec<u8> = [&[0x60, 0, 0, 0, 0, 20, 17, 64][..], &[1; 16], &[2; 16]].concat();
        let packet = seen(&frame(&[&[0x86, 0xdd], &ip, &PORTS])).unwrap();
        let [src, dst] = [1, 2].map(|byte| Ipv6Addr::from([byte; 16]));
        assert_eq!(packet.addresses, Addresses::V6 { src, dst });
        assert!(matches!(
            packet.transport,
            Transport::Ports {
                protocol: Protocol::Udp,
                src: 2794,
                dst: 1766
            }
        ));
    }

    #[test]
    fn what_is_cut_short_or_no_ip_says_nothing() {
        let whole = frame(&[&[8, 0], &IPV4, &PORTS]);
        for len in 0..whole.len() {
            assert_eq!(agrees(&whole[..len], HASH, 0), None, "{len}");
        }
        let arp = frame(&[&[8, 6], &[0; 28]]);
        assert_eq!(agrees(&arp, 0, 0), None);
    }
}
