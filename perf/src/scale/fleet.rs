//! Many workers behind one control plane and in one thread, on NICs in process, with a time of their own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use sluice_control::boot::{Boot, Machine};
use sluice_control::config::Limits;
use sluice_control::controller::{Controller, Setup, WorkerInfo};
use sluice_control::publish;
use sluice_dataplane::command::{PortId, WorkerId};
use sluice_dataplane::drop_reason::DropReason;
use sluice_dataplane::egress::Mac;
use sluice_dataplane::io::Frame;
use sluice_dataplane::io::memory::MemoryFrame;
use sluice_dataplane::io::rss_nic::{Model, NicQueue, RssNic};
use sluice_dataplane::stats::WorkerCells;
use sluice_dataplane::steer::{Steering, ring};
use sluice_dataplane::time::{TickRate, Ticks};
use sluice_dataplane::worker::{Worker, WorkerConfig, WorkerPort};

use super::cabling::Cabling;
use super::steering;

/// Frames that a NIC's queue holds: all that come in between two turns may be for one.
const QUEUE: usize = 4096;

/// From turn to turn, in nanoseconds.
const TURN_NS: u64 = 1000;

/// Turns after which workers that still find something to do never end.
const MAX_TURNS: usize = 1 << 20;

/// What a fleet is made of.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Workers.
    pub workers: usize,
    /// NICs of this kind.
    pub model: Model,
    /// Where clients and real servers are.
    pub cabling: Cabling,
    /// Whether the first worker gets half of the redirection tables beside its share.
    pub skewed: bool,
    /// Connections that each worker's table holds.
    pub max_connections: usize,
}

/// Whose memory may be written to from now on: what a [`Custodian`] is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// Control's, and the bench's own.
    Bench,
    /// What passes between parties: rings, and the frames in them.
    Exchange,
    /// That of one worker.
    Worker(u16),
}

/// Is told whose turn it is, always before it is.
pub type Custodian = Box<dyn FnMut(Party)>;

/// A frame that came out.
#[derive(Debug)]
pub struct Sent {
    /// By which port.
    pub port: PortId,
    /// Which worker sent it.
    pub worker: usize,
    frame: MemoryFrame,
}

impl Sent {
    /// The frame's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.frame.bytes()
    }
}

/// Many workers.
pub struct Fleet {
    workers: Vec<Worker<NicQueue>>,
    cells: Vec<Arc<WorkerCells>>,
    nics: Vec<RssNic>,
    steering: Arc<Steering>,
    controller: Controller,
    custodian: Custodian,
    now: Ticks,
}

/// Our MAC on a port.
pub fn mac(port: PortId) -> Mac {
    Mac([2, b'n', b'i', b'c', 0, port.0 as u8])
}

impl Fleet {
    /// Workers that are configured by the rest of a boot file, `network`, and have no connections.
    pub fn new(plan: &Plan, network: &str) -> anyhow::Result<Self> {
        Self::in_custody(plan, network, Box::new(|_| ()))
    }

    /// As [`Fleet::new`]; `custodian` is told who makes what, and whose turn it is later.
    pub fn in_custody(
        plan: &Plan,
        network: &str,
        mut custodian: Custodian,
    ) -> anyhow::Result<Self> {
        ensure!(plan.workers > 0, "no workers");
        let text = boot_file(plan) + network;
        let machine = Machine { cores: vec![0, 1] };
        let boot = Boot::parse(Path::new("boot.toml"), &text, &machine)?;
        let limits = Limits::from(boot.limits);
        let rate = TickRate::NANOSECONDS;
        let now = Ticks(1_000_000_000);

        custodian(Party::Exchange);
        let (mut nics, queues): (Vec<_>, Vec<_>) = (0..plan.cabling.ports())
            .map(|_| RssNic::new(plan.model, plan.workers, QUEUE))
            .unzip();
        let steering = Arc::new(steering::program(&mut nics, plan)?);
        let mut queues: Vec<_> = queues.into_iter().map(Vec::into_iter).collect();
        let peers = ring::mesh(u16::try_from(plan.workers)?, ring::CAPACITY);
        let (mut workers, mut links, mut cells) = (Vec::new(), Vec::new(), Vec::new());
        for (peers, id) in peers.into_iter().zip(0..) {
            custodian(Party::Worker(id));
            let own = Arc::new(limits.cells());
            custodian(Party::Exchange);
            let (link, channels) = publish::link(Arc::clone(&own));
            custodian(Party::Worker(id));
            let ports = queues.iter_mut().zip(0..).filter_map(|(queues, port)| {
                Some(WorkerPort {
                    id: PortId(port),
                    port: queues.next()?,
                    punt: None,
                })
            });
            let config = WorkerConfig {
                id: WorkerId(id),
                rate,
                max_connections: plan.max_connections,
                max_held: boot.workers.max_held,
                seed: 7,
            };
            let ports = ports.collect();
            workers.push(Worker::new(config, ports, channels, peers, now));
            custodian(Party::Bench);
            let info = WorkerInfo {
                core: usize::from(id),
                max_connections: plan.max_connections,
            };
            links.push((info, link));
            cells.push(own);
        }
        let mut controller = Controller::new(Setup {
            limits,
            workers: links,
            ports: Box::new(Vec::new),
            dpdk: "none".to_owned(),
            statics: boot.statics().map_err(anyhow::Error::msg)?,
        });
        for (port, settings) in (0..).zip(&boot.ports) {
            controller.port_state(PortId(port), mac(PortId(port)), settings.mtu);
        }
        controller.steer(Arc::clone(&steering));
        boot.begin(&mut controller).map_err(anyhow::Error::msg)?;
        let mut fleet = Self {
            workers,
            cells,
            nics,
            steering,
            controller,
            custodian,
            now,
        };
        fleet.apply()?;
        Ok(fleet)
    }

