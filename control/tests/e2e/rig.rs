//! A client, an appliance and real servers, each in a namespace of its own, wired through DPDK net_tap ports.
//!
//! A net_tap port is a wire with two ends: DPDK holds one, and the other is a kernel interface which the rig moves out
//! of the appliance's namespace into whatever the port is plugged into. Nothing but sluice connects the two sides.
//!
//! ```text
//! two arms   client 10.0.0.100 ── dt0 ▌sluiced▐ dt1 ── bridge ── servers 192.168.1.1, .2 …   (gateway .254)
//! one arm    bridge ── dt0 ▌sluiced▐    bridge ── client 10.0.0.100, servers 10.0.0.11, .12 …
//! ```

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bridge::{Bridge, memif};
use crate::daemon::{Daemon, Rpc};
use crate::netns::Netns;

/// The virtual address in every rig.
pub(crate) const VIP: &str = "10.0.0.1";
/// The appliance's own address on the client's side.
pub(crate) const OWN: &str = "10.0.0.2";
/// FULLNAT's local address with two arms.
pub(crate) const LADDR: &str = "192.168.1.253";

const CLIENT: &str = "10.0.0.100";

/// How an appliance is made up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Workers, each with a queue of every port. They share a core.
    pub(crate) workers: usize,
    /// Ports are memif, and a bridge leads from them to taps.
    pub(crate) memif: bool,
}

impl Shape {
    /// One worker on taps.
    pub(crate) const ONE: Self = Self {
        workers: 1,
        memif: false,
    };

    /// Three workers on taps.
    pub(crate) const THREE: Self = Self {
        workers: 3,
        memif: false,
    };

    /// Three workers on memif.
    pub(crate) const THREE_ON_MEMIF: Self = Self {
        workers: 3,
        memif: true,
    };
}

/// The namespaces, and the daemon between them. Fields drop in order: daemon first.
pub(crate) struct Rig {
    pub(crate) daemon: Daemon,
    _bridge: Option<Bridge>,
    pub(crate) client: Netns,
    pub(crate) appliance: Netns,
    pub(crate) servers: Vec<Netns>,
    /// The switch that real servers (and, with one arm, everybody) hang on.
    _switch: Netns,
    pub(crate) rpc: Rpc,
}

impl Rig {
    /// Client and real servers on different sides.
    pub(crate) fn two_arms(servers: usize) -> Self {
        Self::two_arms_with(servers, Shape::ONE)
    }

    /// The same in another shape.
    pub(crate) fn two_arms_with(servers: usize, shape: Shape) -> Self {
        let (client, appliance, switch) = namespaces();
        let (daemon, bridge) = start(&appliance, &["client", "server"], shape);

        plug(&appliance, "dt0", &client);
        client.ip(&format!("addr add {CLIENT}/24 dev wire"));
        client.ip("link set wire up");
        plug(&appliance, "dt1", &switch);
        enslave(&switch, "wire");
        let servers = (1..=servers)
            .map(|n| {
                let server = member(&switch, &format!("rs{n}"), &format!("192.168.1.{n}"));
                server.ip("route add default via 192.168.1.254");
                server
            })
            .collect();

        appliance.ip(&format!("addr add {OWN}/24 dev ex0"));
        appliance.ip("addr add 192.168.1.254/24 dev ex1");
        appliance.ip(&format!("addr add {LADDR}/32 dev ex1"));
        // Last: who knows it knows the others, too.
        appliance.ip(&format!("addr add {VIP}/32 dev ex0"));
        let rpc = daemon.rpc();
        Self {
            daemon,
            _bridge: bridge,
            client,
            appliance,
            servers,
            _switch: switch,
            rpc,
        }
    }

    /// Everybody on one switch, as direct routing wants it.
    pub(crate) fn one_arm(servers: usize) -> Self {
        Self::one_arm_with(servers, Shape::ONE)
    }

