//! The boot file: what `sluiced` is started with, in TOML.
//!
//! What may change while it runs (services, settings) is the business of JSON-RPC; `[[service]]` only says what
//! to begin with. Every section and every key has a default but `[[port]]`; unknown keys are refused.

mod check;
mod devices;
mod initial;
mod network;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::Ipv4Net;
use serde::Deserialize;
use sluice_dataplane::steer::{self, PortNeeds, RssCapabilities};

use crate::api;
use crate::config::Limits;
use crate::plain::plain;
use crate::spreading::Spreading;

pub use check::Machine;

/// The boot file, whole. Valid once it came from [`Boot::load`] or [`Boot::parse`].
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// `[eal]`: DPDK's environment.
    #[serde(default)]
    pub eal: Eal,
    /// `[[port]]`: interfaces, numbered from 0 in this order.
    #[serde(default, rename = "port")]
    pub ports: Vec<Port>,
    /// `[workers]`.
    #[serde(default)]
    pub workers: Workers,
    /// `[rpc]`.
    #[serde(default)]
    pub rpc: Rpc,
    /// `[limits]`.
    #[serde(default)]
    pub limits: BootLimits,
    /// `[static]`: addresses, routes and neighbours for rigs without a kernel side.
    #[serde(default, rename = "static")]
    pub statics: StaticEntries,
    /// `[[mark_rule]]`: rules of firewall marks to begin with, in order, in JSON-RPC's words.
    #[serde(default, rename = "mark_rule")]
    pub mark_rules: Vec<api::MarkRule>,
    /// `[[service]]`: services to begin with.
    #[serde(default, rename = "service")]
    pub services: Vec<Service>,
}

/// `[eal]`: DPDK's environment.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Eal {
    /// Tells several instances on one machine apart: their hugepage files, their sockets for dpdk-dumpcap.
    pub file_prefix: String,
    /// Whether to use hugepages.
    pub hugepages: Hugepages,
    /// Memory for packets and drivers; as much as the ports need if not given.
    pub memory_mb: Option<u32>,
    /// Hugepages without files: nothing is left behind, but dpdk-dumpcap and dpdk-proc-info cannot attach.
    pub in_memory: bool,
    /// Which addresses NICs use; DPDK chooses if not given.
    pub iova: Option<Iova>,
    /// DPDK's own log level, as in `lib.eal:debug`.
    pub log_level: Option<String>,
    /// More arguments for `rte_eal_init`, as they are.
    pub extra_args: Vec<String>,
}

impl Default for Eal {
    fn default() -> Self {
        Self {
            file_prefix: "sluice".to_owned(),
            hugepages: Hugepages::Auto,
            memory_mb: None,
            in_memory: false,
            iova: None,
            log_level: None,
            extra_args: Vec::new(),
        }
    }
}

/// Whether to use hugepages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hugepages {
    /// If the machine has enough.
    Auto,
    /// Or do not start.
    Required,
    /// Never: slower, for virtual devices only.
    Off,
}

/// Which addresses NICs use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Iova {
    /// Physical ones.
    Pa,
    /// Virtual ones: an IOMMU translates.
    Va,
}

/// `[[port]]`: one interface.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// What it is called here and in statistics.
    pub name: String,
    /// The device: a PCI address such as `0000:01:00.0`, or a virtual device such as `net_tap0`.
    pub device: String,
    /// Arguments of the device, as DPDK takes them: `iface=wan0`.
    #[serde(default)]
    pub args: Option<String>,
    /// The interface by which the kernel is reached (and reaches us) on this port; none if not given.
    #[serde(default)]
    pub exception: Option<String>,
    /// Whom it faces. Where no port faces both sides, and their NICs can hash one end of a packet alone, NAT is spread so that nothing
    /// need be handed from worker to worker.
    #[serde(default)]
    pub side: Side,
    /// Receive queues; as many as there are workers if not given.
    #[serde(default)]
    pub rx_queues: Option<u16>,
    /// Frames that can wait in a receive queue.
    #[serde(default = "default_descriptors")]
    pub rx_descriptors: u16,
    /// Frames that can wait in a transmit queue.
    #[serde(default = "default_descriptors")]
    pub tx_descriptors: u16,
    /// Bytes of the longest IP packet.
    #[serde(default = "default_mtu")]
    pub mtu: u16,
    /// Receive frames to any MAC.
    #[serde(default)]
    pub promiscuous: bool,
    /// Let the device compute checksums as far as it can.
    #[serde(default = "yes")]
    pub checksum_offload: bool,
}

/// Whom a port faces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Clients only, and routers on the way to them.
    Clients,
    /// Real servers only.
    Servers,
    /// Both.
    #[default]
    Both,
}

impl Side {
    /// The word for it in the boot file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Servers => "servers",
            Self::Both => "both",
        }
    }
}

