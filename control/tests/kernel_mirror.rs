//! The kernel mirror against a real kernel, each test in a network namespace of its own.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "clippy's exceptions for tests do not cover their helpers"
)]

#[path = "../../dataplane/tests/netns/mod.rs"]
mod netns;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_control::kernel::{KernelMirror, KernelUpdate, MirrorError, MirrorPort};
use sluice_dataplane::command::{Event, PortId};
use sluice_dataplane::egress::{Fib, Mac, Route};
use sluice_dataplane::io::Frame;
use sluice_dataplane::io::memory::{MemoryFrame, MemoryPool};
use sluice_dataplane::punt::tap::Tap;
use sluice_dataplane::punt::thread::{PuntOptions, PuntPort, PuntThread};
use sluice_dataplane::punt::{WorkerPunt, rings};
use tokio::sync::mpsc;

use crate::netns::{ip, isolated};

const PORT: PortId = PortId(3);
const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const PEER: Mac = Mac([2, 0, 0, 0, 0, 2]);
const PEER_ADDR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const PATIENCE: Duration = Duration::from_secs(60);
/// What takes less was told of: without that, the kernel is read again only after 30 s.
const TOLD: Duration = Duration::from_secs(20);

/// Runs `body` in a network namespace and a runtime of its own, and lets its panic be the test's.
fn in_namespace<F: Future<Output = ()>>(body: impl FnOnce() -> F + Send + 'static) {
    let thread = isolated(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(body());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A tap with its punt thread, the mirror, and what came of it so far.
struct Rig {
    mirror: KernelMirror,
    updates: mpsc::Receiver<KernelUpdate>,
    worker: WorkerPunt<MemoryFrame>,
    seen: Seen,
    _punt: PuntThread,
}

#[derive(Debug, Default)]
struct Seen {
    local: BTreeSet<IpAddr>,
    fib: Arc<Fib>,
    neighbours: BTreeMap<Ipv4Addr, Option<Mac>>,
    port: Option<(Mac, u16, bool)>,
    completed: u32,
    fibs: u32,
}

impl Seen {
    fn route(&self, addr: &str) -> Option<Route> {
        self.fib.lookup(addr.parse().unwrap())
    }

    fn is_local(&self, addr: &str) -> bool {
        self.local.contains(&addr.parse().unwrap())
    }

    fn mac(&self) -> Option<Mac> {
        self.neighbours.get(&PEER_ADDR).copied().flatten()
    }
}

impl Rig {
    /// `cl0` as port 3, brought up by the mirror, with 10.77.0.1/24.
    async fn new() -> Self {
        let tap = Tap::open("cl0", OURS, 1500).unwrap();
        ip("link set cl0 addrgenmode none");
        let (worker, kernel) = rings(256);
        let port = PuntPort {
            id: PORT,
            tap,
            rings: vec![kernel],
        };
        let punt = PuntThread::start(vec![port], MemoryPool, PuntOptions::default()).unwrap();
        ip("address add 10.77.0.1/24 dev cl0");
        let (sender, updates) = mpsc::channel(4);
        let ports = vec![MirrorPort {
            port: PORT,
            interface: "cl0".to_owned(),
        }];
        let mirror = KernelMirror::start(ports, sender).await.unwrap();
        let mut rig = Self {
            mirror,
            updates,
            worker,
            seen: Seen::default(),
            _punt: punt,
        };
        rig.until(|seen| seen.completed == 1).await;
        rig
    }

    async fn next(&mut self) {
        match self.updates.recv().await.expect("the mirror runs") {
            KernelUpdate::LocalAddresses(local) => self.seen.local = local,
            KernelUpdate::Fib(fib) => {
                self.seen.fib = fib;
                self.seen.fibs += 1;
            }
            KernelUpdate::Neighbour { port, addr, mac } => {
                assert_eq!(port, PORT);
                self.seen.neighbours.insert(addr, mac);
            }
            KernelUpdate::PortState { port, mac, mtu, up } => {
                assert_eq!(port, PORT);
                self.seen.port = Some((mac, mtu, up));
            }
            KernelUpdate::Complete => self.seen.completed += 1,
        }
    }

    /// Takes updates until what was seen is as `wanted`; returns how long it took.
    async fn until(&mut self, wanted: impl Fn(&Seen) -> bool) -> Duration {
        let start = Instant::now();
        while !wanted(&self.seen) {
            if tokio::time::timeout(PATIENCE, self.next()).await.is_err() {
                panic!("it never came; seen {:.2000}", format!("{:?}", self.seen));
            }
        }
        start.elapsed()
    }

    /// Takes updates for a while.
    async fn linger(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while tokio::time::timeout_at(end, self.next()).await.is_ok() {}
    }

    /// Takes updates until the mirror has nothing more to read and to tell.
    async fn come_to_rest(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let readings = self.mirror.status().readings;
            self.linger(Duration::from_millis(300)).await;
            let status = self.mirror.status();
            if !status.pending && status.readings == readings {
                return;
            }
            assert!(Instant::now() < deadline, "{status:?}");
        }
    }

    /// Waits for an ARP request for `addr` from the kernel, and returns whom it went to.
    async fn arp_request(&mut self, addr: Ipv4Addr) -> [u8; 6] {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            while let Ok(frame) = self.worker.from_kernel.pop() {
                let bytes = frame.bytes();
                let is_request = bytes[12..14] == [8, 6] && bytes[20..22] == [0, 1];
                if is_request && bytes[38..42] == addr.octets() {
                    return bytes[..6].try_into().unwrap();
                }
            }
            self.linger(Duration::from_millis(1)).await;
        }
        panic!("the kernel did not ask for {addr}");
    }

    /// The peer says by ARP that its address is at `mac`.
    fn arp_reply(&mut self, mac: Mac) {
        self.arp(2, mac, OURS, OURS, Ipv4Addr::new(10, 77, 0, 1));
    }

    fn arp(&mut self, operation: u8, sender: Mac, dst: Mac, target: Mac, target_addr: Ipv4Addr) {
        let frame = [
            &dst.0[..],
            &sender.0,
            &[0x08, 0x06], // EtherType
            &[0, 1, 8, 0], // Ethernet, IPv4
            &[6, 4],       // address lengths
            &[0, operation],
            &sender.0,
            &PEER_ADDR.octets(),
            &target.0,
            &target_addr.octets(),
        ]
        .concat();
        self.worker
            .to_kernel
            .push(MemoryFrame::new(&frame))
            .unwrap();
    }

    fn missing(&self, addr: Ipv4Addr) {
        self.mirror
            .event(&Event::NeighbourMissing { port: PORT, addr });
    }

    fn used(&self, addr: Ipv4Addr) {
        self.mirror
            .event(&Event::NeighbourUsed { port: PORT, addr });
    }
}