    /// The same in another shape.
    pub(crate) fn one_arm_with(servers: usize, shape: Shape) -> Self {
        let (client, appliance, switch) = namespaces();
        let (daemon, bridge) = start(&appliance, &["lan"], shape);

        plug(&appliance, "dt0", &switch);
        enslave(&switch, "wire");
        join(&switch, &client, CLIENT);
        let servers = (1..=servers)
            .map(|n| member(&switch, &format!("rs{n}"), &format!("10.0.0.{}", 10 + n)))
            .collect();

        appliance.ip(&format!("addr add {OWN}/24 dev ex0"));
        appliance.ip(&format!("addr add {VIP}/32 dev ex0"));
        let rpc = daemon.rpc();
        Self {
            daemon,
            _bridge: bridge,
            client,
            appliance,
            servers,
            _switch: switch,
            rpc,
        }
    }

    /// Adds a service and waits until its VIP is known to be local, and all that the rig gave the kernel is in force.
    pub(crate) fn service(&mut self, protocol: &str, port: u16, scheduler: &str) -> Service {
        let service = Service(json!({"protocol": protocol, "address": format!("{VIP}:{port}")}));
        let params = json!({"service": service.0, "scheduler": scheduler});
        self.rpc.call("service_add", params);
        eventually("the VIP is local", || {
            self.listed(&service)["vip_local"] == json!(true)
        });
        // Addresses come ahead of routes, and without those packets would be dropped.
        eventually("the kernel's routes are in force", || {
            let kernel = self.rpc.call("stats", json!({}))["kernel"].take();
            kernel["pending"] == json!(false)
        });
        service
    }

    /// Adds a real server.
    pub(crate) fn real_server(&mut self, service: &Service, address: &str, method: &str) {
        let params = json!({"service": service.0, "address": address, "method": method});
        self.rpc.call("real_server_add", params);
    }

    /// Gives a service a local address.
    pub(crate) fn laddr(&mut self, service: &Service, address: &str) {
        let params = json!({"service": service.0, "address": address});
        self.rpc.call("laddr_add", params);
    }

    /// A service as `service_list` shows it.
    pub(crate) fn listed(&mut self, service: &Service) -> Value {
        let mut answer = self.rpc.call("service_list", json!({"service": service.0}));
        answer["services"][0].take()
    }

    /// Packets that sluice has dropped so far, by reason, and how many of what it gave the kernel the kernel did not take.
    pub(crate) fn losses(&mut self) -> Vec<String> {
        let drops = self.rpc.call("drops", json!({}))["drops"].take();
        let drops = drops.as_array().expect("a list").clone();
        let stats = self.rpc.call("stats", json!({}));
        let mut losses: Vec<String> = drops
            .iter()
            .filter(|drop| drop["packets"] != 0)
            .map(Value::to_string)
            .collect();
        for port in stats["ports"].as_array().expect("a list") {
            for counter in [
                "rx_missed",
                "rx_errors",
                "rx_nombuf",
                "to_kernel_dropped",
                "from_kernel_dropped",
            ] {
                if port[counter] != 0 {
                    losses.push(format!("{} {counter} {}", port["name"], port[counter]));
                }
            }
        }
        losses
    }

    /// Checks every worker's books, then ends the daemon and holds it to a clean exit. Traffic must have stopped.
    pub(crate) fn close(mut self) {
        let mut last = Value::Null;
        eventually("the books balance", || {
            last = self.rpc.call("stats", json!({}));
            last["workers"]
                .as_array()
                .expect("a list of workers")
                .iter()
                .all(balances)
        });
        drop(self.rpc);
        self.daemon.stop();
    }
}

/// How the RPC names a service.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Value);

impl Service {
    /// Where clients find it.
    pub(crate) fn address(&self) -> SocketAddr {
        let text = self.0["address"].as_str().expect("a service has one");
        text.parse().expect("and it is an address")
    }
}

/// Asks `condition` again and again, for longer than any deadline of a client.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(240);
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A boot file for one worker and net_tap ports `dt0`, `dt1` … with the exception interfaces `ex0`, `ex1` …. Little memory, no
/// hugepages, and a worker that sleeps when idle: the machine has other things to do.
pub(crate) fn boot(ports: &[&str]) -> String {
    boot_with(ports, Shape::ONE)
}

