//! Recorded traces through the real thing: a running `sluiced`, its socket, the program `ipvsadm`, DPDK's net_tap ports. Judged
//! as `make conformance` judges, which takes them through an appliance in memory.
//!
//! The clock is the machine's, so the list of traces (`control/conformance/real-path.txt`) has only quick ones. There is no
//! kernel side: addresses, routes and neighbours are static entries of the boot file.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};
use serde_json::json;
use sluice_conformance::compare::text::Output;
use sluice_conformance::director::Director;
use sluice_conformance::replay::{Stage, replay_on};
use sluice_conformance::suite;
use sluice_conformance::trace::{Emitted, Header, Side, Step, Trace};
use sluice_conformance::wire;

use crate::daemon::{Daemon, Rpc};
use crate::netns::Netns;
use crate::rig::{cores, eventually};
use crate::shell::Shell;

const SIDES: [Side; 2] = [Side::Client, Side::Server];
/// Packets that are recorded may take so long to come out.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at the wires.
const GLANCE: Duration = Duration::from_micros(50);
/// A replay that takes no longer, pauses apart, is judged; listings show whole seconds.
const PUNCTUAL: Duration = Duration::from_millis(900);
/// How often a replay that was late is begun anew.
const TRIES: usize = 20;
/// Shorter gaps between steps need no waiting for.
const SHORT: Duration = Duration::from_millis(200);

#[test]
fn traces_replay_through_the_running_daemon() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = suite::list(&home.join("conformance/real-path.txt")).expect("a list of traces");
    assert!(names.len() >= 20, "{} traces", names.len());
    let golden = home.join("../dataplane/ipvs/golden");
    let replayed = names.iter().map(|name| replayed(&golden, name));
    let failed: Vec<String> = replayed.filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn a_packet_that_leaves_otherwise_than_recorded_fails_its_trace() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dataplane/ipvs/golden");
    let recorded = std::fs::read_to_string(golden.join("udp-dr.json")).expect("a trace");
    let elsewhere = recorded.replace("02:01:c0:a8:01:01", "02:01:c0:a8:01:09");
    assert_ne!(recorded, elsewhere);
    let altered = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(altered.path().join("udp-dr.json"), elsewhere).expect("a place for it");
    let said = replayed(altered.path(), "udp-dr").expect_err("the next hop differs");
    assert!(said.contains("02:01:c0:a8:01:09"), "{said}");
}

fn replayed(golden: &Path, name: &str) -> Result<(), String> {
    let trace = Trace::read(&golden.join(format!("{name}.json"))).expect("a trace");
    let pauses: Duration = trace
        .steps
        .iter()
        .map(|step| match step {
            Step::Sleep(sleep) => sleep.arg,
            Step::Recv(recv) => recv.wait,
            _ => Duration::ZERO,
        })
        .sum();
    let mut tries = 0;
    loop {
        tries += 1;
        let appliance = Appliance::start(&trace.header);
        let began = Instant::now();
        let outcome = replay_on(&trace, appliance);
        // On a busy machine connections have fewer seconds left than recorded.
        let late = began.elapsed() > pauses + PUNCTUAL;
        match outcome {
            Err(_) if late && tries < TRIES => {}
            outcome => return outcome.map_err(|failure| format!("{name}: {failure}")),
        }
    }
}

/// A daemon and the far ends of its two wires. Fields drop in order: daemon first.
struct Appliance {
    director: Director,
    daemon: Daemon,
    netns: Netns,
    rpc: Rpc,
    wires: [OwnedFd; 2],
    emitted: VecDeque<Emitted>,
    misshapen: Option<String>,
    sent: u64,
    began: Instant,
}

impl Appliance {
    fn start(header: &Header) -> Self {
        let director = Director::new(header);
        let netns = Netns::new("replay");
        let daemon = Daemon::spawn(&netns, &boot(&director)).ready();
        let wires = SIDES.map(|side| wire_end(&netns, interface(side)));
        let mut rpc = daemon.rpc();
        let settings: serde_json::Map<_, _> = header.sysctl.clone().into_iter().collect();
        if !settings.is_empty() {
            rpc.call("setting_set", json!({"settings": settings}));
        }
        eventually("the ports' links are up", || {
            let stats = rpc.call("stats", json!({}));
            let mut ports = stats["ports"].as_array().expect("a list").iter();
            ports.all(|port| port["link_up"] == true)
        });
        Self {
            director,
            daemon,
            netns,
            rpc,
            wires,
            emitted: VecDeque::new(),
            misshapen: None,
            sent: 0,
            began: Instant::now(),
        }
    }

    /// Takes what lies on the wires; whether there was anything of the daemon's.
    fn collect(&mut self) -> bool {
        let mut any = false;
        let mut buffer = vec![0; 65_536];
        for side in SIDES {
            // Nothing there: an error.
            while let Ok(len) = recv(
                self.wires[side as usize].as_raw_fd(),
                &mut buffer,
                MsgFlags::MSG_DONTWAIT,
            ) {
                let frame = &buffer[..len];
                if frame.get(6..12) != Some(&self.director.mac(side).0[..]) {
                    continue;
                }
                any = true;
                match wire::emission(&self.director, side, frame) {
                    Ok(emitted) => self.emitted.push_back(emitted),
                    Err(what) => self.misshapen = Some(what),
                }
            }
        }
        any
    }

