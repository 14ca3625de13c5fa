//! DPDK, the ports, the workers and the punt thread: all that moves packets, made from the boot file.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use sluice_dataplane::command::{PortId, WorkerId};
use sluice_dataplane::dpdk::{
    DpdkPort, Eal, EalError, EthPort, HeldComplaints, Mbuf, Mempool, MempoolError, PortError,
    RunningWorker, clock,
};
use sluice_dataplane::egress::Mac;
use sluice_dataplane::punt::tap::{Tap, TapError};
use sluice_dataplane::punt::thread::{PuntError, PuntOptions, PuntPort, PuntThread};
use sluice_dataplane::punt::{self, WorkerPunt};
use sluice_dataplane::stats::{Cell, ServiceCells, WorkerCells};
use sluice_dataplane::steer::Steering;
use sluice_dataplane::steer::ring::{self, Peers, mesh};
use sluice_dataplane::worker::{Worker, WorkerChannels, WorkerConfig, WorkerPort};
use tracing::{info, warn};

use super::ending::Ending;
use super::ports::{open_ports, port_reporter};
use super::sizes::{PUNT_RING, eal_config, punt_pool, worker_pool};
use super::turn::turn;
use crate::boot::{Boot, Polling};
use crate::config::Limits;
use crate::controller::{Controller, Setup, WorkerInfo};
use crate::publish;

