//! DPDK, the ports and the cores of a generator, and trials on them.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use sluice_dataplane::dpdk::{
    DpdkPort, Eal, EalConfig, EthPort, HeldComplaints, Hugepages, Mempool, PoolConfig, PortConfig,
    clock,
};

use super::client::Client;
use super::engine::{Engine, Task, Trial};
use super::links;
use super::outcome::Outcome;
use super::plan::{Plan, Role};
use super::progress::Watch;
use super::servers::Servers;
use super::shared::{DIRECT, Shared};
use crate::interrupt;

/// Frames of each core beyond those that its queues hold.
const SPARE_FRAMES: u32 = 2048;

/// Bytes that a frame in a pool takes, beside its own.
const FRAME_OVERHEAD: u64 = 512;

/// Bytes of a frame's buffer.
const FRAME_LEN: u16 = 2048;

/// Memory of DPDK itself.
const OWN_MB: u64 = 64;

/// What a generator runs on.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Ports with their arguments; the first is on the clients' side, the last on the real servers'.
    pub(crate) ports: Vec<String>,
    /// A core for all, or one for clients and one for real servers.
    pub(crate) cores: Vec<usize>,
    /// Everything else's core.
    pub(crate) control_core: usize,
    /// Lets cores be the same, and sleeps when idle.
    pub(crate) shared_cores: bool,
    /// Frames that wait in each queue of a port.
    pub(crate) descriptors: u16,
    /// Bytes of the longest IP packet.
    pub(crate) mtu: u16,
    /// DPDK's file prefix.
    pub(crate) file_prefix: String,
    /// Whether memory comes from hugepages.
    pub(crate) hugepages: Hugepages,
    /// More arguments for EAL.
    pub(crate) eal_args: Vec<String>,
    /// How long links may take to come up, and real servers to answer while flows are opened.
    pub(crate) start_timeout: Duration,
    /// Whether to say each second how far things are.
    pub(crate) progress: bool,
}

/// A generator, up.
pub struct Session {
    engines: Vec<Engine<DpdkPort>>,
    shared: Arc<Shared>,
    plan: Arc<Plan>,
    place: Place,
    /// Goes after the queues that the engines hold, and before DPDK.
    ports: Vec<EthPort>,
    eal: Eal,
}

impl Session {
    /// Brings everything up and waits for the links.
    pub(crate) fn open(plan: Plan, place: Place) -> anyhow::Result<Self> {
        plan.check()?;
        check(&place, &plan)?;
        links::await_sockets(&place.ports, place.start_timeout)?;
        let _complaints = HeldComplaints::hold();
        let eal = Eal::start(&eal_config(&place))?;
        let mut ports = Vec::new();
        for (number, port) in place.ports.iter().enumerate() {
            let pool = PoolConfig {
                frame_len: FRAME_LEN,
                ..PoolConfig::new(format!("port{number}"), frames(&place))
            };
            let config = PortConfig {
                rx_descriptors: place.descriptors,
                tx_descriptors: place.descriptors,
                mtu: place.mtu,
                // Real servers have MACs of their own.
                promiscuous: true,
                checksum_offload: false,
                ..PortConfig::new(device(port), 1)
            };
            let pool = Mempool::new(&eal, &pool)?;
            ports.push(EthPort::open(&eal, &config, &[pool])?);
        }
        links::await_up(&ports, place.start_timeout)?;
        let queues = ports.iter().map(|port| port.queue(0));
        let queues = queues.collect::<Result<Vec<_>, _>>()?;
        let (plan, shared) = (Arc::new(plan), Arc::new(Shared::new()));
        Ok(Self {
            engines: engines(&eal, queues, &plan, &shared, place.cores.len())?,
            shared,
            plan,
            place,
            ports,
            eal,
        })
    }

    /// Opens all flows, if the plan has any that stay. As long may pass without an answer as without a link.
    pub(crate) fn open_flows(&mut self) -> anyhow::Result<Option<Outcome>> {
        if !self.plan.is_steady() {
            return Ok(None);
        }
        let outcome = self.trial(Task::Open, self.place.start_timeout.as_secs_f64())?;
        let open = self.engines[0].client().map_or(0, Client::flows_open);
        let silent = self.plan.role != Role::Send && outcome.answered == 0;
        ensure!(
            open == self.plan.flows && !silent,
            "only {open} of {} flows could be opened, and {} answers came. Is the service {} up, with its real servers, and is \
             {} the appliance's MAC? So far:\n{outcome}",
            self.plan.flows,
            outcome.answered,
            self.plan.vip,
            self.plan.appliance_mac
        );
        Ok(Some(outcome))
    }

    /// Runs a trial to its end.
    pub(crate) fn trial(&mut self, task: Task, drain_s: f64) -> anyhow::Result<Outcome> {
        let trial = Trial {
            task,
            drain_s,
            naps: self.place.shared_cores,
        };
        self.shared.begin();
        let (done, results) = mpsc::channel();
        let mut running = Vec::new();
        for (number, mut engine) in self.engines.drain(..).enumerate() {
            let done = done.clone();
            running.push(self.eal.launch(number, move || {
                engine.run(trial, clock::now, |_| {});
                // Nobody waits any more when the process ends.
                let _ = done.send((number, engine));
            })?);
        }
        drop(done);
        let mut watch = Watch::new(self.place.progress);
        while !running.iter().all(|core| core.is_finished()) {
            if interrupt::check().is_err() {
                self.shared.stop();
            }
            thread::sleep(Duration::from_millis(5));
            watch.look(&self.shared);
        }
        watch.finish();
        for core in running {
            core.wait();
        }
        let mut engines: Vec<_> = results.iter().collect();
        engines.sort_by_key(|(number, _)| *number);
        self.engines = engines.into_iter().map(|(_, engine)| engine).collect();
        interrupt::check()?;
        self.outcome(task)
    }