fn start(appliance: &Netns, ports: &[&str], shape: Shape) -> (Daemon, Option<Bridge>) {
    let daemon = Daemon::spawn(appliance, &boot_with(ports, shape)).ready();
    let bridge = shape
        .memif
        .then(|| Bridge::start(appliance, ports.len(), shape.workers));
    (daemon, bridge)
}

/// The same in another shape.
fn boot_with(ports: &[&str], shape: Shape) -> String {
    let workers = shape.workers;
    let mut boot = format!(
        r#"
[eal]
file_prefix = "PREFIX"
hugepages = "off"
memory_mb = {}

[workers]
{}
polling = "adaptive"
max_connections = 16384

[rpc]
socket = "SOCKET"
"#,
        128 * workers,
        cores(workers)
    );
    for (n, port) in ports.iter().enumerate() {
        let (device, args) = if shape.memif {
            ("net_memif", memif(n, "server"))
        } else {
            ("net_tap", format!("iface=dt{n}"))
        };
        boot += &format!(
            r#"
[[port]]
name = "{port}"
device = "{device}{n}"
args = "{args}"
exception = "ex{n}"
"#
        );
    }
    boot
}

/// The lines of `[workers]` for so many of them that fit this machine.
pub(crate) fn cores(workers: usize) -> String {
    let cores = core_affinity::get_core_ids().expect("the cores are known");
    let (control, worker) = (cores[0].id, cores[cores.len() - 1].id);
    let shared = worker == control || workers > 1;
    let each = vec![worker.to_string(); workers].join(", ");
    format!("cores = [{each}]\ncontrol_core = {control}\nallow_shared_cores = {shared}")
}

/// The sum rule of the design, for one worker: what came in went out, was dropped or is held.
pub(crate) fn balances(worker: &Value) -> bool {
    let sum = |names: &[&str]| -> u64 {
        let value = |name: &&str| worker[*name].as_u64().expect("a counter");
        names.iter().map(value).sum()
    };
    sum(&[
        "rx",
        "from_kernel",
        "handed_in",
        "generated",
        "extra_fragments",
    ]) == sum(&["tx", "punted", "handed_out", "dropped", "merged", "held"])
}

fn namespaces() -> (Netns, Netns, Netns) {
    let client = Netns::new("client");
    let appliance = Netns::new("appliance");
    // Whatever passes has passed through sluice.
    appliance.sysctl("ipv4/ip_forward", "0");
    let switch = Netns::new("switch");
    switch.ip("link add br0 type bridge");
    switch.ip("link set br0 up");
    (client, appliance, switch)
}

/// Plugs a port in: what it sends comes out of `eth0` there, and the other way round. DPDK looks after the tap by its name,
/// so the tap itself stays, and a macvlan in pass-through mode goes. Both ends of a tap begin with the same MAC; a
/// neighbour has one of its own.
fn plug(appliance: &Netns, tap: &str, into: &Netns) {
    eventually("the port's interface is there", || {
        appliance.ip("-br link").contains(tap)
    });
    let there = into.name();
    appliance.ip(&format!(
        "link add link {tap} name wire netns {there} type macvlan mode passthru"
    ));
    let n = tap.trim_start_matches("dt");
    into.ip(&format!("link set wire address 02:00:00:00:01:0{n}"));
}

fn enslave(switch: &Netns, interface: &str) {
    switch.ip(&format!("link set {interface} master br0 up"));
}

/// A new namespace on the switch.
fn member(switch: &Netns, name: &str, address: &str) -> Netns {
    let netns = Netns::new(name);
    join(switch, &netns, address);
    netns
}

/// Hangs `netns` on the switch, by its `eth0`.
fn join(switch: &Netns, netns: &Netns, address: &str) {
    let port = format!("to-{}", address.rsplit('.').next().expect("four parts"));
    let peer = netns.name();
    switch.ip(&format!(
        "link add {port} type veth peer name eth0 netns {peer}"
    ));
    enslave(switch, &port);
    netns.ip(&format!("addr add {address}/24 dev eth0"));
    netns.ip("link set eth0 up");
}
