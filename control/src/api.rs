//! The JSON-RPC interface as types, for the daemon and its clients alike.
//!
//! Every method takes named parameters and refuses unknown ones. Lists come in kernel order (`SEMANTICS.md` section
//! 1): services as added, real servers with the latest added first; who prints them sorts.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/sluice/rpc.sock";

/// A JSON-RPC error's `data`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorData {
    /// What kind of error; stable, for programs.
    pub kind: ErrorKind,
    /// The offending parameter, as in `service.address` or `real_servers[2].weight`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// For [`ErrorKind::AppliedPartially`]: the workers that have not applied the change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<u16>,
    /// For [`ErrorKind::AppliedPartially`]: the revision they have not reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// Kinds of error. [`ErrorKind::code`] gives the JSON-RPC code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Not JSON.
    ParseError,
    /// Not a JSON-RPC 2.0 request.
    InvalidRequest,
    /// Unknown method.
    MethodNotFound,
    /// A parameter is missing, unknown or of the wrong type or value.
    InvalidParams,
    /// Longer than the daemon reads.
    RequestTooLarge,
    /// A bug in sluice.
    Internal,
    /// There is such a service already.
    ServiceExists,
    /// There is no such service.
    NoSuchService,
    /// The service has such a real server already.
    ServerExists,
    /// The service has no such real server.
    NoSuchServer,
    /// There is no such scheduler.
    NoSuchScheduler,
    /// The service has such a local address already.
    LaddrExists,
    /// The service has no such local address.
    NoSuchLaddr,
    /// A number out of range, or contradicting another.
    OutOfRange,
    /// The configured maximum of services, real servers … is reached.
    Full,
    /// FULLNAT needs a local address first, or the last one is still needed.
    NeedsLaddr,
    /// Some workers have not applied the change in time; it stands, and they will.
    AppliedPartially,
    /// A worker did not answer in time.
    Timeout,
}

impl ErrorKind {
    /// The JSON-RPC error code.
    pub fn code(self) -> i64 {
        match self {
            Self::ParseError => -32700,
            Self::InvalidRequest => -32600,
            Self::MethodNotFound => -32601,
            Self::InvalidParams => -32602,
            Self::Internal => -32603,
            Self::RequestTooLarge => -32000,
            Self::ServiceExists => -32001,
            Self::NoSuchService => -32002,
            Self::ServerExists => -32003,
            Self::NoSuchServer => -32004,
            Self::NoSuchScheduler => -32005,
            Self::LaddrExists => -32006,
            Self::NoSuchLaddr => -32007,
            Self::OutOfRange => -32008,
            Self::Full => -32009,
            Self::NeedsLaddr => -32010,
            Self::AppliedPartially => -32011,
            Self::Timeout => -32012,
        }
    }
}

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

pub(crate) fn default_scheduler() -> String {
    "wlc".to_owned()
}

pub(crate) fn default_weight() -> u32 {
    1
}

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
}

/// `service_delete`, `laddr_list`, and `service_list` of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceOnly {
    /// Which.
    pub service: ServiceRef,
}

/// `service_list` and `real_server_list`: of one service, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceFilter {
    /// Only this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceRef>,
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

/// `laddr_add` and `laddr_delete`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaddrRef {
    /// Of which service.
    pub service: ServiceRef,
    /// The local address.
    pub address: Ipv4Addr,
}

/// `setting_set`: all of them, or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SettingSet {
    /// Values by name; what is not given stays.
    pub settings: BTreeMap<String, u32>,
}

/// A setting of the appliance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// As under `net.ipv4.vs`.
    pub name: String,
    /// Its value now.
    pub value: u32,
    /// What it does.
    pub description: String,
}

/// `setting_list`'s answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingList {
    /// All settings, by name.
    pub settings: Vec<Setting>,
}

/// What a change answers once every worker has applied it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The revision of the configuration with the change in it.
    pub revision: u64,
}

/// Counters since start (or since the last zeroing).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Connections ever bound.
    pub conns: u64,
    /// Packets from clients.
    pub in_packets: u64,
    /// Packets to clients.
    pub out_packets: u64,
    /// Bytes from clients, from the IP header on.
    pub in_bytes: u64,
    /// Bytes to clients, from the IP header on.
    pub out_bytes: u64,
}

/// Rates per second, smoothed as IPVS does (`SEMANTICS.md` section 9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rates {
    /// New connections a second.
    pub cps: u64,
    /// Packets a second from clients.
    pub in_pps: u64,
    /// Packets a second to clients.
    pub out_pps: u64,
    /// Bytes a second from clients.
    pub in_bps: u64,
    /// Bytes a second to clients.
    pub out_bps: u64,
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
    /// Whether the VIP is an address of this machine; elsewhere the service matches nothing.
    pub vip_local: bool,
    /// Local addresses for FULLNAT.
    pub laddrs: Vec<Ipv4Addr>,
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

/// `version`'s answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// sluice's version.
    pub sluice: String,
    /// The DPDK release that runs, or `none` without DPDK.
    pub dpdk: String,
}

/// `rpc_methods`' answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Methods {
    /// Every method with a line about it.
    pub methods: Vec<MethodInfo>,
}