fn via(gateway: Option<&str>, source: &str) -> Option<Route> {
    Some(Route::Via {
        port: PORT,
        gateway: gateway.map(|g| g.parse().unwrap()),
        source: source.parse().unwrap(),
        mtu: None,
    })
}

/// Sets a sysctl under `net.ipv4.neigh` of cl0.
fn neigh_sysctl(name: &str, value: &str) {
    std::fs::write(format!("/proc/sys/net/ipv4/neigh/cl0/{name}"), value).unwrap();
}

#[test]
fn the_start_brings_the_interface_up_and_tells_all_there_is() {
    in_namespace(|| async {
        let mut rig = Rig::new().await;
        assert!(rig.seen.is_local("10.77.0.1") && rig.seen.is_local("127.0.0.1"));
        rig.until(|seen| seen.port == Some((OURS, 1500, true)))
            .await;
        let connected = via(None, "10.77.0.1");
        rig.until(|seen| seen.route("10.77.0.9") == connected).await;
        assert_eq!(rig.seen.route("10.77.0.1"), Some(Route::Local));
        assert_eq!(rig.seen.route("127.1.2.3"), Some(Route::Local));
        assert_eq!(rig.seen.route("8.8.8.8"), None);
        assert_eq!(rig.mirror.status().not_mirrored, Vec::<String>::new());
    });
}

#[test]
fn addresses_come_and_go_as_they_are_told() {
    in_namespace(|| async {
        let mut rig = Rig::new().await;
        ip("address add 192.0.2.10/32 dev lo");
        let took = rig.until(|seen| seen.is_local("192.0.2.10")).await;
        assert!(took < TOLD, "{took:?}");
        rig.until(|seen| seen.route("192.0.2.10") == Some(Route::Local))
            .await;
        ip("address del 192.0.2.10/32 dev lo");
        let took = rig.until(|seen| seen.route("192.0.2.10").is_none()).await;
        assert!(took < TOLD, "{took:?}");
        rig.until(|seen| !seen.is_local("192.0.2.10")).await;
    });
}

