//! What control says of services and real servers. Immutable once sent; shared by all workers.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crate::sched::SchedulerTable;

/// The transport protocols that a service can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// TCP.
    Tcp = 6,
    /// UDP.
    Udp = 17,
    /// SCTP.
    Sctp = 132,
}

impl Protocol {
    /// The number in the IP header.
    #[inline]
    pub fn number(self) -> u8 {
        self as u8
    }

    /// It with an address and a port in one word, which is hashed faster than three.
    #[inline]
    pub(crate) fn with(self, addr: Ipv4Addr, port: u16) -> u64 {
        u64::from(self.number()) << 48 | u64::from(addr.to_bits()) << 16 | u64::from(port)
    }

    /// As ipvsadm prints it: `TCP`, `UDP`, `SCTP`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What a packet must have to belong to a service (`SEMANTICS.md` section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ServiceKey {
    /// A virtual address and port; port 0 stands for every port.
    Address {
        /// Transport protocol.
        protocol: Protocol,
        /// Virtual address (VIP).
        addr: IpAddr,
        /// Virtual port.
        port: u16,
    },
    /// A firewall mark.
    Mark {
        /// The mark, never 0.
        mark: u32,
        /// The family of the packets it takes.
        family: AddressFamily,
    },
}

impl fmt::Display for ServiceKey {
    /// `TCP 10.0.0.1:80`, `UDP [2001:db8::1]:53`, `FWM 1`, `FWM 1 IPv6`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address {
                protocol,
                addr: IpAddr::V4(a),
                port,
            } => {
                write!(f, "{} {a}:{port}", protocol.name())
            }
            Self::Address {
                protocol,
                addr: IpAddr::V6(a),
                port,
            } => {
                write!(f, "{} [{a}]:{port}", protocol.name())
            }
            Self::Mark {
                mark,
                family: AddressFamily::V4,
            } => write!(f, "FWM {mark}"),
            Self::Mark {
                mark,
                family: AddressFamily::V6,
            } => write!(f, "FWM {mark} IPv6"),
        }
    }
}

/// A service's place in every worker's table. Control hands them out and may reuse one after deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceId(pub u32);

/// A real server's place in every worker's table, and which of its successive tenants is meant.
///
/// A deleted server keeps its id while connections refer to it (IPVS's "trash"), and gets it back when the same
/// address and port return to the same service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RsId {
    /// Index into dense arrays.
    pub index: u32,
    /// Changes when the index goes to another server.
    pub generation: u32,
}

/// How packets get to a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// NAT (ipvsadm `-m`): destination rewritten; replies come back through us.
    Nat,
    /// Direct routing (`-g`): only the next hop's MAC changes.
    Dr,
    /// IP-in-IP tunnel (`-i`), RFC 2003.
    Tun,
    /// FULLNAT (`-b`): source becomes a local address as well.
    FullNat,
}

/// What a tunnel is made of ([`Method::Tun`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tunnel {
    /// IP in IP.
    #[default]
    Ipip,
    /// GRE.
    Gre {
        /// Of its header.
        checksum: TunnelChecksum,
    },
    /// Generic UDP encapsulation.
    Gue {
        /// Destination port of the UDP header.
        port: u16,
        /// Of the UDP header.
        checksum: TunnelChecksum,
    },
}

/// The checksum of a tunnel's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TunnelChecksum {
    /// None.
    #[default]
    None,
    /// Over the whole packet.
    Full,
    /// Remote checksum offload.
    Remote,
}

/// The schedulers, under ipvsadm's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SchedulerKind {
    /// Round robin.
    Rr,
    /// Weighted round robin.
    Wrr,
    /// Least connections.
    Lc,
    /// Weighted least connections: the default.
    #[default]
    Wlc,
    /// Locality-based least connections.
    Lblc,
    /// Locality-based least connections with replication.
    Lblcr,
    /// Destination hashing.
    Dh,
    /// Source hashing.
    Sh,
    /// Shortest expected delay.
    Sed,
    /// Never queue.
    Nq,
    /// Weighted failover.
    Fo,
    /// Weighted overflow.
    Ovf,
    /// Maglev hashing.
    Mh,
    /// The better of two random ones.
    Twos,
}

