//! What receive-side scaling of one port does: from the fields of a packet to the worker that it reaches.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::{BitAnd, BitOr};
use std::sync::Arc;

use super::toeplitz::Toeplitz;
use crate::command::WorkerId;
use crate::conn::{Ends, FlowKey};
use crate::service::Protocol;

/// Kinds of packets that a NIC hashes, and which of their fields. A kind that is not in the set is hashed as the more general one,
/// or not at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HashTypes(u32);

impl HashTypes {
    /// Nothing is hashed.
    pub const NONE: Self = Self(0);
    /// Any IPv4 packet of no more special kind in the set: addresses.
    pub const IPV4: Self = Self(1);
    /// Fragments of IPv4: addresses.
    pub const IPV4_FRAGMENT: Self = Self(1 << 1);
    /// TCP over IPv4: addresses and ports.
    pub const IPV4_TCP: Self = Self(1 << 2);
    /// UDP over IPv4: addresses and ports.
    pub const IPV4_UDP: Self = Self(1 << 3);
    /// SCTP over IPv4: addresses and ports.
    pub const IPV4_SCTP: Self = Self(1 << 4);
    /// IPv4 with another protocol: addresses.
    pub const IPV4_OTHER: Self = Self(1 << 5);
    /// Any IPv6 packet of no more special kind in the set: addresses.
    pub const IPV6: Self = Self(1 << 6);
    /// Fragments of IPv6: addresses.
    pub const IPV6_FRAGMENT: Self = Self(1 << 7);
    /// TCP over IPv6: addresses and ports.
    pub const IPV6_TCP: Self = Self(1 << 8);
    /// UDP over IPv6: addresses and ports.
    pub const IPV6_UDP: Self = Self(1 << 9);
    /// SCTP over IPv6: addresses and ports.
    pub const IPV6_SCTP: Self = Self(1 << 10);
    /// IPv6 with another protocol: addresses.
    pub const IPV6_OTHER: Self = Self(1 << 11);
    /// Of addresses only the source.
    pub const L3_SRC_ONLY: Self = Self(1 << 12);
    /// Of addresses only the destination.
    pub const L3_DST_ONLY: Self = Self(1 << 13);
    /// Of ports only the source.
    pub const L4_SRC_ONLY: Self = Self(1 << 14);
    /// Of ports only the destination.
    pub const L4_DST_ONLY: Self = Self(1 << 15);

    /// All kinds of packets, all their fields.
    pub const EVERY_KIND: Self = Self((1 << 12) - 1);
    /// Only where packets come from.
    pub const SOURCE: Self = Self(Self::L3_SRC_ONLY.0 | Self::L4_SRC_ONLY.0);
    /// Only where packets go to.
    pub const DESTINATION: Self = Self(Self::L3_DST_ONLY.0 | Self::L4_DST_ONLY.0);

    const NAMES: [(Self, &'static str); 16] = [
        (Self::IPV4, "ipv4"),
        (Self::IPV4_FRAGMENT, "ipv4-fragment"),
        (Self::IPV4_TCP, "ipv4-tcp"),
        (Self::IPV4_UDP, "ipv4-udp"),
        (Self::IPV4_SCTP, "ipv4-sctp"),
        (Self::IPV4_OTHER, "ipv4-other"),
        (Self::IPV6, "ipv6"),
        (Self::IPV6_FRAGMENT, "ipv6-fragment"),
        (Self::IPV6_TCP, "ipv6-tcp"),
        (Self::IPV6_UDP, "ipv6-udp"),
        (Self::IPV6_SCTP, "ipv6-sctp"),
        (Self::IPV6_OTHER, "ipv6-other"),
        (Self::L3_SRC_ONLY, "l3-src-only"),
        (Self::L3_DST_ONLY, "l3-dst-only"),
        (Self::L4_SRC_ONLY, "l4-src-only"),
        (Self::L4_DST_ONLY, "l4-dst-only"),
    ];

    /// Whether all of `other` is in the set.
    #[inline]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` is in the set.
    #[inline]
    pub fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those of these names, as [`HashTypes`] are displayed; names of none are skipped.
    pub fn named(names: &str) -> Self {
        let each = names.split_whitespace().filter_map(|name| {
            let mut named = Self::NAMES.into_iter();
            named.find_map(|(one, own)| (own == name).then_some(one))
        });
        each.fold(Self::NONE, |types, one| types | one)
    }

    /// Each single type there is.
    pub fn each() -> impl Iterator<Item = Self> {
        Self::NAMES.into_iter().map(|(one, _)| one)
    }
}

impl BitOr for HashTypes {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for HashTypes {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Display for HashTypes {
    /// `ipv4 ipv4-tcp l3-src-only`, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::NAMES.iter().filter(|(one, _)| self.contains(*one));
        let names: Vec<&str> = named.map(|(_, name)| *name).collect();
        f.write_str(if names.is_empty() { "none" } else { "" })?;
        f.write_str(&names.join(" "))
    }
}

/// The fields of a packet that a NIC may hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source and destination.
    pub addresses: Addresses,
    /// What is known above IP.
    pub transport: Transport,
}

/// The addresses of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// IPv4.
    V4 {
        /// Source.
        src: Ipv4Addr,
        /// Destination.
        dst: Ipv4Addr,
    },
    /// IPv6.
    V6 {
        /// Source.
        src: Ipv6Addr,
        /// Destination.
        dst: Ipv6Addr,
    },
}