impl From<Side> for steer::Side {
    fn from(side: Side) -> Self {
        match side {
            Side::Clients => Self::Clients,
            Side::Servers => Self::Servers,
            Side::Both => Self::Both,
        }
    }
}

/// `[workers]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Workers {
    /// A core for each worker. Each shares nothing with the others, and receives its part of all ports' packets.
    pub cores: Vec<usize>,
    /// The core for everything else; the lowest that no worker has if not given.
    pub control_core: Option<usize>,
    /// What a worker does when there is nothing to do.
    pub polling: Polling,
    /// Lets workers share a core with each other or with control: tests and small machines.
    pub allow_shared_cores: bool,
    /// Connections that each worker's table holds. Beside them it has places for 7/16 as many persistence templates.
    pub max_connections: usize,
    /// Packets of a worker that may wait for a neighbour's MAC.
    pub max_held: usize,
    /// Frames of a worker beyond those that its queues need. For benches: `infinite_rx` of net_pcap keeps a whole file.
    pub extra_frames: u32,
    /// Bytes that a frame's buffer holds; as many as the longest MTU needs, and at least 2048, if not given.
    pub frame_len: Option<u16>,
    /// Seeds the hash of connections. For benches only, so that runs repeat: who knows it can slow a worker down. Drawn
    /// at random if not given.
    pub seed: Option<u64>,
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            cores: vec![1],
            control_core: None,
            polling: Polling::Busy,
            allow_shared_cores: false,
            max_connections: 1 << 20,
            max_held: 1024,
            extra_frames: 0,
            frame_len: None,
            seed: None,
        }
    }
}

/// What a worker does when there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Polling {
    /// Looks again at once: lowest latency, a whole core.
    Busy,
    /// Sleeps, longer and longer, up to a millisecond: for machines shared with others.
    Adaptive,
}

/// `[rpc]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rpc {
    /// Where to listen.
    pub socket: PathBuf,
    /// Who may connect, as of a file: `0o660` is the owner and the group.
    pub mode: u32,
    /// The longest request.
    pub max_request_bytes: usize,
}

impl Default for Rpc {
    fn default() -> Self {
        Self {
            socket: PathBuf::from(api::DEFAULT_SOCKET),
            mode: 0o660,
            max_request_bytes: 1 << 20,
        }
    }
}

/// `[limits]`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BootLimits {
    /// Services at a time.
    pub max_services: u32,
    /// Real servers at a time, over all services.
    pub max_real_servers: u32,
}

impl Default for BootLimits {
    fn default() -> Self {
        let Limits {
            max_services,
            max_real_servers,
        } = Limits::default();
        Self {
            max_services,
            max_real_servers,
        }
    }
}

impl From<BootLimits> for Limits {
    fn from(limits: BootLimits) -> Self {
        Self {
            max_services: limits.max_services,
            max_real_servers: limits.max_real_servers,
        }
    }
}

/// `[static]`: what holds whatever the kernel says.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StaticEntries {
    /// `[[static.address]]`.
    #[serde(rename = "address")]
    pub addresses: Vec<StaticAddress>,
    /// `[[static.route]]`.
    #[serde(rename = "route")]
    pub routes: Vec<StaticRoute>,
    /// `[[static.neighbour]]`.
    #[serde(rename = "neighbour")]
    pub neighbours: Vec<StaticNeighbour>,
}

/// `[[static.address]]`: an address of ours; services match on it, and its prefix is reached by its port.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticAddress {
    /// On which port.
    pub port: String,
    /// Address and prefix: `10.0.0.254/24`, or `10.0.0.1/32` for a VIP.
    pub address: Ipv4Net,
}

/// `[[static.route]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticRoute {
    /// To where: `0.0.0.0/0` for all that has no better route.
    pub prefix: Ipv4Net,
    /// By which port.
    pub port: String,
    /// By which router; none if the destinations are on the link itself.
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    /// The source of packets of our own (tunnels, ICMP); the port's first static address if not given.
    #[serde(default)]
    pub source: Option<Ipv4Addr>,
    /// Bytes of an IP packet that fit; the port's MTU if not given.
    #[serde(default)]
    pub mtu: Option<u16>,
}

/// `[[static.neighbour]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticNeighbour {
    /// On which port.
    pub port: String,
    /// Whose.
    pub address: Ipv4Addr,
    /// Its MAC: `02:00:00:00:00:01`.
    pub mac: String,
}