    fn received(&mut self) -> u64 {
        let stats = self.rpc.call("stats", json!({}));
        let workers = stats["workers"].as_array().expect("a list").iter();
        workers
            .map(|worker| worker["rx"].as_u64().expect("a number"))
            .sum()
    }
}

impl Stage for Appliance {
    fn director(&self) -> &Director {
        &self.director
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn advance(&mut self, by: Duration) {
        if by >= SHORT {
            std::thread::sleep(by);
            self.collect();
        }
    }

    fn deliver(&mut self, side: Side, l3: &[u8], expected: usize) {
        let before = self.emitted.len();
        let frame = wire::frame(&self.director, side, l3);
        let wire = self.wires[side as usize].as_raw_fd();
        send(wire, &frame, MsgFlags::empty()).expect("the wire takes it");
        self.sent += 1;
        let deadline = Instant::now() + PATIENCE;
        while self.emitted.len() < before + expected && Instant::now() < deadline {
            if !self.collect() {
                std::thread::sleep(GLANCE);
            }
        }
        if expected == 0 {
            while self.received() < self.sent && Instant::now() < deadline {}
        }
        // One that should not come counts with the next.
        self.collect();
    }

    fn ipvsadm(&mut self, args: &str, stdin: &str) -> Output {
        let shell = Shell::at(&self.netns, self.daemon.socket());
        let said = shell.ipvsadm_with(args, stdin);
        // Beyond stock ipvsadm's words, which the traces have.
        let ours = |line: &&str| !line.starts_with("hint: ") && !line.starts_with("warning: ");
        let err = said.err.split_inclusive('\n').filter(ours).collect();
        Output {
            rc: said.code,
            out: said.out,
            err,
        }
    }

    fn proc(&mut self, path: &str) -> Result<String, String> {
        let name = path.strip_prefix("/proc/net/").unwrap_or("settings");
        Ok(Shell::at(&self.netns, self.daemon.socket()).sluice(&format!("proc {name}")))
    }

    fn take_emitted(&mut self) -> Result<Vec<Emitted>, String> {
        match self.misshapen.take() {
            Some(what) => Err(what),
            None => Ok(self.emitted.drain(..).collect()),
        }
    }

    fn books(&mut self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// As the recorded director calls it, which is also the port's name.
fn interface(side: Side) -> &'static str {
    match side {
        Side::Client => "cl0",
        Side::Server => "sv0",
    }
}

/// The kernel's end of a net_tap port: what is sent here is received there, and the other way round.
fn wire_end(netns: &Netns, interface: &str) -> OwnedFd {
    netns.run(|| {
        let mut found = getifaddrs().expect("the interfaces are known");
        let address = found.find_map(|found| {
            let address = (found.interface_name == interface).then_some(found.address?)?;
            address.as_link_addr().copied()
        });
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )
        .expect("a packet socket");
        bind(socket.as_raw_fd(), &address.expect("the port's interface")).expect("it is bound");
        socket
    })
}

/// The director as a boot file.
fn boot(director: &Director) -> String {
    let mut boot = format!(
        "[eal]\nfile_prefix = \"PREFIX\"\nhugepages = \"off\"\nmemory_mb = 128\n\n\
         [workers]\n{}\npolling = \"adaptive\"\nmax_connections = 32768\n\n\
         [rpc]\nsocket = \"SOCKET\"\n",
        cores(1)
    );
    for (n, side) in SIDES.into_iter().enumerate() {
        let name = interface(side);
        let mac = hex(director.mac(side).0);
        let mtu = director.mtu(side);
        boot += &format!(
            "\n[[port]]\nname = \"{name}\"\ndevice = \"net_tap{n}\"\nargs = \"iface={name},mac={mac}\"\nmtu = {mtu}\n"
        );
    }
    for side in SIDES {
        let (address, link) = director.link(side);
        let (name, len) = (interface(side), link.prefix_len());
        boot +=
            &format!("\n[[static.address]]\nport = \"{name}\"\naddress = \"{address}/{len}\"\n");
    }
    let own = SIDES.map(|side| director.link(side).0);
    for vip in director
        .local()
        .filter(|prefix| !own.contains(&prefix.addr()))
    {
        boot += &format!("\n[[static.address]]\nport = \"cl0\"\naddress = \"{vip}\"\n");
    }
    boot += &format!(
        "\n[[static.route]]\nprefix = \"0.0.0.0/0\"\nport = \"cl0\"\ngateway = \"{}\"\n",
        director.gateway()
    );
    for (side, address, mac) in director.neighbours() {
        if let IpAddr::V4(address) = address {
            let (name, mac) = (interface(side), hex(mac.0));
            boot += &format!(
                "\n[[static.neighbour]]\nport = \"{name}\"\naddress = \"{address}\"\nmac = \"{mac}\"\n"
            );
        }
    }
    boot
}

fn hex(mac: [u8; 6]) -> String {
    let bytes: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    bytes.join(":")
}
