//! What things are called by: services, local addresses, forwarding methods.

use std::fmt;
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
    /// In lower case, as here and in services(5).
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// The protocol of something listed, in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FlowProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// Any: the persistence template of a firewall mark.
    Ip,
}

impl FlowProtocol {
    /// In lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
            Self::Ip => "ip",
        }
    }
}

impl From<Protocol> for FlowProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
            Protocol::Sctp => Self::Sctp,
        }
    }
}

/// Which service: `{"protocol": "tcp", "address": "10.0.0.1:80"}`, or `{"fwmark": 5}` for all packets of a firewall mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Fields", into = "Fields")]
pub enum ServiceRef {
    /// Of a virtual address.
    Address {
        /// Transport protocol.
        protocol: Protocol,
        /// Virtual address and port; port 0 for all of them.
        address: SocketAddr,
    },
    /// Of a firewall mark.
    Mark {
        /// The mark.
        mark: u32,
        /// Of IPv6 packets; else of IPv4's.
        ipv6: bool,
    },
}

impl ServiceRef {
    /// Whether it is of IPv6 packets.
    pub fn is_ipv6(&self) -> bool {
        match self {
            Self::Address { address, .. } => address.is_ipv6(),
            Self::Mark { ipv6, .. } => *ipv6,
        }
    }

    /// Its port; 0 for marks.
    pub fn port(&self) -> u16 {
        match self {
            Self::Address { address, .. } => address.port(),
            Self::Mark { .. } => 0,
        }
    }
}

impl fmt::Display for ServiceRef {
    /// As people say it: `tcp 10.0.0.1:80`, `fwmark 5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address { protocol, address } => write!(f, "{} {address}", protocol.name()),
            Self::Mark { mark, ipv6: false } => write!(f, "fwmark {mark}"),
            Self::Mark { mark, ipv6: true } => write!(f, "fwmark {mark} (IPv6)"),
        }
    }
}

/// [`ServiceRef`] as JSON has it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    protocol: Option<Protocol>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fwmark: Option<u32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ipv6: bool,
}

impl TryFrom<Fields> for ServiceRef {
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, Self::Error> {
        match fields {
            Fields {
                fwmark: Some(mark),
                protocol: None,
                address: None,
                ipv6,
            } => Ok(Self::Mark { mark, ipv6 }),
            Fields {
                fwmark: Some(_), ..
            } => Err("a service has a fwmark, or a protocol and an address, not both"),
            Fields { ipv6: true, .. } => Err("ipv6 is for services of a fwmark"),
            Fields {
                protocol: Some(protocol),
                address: Some(address),
                ..
            } => Ok(Self::Address { protocol, address }),
            // In serde's words, so that the parameter is named as for all others.
            Fields {
                address: None,
                protocol: Some(_),
                ..
            } => Err("missing field `address`"),
            Fields { protocol: None, .. } => {
                Err("missing field `protocol` (or, for a service of a firewall mark, `fwmark`)")
            }
        }
    }
}

impl From<ServiceRef> for Fields {
    fn from(service: ServiceRef) -> Self {
        let nothing = Self {
            protocol: None,
            address: None,
            fwmark: None,
            ipv6: false,
        };
        match service {
            ServiceRef::Address { protocol, address } => Self {
                protocol: Some(protocol),
                address: Some(address),
                ..nothing
            },
            ServiceRef::Mark { mark, ipv6 } => Self {
                fwmark: Some(mark),
                ipv6,
                ..nothing
            },
        }
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn services_are_named_by_address_or_by_mark() {
        for (name, value) in [
            (
                "tcp 10.0.0.1:80",
                json!({"protocol": "tcp", "address": "10.0.0.1:80"}),
            ),
            (
                "sctp 10.0.0.1:0",
                json!({"protocol": "sctp", "address": "10.0.0.1:0"}),
            ),
            ("fwmark 5", json!({"fwmark": 5})),
            (
                "fwmark 4294967295 (IPv6)",
                json!({"fwmark": 4_294_967_295_u32, "ipv6": true}),
            ),
        ] {
            let service: ServiceRef = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(service.to_string(), name);
            assert_eq!(serde_json::to_value(service).unwrap(), value);
        }
        for value in [
            json!({}),
            json!({"protocol": "tcp"}),
            json!({"address": "10.0.0.1:80"}),
            json!({"fwmark": 5, "protocol": "tcp"}),
            json!({"fwmark": -5}),
            json!({"protocol": "tcp", "address": "10.0.0.1:80", "ipv6": true}),
            json!({"fwmark": 5, "mark": 5}),
        ] {
            assert!(
                serde_json::from_value::<ServiceRef>(value.clone()).is_err(),
                "{value}"
            );
        }
    }
}
