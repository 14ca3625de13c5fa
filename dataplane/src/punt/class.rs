//! What kind of traffic goes to the kernel, and how much of each kind may.
//!
//! The punt thread classifies, not the worker: so the worker's walk stays as short as it is, all workers share one
//! bucket for each port and class (the limit is the limit, not N times it), and the bytes are in the cache anyway for the
//! copy into the kernel. What this cannot do: a flood that fills the ring before the thread gets to it is dropped by
//! the worker, of whatever class. A frame that is policed away costs the thread some 60 ns, so that takes more than ten
//! million a second.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

const ETHERTYPE_IPV4: u16 = libc::ETH_P_IP as u16;
const ETHERTYPE_ARP: u16 = libc::ETH_P_ARP as u16;
const ETHERTYPE_IPV6: u16 = libc::ETH_P_IPV6 as u16;
const ETHERTYPE_VLAN: [u16; 2] = [libc::ETH_P_8021Q as u16, libc::ETH_P_8021AD as u16];
const IP_ICMP: u8 = libc::IPPROTO_ICMP as u8;
const IP_TCP: u8 = libc::IPPROTO_TCP as u8;
const IP_ICMPV6: u8 = libc::IPPROTO_ICMPV6 as u8;
/// Router solicitation to redirect (RFC 4861, section 4).
const NEIGHBOUR_DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;

/// Kinds of traffic to the kernel, each with a token bucket of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Class {
    /// ARP and IPv6 neighbour discovery: without it nothing works.
    Neighbour,
    /// Other ICMP.
    Icmp,
    /// TCP to an address of this machine: ssh, BGP.
    LocalTcp,
    /// Anything else to this machine or to a group: VRRP, OSPF, DHCP, BFD, LLDP.
    LocalOther,
    /// What the kernel is to route on.
    Routed,
}

impl Class {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Neighbour,
        Self::Icmp,
        Self::LocalTcp,
        Self::LocalOther,
        Self::Routed,
    ];

    /// How many there are.
    pub const COUNT: usize = 5;

    /// Its name in statistics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Neighbour => "neighbour",
            Self::Icmp => "icmp",
            Self::LocalTcp => "local_tcp",
            Self::LocalOther => "local_other",
            Self::Routed => "routed",
        }
    }

    /// The class of an Ethernet frame; `None` when it is shorter than an Ethernet header.
    ///
    /// `local` says which addresses are this machine's; while it is empty (nobody told yet), all are. IPv6 addresses
    /// are not mirrored yet, so all of them are taken for local.
    pub fn of(frame: &[u8], local: &BTreeSet<IpAddr>) -> Option<Self> {
        let (ethernet, mut rest) = frame.split_at_checked(14)?;
        let to_group = ethernet[0] & 1 != 0;
        let mut ethertype = u16::from_be_bytes([ethernet[12], ethernet[13]]);
        while ETHERTYPE_VLAN.contains(&ethertype) {
            let Some((tag, inner)) = rest.split_at_checked(4) else {
                return Some(Self::LocalOther);
            };
            ethertype = u16::from_be_bytes([tag[2], tag[3]]);
            rest = inner;
        }
        Some(match ethertype {
            ETHERTYPE_ARP => Self::Neighbour,
            ETHERTYPE_IPV4 => Self::of_ipv4(rest, to_group, local),
            ETHERTYPE_IPV6 => Self::of_ipv6(rest),
            _ => Self::LocalOther,
        })
    }

    fn of_ipv4(packet: &[u8], to_group: bool, local: &BTreeSet<IpAddr>) -> Self {
        let (Some(&protocol), Some(&[a, b, c, d])) = (
            packet.get(9),
            packet.get(16..).and_then(<[u8]>::first_chunk),
        ) else {
            return Self::LocalOther;
        };
        let dst = IpAddr::V4(Ipv4Addr::new(a, b, c, d));
        let is_local = to_group || local.is_empty() || local.contains(&dst);
        match (is_local, protocol) {
            (_, IP_ICMP) => Self::Icmp,
            (true, IP_TCP) => Self::LocalTcp,
            (true, _) => Self::LocalOther,
            (false, _) => Self::Routed,
        }
    }

    fn of_ipv6(packet: &[u8]) -> Self {
        match (packet.get(6), packet.get(40)) {
            (Some(&IP_ICMPV6), Some(kind)) if NEIGHBOUR_DISCOVERY.contains(kind) => Self::Neighbour,
            (Some(&IP_ICMPV6), _) => Self::Icmp,
            (Some(&IP_TCP), _) => Self::LocalTcp,
            _ => Self::LocalOther,
        }
    }
}

/// How many frames a second of one class the kernel gets, and how many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Frames a second; 0 lets none through.
    pub per_second: u32,
    /// Frames at once after a quiet time.
    pub burst: u32,
}

/// A [`Rate`] for each class, of every port. The defaults are far above what a healthy network sends and well below what
/// keeps a core busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policing {
    /// By [`Class`].
    pub rates: [Rate; Class::COUNT],
}