#[test]
fn addresses_are_told_ahead_of_the_reading_of_everything() {
    in_namespace(async || {
        let mut rig = Rig::new().await;
        for (change, there) in [("add", true), ("del", false)] {
            // Old news of the rig or of the change before must not bring about the reading that is waited for.
            rig.come_to_rest().await;
            let readings = rig.mirror.status().readings;
            let fibs = rig.seen.fibs;
            ip(&format!("address {change} 10.77.8.1/32 dev cl0"));
            rig.until(|seen| seen.is_local("10.77.8.1") == there).await;
            assert_eq!(rig.mirror.status().readings, readings, "{change}");
            assert_eq!(rig.seen.fibs, fibs, "{change}");
            rig.until(|seen| seen.route("10.77.8.1").is_some() == there)
                .await;
        }
    });
}

#[test]
fn routes_of_every_kind_come_and_go() {
    in_namespace(|| async {
        let mut rig = Rig::new().await;
        ip("link add vk0 type veth peer name vk1");
        ip("address add 10.88.0.1/24 dev vk0");
        ip("link set vk0 up");
        ip("route add default via 10.77.0.254 mtu 1400");
        ip("route add blackhole 192.0.2.0/26");
        ip("route add unreachable 192.0.2.64/26");
        ip("route add prohibit 192.0.2.128/26");
        ip("route add 198.51.100.0/25 via 10.88.0.2");
        ip("route add 198.51.100.128/25 nexthop via 10.77.0.3 nexthop via 10.77.0.4");
        ip("route add 203.0.113.0/24 via 10.77.0.5 metric 20");
        ip("route add 203.0.113.0/24 via 10.77.0.6 metric 10 src 10.88.0.1");
        ip("route add local 203.0.0.0/24 dev lo");
        ip("route add 10.99.0.0/16 via 10.77.0.7 table 100");
        rig.until(|seen| seen.route("203.0.0.7") == Some(Route::Local))
            .await;
        let default = Some(Route::Via {
            port: PORT,
            gateway: Some(Ipv4Addr::new(10, 77, 0, 254)),
            source: Ipv4Addr::new(10, 77, 0, 1),
            mtu: Some(1400),
        });
        rig.until(|seen| seen.route("10.99.0.1") == default).await;
        for addr in ["192.0.2.1", "192.0.2.65", "192.0.2.129"] {
            assert_eq!(rig.seen.route(addr), Some(Route::Unreachable));
        }
        assert_eq!(rig.seen.route("198.51.100.1"), Some(Route::Kernel));
        assert_eq!(rig.seen.route("10.88.0.9"), Some(Route::Kernel));
        let first = via(Some("10.77.0.3"), "10.77.0.1");
        assert_eq!(rig.seen.route("198.51.100.129"), first);
        let best = via(Some("10.77.0.6"), "10.88.0.1");
        assert_eq!(rig.seen.route("203.0.113.1"), best);
        ip("route del 203.0.113.0/24 metric 10");
        let other = via(Some("10.77.0.5"), "10.77.0.1");
        rig.until(|seen| seen.route("203.0.113.1") == other).await;
        ip("route replace 203.0.113.0/24 via 10.77.0.8 metric 20");
        let other = via(Some("10.77.0.8"), "10.77.0.1");
        rig.until(|seen| seen.route("203.0.113.1") == other).await;
    });
}

#[test]
fn routes_that_the_kernel_removes_without_a_word_are_noticed() {
    in_namespace(|| async {
        let mut rig = Rig::new().await;
        ip("address add 10.77.5.1/24 dev cl0");
        ip("route add 192.0.2.0/24 via 10.77.0.254 src 10.77.5.1");
        let route = via(Some("10.77.0.254"), "10.77.5.1");
        rig.until(|seen| seen.route("192.0.2.1") == route).await;
        ip("address del 10.77.5.1/24 dev cl0");
        rig.until(|seen| seen.route("192.0.2.1").is_none()).await;
        ip("link set cl0 down");
        rig.until(|seen| seen.route("10.77.0.9").is_none()).await;
        rig.until(|seen| seen.port == Some((OURS, 1500, false)))
            .await;
    });
}