/// What a NIC sees above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A whole packet of a protocol with ports.
    Ports {
        /// Which.
        protocol: Protocol,
        /// Source.
        src: u16,
        /// Destination.
        dst: u16,
    },
    /// A fragment, the first one too: ports are not looked at.
    Fragment,
    /// Another protocol, ICMP for one.
    Other,
}

impl Packet {
    /// A whole TCP, UDP or SCTP packet over IPv4.
    #[inline]
    pub fn flow(protocol: Protocol, ends: &Ends) -> Self {
        let (src, dst) = (ends.src(), ends.dst());
        Self {
            addresses: Addresses::V4 {
                src: src.addr,
                dst: dst.addr,
            },
            transport: Transport::Ports {
                protocol,
                src: src.port,
                dst: dst.port,
            },
        }
    }

    /// A fragment over IPv4.
    pub fn fragment(src: Ipv4Addr, dst: Ipv4Addr) -> Self {
        Self {
            addresses: Addresses::V4 { src, dst },
            transport: Transport::Fragment,
        }
    }

    /// A whole packet over IPv4 of a protocol without ports: ICMP.
    pub fn other(src: Ipv4Addr, dst: Ipv4Addr) -> Self {
        Self {
            addresses: Addresses::V4 { src, dst },
            transport: Transport::Other,
        }
    }
}

impl From<&FlowKey> for Packet {
    fn from(key: &FlowKey) -> Self {
        Self::flow(key.protocol, &key.ends())
    }
}

/// The fields that count for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fields {
    Addresses,
    AddressesAndPorts,
}

impl HashTypes {
    /// Which fields of such a packet are hashed; `None` if it is not hashed at all.
    #[inline]
    fn fields(self, packet: &Packet) -> Option<Fields> {
        let (general, fragment, other, [tcp, udp, sctp]) = match packet.addresses {
            Addresses::V4 { .. } => (
                Self::IPV4,
                Self::IPV4_FRAGMENT,
                Self::IPV4_OTHER,
                [Self::IPV4_TCP, Self::IPV4_UDP, Self::IPV4_SCTP],
            ),
            Addresses::V6 { .. } => (
                Self::IPV6,
                Self::IPV6_FRAGMENT,
                Self::IPV6_OTHER,
                [Self::IPV6_TCP, Self::IPV6_UDP, Self::IPV6_SCTP],
            ),
        };
        let addresses_if = |special| {
            let hashed = self.intersects(general | special);
            hashed.then_some(Fields::Addresses)
        };
        let special = match packet.transport {
            Transport::Fragment => return addresses_if(fragment),
            Transport::Other => return addresses_if(other),
            Transport::Ports { protocol, .. } => match protocol {
                Protocol::Tcp => tcp,
                Protocol::Udp => udp,
                Protocol::Sctp => sctp,
            },
        };
        if self.contains(special) {
            Some(Fields::AddressesAndPorts)
        } else {
            addresses_if(Self::NONE)
        }
    }
}

/// How a port spreads packets. Read only: workers share it.
#[derive(Clone, Debug)]
pub struct RssPlan {
    toeplitz: Arc<Toeplitz>,
    types: HashTypes,
    table: Box<[u16]>,
    workers: Box<[WorkerId]>,
}

/// What cannot be a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A hash's lowest bits choose the entry.
    #[error("a redirection table has a power of two of entries, not {0}")]
    TableSize(usize),
    /// Nobody receives from it.
    #[error("the redirection table names queue {queue}, and there are {queues}")]
    NoSuchQueue {
        /// In the table.
        queue: u16,
        /// How many queues there are.
        queues: usize,
    },
}

impl RssPlan {
    /// A key, the packets and fields that it is used on, the queue of each entry of the table, and the worker that polls each queue.
    pub fn new(
        toeplitz: Arc<Toeplitz>,
        types: HashTypes,
        table: Vec<u16>,
        workers: Vec<WorkerId>,
    ) -> Result<Self, PlanError> {
        if !table.len().is_power_of_two() {
            return Err(PlanError::TableSize(table.len()));
        }
        let queues = workers.len();
        let beyond = |queue: &&u16| usize::from(**queue) >= queues;
        if let Some(&queue) = table.iter().find(beyond) {
            return Err(PlanError::NoSuchQueue { queue, queues });
        }
        Ok(Self {
            toeplitz,
            types,
            table: table.into(),
            workers: workers.into(),
        })
    }

