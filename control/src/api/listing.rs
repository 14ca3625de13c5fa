//! Listings of services, real servers and local addresses.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{Counters, LaddrRef, Method, Rates, ServiceRef, Tunnel};

/// `service_list` and `real_server_list`: of one service, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceFilter {
    /// Only this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
}

/// A service, as listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Which.
    pub service: ServiceRef,
    /// Scheduler.
    pub scheduler: String,
    /// Its switches.
    #[serde(default)]
    pub scheduler_flags: Vec<String>,
    /// Seconds of persistence; 0 for none.
    #[serde(default)]
    pub persistence_s: u32,
    /// Which bits of a client's address count, if not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence_mask: Option<String>,
    /// What else identifies a client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence_engine: Option<String>,
    /// Each UDP packet is scheduled anew.
    #[serde(default)]
    pub one_packet: bool,
    /// Whether the VIP is an address of this machine; elsewhere the service matches nothing.
    pub vip_local: bool,
    /// Local addresses for FULLNAT.
    pub laddrs: Vec<Ipv4Addr>,
    /// Those of them that are no address of this machine: real servers' replies to them do not come here.
    #[serde(default)]
    pub laddrs_not_local: Vec<Ipv4Addr>,
    /// Counters.
    pub stats: Counters,
    /// Rates.
    pub rates: Rates,
    /// Real servers, the latest added first.
    pub real_servers: Vec<RealServer>,
}

/// A real server, as listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealServer {
    /// Address and port.
    pub address: SocketAddr,
    /// How packets get there.
    pub method: Method,
    /// For [`Method::Tun`]: what the tunnel is made of.
    #[serde(default, skip_serializing_if = "Tunnel::is_ipip")]
    pub tunnel: Tunnel,
    /// Weight.
    pub weight: u32,
    /// Upper threshold; 0 for none.
    pub upper_threshold: u32,
    /// Lower threshold.
    pub lower_threshold: u32,
    /// Active connections now.
    pub active: u64,
    /// Inactive connections now.
    pub inactive: u64,
    /// Persistence templates now.
    #[serde(default)]
    pub templates: u64,
    /// For [`Method::FullNat`]: local addresses and ports that its connections do not have, over all workers. Another service with
    /// the same real server takes of the same ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_ports_free: Option<u64>,
    /// Counters.
    pub stats: Counters,
    /// Rates.
    pub rates: Rates,
}

/// `service_list`'s answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceList {
    /// Revision of the configuration listed.
    pub revision: u64,
    /// The services, as added.
    pub services: Vec<Service>,
}

/// `real_server_list`'s answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealServerList {
    /// Revision of the configuration listed.
    pub revision: u64,
    /// The real servers with their services.
    pub real_servers: Vec<RealServerOf>,
}

/// A real server and its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealServerOf {
    /// Of which service.
    pub service: ServiceRef,
    /// The real server.
    pub real_server: RealServer,
}

/// `laddr_list`'s answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaddrList {
    /// The local addresses with their services.
    pub laddrs: Vec<LaddrRef>,
}
