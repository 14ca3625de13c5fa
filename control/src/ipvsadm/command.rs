//! What a command line asks for, once it has been found right.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

pub(super) use crate::api::{
    Protocol, SyncDaemonStart, SyncRole, Tunnel, TunnelChecksum as Checksum,
};

/// A command line, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Help,
    Version,
    AddService(Service),
    EditService(Service),
    DeleteService(ServiceId),
    /// Deletes all services.
    Flush,
    Restore,
    Save {
        numeric: bool,
    },
    AddServer(Server),
    EditServer(Server),
    DeleteServer {
        service: ServiceId,
        address: SocketAddr,
    },
    List(List),
    Zero(Option<ServiceId>),
    /// TCP, TCP after FIN, UDP, in seconds; 0 leaves one as it is.
    SetTimeouts([u32; 3]),
    StartSync(SyncDaemonStart),
    StopSync(SyncRole),
    AddLaddr {
        service: ServiceId,
        address: IpAddr,
    },
    DeleteLaddr {
        service: ServiceId,
        address: IpAddr,
    },
    ListLaddrs(Option<ServiceId>),
}

impl Protocol {
    /// As listings show it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// IANA's number.
    pub(super) fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// Which virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServiceId {
    Address {
        protocol: Protocol,
        address: SocketAddr,
    },
    Mark {
        mark: u32,
        ipv6: bool,
    },
}

impl ServiceId {
    pub(super) fn is_ipv6(self) -> bool {
        match self {
            Self::Address { address, .. } => address.is_ipv6(),
            Self::Mark { ipv6, .. } => ipv6,
        }
    }

    /// Its port; 0 for marks.
    pub(super) fn port(self) -> u16 {
        match self {
            Self::Address { address, .. } => address.port(),
            Self::Mark { .. } => 0,
        }
    }

    /// Its protocol's name for port lookups; those of marks are looked up as TCP.
    pub(super) fn protocol_name(self) -> &'static str {
        match self {
            Self::Address { protocol, .. } => protocol.name(),
            Self::Mark { .. } => "tcp",
        }
    }
}

/// `-A` and `-E`: everything about a service; what was not given has its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) id: ServiceId,
    pub(super) scheduler: String,
    pub(super) persistence: Option<Persistence>,
    pub(super) one_packet: bool,
    pub(super) engine: Option<String>,
    pub(super) sched_flags: SchedFlags,
}

/// Persistence of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Persistence {
    pub(super) timeout_s: u32,
    /// Not the full one.
    pub(super) mask: Option<Mask>,
}

/// Which bits of a client's address persistence looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mask {
    V4(Ipv4Addr),
    /// A prefix length.
    V6(u8),
}

impl std::fmt::Display for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::V4(mask) => mask.fmt(f),
            Self::V6(length) => length.fmt(f),
        }
    }
}

/// The scheduler's three flag bits, `flag-1` the lowest. sh and mh call the first `…-fallback`, the second `…-port`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SchedFlags(pub(super) u8);

impl SchedFlags {
    /// As the daemon takes them of any scheduler.
    pub(super) fn numbered(self) -> Vec<String> {
        self.names("")
    }

    /// Those that the daemon lists.
    pub(super) fn listed(names: &[String]) -> Self {
        let bit = |name: &String| match name.as_str() {
            "flag-1" | "sh-fallback" | "mh-fallback" => 1,
            "flag-2" | "sh-port" | "mh-port" => 2,
            "flag-3" => 4,
            _ => 0,
        };
        Self(names.iter().map(bit).fold(0, |flags, bit| flags | bit))
    }

    /// As listings show them: by name for sh and mh, which hide the third, else by number.
    pub(super) fn names(self, scheduler: &str) -> Vec<String> {
        let names: &[&str] = match scheduler {
            "sh" => &["sh-fallback", "sh-port"],
            "mh" => &["mh-fallback", "mh-port"],
            _ => &["flag-1", "flag-2", "flag-3"],
        };
        let set =
            |(bit, name): (usize, &&str)| (self.0 >> bit & 1 == 1).then(|| (*name).to_owned());
        names.iter().enumerate().filter_map(set).collect()
    }
}

/// `-a` and `-e`: everything about a real server; what was not given has its default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Server {
    pub(super) service: ServiceId,
    pub(super) address: SocketAddr,
    pub(super) forward: Forward,
    pub(super) weight: u32,
    pub(super) upper_threshold: u32,
    pub(super) lower_threshold: u32,
}

/// How packets get to a real server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forward {
    Masq,
    Route,
    Tunnel(Tunnel),
    FullNat,
}

/// `-L`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct List {
    pub(super) service: Option<ServiceId>,
    pub(super) what: What,
    pub(super) numeric: bool,
    pub(super) exact: bool,
    pub(super) unsorted: bool,
    /// `--persistent-conn`, which also adds columns to the connections.
    pub(super) persistent_conn: bool,
}

/// What is to be listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum What {
    #[default]
    Servers,
    Stats,
    Rates,
    Thresholds,
    PersistentConn,
    TunInfo,
    Connections,
    Timeouts,
    SyncDaemon,
}