#[test]
fn many_changes_at_once_make_few_tables() {
    in_namespace(|| async {
        let mut rig = Rig::new().await;
        let fibs = rig.seen.fibs;
        ip_batch((0..2000).map(|i| {
            format!(
                "route add 172.{}.{}.0/24 via 10.77.0.254",
                16 + i / 256,
                i % 256
            )
        }));
        let last = via(Some("10.77.0.254"), "10.77.0.1");
        rig.until(|seen| seen.route("172.23.207.1") == last).await;
        let fibs = rig.seen.fibs - fibs;
        assert!((1..20).contains(&fibs), "{fibs} tables for 2000 routes");
    });
}

#[test]
fn changes_of_the_interface_itself_are_told() {
    in_namespace(|| async {
        let mut rig = Rig::new().await;
        ip("link set cl0 mtu 1400");
        rig.until(|seen| seen.port == Some((OURS, 1400, true)))
            .await;
        ip("link set cl0 address 02:00:00:00:00:09");
        let mac = Mac([2, 0, 0, 0, 0, 9]);
        rig.until(|seen| seen.port == Some((mac, 1400, true))).await;
        ip("link delete cl0");
        rig.until(|seen| seen.port == Some((mac, 1400, false)))
            .await;
        rig.until(|seen| seen.route("10.77.0.9").is_none()).await;
    });
}

#[test]
fn neighbours_that_an_administrator_sets_are_told() {
    in_namespace(|| async {
        let mut rig = Rig::new().await;
        ip("neighbour add 10.77.0.2 lladdr 02:00:00:00:00:02 dev cl0");
        rig.until(|seen| seen.mac() == Some(PEER)).await;
        // In use or not, an entry that an administrator made stays as it is.
        rig.used(PEER_ADDR);
        ip("neighbour change 10.77.0.2 lladdr 02:00:00:00:00:03 dev cl0");
        rig.until(|seen| seen.mac() == Some(Mac([2, 0, 0, 0, 0, 3])))
            .await;
        rig.linger(Duration::from_millis(50)).await;
        assert!(ip_output("neighbour show").contains("PERMANENT"));
        ip("neighbour del 10.77.0.2 dev cl0");
        rig.until(|seen| seen.neighbours.get(&PEER_ADDR) == Some(&None))
            .await;
        assert_eq!(rig.mirror.status().neighbours.usable, 0);
    });
}

#[test]
fn a_missing_neighbour_is_asked_for_and_its_answer_told() {
    in_namespace(|| async {
        let mut rig = Rig::new().await;
        rig.missing(PEER_ADDR);
        assert_eq!(rig.arp_request(PEER_ADDR).await, Mac::BROADCAST.0);
        rig.arp_reply(PEER);
        rig.until(|seen| seen.mac() == Some(PEER)).await;
        let counts = rig.mirror.status().neighbours;
        assert_eq!((counts.asked, counts.usable, counts.failed), (1, 1, 0));
        // Known by now: whoever still misses it is told without more ado.
        rig.seen.neighbours.clear();
        rig.missing(PEER_ADDR);
        rig.until(|seen| seen.mac() == Some(PEER)).await;
    });
}

#[test]
fn a_neighbour_that_moves_to_another_mac_is_told() {
    in_namespace(|| async {
        let mut rig = Rig::new().await;
        rig.missing(PEER_ADDR);
        rig.arp_request(PEER_ADDR).await;
        rig.arp_reply(PEER);
        rig.until(|seen| seen.mac() == Some(PEER)).await;
        let moved = Mac([2, 0, 0, 0, 0, 0x22]);
        // A gratuitous ARP request (RFC 5227, section 3).
        rig.arp(1, moved, Mac::BROADCAST, Mac::default(), PEER_ADDR);
        let took = rig.until(|seen| seen.mac() == Some(moved)).await;
        assert!(took < TOLD, "{took:?}");
    });
}