    fn outcome(&self, task: Task) -> anyhow::Result<Outcome> {
        let client = self.engines.iter().find_map(Engine::client);
        let client = client.context("there are clients")?.figures();
        let servers = self.engines.iter().find_map(Engine::servers);
        let timings: Vec<_> = self.engines.iter().map(Engine::timing).collect();
        let servers = servers.map(Servers::figures);
        Ok(Outcome::new(
            task,
            self.plan.role,
            client,
            servers,
            &timings,
        ))
    }

    /// Frames that the ports themselves say to have dropped or received broken.
    pub fn port_errors(&self) -> anyhow::Result<u64> {
        let mut errors = 0;
        for port in &self.ports {
            let stats = port.stats()?;
            errors += stats.rx_missed + stats.rx_errors + stats.rx_nombuf;
        }
        Ok(errors)
    }
}

fn check(place: &Place, plan: &Plan) -> anyhow::Result<()> {
    let (ports, cores) = (place.ports.len(), place.cores.len());
    ensure!((1..=2).contains(&ports), "give one --port or two");
    ensure!((1..=2).contains(&cores), "give one core or two to --cores");
    if cores == 2 {
        ensure!(
            ports == 2 && plan.role == Role::Both,
            "two cores need two ports, one for clients and one for real servers, and role both"
        );
    }
    let longest = plan.sizes.lengths().max().unwrap_or_default();
    ensure!(
        longest <= place.mtu + 14,
        "frames of {} bytes do not fit an MTU of {}; raise --mtu",
        longest + 4,
        place.mtu
    );
    Ok(())
}

/// The device of a port without its arguments.
fn device(port: &str) -> &str {
    port.split(',').next().unwrap_or_default()
}

/// PCI addresses begin with a number; DPDK's virtual devices do not.
fn is_pci(port: &str) -> bool {
    port.starts_with(|c: char| c.is_ascii_hexdigit()) && device(port).contains(':')
}

fn frames(place: &Place) -> u32 {
    2 * u32::from(place.descriptors) + SPARE_FRAMES
}

fn eal_config(place: &Place) -> EalConfig {
    let (pci, vdevs): (Vec<_>, Vec<_>) = place.ports.iter().cloned().partition(|port| is_pci(port));
    let each = u64::from(frames(place)) * (u64::from(FRAME_LEN) + FRAME_OVERHEAD);
    let frames_mb = (each * place.ports.len() as u64) >> 20;
    let mut extra_args = place.eal_args.clone();
    if vdevs.iter().any(|port| port.contains("zero-copy=yes")) {
        // What memif demands.
        extra_args.push("--single-file-segments".to_owned());
    }
    EalConfig {
        file_prefix: place.file_prefix.clone(),
        main_core: place.control_core,
        worker_cores: place.cores.clone(),
        allow_shared_cores: place.shared_cores,
        hugepages: place.hugepages,
        memory_mb: (OWN_MB + frames_mb) as u32,
        vdevs,
        pci_allow: pci,
        extra_args,
        ..EalConfig::default()
    }
}

fn engines(
    eal: &Eal,
    mut queues: Vec<DpdkPort>,
    plan: &Arc<Plan>,
    shared: &Arc<Shared>,
    cores: usize,
) -> anyhow::Result<Vec<Engine<DpdkPort>>> {
    let rate = clock::rate(eal);
    let (to_clients, from_servers) = rtrb::RingBuffer::new(DIRECT);
    let client = Client::new(Arc::clone(plan), Arc::clone(shared), from_servers, rate)?;
    let servers = (plan.role == Role::Both)
        .then(|| Servers::new(Arc::clone(plan), Arc::clone(shared), to_clients, rate));
    let engine = |queues, client, servers| {
        Engine::new(queues, client, servers, Arc::clone(shared), plan.role, rate)
    };
    if cores == 1 {
        return Ok(vec![engine(queues, Some(client), servers)]);
    }
    let behind = queues.split_off(1);
    Ok(vec![
        engine(queues, Some(client), None),
        engine(behind, None, servers),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pktgen::plan::tests::plan;

    fn place(ports: &[&str], cores: &[usize]) -> Place {
        Place {
            ports: ports.iter().map(|port| (*port).to_owned()).collect(),
            cores: cores.to_vec(),
            control_core: 0,
            shared_cores: true,
            descriptors: 1024,
            mtu: 1500,
            file_prefix: "pktgen".to_owned(),
            hugepages: Hugepages::Off,
            eal_args: Vec::new(),
            start_timeout: Duration::ZERO,
            progress: false,
        }
    }

    #[test]
    fn virtual_devices_and_nics_are_told_apart() {
        let config = eal_config(&place(
            &["net_memif0,socket=/x:y,zero-copy=yes", "0000:01:00.0,arg=1"],
            &[1],
        ));
        assert_eq!(config.vdevs, ["net_memif0,socket=/x:y,zero-copy=yes"]);
        assert_eq!(config.pci_allow, ["0000:01:00.0,arg=1"]);
        assert_eq!(config.extra_args, ["--single-file-segments"]);
    }

    #[test]
    fn ports_and_cores_must_go_together() {
        let refused = |place: Place, why: &str| {
            let error = check(&place, &plan()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        assert!(check(&place(&["a"], &[1]), &plan()).is_ok());
        assert!(check(&place(&["a", "b"], &[0, 1]), &plan()).is_ok());
        refused(place(&[], &[1]), "--port");
        refused(place(&["a"], &[]), "--cores");
        refused(place(&["a"], &[0, 1]), "two ports");
        let mut tight = place(&["a"], &[1]);
        tight.mtu = 40;
        refused(tight, "--mtu");
    }
}