impl Default for Policing {
    fn default() -> Self {
        let rate = |per_second, burst| Rate { per_second, burst };
        Self {
            rates: [
                rate(10_000, 2_000),
                rate(10_000, 2_000),
                rate(100_000, 10_000),
                rate(20_000, 2_000),
                rate(200_000, 10_000),
            ],
        }
    }
}

/// A token bucket, kept as one moment: when it would be full again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    token_ns: u64,
    depth_ns: u64,
    full_at_ns: u64,
}

impl Bucket {
    pub(crate) fn new(rate: Rate) -> Self {
        let token_ns = 1_000_000_000u64.checked_div(u64::from(rate.per_second));
        Self {
            token_ns: token_ns.unwrap_or(u64::MAX),
            depth_ns: token_ns.map_or(0, |ns| ns * u64::from(rate.burst.max(1))),
            full_at_ns: 0,
        }
    }

    /// Takes a token, if there is one at `now_ns`.
    pub(crate) fn take(&mut self, now_ns: u64) -> bool {
        let full_at = self.full_at_ns.max(now_ns).saturating_add(self.token_ns);
        let allowed = full_at - now_ns <= self.depth_ns;
        if allowed {
            self.full_at_ns = full_at;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An Ethernet header to `dst` and of `ethertype`, then `rest`.
    fn frame(dst: u8, ethertype: [u8; 2], rest: &[u8]) -> Vec<u8> {
        let mut frame = vec![dst, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        frame.extend(ethertype);
        frame.extend(rest);
        frame
    }

    fn ipv4(protocol: u8, dst: [u8; 4]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 20, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 2];
        packet.extend(dst);
        packet
    }

    #[test]
    fn a_frame_is_classified_by_protocol_and_destination() {
        let local = BTreeSet::from(["10.0.0.1".parse().unwrap()]);
        let class = |dst, ethertype, rest: &[u8]| Class::of(&frame(dst, ethertype, rest), &local);
        let v4 = |protocol, dst| class(2, [8, 0], &ipv4(protocol, dst));
        assert_eq!(class(0xff, [8, 6], &[]), Some(Class::Neighbour));
        assert_eq!(v4(1, [10, 0, 0, 9]), Some(Class::Icmp));
        assert_eq!(v4(6, [10, 0, 0, 1]), Some(Class::LocalTcp));
        assert_eq!(v4(17, [10, 0, 0, 1]), Some(Class::LocalOther));
        assert_eq!(v4(6, [10, 0, 0, 9]), Some(Class::Routed));
        let vrrp = ipv4(112, [224, 0, 0, 18]);
        assert_eq!(class(1, [8, 0], &vrrp), Some(Class::LocalOther));
        assert_eq!(class(1, [0x88, 0xcc], &[]), Some(Class::LocalOther));
        let tagged = [&[0, 7, 8, 0][..], &ipv4(6, [10, 0, 0, 1])].concat();
        assert_eq!(class(2, [0x81, 0], &tagged), Some(Class::LocalTcp));
    }

    #[test]
    fn neighbour_discovery_is_told_from_ping6() {
        let packet = |kind| {
            let mut packet = vec![0u8; 41];
            packet[6] = 58;
            packet[40] = kind;
            frame(2, [0x86, 0xdd], &packet)
        };
        let none = BTreeSet::new();
        assert_eq!(Class::of(&packet(135), &none), Some(Class::Neighbour));
        assert_eq!(Class::of(&packet(128), &none), Some(Class::Icmp));
    }

    #[test]
    fn while_no_address_is_known_all_are_local() {
        let ssh = frame(2, [8, 0], &ipv4(6, [10, 0, 0, 9]));
        assert_eq!(Class::of(&ssh, &BTreeSet::new()), Some(Class::LocalTcp));
    }

    #[test]
    fn truncated_frames_have_a_class_once_they_have_an_ethernet_header() {
        let whole = frame(
            2,
            [0x81, 0],
            &[&[0, 7, 8, 0][..], &ipv4(6, [1, 2, 3, 4])].concat(),
        );
        for len in 0..whole.len() {
            let class = Class::of(&whole[..len], &BTreeSet::new());
            assert_eq!(class.is_some(), len >= 14, "{len} bytes");
        }
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let mut bucket = Bucket::new(Rate {
            per_second: 1000,
            burst: 5,
        });
        let start = 77_000_000_000;
        assert_eq!((0..10).filter(|_| bucket.take(start)).count(), 5);
        let later = (1..=3000).filter(|ms| bucket.take(start + ms * 500_000));
        assert_eq!(later.count(), 1500);
    }

    #[test]
    fn a_rate_of_nothing_lets_nothing_through() {
        let mut bucket = Bucket::new(Rate {
            per_second: 0,
            burst: 100,
        });
        assert!(!bucket.take(0));
        assert!(!bucket.take(1 << 60));
    }
}
