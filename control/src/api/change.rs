//! Parameters of the methods that change something, and their answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Method, ServiceRef, Tunnel};

/// `service_add` and `service_set`. `service_set` leaves what is not given as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceAdd {
    /// Which.
    pub service: ServiceRef,
    /// Scheduler, as ipvsadm spells it.
    #[serde(default = "default_scheduler")]
    pub scheduler: String,
    /// Its switches, as ipvsadm's `-b` spells them: `flag-1` to `flag-3`, and names for sh and mh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scheduler_flags: Vec<String>,
    /// Seconds that a client's new connections go where its last one went; 0 for no persistence.
    #[serde(default)]
    pub persistence_s: u32,
    /// Which bits of a client's address count: a netmask for IPv4, a prefix length for IPv6. All of them if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence_mask: Option<String>,
    /// What else identifies a client: `sip`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence_engine: Option<String>,
    /// Schedules each UDP packet anew.
    #[serde(default)]
    pub one_packet: bool,
}

impl ServiceAdd {
    /// A service of this scheduler, and nothing else said of it.
    pub fn new(service: ServiceRef, scheduler: &str) -> Self {
        Self {
            service,
            scheduler: scheduler.to_owned(),
            scheduler_flags: Vec::new(),
            persistence_s: 0,
            persistence_mask: None,
            persistence_engine: None,
            one_packet: false,
        }
    }
}

/// `service_set`: what is not given stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceSet {
    /// Which.
    pub service: ServiceRef,
    /// Scheduler, as ipvsadm spells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<String>,
    /// Its switches, all of them; another scheduler begins with none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_flags: Option<Vec<String>>,
    /// Seconds that a client's new connections go where its last one went; 0 for no persistence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence_s: Option<u32>,
    /// Which bits of a client's address count; the empty text for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence_mask: Option<String>,
    /// What else identifies a client; the empty text for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence_engine: Option<String>,
    /// Schedules each UDP packet anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_packet: Option<bool>,
}

/// `service_delete`, `laddr_list`, and `service_list` of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceOnly {
    /// Which.
    pub service: ServiceRef,
}

/// `real_server_add`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealServerAdd {
    /// Of which service.
    pub service: ServiceRef,
    /// Address and port. DR and TUN cannot change the port: there the service's is stored whatever is given.
    pub address: SocketAddr,
    /// How packets get there.
    #[serde(default)]
    pub method: Method,
    /// For [`Method::Tun`]: what the tunnel is made of.
    #[serde(default, skip_serializing_if = "Tunnel::is_ipip")]
    pub tunnel: Tunnel,
    /// 0 takes no new connections.
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// No new connections from this many on; 0 for no bound.
    #[serde(default)]
    pub upper_threshold: u32,
    /// New connections again below this many; 0 for three quarters of the upper one.
    #[serde(default)]
    pub lower_threshold: u32,
}

/// `real_server_set`: what is not given stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealServerSet {
    /// Of which service.
    pub service: ServiceRef,
    /// Which.
    pub address: SocketAddr,
    /// How packets of new connections get there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<Method>,
    /// What the tunnel is made of. Another method than [`Method::Tun`] forgets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tunnel: Option<Tunnel>,
    /// 0 takes no new connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// No new connections from this many on; 0 for no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper_threshold: Option<u32>,
    /// New connections again below this many; 0 for three quarters of the upper one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower_threshold: Option<u32>,
}

/// `real_server_delete`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealServerRef {
    /// Of which service.
    pub service: ServiceRef,
    /// Which.
    pub address: SocketAddr,
}

/// `setting_set`: all of them, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingSet {
    /// Values by name; what is not given stays.
    pub settings: BTreeMap<String, u32>,
}

/// What a change answers once every worker has applied it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The revision of the configuration with the change in it.
    pub revision: u64,
    /// What this version configures and lists, but does not forward.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

pub(crate) fn default_scheduler() -> String {
    "wlc".to_owned()
}

pub(crate) fn default_weight() -> u32 {
    1
}
