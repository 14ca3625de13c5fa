//! What is forwarded how, and the appliance's boot file for it.

use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sluice_control::api::Method;
use sluice_dataplane::egress::Mac;

/// The service that clients talk to.
pub const VIP: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 80);

/// Real servers.
pub const SERVERS: u8 = 100;

/// FULLNAT's local addresses.
pub const LADDRS: u8 = 8;

/// Where clients' packets come from, and theirs go.
pub const ROUTER_MAC: Mac = Mac([2, 0, 0, 0, 0, 0xfe]);

/// The port that forwards: DPDK's first net_pcap.
pub const WIRE_MAC: Mac = Mac([0x02, b'p', b'c', b'a', b'p', 0]);

/// The port that opening packets come in by: DPDK's second net_pcap.
pub const OPENING_MAC: Mac = Mac([0x02, b'p', b'c', b'a', b'p', 1]);

/// Packets of a burst.
pub const BURST: usize = 32;

/// Frames that wait in each queue, of the appliance and of testpmd.
pub const DESCRIPTORS: u16 = 1024;

/// Bytes of a frame's buffer beside headroom.
pub const FRAME_LEN: u16 = 256;

/// Bytes in front of a frame (`RTE_PKTMBUF_HEADROOM`).
pub const HEADROOM: u16 = 128;

/// Frames that an lcore keeps for itself.
pub const CACHE: u32 = 512;

/// Bytes of the longest IP packet: what fits the buffers.
pub const MTU: u16 = 200;

const MAX_HELD: u32 = 1024;

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// How packets get to servers.
    pub method: Method,
    /// Flows: packets that differ in their ends (RFC 2722, one-way), each a frame of the file that is replayed. A connection is one
    /// flow, or one in each direction where both come through us.
    pub flows: u32,
}

impl Scenario {
    /// Whether servers' packets come through us too: then both directions are mixed.
    pub fn both_directions(&self) -> bool {
        matches!(self.method, Method::Nat | Method::FullNat)
    }

    /// One with so many connections.
    pub fn of_connections(method: Method, connections: u32) -> Self {
        let one = Self { method, flows: 1 };
        Self {
            method,
            flows: connections * one.flows_each(),
        }
    }

    /// Connections, all established.
    pub fn connections(&self) -> u32 {
        self.flows / self.flows_each()
    }

    fn flows_each(&self) -> u32 {
        if self.both_directions() { 2 } else { 1 }
    }

    /// Connections that the table is made for: the appliance's default, or more.
    pub fn max_connections(&self) -> u32 {
        self.connections().next_power_of_two().max(1 << 20)
    }

    /// Frames that net_pcap keeps.
    pub fn extra_frames(&self) -> u32 {
        self.flows + 1024
    }

    /// All frames of the appliance's pool, for testpmd to have as many.
    pub fn frames(&self) -> u32 {
        const PORTS: u32 = 2;
        PORTS * 2 * u32::from(DESCRIPTORS) + MAX_HELD + 2048 + self.extra_frames()
    }

    /// Memory for frames, net_pcap's ring and DPDK itself.
    pub fn memory_mb(&self) -> u32 {
        const MBUF: u32 = 128;
        const OBJECT_HEADER: u32 = 64;
        let frame = u64::from(MBUF + OBJECT_HEADER + u32::from(HEADROOM + FRAME_LEN));
        let ring = u64::from(self.frames().next_power_of_two()) * 8 * 2;
        let bytes = u64::from(self.frames()) * frame * 17 / 16 + ring;
        96 + (bytes >> 20) as u32
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", name(self.method), count(self.flows))
    }
}

/// All methods, in the order of the tables.
pub const METHODS: [Method; 4] = [Method::Dr, Method::Tun, Method::Nat, Method::FullNat];

/// A method's name, as the tables spell it.
pub fn name(method: Method) -> &'static str {
    match method {
        Method::Nat => "NAT",
        Method::Dr => "DR",
        Method::Tun => "TUN",
        Method::FullNat => "FULLNAT",
    }
}

/// `1 k`, `100 k`, `1 M`.
pub fn count(flows: u32) -> String {
    match flows {
        0..1000 => flows.to_string(),
        1000..1_000_000 => format!("{} k", flows / 1000),
        _ => format!("{} M", flows / 1_000_000),
    }
}

/// A real server's address, from 0.
pub fn server(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, n + 1)
}

/// A real server's MAC.
pub fn server_mac(address: Ipv4Addr) -> Mac {
    let [_, _, net, host] = address.octets();
    Mac([2, 1, 0, 0, net, host])
}

