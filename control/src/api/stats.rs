//! Counters: of services, workers, ports; drops by reason.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

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
    /// The kernel has reported changes of addresses, routes or interfaces that are not in force yet: a matter of
    /// milliseconds.
    #[serde(default)]
    pub pending: bool,
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
    /// Local ports that FULLNAT found in use when it chose some: a search passes over 1024 at most, then it gives up.
    #[serde(default)]
    pub ports_passed_over: u64,
}

/// One port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    /// How packets come to the workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rss: Option<RssStats>,
    /// What workers handed to each other; absent where one is alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed: Option<HandedStats>,
}

/// Packets that came in on a port and went from the worker that received them to the one that has their connection, by the method that
/// forwards them. One that is asked about again after entries of the RSS table were moved counts each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedStats {
    /// NAT.
    pub nat: u64,
    /// FULLNAT.
    pub fullnat: u64,
    /// DR.
    pub dr: u64,
    /// TUN.
    pub tun: u64,
    /// ICMP errors, and packets of services that are gone.
    pub other: u64,
    /// Finished packets that leave by this port, which the worker that made them cannot send by. Not part of the share.
    pub to_send: u64,
    /// All of these but `to_send`, in millionths of what the NIC received.
    pub share_ppm: u64,
}

impl HandedStats {
    /// All but those that were only to be sent.
    pub fn total(&self) -> u64 {
        let Self {
            nat,
            fullnat,
            dr,
            tun,
            other,
            ..
        } = self;
        nat + fullnat + dr + tun + other
    }
}

/// How a port spreads packets over its queues.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RssStats {
    /// Receive queues.
    pub queues: u16,
    /// What it does, in a sentence.
    pub summary: String,
    /// What it does otherwise than it was told at start, and what follows.
    pub differences: Vec<String>,
    /// Packets whose hash by the NIC was compared with sluice's own.
    pub sampled: u64,
    /// Those whose hashes differed, or that came in by another queue than their hash says.
    pub mismatched: u64,
    /// Whom the port faces, as the boot file says: `clients`, `servers` or `both`.
    #[serde(default)]
    pub side: String,
    /// What becomes of packets of NAT, in a sentence; absent with one worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nat: Option<String>,
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