    /// The same, but for what is hashed.
    #[must_use]
    pub fn hashing(&self, types: HashTypes) -> Self {
        Self {
            types,
            ..self.clone()
        }
    }

    /// What hashes.
    pub fn toeplitz(&self) -> &Arc<Toeplitz> {
        &self.toeplitz
    }

    /// What is hashed.
    pub fn types(&self) -> HashTypes {
        self.types
    }

    /// The queue of each entry, by the lowest bits of the hash.
    pub fn table(&self) -> &[u16] {
        &self.table
    }

    /// The worker that polls each queue.
    pub fn workers(&self) -> &[WorkerId] {
        &self.workers
    }

    /// The NIC's hash of such a packet; `None` if it has none.
    ///
    /// Fields that are not to be hashed count as zero, in their places. NICs differ in that, and under a symmetric key it makes no
    /// difference; under another one such a hash is not known.
    #[inline]
    pub fn hash(&self, packet: &Packet) -> Option<u32> {
        let fields = self.types.fields(packet)?;
        let partial = self
            .types
            .intersects(HashTypes::SOURCE | HashTypes::DESTINATION);
        if partial && !self.toeplitz.key().is_symmetric() {
            return None;
        }
        let kept = |skip, value: u16| if self.types.contains(skip) { 0 } else { value };
        let ports = match packet.transport {
            Transport::Ports { src, dst, .. } if fields == Fields::AddressesAndPorts => {
                let src = kept(HashTypes::L4_DST_ONLY, src);
                let dst = kept(HashTypes::L4_SRC_ONLY, dst);
                u32::from(src) << 16 | u32::from(dst)
            }
            _ => 0,
        }
        .to_be_bytes();
        let [no_src, no_dst] =
            [HashTypes::L3_DST_ONLY, HashTypes::L3_SRC_ONLY].map(|skip| self.types.contains(skip));
        Some(match packet.addresses {
            Addresses::V4 { src, dst } => {
                let src = if no_src { [0; 4] } else { src.octets() };
                let dst = if no_dst { [0; 4] } else { dst.octets() };
                let mut input = [0; 12];
                input[..4].copy_from_slice(&src);
                input[4..8].copy_from_slice(&dst);
                input[8..].copy_from_slice(&ports);
                self.toeplitz.hash(&input)
            }
            Addresses::V6 { src, dst } => {
                let src = if no_src { [0; 16] } else { src.octets() };
                let dst = if no_dst { [0; 16] } else { dst.octets() };
                let mut input = [0; 36];
                input[..16].copy_from_slice(&src);
                input[16..32].copy_from_slice(&dst);
                input[32..].copy_from_slice(&ports);
                self.toeplitz.hash(&input)
            }
        })
    }

    /// The queue that a packet with this hash is put in.
    #[inline]
    pub fn queue_of_hash(&self, hash: u32) -> u16 {
        self.table[hash as usize & (self.table.len() - 1)]
    }

    /// The worker that a packet with this hash reaches.
    #[inline]
    pub fn worker_of_hash(&self, hash: u32) -> WorkerId {
        self.workers[usize::from(self.queue_of_hash(hash))]
    }

    /// The worker that such a packet reaches; `None` where the NIC does not hash it, and where it goes is the NIC's own business.
    #[inline]
    pub fn worker_of(&self, packet: &Packet) -> Option<WorkerId> {
        self.hash(packet).map(|hash| self.worker_of_hash(hash))
    }

    /// The worker of each entry.
    pub fn owners(&self) -> impl Iterator<Item = WorkerId> + '_ {
        self.table
            .iter()
            .map(|queue| self.workers[usize::from(*queue)])
    }
}

#[cfg(test)]
mod tests {
    use super::super::toeplitz::{KEY_LEN, Key};
    use super::*;
    use crate::conn::Endpoint;

    const CLIENT: Endpoint = Endpoint::new(Ipv4Addr::new(66, 9, 149, 187), 2794);
    const SERVER: Endpoint = Endpoint::new(Ipv4Addr::new(161, 142, 100, 80), 1766);

    fn plan(key: Key, types: HashTypes) -> RssPlan {
        let toeplitz = Arc::new(Toeplitz::new(key));
        let table = (0..128).map(|entry| entry % 3).collect();
        RssPlan::new(toeplitz, types, table, (0..3).map(WorkerId).collect()).unwrap()
    }

    fn tcp() -> Packet {
        Packet::flow(Protocol::Tcp, &Ends::new(CLIENT, SERVER))
    }

