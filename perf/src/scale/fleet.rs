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
pub(super) const QUEUE: usize = 4096;

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
pub trait Custodian {
    /// What is allocated and written from now on is this party's doing.
    fn enter(&mut self, _party: Party) {}

    /// All is made and configured: from now on there are only packets, and time.
    fn made(&mut self) {}

    /// All is about to be given back.
    fn over(&mut self) {}
}

/// Nobody watches.
impl Custodian for () {}

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
    team: Team,
    cells: Vec<Arc<WorkerCells>>,
    nics: Vec<RssNic>,
    steering: Arc<Steering>,
    controller: Controller,
}

/// All that turns.
struct Team {
    workers: Vec<Box<Worker<NicQueue>>>,
    custodian: Box<dyn Custodian>,
    now: Ticks,
}

/// Our MAC on a port.
pub fn mac(port: PortId) -> Mac {
    Mac([2, b'n', b'i', b'c', 0, port.0 as u8])
}

impl Fleet {
    /// Workers that are configured by the rest of a boot file, `network`, and have no connections.
    pub fn new(plan: &Plan, network: &str) -> anyhow::Result<Self> {
        Self::in_custody(plan, network, Box::new(()))
    }

    /// As [`Fleet::new`]; `custodian` is told who makes what, and whose turn it is later.
    pub fn in_custody(
        plan: &Plan,
        network: &str,
        mut custodian: Box<dyn Custodian>,
    ) -> anyhow::Result<Self> {
        ensure!(plan.workers > 0, "no workers");
        let text = boot_file(plan) + network;
        let machine = Machine { cores: vec![0, 1] };
        let boot = Boot::parse(Path::new("boot.toml"), &text, &machine)?;
        let limits = Limits::from(boot.limits);
        let rate = TickRate::NANOSECONDS;
        let now = Ticks(1_000_000_000);

        custodian.enter(Party::Exchange);
        let (mut nics, queues): (Vec<_>, Vec<_>) = (0..plan.cabling.ports())
            .map(|_| RssNic::new(plan.model, plan.workers, QUEUE))
            .unzip();
        let steering = Arc::new(steering::program(&mut nics, plan)?);
        let mut queues: Vec<_> = queues.into_iter().map(Vec::into_iter).collect();
        let peers = ring::mesh(u16::try_from(plan.workers)?, ring::CAPACITY);
        let (mut workers, mut links, mut cells) = (Vec::new(), Vec::new(), Vec::new());
        for (peers, id) in peers.into_iter().zip(0..) {
            custodian.enter(Party::Worker(id));
            let own = Arc::new(limits.cells());
            custodian.enter(Party::Exchange);
            let (link, channels) = publish::link(Arc::clone(&own));
            custodian.enter(Party::Worker(id));
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
            let worker = Box::new(Worker::new(config, ports, channels, peers, now));
            custodian.enter(Party::Bench);
            workers.push(worker);
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
            team: Team {
                workers,
                custodian,
                now,
            },
            cells,
            nics,
            steering,
            controller,
        };
        fleet.apply()?;
        fleet.team.custodian.made();
        Ok(fleet)
    }

    /// Lets the workers take every change made so far.
    fn apply(&mut self) -> anyhow::Result<()> {
        let revision = self.controller.revision();
        let Self {
            team, controller, ..
        } = self;
        let mut drive = || {
            team.turn();
        };
        let applied = controller.settle(revision, &mut drive);
        applied.context("the workers do not take their configuration")
    }

    /// Performs a JSON-RPC request to its end.
    pub fn call(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        let Self {
            team, controller, ..
        } = self;
        let mut drive = || {
            team.turn();
        };
        let answer = controller.call(method, params, &mut drive);
        answer.with_context(|| method.to_owned())
    }

    /// A frame comes in by a port. Returns the worker that it goes to; `None` if that one's queue is full.
    pub fn receive(&mut self, port: PortId, frame: &[u8]) -> Option<usize> {
        self.team.custodian.enter(Party::Exchange);
        let queue = self.nics[usize::from(port.0)].receive(frame);
        self.team.custodian.enter(Party::Bench);
        queue
    }

    /// Turns until nobody has anything to do.
    pub fn settle(&mut self) -> anyhow::Result<()> {
        for _ in 0..MAX_TURNS {
            if !self.team.turn() {
                return Ok(());
            }
        }
        anyhow::bail!("the workers do not come to rest");
    }

    /// Lets so many nanoseconds pass, all at once.
    pub fn pass(&mut self, ns: u64) {
        self.team.now = Ticks(self.team.now.0 + ns);
    }

    /// Lets time pass, in steps that workers turn in.
    pub fn sleep(&mut self, time: Duration) -> anyhow::Result<()> {
        const STEP: Duration = Duration::from_millis(100);
        for _ in 0..time.as_millis().div_ceil(STEP.as_millis()) {
            self.team.now = self.team.now + TickRate::NANOSECONDS.millis(100);
            self.settle()?;
            self.controller.tick(Duration::from_nanos(self.team.now.0));
        }
        Ok(())
    }

    /// The next frame that came out.
    pub fn sent(&mut self) -> Option<Sent> {
        self.team.custodian.enter(Party::Exchange);
        let mut nics = self.nics.iter_mut().zip(0..);
        let sent = nics.find_map(|(nic, port)| {
            let (worker, frame) = nic.sent()?;
            Some(Sent {
                port: PortId(port),
                worker,
                frame,
            })
        });
        self.team.custodian.enter(Party::Bench);
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

impl Drop for Fleet {
    fn drop(&mut self) {
        self.team.custodian.over();
    }
}

impl Team {
    /// Every worker has a turn. Returns whether any had something to do. Not inlined: its instructions are counted.
    #[inline(never)]
    pub(super) fn turn(&mut self) -> bool {
        let mut busy = false;
        self.now = Ticks(self.now.0 + TURN_NS);
        for (worker, id) in self.workers.iter_mut().zip(0..) {
            self.custodian.enter(Party::Worker(id));
            busy |= worker.poll(self.now);
        }
        self.custodian.enter(Party::Bench);
        busy
    }
}

fn boot_file(plan: &Plan) -> String {
    let ports = plan.cabling.names().iter().enumerate().map(|(at, name)| {
        format!("[[port]]\nname = \"{name}\"\ndevice = \"net_null{at}\"\nmtu = 200\n\n")
    });
    let workers = format!(
        "[workers]\ncores = [1]\ncontrol_core = 0\nmax_connections = {}\n\n",
        plan.max_connections
    );
    let limits = "[limits]\nmax_services = 64\nmax_real_servers = 1024\n";
    ports.collect::<String>() + &workers + limits
}