#[test]
fn a_neighbour_that_does_not_answer_is_counted_and_may_be_asked_again() {
    in_namespace(|| async {
        let mut rig = Rig::new().await;
        neigh_sysctl("retrans_time_ms", "50");
        rig.missing(PEER_ADDR);
        rig.arp_request(PEER_ADDR).await;
        let deadline = Instant::now() + PATIENCE;
        while rig.mirror.status().neighbours.failed == 0 {
            assert!(Instant::now() < deadline, "{:?}", rig.mirror.status());
            rig.linger(Duration::from_millis(10)).await;
        }
        let status = rig.mirror.status();
        assert_eq!(status.failed, BTreeSet::from([(PORT, PEER_ADDR)]));
        assert_eq!(status.neighbours.failures, 1);
        rig.linger(Duration::from_secs(1)).await;
        while rig.worker.from_kernel.pop().is_ok() {}
        rig.missing(PEER_ADDR);
        rig.arp_request(PEER_ADDR).await;
        rig.arp_reply(PEER);
        rig.until(|seen| seen.mac() == Some(PEER)).await;
        assert!(rig.mirror.status().failed.is_empty());
    });
}

#[test]
fn a_stale_neighbour_in_use_is_probed_and_its_death_told() {
    in_namespace(|| async {
        let mut rig = Rig::new().await;
        neigh_sysctl("retrans_time_ms", "50");
        neigh_sysctl("delay_first_probe_time", "0");
        ip("neighbour add 10.77.0.2 lladdr 02:00:00:00:00:02 dev cl0 nud stale");
        rig.until(|seen| seen.mac() == Some(PEER)).await;
        rig.used(PEER_ADDR);
        assert_eq!(
            rig.arp_request(PEER_ADDR).await,
            PEER.0,
            "a probe is unicast"
        );
        rig.until(|seen| seen.neighbours.get(&PEER_ADDR) == Some(&None))
            .await;
        assert_eq!(rig.mirror.status().neighbours.probed, 1);
    });
}

#[test]
fn lost_notifications_lead_to_a_full_reading() {
    in_namespace(|| async {
        let mut rig = Rig::new().await;
        // `ip` runs while nobody here can take notifications, so most of them are lost.
        ip_batch((0..40_000).map(|i| {
            let (round, low) = (i / 200, i % 200);
            format!("neighbour replace 10.77.0.{low} lladdr 02:00:00:00:00:{round:02x} dev cl0")
        }));
        rig.until(|seen| seen.completed == 2).await;
        assert!(rig.mirror.status().resyncs >= 1);
        let last = Some(Mac([2, 0, 0, 0, 0, 199]));
        rig.until(|seen| seen.neighbours.values().filter(|mac| **mac == last).count() == 200)
            .await;
        assert_eq!(rig.mirror.status().neighbours.usable, 200);
    });
}

#[test]
fn an_interface_that_lost_its_name_is_reported_until_it_has_it_again() {
    in_namespace(async || {
        let mut rig = Rig::new().await;
        for (from, to, missing) in [("cl0", "other", vec!["cl0"]), ("other", "cl0", vec![])] {
            ip(&format!("link set {from} down"));
            ip(&format!("link set {from} name {to}"));
            let deadline = Instant::now() + PATIENCE;
            while rig.mirror.status().missing_interfaces != missing {
                assert!(Instant::now() < deadline, "{missing:?} was never reported");
                rig.linger(Duration::from_millis(10)).await;
            }
        }
    });
}

#[test]
fn policy_rules_are_reported_as_not_mirrored() {
    in_namespace(|| async {
        let mut rig = Rig::new().await;
        ip("rule add from 10.9.0.0/16 lookup 100 priority 77");
        let deadline = Instant::now() + PATIENCE;
        while rig.mirror.status().not_mirrored != ["the policy rule with priority 77"] {
            assert!(Instant::now() < deadline, "{:?}", rig.mirror.status());
            rig.linger(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn without_its_interface_the_mirror_does_not_start() {
    in_namespace(|| async {
        let (sender, _updates) = mpsc::channel(1);
        let ports = vec![MirrorPort {
            port: PORT,
            interface: "cl7".to_owned(),
        }];
        let error = KernelMirror::start(ports, sender).await.err().unwrap();
        assert!(
            matches!(&error, MirrorError::NoInterface(name) if name == "cl7"),
            "{error}"
        );
    });
}

/// Runs `ip` once with many commands.
fn ip_batch(commands: impl Iterator<Item = String>) {
    let mut script = String::new();
    for command in commands {
        writeln!(script, "{command}").unwrap();
    }
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, script.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

fn ip_output(arguments: &str) -> String {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap()
}