    #[test]
    fn a_packet_is_hashed_by_the_most_special_type_there_is() {
        let (ports, addresses) = (0x51cc_c178, 0x323e_8fc2);
        let fragment = Packet::fragment(CLIENT.addr, SERVER.addr);
        let icmp = Packet::other(CLIENT.addr, SERVER.addr);
        for (types, packet, hash) in [
            (HashTypes::EVERY_KIND, tcp(), Some(ports)),
            (HashTypes::EVERY_KIND, fragment, Some(addresses)),
            (HashTypes::EVERY_KIND, icmp, Some(addresses)),
            (HashTypes::IPV4_TCP, tcp(), Some(ports)),
            (HashTypes::IPV4_TCP, fragment, None),
            (HashTypes::IPV4_TCP, icmp, None),
            (HashTypes::IPV4, tcp(), Some(addresses)),
            (HashTypes::IPV4, fragment, Some(addresses)),
            (
                HashTypes::IPV4 | HashTypes::IPV4_UDP,
                tcp(),
                Some(addresses),
            ),
            (HashTypes::IPV4_OTHER, icmp, Some(addresses)),
            (HashTypes::IPV4_OTHER, tcp(), None),
            (HashTypes::IPV6_TCP, tcp(), None),
            (HashTypes::NONE, tcp(), None),
        ] {
            let plan = plan(Key::microsoft(), types);
            assert_eq!(plan.hash(&packet), hash, "{types} {packet:?}");
            let worker = hash.map(|hash| WorkerId((hash % 128 % 3) as u16));
            assert_eq!(plan.worker_of(&packet), worker);
        }
    }

    #[test]
    fn ipv6_is_hashed_like_ipv4() {
        let packet = Packet {
            addresses: Addresses::V6 {
                src: "3ffe:2501:200:1fff::7".parse().unwrap(),
                dst: "3ffe:2501:200:3::1".parse().unwrap(),
            },
            transport: Transport::Ports {
                protocol: Protocol::Udp,
                src: 2794,
                dst: 1766,
            },
        };
        let hash = |types| plan(Key::microsoft(), types).hash(&packet);
        assert_eq!(hash(HashTypes::EVERY_KIND), Some(0x4020_7d3d));
        assert_eq!(hash(HashTypes::IPV6), Some(0x2cc1_8cd5));
        assert_eq!(hash(HashTypes::IPV4), None);
    }

    #[test]
    fn a_source_hashes_like_the_destination_of_the_answer() {
        let key = Key::symmetric(KEY_LEN);
        let from = plan(key.clone(), HashTypes::EVERY_KIND | HashTypes::SOURCE);
        let to = plan(key, HashTypes::EVERY_KIND | HashTypes::DESTINATION);
        let elsewhere = Endpoint::new(Ipv4Addr::new(192, 168, 1, 1), 80);
        let answer = Packet::flow(Protocol::Tcp, &Ends::new(elsewhere, CLIENT));
        assert_eq!(from.hash(&tcp()), to.hash(&answer));
        let fragment = Packet::fragment(elsewhere.addr, CLIENT.addr);
        assert_eq!(
            from.hash(&Packet::fragment(CLIENT.addr, SERVER.addr)),
            to.hash(&fragment)
        );
    }

    #[test]
    fn where_places_matter_a_hash_of_one_end_is_not_known() {
        let partial = plan(
            Key::microsoft(),
            HashTypes::EVERY_KIND | HashTypes::DESTINATION,
        );
        assert_eq!(partial.worker_of(&tcp()), None);
    }

    #[test]
    fn a_table_names_queues_that_there_are() {
        let toeplitz = Arc::new(Toeplitz::new(Key::symmetric(KEY_LEN)));
        let new = |table| {
            RssPlan::new(
                Arc::clone(&toeplitz),
                HashTypes::IPV4,
                table,
                vec![WorkerId(0); 2],
            )
            .map(|plan| plan.owners().count())
        };
        assert_eq!(new(vec![0, 1, 1, 0]), Ok(4));
        assert_eq!(new(vec![0, 1, 0]), Err(PlanError::TableSize(3)));
        assert_eq!(new(Vec::new()), Err(PlanError::TableSize(0)));
        let beyond = PlanError::NoSuchQueue {
            queue: 2,
            queues: 2,
        };
        assert_eq!(new(vec![0, 2]), Err(beyond));
    }

    #[test]
    fn types_are_named() {
        let types = HashTypes::IPV4_TCP | HashTypes::SOURCE;
        assert_eq!(types.to_string(), "ipv4-tcp l3-src-only l4-src-only");
        assert_eq!(HashTypes::NONE.to_string(), "none");
        let all = HashTypes::each().fold(HashTypes::NONE, BitOr::bitor);
        assert!(all.contains(HashTypes::EVERY_KIND | HashTypes::SOURCE | HashTypes::DESTINATION));
    }
}