/// The appliance could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplianceError {
    #[error(transparent)]
    Eal(#[from] EalError),
    #[error(transparent)]
    Pool(#[from] MempoolError),
    #[error(transparent)]
    Port(#[from] PortError),
    #[error(transparent)]
    Tap(#[from] TapError),
    #[error(transparent)]
    Punt(#[from] PuntError),
    #[error("the boot file's static entries: {0}")]
    Statics(String),
}

/// All that moves packets. Fields in the order in which they must go.
pub(super) struct Appliance {
    running: Vec<RunningWorker>,
    stop: Arc<AtomicBool>,
    ready: Vec<ReadyWorker>,
    punt: Option<Arc<PuntThread>>,
    ports: Arc<Vec<EthPort>>,
    exceptions: Vec<(PortId, String)>,
    polling: Polling,
    eal: Eal,
}

/// A worker's parts, to be put together on its own lcore, where its memory will be near.
struct ReadyWorker {
    config: WorkerConfig,
    ports: Vec<WorkerPort<DpdkPort>>,
    channels: WorkerChannels,
    peers: Peers<Mbuf>,
}

/// What must hear of changes on the kernel's side beside the controller.
pub(super) struct KernelSide {
    punt: Option<Arc<PuntThread>>,
    ports: Arc<Vec<EthPort>>,
}

impl Appliance {
    /// Brings DPDK, the ports and the way to the kernel up; workers wait for [`Appliance::launch_workers`].
    pub(super) fn start(boot: &Boot) -> Result<(Self, Setup), ApplianceError> {
        let statics = boot.statics().map_err(ApplianceError::Statics)?;
        let _complaints = HeldComplaints::hold();
        let eal = Eal::start(&eal_config(boot))?;
        info!(memory = ?eal.backing(), "{} runs", eal.version());
        let mut pools = Vec::new();
        for worker in 0..eal.workers() {
            let mut pool = worker_pool(boot, worker);
            pool.socket = eal.worker_socket(worker)?;
            pools.push(Mempool::new(&eal, &pool)?);
        }
        let ports = open_ports(boot, &eal, &pools)?;
        let (punt, punts) = open_punt(boot, &eal, &ports)?;
        let ports = Arc::new(ports);
        let (links, ready) = workers(boot, &eal, &ports, punts)?;
        let setup = Setup {
            limits: boot.limits.into(),
            workers: links,
            ports: port_reporter(boot, Arc::clone(&ports), punt.as_ref()),
            // `DPDK 22.11.11`, but who asks for the release of DPDK knows whose it is.
            dpdk: eal.version().trim_start_matches("DPDK ").to_owned(),
            statics,
        };
        let exceptions = boot.exceptions();
        let appliance = Self {
            running: Vec::new(),
            stop: Arc::new(AtomicBool::new(false)),
            ready,
            punt: punt.map(Arc::new),
            exceptions: exceptions
                .map(|(id, name)| (PortId(id as u16), name.to_owned()))
                .collect(),
            ports,
            polling: boot.workers.polling,
            eal,
        };
        Ok((appliance, setup))
    }

    /// Tells the controller how packets come to the workers, and of the ports' MACs and MTUs.
    pub(super) fn introduce_ports(&self, controller: &mut Controller) {
        let spread = self.ports.iter().map(|port| port.rss().spread.clone());
        let steering = Steering::new(self.eal.workers() as u16, spread.collect());
        controller.steer(Arc::new(steering));
        let ports = Arc::clone(&self.ports);
        controller.rss_programmer(move |port, table| match ports.get(usize::from(port.0)) {
            Some(port) => port.set_table(table).map_err(|error| error.to_string()),
            None => Ok(()),
        });
        for (id, port) in (0..).zip(self.ports.iter()) {
            match port.mtu() {
                Ok(mtu) => controller.port_state(PortId(id), port.mac(), mtu),
                Err(error) => warn!("{error}"),
            }
        }
    }

    /// Sets the workers to work.
    pub(super) fn launch_workers(&mut self) -> Result<(), ApplianceError> {
        for (number, ready) in self.ready.drain(..).enumerate() {
            let (stop, polling) = (Arc::clone(&self.stop), self.polling);
            let running = self.eal.launch(number, move || {
                let ReadyWorker {
                    config,
                    ports,
                    channels,
                    peers,
                } = ready;
                let cells = Arc::clone(&channels.cells);
                let worker = Worker::new(config, ports, channels, peers, clock::now());
                info!(
                    worker = number,
                    max_connections = config.max_connections,
                    table_mb = worker.connection_bytes() >> 20,
                    "worker runs"
                );
                turn(worker, polling, &stop, clock::now);
                say_books(number, &cells);
            })?;
            self.running.push(running);
        }
        Ok(())
    }

    /// The ports that have exception interfaces.
    pub(super) fn exceptions(&self) -> impl Iterator<Item = (PortId, &str)> {
        self.exceptions
            .iter()
            .map(|(id, name)| (*id, name.as_str()))
    }

    /// For who follows the kernel.
    pub(super) fn kernel_side(&self) -> KernelSide {
        KernelSide {
            punt: self.punt.clone(),
            ports: Arc::clone(&self.ports),
        }
    }

    /// Stops the workers, then the punt thread, then the ports, then DPDK.
    pub(super) fn stop(self, ending: &Ending) {
        ending.step("the workers");
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.running {
            worker.wait();
        }
        drop(self.ready);
        ending.step("the punt thread");
        drop(self.punt);
        ending.step("the ports");
        drop(self.ports);
        ending.step("DPDK's main thread");
        drop(self.eal);
    }
}

impl KernelSide {
    /// The machine's addresses are these now.
    pub(super) fn local_addresses(&self, addresses: BTreeSet<IpAddr>) {
        if let Some(punt) = &self.punt {
            punt.local_addresses(addresses);
        }
    }

    /// An exception interface has this MAC and MTU now.
    pub(super) fn port_state(&self, id: PortId, mac: Mac, mtu: u16) {
        if let Some(punt) = &self.punt {
            punt.mtu(id, mtu);
        }
        if let Some(port) = self.ports.get(usize::from(id.0))
            && port.mac() != mac
            && let Err(error) = port.add_mac(mac)
        {
            warn!(%mac, "the NIC does not take its exception interface's MAC: {error}");
        }
    }
}

/// A worker's last word: what came in and where it went, now that nothing changes any more.
fn say_books(worker: usize, cells: &WorkerCells) {
    let books = &cells.books;
    let served =
        |cells: &ServiceCells| cells.traffic[0].packets.read() + cells.traffic[1].packets.read();
    info!(
        worker,
        rx = books.rx.read(),
        tx = books.tx.read(),
        punted = books.punted.read(),
        dropped = books.drops.iter().map(Cell::read).sum::<u64>(),
        served = cells
            .services
            .iter()
            .map(|cells| served(cells))
            .sum::<u64>(),
        balance = books.balance(),
        "worker has stopped"
    );
}

/// The punt thread, if any port has an exception interface, and each worker's ends by port.
type Punts = Vec<BTreeMap<u16, WorkerPunt<Mbuf>>>;

fn open_punt(
    boot: &Boot,
    eal: &Eal,
    ports: &[EthPort],
) -> Result<(Option<PuntThread>, Punts), ApplianceError> {
    let mut punts: Punts = (0..eal.workers()).map(|_| BTreeMap::new()).collect();
    let mut taps = Vec::new();
    for (index, interface) in boot.exceptions() {
        let port = &ports[index];
        let tap = Tap::open(interface, port.mac(), port.mtu()?)?;
        let id = index as u16;
        let mut rings = Vec::new();
        for worker in &mut punts {
            let (worker_end, kernel_end) = punt::rings(PUNT_RING);
            worker.insert(id, worker_end);
            rings.push(kernel_end);
        }
        taps.push(PuntPort {
            id: PortId(id),
            tap,
            rings,
        });
    }
    if taps.is_empty() {
        return Ok((None, punts));
    }
    let pool = Mempool::new(eal, &punt_pool(boot))?;
    let options = PuntOptions {
        core: Some(boot.control_core()),
        ..PuntOptions::default()
    };
    Ok((Some(PuntThread::start(taps, pool, options)?), punts))
}

type Links = Vec<(WorkerInfo, publish::WorkerLink)>;

fn workers(
    boot: &Boot,
    eal: &Eal,
    ports: &[EthPort],
    punts: Punts,
) -> Result<(Links, Vec<ReadyWorker>), ApplianceError> {
    let limits = Limits::from(boot.limits);
    let max_connections = boot.workers.max_connections;
    let (mut links, mut ready) = (Vec::new(), Vec::new());
    let peers = mesh(eal.workers() as u16, ring::CAPACITY);
    let each = boot.workers.cores.iter().zip(punts).zip(peers);
    for (number, ((core, mut punts), peers)) in (0..).zip(each) {
        let cells = near(eal, number.into(), move || Arc::new(limits.cells()))?;
        let (link, channels) = publish::link(cells);
        let info = WorkerInfo {
            core: *core,
            max_connections,
        };
        links.push((info, link));
        let mut queues = Vec::new();
        for (id, port) in (0..).zip(ports) {
            queues.push(WorkerPort {
                id: PortId(id),
                port: port.queue(number)?,
                punt: punts.remove(&id),
            });
        }
        ready.push(ReadyWorker {
            config: WorkerConfig {
                id: WorkerId(number),
                rate: clock::rate(eal),
                max_connections,
                max_held: boot.workers.max_held,
                seed: boot.workers.seed.unwrap_or_else(random),
            },
            ports: queues,
            channels,
            peers,
        });
    }
    Ok((links, ready))
}

/// Makes something on a worker's lcore, which writes it first: its memory is of that core's NUMA node.
fn near<T: Send + Sync + 'static>(
    eal: &Eal,
    worker: usize,
    make: impl FnOnce() -> T + Send + 'static,
) -> Result<T, EalError> {
    let made = Arc::new(OnceLock::new());
    let place = Arc::clone(&made);
    let running = eal.launch(worker, move || {
        let _ = place.set(make());
    })?;
    running.wait();
    match Arc::into_inner(made).and_then(OnceLock::into_inner) {
        Some(made) => Ok(made),
        None => unreachable!("the lcore has made it, and holds it no more"),
    }
}

/// The standard library's hash keys come from the system's random numbers.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
