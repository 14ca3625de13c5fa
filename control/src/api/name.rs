//! What things are called by: services, local addresses, forwarding methods.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// A transport protocol, in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// In lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// Which service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceRef {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Virtual address and port.
    pub address: SocketAddr,
}

/// How packets get to a real server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// NAT.
    Nat,
    /// Direct routing.
    #[default]
    Dr,
    /// IP-in-IP tunnel.
    Tun,
    /// FULLNAT.
    FullNat,
}

/// What a tunnel is made of ([`Method::Tun`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum Tunnel {
    /// IP in IP (RFC 2003).
    #[default]
    Ipip,
    /// GRE (RFC 2784).
    Gre {
        /// `none` or `full`.
        #[serde(default)]
        checksum: TunnelChecksum,
    },
    /// Generic UDP encapsulation.
    Gue {
        /// UDP port that the real server listens on.
        port: u16,
        /// Of the UDP header.
        #[serde(default)]
        checksum: TunnelChecksum,
    },
}

impl Tunnel {
    /// Whether it is the default.
    pub fn is_ipip(&self) -> bool {
        *self == Self::Ipip
    }
}

/// The checksum of a tunnel's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelChecksum {
    /// None.
    #[default]
    None,
    /// Over the whole packet.
    Full,
    /// Remote checksum offload; GUE only.
    Remote,
}

/// `laddr_add` and `laddr_delete`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaddrRef {
    /// Of which service.
    pub service: ServiceRef,
    /// The local address.
    pub address: Ipv4Addr,
}