/// `[[service]]`: a service to begin with, in JSON-RPC's words.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Protocol.
    #[serde(default)]
    pub protocol: Option<api::Protocol>,
    /// Virtual address and port; port 0 for all of them, with persistence.
    #[serde(default)]
    pub address: Option<SocketAddr>,
    /// Instead of those two: a firewall mark.
    #[serde(default)]
    pub fwmark: Option<u32>,
    /// Scheduler; JSON-RPC's default if not given.
    #[serde(default = "api::default_scheduler")]
    pub scheduler: String,
    /// Its switches.
    #[serde(default)]
    pub scheduler_flags: Vec<String>,
    /// Seconds of persistence.
    #[serde(default)]
    pub persistence_s: u32,
    /// Which bits of a client's address count; all of them if not given.
    #[serde(default)]
    pub persistence_mask: Option<String>,
    /// What else identifies a client: `sip`.
    #[serde(default)]
    pub persistence_engine: Option<String>,
    /// Schedules each UDP packet anew.
    #[serde(default)]
    pub one_packet: bool,
    /// Local addresses for FULLNAT.
    #[serde(default)]
    pub laddrs: Vec<Ipv4Addr>,
    /// `[[service.real_server]]`, added in this order.
    #[serde(default, rename = "real_server")]
    pub real_servers: Vec<RealServer>,
}

/// `[[service.real_server]]`, in JSON-RPC's words.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RealServer {
    /// Address and port.
    pub address: SocketAddr,
    /// How packets get there.
    #[serde(default)]
    pub method: api::Method,
    /// For method `tun`: what the tunnel is made of.
    #[serde(default)]
    pub tunnel: api::Tunnel,
    /// Weight.
    #[serde(default = "api::default_weight")]
    pub weight: u32,
    /// Upper threshold.
    #[serde(default)]
    pub upper_threshold: u32,
    /// Lower threshold.
    #[serde(default)]
    pub lower_threshold: u32,
}

/// A boot file that will not do. Its message is one line.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Not there, or not to be read.
    #[error("{path}: cannot read the boot file: {error}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Not TOML, an unknown key, a value of the wrong type.
    #[error("{path}:{line}:{column}: {message}")]
    Syntax {
        /// Which.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong.
        message: String,
    },
    /// A value that cannot be, or contradicts another, or this machine.
    #[error("{path}: {message}")]
    Invalid {
        /// Which.
        path: PathBuf,
        /// What is wrong, the key in front.
        message: String,
    },
}

impl Boot {
    /// Reads and checks a boot file for this machine.
    pub fn load(path: &Path) -> Result<Self, BootError> {
        let text = fs::read_to_string(path).map_err(|error| BootError::Read {
            path: path.to_owned(),
            error,
        })?;
        Self::parse(path, &text, &Machine::this())
    }

    /// Checks a boot file's text for `machine`; `path` is only named in errors.
    pub fn parse(path: &Path, text: &str, machine: &Machine) -> Result<Self, BootError> {
        let mut boot: Self = toml::from_str(text).map_err(|error| syntax(path, text, &error))?;
        boot.check(machine).map_err(|message| BootError::Invalid {
            path: path.to_owned(),
            message,
        })?;
        Ok(boot)
    }

    /// The core for everything that is no worker.
    pub fn control_core(&self) -> usize {
        // `check` has filled it in.
        self.workers.control_core.unwrap_or_default()
    }

    /// Names of the ports that have exception interfaces, with those.
    pub fn exceptions(&self) -> impl Iterator<Item = (usize, &str)> {
        let ports = self.ports.iter().enumerate();
        ports.filter_map(|(id, port)| Some((id, port.exception.as_deref()?)))
    }
}

impl Port {
    /// Whether it is a PCI device; else it is a virtual one.
    pub fn is_pci(&self) -> bool {
        check::is_pci(&self.device)
    }

    /// What it wants of a NIC that can do this.
    pub(crate) fn needs(&self, can: RssCapabilities) -> PortNeeds {
        PortNeeds {
            side: self.side.into(),
            queues: self.rx_queues,
            can,
        }
    }

    /// The same, with its name.
    pub(crate) fn spreading(&self, can: RssCapabilities) -> Spreading {
        Spreading {
            name: self.name.clone(),
            needs: self.needs(can),
        }
    }

    /// The device with its arguments, as EAL's `--vdev` and `-a` take them.
    pub fn device_with_args(&self) -> String {
        match &self.args {
            Some(args) => format!("{},{args}", self.device),
            None => self.device.clone(),
        }
    }
}

fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> BootError {
    let start = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.get(..start).unwrap_or(text);
    let last_line = before.rsplit('\n').next().unwrap_or(before);
    BootError::Syntax {
        path: path.to_owned(),
        line: before.matches('\n').count() + 1,
        column: last_line.chars().count() + 1,
        message: plain(&error.message().replace('\n', " ")),
    }
}

/// The first value that comes twice.
fn twice<'a>(values: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let mut seen = HashSet::new();
    values.into_iter().find(|value| !seen.insert(*value))
}

fn default_descriptors() -> u16 {
    1024
}

fn default_mtu() -> u16 {
    1500
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests;
