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

/// `laddr_add` and `laddr_delete`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaddrRef {
    /// Of which service.
    pub service: ServiceRef,
    /// The local address.
    pub address: Ipv4Addr,
}