/// Files and names of one run.
#[derive(Clone, Debug)]
pub struct Place {
    /// What is replayed for ever.
    pub steady: PathBuf,
    /// What opens the connections, once.
    pub opening: PathBuf,
    /// Where the appliance listens.
    pub socket: PathBuf,
    /// DPDK's file prefix.
    pub file_prefix: String,
    /// The worker's core.
    pub worker_core: usize,
    /// Everybody else's core.
    pub control_core: usize,
    /// Whether there are hugepages.
    pub hugepages: bool,
}

impl Place {
    /// For a worker in memory, which has neither files nor a socket.
    pub fn nowhere() -> Self {
        Self {
            steady: "none".into(),
            opening: "none".into(),
            socket: "none".into(),
            file_prefix: "none".to_owned(),
            worker_core: 1,
            control_core: 0,
            hugepages: false,
        }
    }
}

/// The service of a boot file.
#[derive(Clone, Copy, Debug)]
pub struct Balanced {
    /// Transport protocol.
    pub protocol: &'static str,
    /// Scheduler.
    pub scheduler: &'static str,
    /// Weight of each server, from 0.
    pub weight: fn(u8) -> u32,
}

/// The service of all scenarios with established connections.
pub const STEADY: Balanced = Balanced {
    protocol: "tcp",
    scheduler: "rr",
    weight: |_| 1,
};

/// The boot file: one worker, one port that forwards and one that opening packets come in by, a service with [`SERVERS`]
/// servers. Everything else is as the appliance has it by default.
pub fn boot_file(scenario: &Scenario, service: &Balanced, place: &Place) -> String {
    let hugepages = if place.hugepages { "required" } else { "off" };
    let text = format!(
        r#"[eal]
file_prefix = "{prefix}"
hugepages = "{hugepages}"
memory_mb = {memory}

[[port]]
name = "wire"
device = "net_pcap0"
args = "rx_pcap={steady},infinite_rx=1"
rx_descriptors = {DESCRIPTORS}
tx_descriptors = {DESCRIPTORS}
mtu = {MTU}

[[port]]
name = "opening"
device = "net_pcap1"
args = "rx_pcap={opening}"
rx_descriptors = {DESCRIPTORS}
tx_descriptors = {DESCRIPTORS}
mtu = {MTU}

[workers]
cores = [{worker}]
control_core = {control}
max_connections = {max_connections}
max_held = {MAX_HELD}
extra_frames = {extra}
frame_len = {FRAME_LEN}
seed = 7

[rpc]
socket = "{socket}"
"#,
        prefix = place.file_prefix,
        memory = scenario.memory_mb(),
        steady = place.steady.display(),
        opening = place.opening.display(),
        worker = place.worker_core,
        control = place.control_core,
        max_connections = scenario.max_connections(),
        extra = scenario.extra_frames(),
        socket = place.socket.display(),
    );
    text + &network(("wire", "wire"), scenario.method, service)
}

/// The rest of a boot file: addresses, neighbours and the service, with clients behind one port and servers behind the other.
pub fn network(ports: (&str, &str), method: Method, service: &Balanced) -> String {
    let (vip, laddrs) = (VIP, laddrs(method));
    let method = format!("{method:?}").to_lowercase();
    let mut text = surroundings(ports);
    let _ = write!(
        text,
        "\n[[service]]\nprotocol = \"{}\"\naddress = \"{vip}\"\nscheduler = \"{}\"\nladdrs = {laddrs:?}\n",
        service.protocol, service.scheduler
    );
    text.extend((0..SERVERS).map(|n| {
        let address = server(n);
        let weight = (service.weight)(n);
        format!(
            "\n[[service.real_server]]\naddress = \"{address}:80\"\nmethod = \"{method}\"\nweight = {weight}\n"
        )
    }));
    text
}

/// Addresses and neighbours, without any service.
pub fn surroundings((clients, servers): (&str, &str)) -> String {
    let mut text = format!(
        r#"
[[static.address]]
port = "{clients}"
address = "10.0.0.254/24"

[[static.address]]
port = "{clients}"
address = "{vip}/32"

[[static.address]]
port = "{servers}"
address = "192.168.1.254/24"

[[static.route]]
prefix = "0.0.0.0/0"
port = "{clients}"
gateway = "10.0.0.253"

[[static.neighbour]]
port = "{clients}"
address = "10.0.0.253"
mac = "{ROUTER_MAC}"
"#,
        vip = VIP.ip(),
    );
    let neighbours = (0..SERVERS).map(server).map(|address| {
        let mac = server_mac(address);
        format!(
            "\n[[static.neighbour]]\nport = \"{servers}\"\naddress = \"{address}\"\nmac = \"{mac}\"\n"
        )
    });
    text.extend(neighbours);
    text
}

fn laddrs(method: Method) -> Vec<String> {
    let wanted = if method == Method::FullNat { LADDRS } else { 0 };
    (0..wanted)
        .map(|n| format!("192.168.2.{}", n + 1))
        .collect()
}