    /// Lets the workers take every change made so far.
    fn apply(&mut self) -> anyhow::Result<()> {
        let revision = self.controller.revision();
        let Self {
            workers,
            controller,
            now,
            ..
        } = self;
        let applied = controller.settle(revision, &mut || turn(workers, now));
        applied.context("the workers do not take their configuration")
    }

    /// Performs a JSON-RPC request to its end.
    pub fn call(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        let Self {
            workers,
            controller,
            now,
            ..
        } = self;
        let answer = controller.call(method, params, &mut || turn(workers, now));
        answer.with_context(|| method.to_owned())
    }

    /// A frame comes in by a port. Returns the worker that it goes to; `None` if that one's queue is full.
    pub fn receive(&mut self, port: PortId, frame: &[u8]) -> Option<usize> {
        (self.custodian)(Party::Exchange);
        let queue = self.nics[usize::from(port.0)].receive(frame);
        (self.custodian)(Party::Bench);
        queue
    }

    /// Every worker has a turn. Returns whether any had something to do. Not inlined: its instructions are counted.
    #[inline(never)]
    pub fn turn(&mut self) -> bool {
        let mut busy = false;
        self.now = Ticks(self.now.0 + TURN_NS);
        for (worker, id) in self.workers.iter_mut().zip(0..) {
            (self.custodian)(Party::Worker(id));
            busy |= worker.poll(self.now);
        }
        (self.custodian)(Party::Bench);
        busy
    }

    /// Turns until nobody has anything to do.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        for _ in 0..MAX_TURNS {
            if !self.turn() {
                return Ok(());
            }
        }
        anyhow::bail!("the workers do not come to rest");
    }

    /// Lets so many nanoseconds pass, all at once.
    pub fn pass(&mut self, ns: u64) {
        self.now = Ticks(self.now.0 + ns);
    }

    /// Lets time pass, in steps that workers turn in.
    pub fn sleep(&mut self, time: Duration) -> anyhow::Result<()> {
        const STEP: Duration = Duration::from_millis(100);
        for _ in 0..time.as_millis().div_ceil(STEP.as_millis()) {
            self.now = self.now + TickRate::NANOSECONDS.millis(100);
            self.settle()?;
            self.controller.tick(Duration::from_nanos(self.now.0));
        }
        Ok(())
    }

    /// The next frame that came out.
    pub fn sent(&mut self) -> Option<Sent> {
        (self.custodian)(Party::Exchange);
        let mut nics = self.nics.iter_mut().zip(0..);
        let sent = nics.find_map(|(nic, port)| {
            let (worker, frame) = nic.sent()?;
            Some(Sent {
                port: PortId(port),
                worker,
                frame,
            })
        });
        (self.custodian)(Party::Bench);
        sent
    }

    /// How packets come to the workers, and who owns them.
    pub fn steering(&self) -> &Steering {
        &self.steering
    }

    /// What the workers publish, by their ids.
    pub fn cells(&self) -> &[Arc<WorkerCells>] {
        &self.cells
    }

    /// The sum of something over all workers.
    pub fn sum(&self, what: impl Fn(&WorkerCells) -> u64) -> u64 {
        self.cells.iter().map(|cells| what(cells)).sum()
    }

    /// What is wrong with the books, between turns; nothing if all is right.
    pub fn imbalance(&self) -> Option<String> {
        let unbalanced = |(id, cells): (usize, &Arc<WorkerCells>)| {
            let books = &cells.books;
            (!books.balance())
                .then(|| format!("the books of worker {id} do not balance: {books:?}"))
        };
        if let Some(wrong) = self.cells.iter().enumerate().find_map(unbalanced) {
            return Some(wrong);
        }
        let out = self.sum(|cells| cells.books.handed_out.read());
        let taken = self.sum(|cells| cells.books.handed_in.read());
        // Between turns that found nothing to do the rings are empty.
        (out != taken).then(|| format!("{out} packets were handed out and {taken} taken"))
    }

    /// Packets dropped, by reason, of those that were.
    pub fn drops(&self) -> Vec<(DropReason, u64)> {
        let each = DropReason::ALL.iter().map(|reason| {
            let count = self.sum(|cells| cells.books.drops[*reason as usize].read());
            (*reason, count)
        });
        each.filter(|(_, count)| *count > 0).collect()
    }
}

fn turn(workers: &mut [Worker<NicQueue>], now: &mut Ticks) {
    *now = Ticks(now.0 + TURN_NS);
    for worker in workers {
        worker.poll(*now);
    }
}

fn boot_file(plan: &Plan) -> String {
    let ports = plan.cabling.names().iter().enumerate().map(|(at, name)| {
        format!("[[port]]\nname = \"{name}\"\ndevice = \"net_null{at}\"\nmtu = 200\n\n")
    });
    let workers = format!(
        "[workers]\ncores = [1]\ncontrol_core = 0\nmax_connections = {}\n",
        plan.max_connections
    );
    ports.collect::<String>() + &workers
}