impl SchedulerKind {
    /// All of them, in ipvsadm's order.
    pub const ALL: [Self; 14] = [
        Self::Rr,
        Self::Wrr,
        Self::Lc,
        Self::Wlc,
        Self::Lblc,
        Self::Lblcr,
        Self::Dh,
        Self::Sh,
        Self::Sed,
        Self::Nq,
        Self::Fo,
        Self::Ovf,
        Self::Mh,
        Self::Twos,
    ];

    /// As ipvsadm spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rr => "rr",
            Self::Wrr => "wrr",
            Self::Lc => "lc",
            Self::Wlc => "wlc",
            Self::Lblc => "lblc",
            Self::Lblcr => "lblcr",
            Self::Dh => "dh",
            Self::Sh => "sh",
            Self::Sed => "sed",
            Self::Nq => "nq",
            Self::Fo => "fo",
            Self::Ovf => "ovf",
            Self::Mh => "mh",
            Self::Twos => "twos",
        }
    }

    /// The one of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Three switches of a scheduler (ipvsadm `-b`). Any scheduler can carry them; sh and mh follow the first two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SchedulerFlags(pub u8);

impl SchedulerFlags {
    /// Bits that have a name.
    pub const ALL: Self = Self(0b111);

    /// sh, mh: when the server hashed to cannot take a connection, look for another.
    pub fn fallback(self) -> bool {
        self.0 & 1 != 0
    }

    /// sh, mh: the source port is hashed too.
    pub fn port(self) -> bool {
        self.0 & 2 != 0
    }
}

/// One service as the workers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// Its place.
    pub id: ServiceId,
    /// What it matches.
    pub key: ServiceKey,
    /// How it chooses.
    pub scheduler: SchedulerKind,
    /// With which switches.
    pub scheduler_flags: SchedulerFlags,
    /// sh, dh, mh: what [`crate::sched::table`] makes of these servers, once for all workers.
    pub scheduler_table: Option<SchedulerTable>,
    /// Whether its VIP is an address of this machine: elsewhere it matches nothing (contract 5 f).
    pub vip_local: bool,
    /// Its real servers in kernel order: the latest added first (`SEMANTICS.md` section 1).
    pub real_servers: Vec<RealServerSpec>,
    /// Source addresses for FULLNAT.
    pub laddrs: Vec<Ipv4Addr>,
    /// Clients stay with their real server.
    pub persistence: Option<Persistence>,
    /// Every UDP packet is scheduled anew and leaves nothing behind (ipvsadm `-o`).
    pub one_packet: bool,
    /// What else than its address identifies a client. Kept and listed only.
    pub engine: Option<PersistenceEngine>,
}

impl ServiceSpec {
    /// A service as `ipvsadm -A` makes it without further options, of no real servers, and whose VIP is local.
    pub fn new(id: ServiceId, key: ServiceKey) -> Self {
        Self {
            id,
            key,
            scheduler: SchedulerKind::default(),
            scheduler_flags: SchedulerFlags::default(),
            scheduler_table: None,
            vip_local: true,
            real_servers: Vec::new(),
            laddrs: Vec::new(),
            persistence: None,
            one_packet: false,
            engine: None,
        }
    }
}

/// New connections of a client go where its others went (ipvsadm `-p`, `-M`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Persistence {
    /// Seconds after the last new connection that this is remembered.
    pub timeout_s: u32,
    /// Clients whose addresses agree in these bits count as one.
    pub mask: ClientMask,
}

/// Bits of a client's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientMask {
    /// IPv4: any bits.
    V4(Ipv4Addr),
    /// IPv6: so many leading bits.
    V6(u8),
}

/// An engine that finds in a packet's payload whose it is (ipvsadm `--pe`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PersistenceEngine {
    /// SIP's Call-ID.
    Sip,
}

/// One real server of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RealServerSpec {
    /// Its place.
    pub id: RsId,
    /// Its address.
    pub addr: IpAddr,
    /// Its port; 0 keeps the packet's.
    pub port: u16,
    /// How packets get there.
    pub method: Method,
    /// [`Method::Tun`]: what the tunnel is made of. Only IP in IP is forwarded.
    pub tunnel: Tunnel,
    /// 0 takes no new connections.
    pub weight: u32,
    /// The last weight that was not 0, or the one that it joined with: mh keeps the slots of a quiesced server.
    pub last_weight: u32,
    /// Upper connection threshold (`-x`), 0 for none.
    pub upper_threshold: u32,
    /// Lower connection threshold (`-y`), 0 for three quarters of the upper.
    pub lower_threshold: u32,
}