/// A method, described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodInfo {
    /// Its name.
    pub name: String,
    /// What it does, and its parameters.
    pub description: String,
}

/// `stats`' answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Revision of the configuration in force.
    pub revision: u64,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Sums over all services.
    pub totals: Counters,
    /// Rates over all services.
    pub rates: Rates,
    /// Each worker.
    pub workers: Vec<WorkerStats>,
    /// Each port.
    pub ports: Vec<PortStats>,
    /// The mirror of the kernel's addresses, routes and neighbours; absent where no port has an exception interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<KernelStats>,
}

/// How well the kernel is followed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelStats {
    /// Neighbours whose MAC is known now.
    pub neighbours: u64,
    /// Neighbours that the kernel is asking for now.
    pub resolving: u64,
    /// Neighbours that do not answer now, with their ports.
    pub failed: Vec<FailedNeighbour>,
    /// Times that a neighbour stopped answering or never did.
    pub failures: u64,
    /// Times that the kernel's news overran us, and everything was read anew.
    pub resyncs: u64,
    /// What the kernel has and workers do not follow: policy rules, VRFs.
    pub not_mirrored: Vec<String>,
    /// Exception interfaces that were deleted or renamed: their ports are cut off from the kernel.
    #[serde(default)]
    pub missing_interfaces: Vec<String>,
}

/// A neighbour that does not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedNeighbour {
    /// The port it should be on.
    pub port: u16,
    /// Its address.
    pub address: Ipv4Addr,
}

/// One worker's books. All in packets unless named otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStats {
    /// Which.
    pub worker: u16,
    /// Its core.
    pub core: usize,
    /// Revision it has applied.
    pub applied: u64,
    /// Connections now.
    pub connections: u64,
    /// Connections that its table can hold.
    pub max_connections: u64,
    /// Taken off ports.
    pub rx: u64,
    /// Bytes of those.
    pub rx_bytes: u64,
    /// From the kernel.
    pub from_kernel: u64,
    /// From other workers.
    pub handed_in: u64,
    /// Made by sluice.
    pub generated: u64,
    /// Further fragments of packets that were cut.
    pub extra_fragments: u64,
    /// Put on ports.
    pub tx: u64,
    /// Bytes of those.
    pub tx_bytes: u64,
    /// To the kernel.
    pub punted: u64,
    /// To other workers.
    pub handed_out: u64,
    /// Merged into others.
    pub merged: u64,
    /// Waiting for a next hop now.
    pub held: u64,
    /// Dropped, for all reasons.
    pub dropped: u64,
    /// Turns of its loop.
    pub polls: u64,
    /// Turns that found something to do.
    pub busy_polls: u64,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStats {
    /// Its name in the configuration.
    pub name: String,
    /// Its MAC.
    pub mac: String,
    /// Whether the link is up.
    pub link_up: bool,
    /// Speed in Mbit/s, 0 if unknown.
    pub speed_mbps: u32,
    /// MTU: bytes of an IP packet.
    pub mtu: u16,
    /// Its exception interface, if any.
    pub exception: Option<String>,
    /// Frames that the NIC received.
    pub rx: u64,
    /// Frames that the NIC sent.
    pub tx: u64,
    /// Frames that the NIC dropped for want of a free descriptor.
    pub rx_missed: u64,
    /// Frames that were received broken.
    pub rx_errors: u64,
    /// Receptions that failed for want of a buffer.
    pub rx_nombuf: u64,
    /// Frames that workers punted and that the kernel did not get: over the rate of their class, mostly.
    #[serde(default)]
    pub to_kernel_dropped: u64,
    /// Frames that the kernel sent and that no worker got.
    #[serde(default)]
    pub from_kernel_dropped: u64,
}

/// `drops`' answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drops {
    /// Every reason.
    pub drops: Vec<Drop>,
}

/// One reason why packets were dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drop {
    /// The reason's name.
    pub reason: String,
    /// What it means.
    pub description: String,
    /// How many, over all workers.
    pub packets: u64,
}

/// `connection_list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionList {
    /// Only of this protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Only of this client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Ipv4Addr>,
    /// Only to this virtual address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_address: Option<Ipv4Addr>,
    /// Only to this virtual port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_port: Option<u16>,
    /// Only to this real server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Ipv4Addr>,
    /// At most so many; 1 to 10000, 1000 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where the last answer stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `connection_list`'s answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Some connections, in no particular order.
    pub connections: Vec<Connection>,
    /// Pass it to go on; absent at the end. Connections that come and go meanwhile may be missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Protocol.
    pub protocol: Protocol,
    /// State, as ipvsadm names it.
    pub state: String,
    /// Milliseconds until it expires.
    pub expires_ms: u64,
    /// Client.
    pub client: SocketAddr,
    /// Virtual address and port.
    #[serde(rename = "virtual")]
    pub virtual_address: SocketAddr,
    /// Real server.
    pub server: SocketAddr,
    /// FULLNAT's local address and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// How packets get to the server.
    pub method: Method,
    /// The worker that owns it.
    pub worker: u16,
}
