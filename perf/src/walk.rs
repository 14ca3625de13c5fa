//! A worker in memory, set up by the same control plane from the same boot file as the appliance.

use std::path::Path;
use std::sync::Arc;

use anyhow::ensure;
use sluice_control::boot::{Boot, Machine};
use sluice_control::config::Limits;
use sluice_control::controller::{Controller, Setup, WorkerInfo};
use sluice_control::publish;
use sluice_dataplane::command::PortId;
use sluice_dataplane::io::Port;
use sluice_dataplane::stats::WorkerCells;
use sluice_dataplane::steer::{Steering, ring};
use sluice_dataplane::time::{TickRate, Ticks};
use sluice_dataplane::worker::{Worker, WorkerConfig, WorkerPort};

use crate::bench_port::BenchPort;
use crate::frame::Wire;
use crate::scenario::{Balanced, OPENING_MAC, Place, STEADY, Scenario, WIRE_MAC, boot_file};

/// The port that forwards.
pub const WIRE: PortId = PortId(0);

/// The port that opening frames come in by.
const OPENING: PortId = PortId(1);

/// What time it is for a worker that was just made.
pub const START: Ticks = Ticks(1_000_000_000);

/// A worker under load.
pub struct Walk {
    worker: Worker<BenchPort>,
    /// What it publishes.
    pub cells: Arc<WorkerCells>,
    now: Ticks,
}

/// A worker for `scenario` and `service`, configured and without connections, on ports that `port` makes; what it publishes,
/// and what time it is.
pub fn assemble<P: Port>(
    scenario: &Scenario,
    service: &Balanced,
    port: impl FnMut() -> P,
) -> anyhow::Result<(Worker<P>, Arc<WorkerCells>, Ticks)> {
    let mut members = assemble_team(scenario, service, &Arc::new(Steering::single()), port)?;
    match members.pop() {
        Some((worker, cells)) => Ok((worker, cells, START)),
        None => unreachable!("a steering has at least one worker"),
    }
}

/// As many workers as `steering` is for, with what each publishes. Their time is [`START`].
pub fn assemble_team<P: Port>(
    scenario: &Scenario,
    service: &Balanced,
    steering: &Arc<Steering>,
    mut port: impl FnMut() -> P,
) -> anyhow::Result<Vec<(Worker<P>, Arc<WorkerCells>)>> {
    let text = boot_file(scenario, service, &Place::nowhere());
    let machine = Machine { cores: vec![0, 1] };
    let boot = Boot::parse(Path::new("boot.toml"), &text, &machine)?;
    let limits = Limits::from(boot.limits);
    let max_connections = boot.workers.max_connections;
    let (mut members, mut links) = (Vec::new(), Vec::new());
    for peers in ring::mesh(steering.workers(), ring::CAPACITY) {
        let cells = Arc::new(limits.cells());
        let (link, channels) = publish::link(Arc::clone(&cells));
        let info = WorkerInfo {
            core: 1,
            max_connections,
        };
        links.push((info, link));
        let config = WorkerConfig {
            id: peers.id(),
            rate: TickRate::NANOSECONDS,
            max_connections,
            max_held: boot.workers.max_held,
            seed: boot.workers.seed.unwrap_or_default(),
        };
        let ports = [WIRE, OPENING].map(|id| WorkerPort {
            id,
            port: port(),
            punt: None,
        });
        let worker = Worker::new(config, ports.into(), channels, peers, START);
        members.push((worker, cells));
    }
    let mut controller = Controller::new(Setup {
        limits,
        workers: links,
        ports: Box::new(Vec::new),
        dpdk: "none".to_owned(),
        statics: boot.statics().map_err(anyhow::Error::msg)?,
    });
    for (port, mac) in [(WIRE, WIRE_MAC), (OPENING, OPENING_MAC)] {
        controller.port_state(port, mac, boot.ports[usize::from(port.0)].mtu);
    }
    controller.steer(Arc::clone(steering));
    boot.begin(&mut controller).map_err(anyhow::Error::msg)?;
    let revision = controller.revision();
    let mut drive = || {
        for (worker, _) in &mut members {
            worker.poll(START);
        }
    };
    let settled = controller.settle(revision, &mut drive);
    settled
        .map_err(|error| anyhow::anyhow!("the workers do not take their configuration: {error}"))?;
    Ok(members)
}

impl Walk {
    /// A worker for `scenario`, without connections.
    pub fn new(scenario: &Scenario) -> anyhow::Result<Self> {
        let port = || BenchPort::new(Arc::new([]));
        let (worker, cells, now) = assemble(scenario, &STEADY, port)?;
        Ok(Self { worker, cells, now })
    }

    /// Bytes that its connections and their timers take.
    pub fn connection_bytes(&self) -> usize {
        self.worker.connection_bytes()
    }

    /// From now on these frames are replayed, from the first.
    pub fn load(&mut self, frames: &Arc<[Wire]>) {
        self.port().load(Arc::clone(frames));
    }

    /// Replays frames from the first one, once.
    pub fn replay(&mut self, frames: &Arc<[Wire]>) {
        self.load(frames);
        self.turn(frames.len());
    }

    /// Goes on replaying for so many packets. Not inlined: its instructions are counted.
    #[inline(never)]
    pub fn go_on(&mut self, packets: usize) {
        self.turn(packets);
    }

    /// One turn of the worker with one packet.
    pub fn one(&mut self) {
        self.port().left = 1;
        self.now = Ticks(self.now.0 + 1000);
        self.worker.poll(self.now);
    }

    fn turn(&mut self, packets: usize) {
        self.port().left = packets;
        while self.worker.poll(self.now) {
            self.now = Ticks(self.now.0 + 1000);
        }
    }

    /// What comes out for these frames, which must be one for each.
    pub fn forward(&mut self, frames: &Arc<[Wire]>) -> anyhow::Result<Vec<Vec<u8>>> {
        self.port().kept = Some(Vec::with_capacity(frames.len()));
        self.replay(frames);
        let kept = self.port().kept.take().unwrap_or_default();
        ensure!(
            kept.len() == frames.len(),
            "the walk in memory sent {} frames for {}: {:?}",
            kept.len(),
            frames.len(),
            self.cells.books
        );
        Ok(kept)
    }

    fn port(&mut self) -> &mut BenchPort {
        match self.worker.port_mut(WIRE) {
            Some(port) => &mut port.port,
            None => unreachable!("the walk was made with two ports"),
        }
    }
}
