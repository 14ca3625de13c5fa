//! One line of the table: connections through a fleet, every packet looked at.

use std::collections::BTreeMap;

use anyhow::Context;
use sluice_control::api::Method;
use sluice_dataplane::conn::{Endpoint, Ends};
use sluice_dataplane::io::rss_nic::Model;
use sluice_dataplane::service::Protocol;
use sluice_dataplane::steer::Packet;

use super::cabling::Cabling;
use super::fleet::{Custodian, Fleet, Plan, Sent};
use super::flows::{self, STEPS, Seen, flow_and_step};
use crate::frame;
use crate::scenario::STEADY;
use crate::traffic::shuffle;

/// Packets that come in between two turns, a worker: so many bursts wait when it turns.
const BURSTS: usize = 4;

/// Faults that are kept in words.
const TOLD: usize = 3;

/// What is tried.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// On which NICs.
    pub model: Model,
    /// Cabled how.
    pub cabling: Cabling,
    /// Forwarded how.
    pub method: Method,
    /// By how many workers.
    pub workers: usize,
    /// Connections.
    pub flows: u32,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Connections that the workers have at the end.
    pub connections: u64,
    /// Connections of the worker that has fewest.
    pub least: u64,
    /// Packets put on the wire.
    pub packets: u64,
    /// Packets handed from one worker to another, counted each time.
    pub handed_off: u64,
    /// Packets sent by another worker than the one that received them.
    pub moved: u64,
    /// Packets that a NIC put elsewhere than software said.
    pub mispredicted: u64,
    /// Connections of which more than one worker sent packets.
    pub split: u64,
    /// Local ports that were found in use, so that another had to be tried.
    pub passed_over: u64,
    /// Packets that did not come out.
    pub lost: u64,
    /// Packets that came out otherwise than they must, or twice.
    pub wrong: u64,
    /// The first of whatever is wrong, in words.
    pub faults: Vec<String>,
}

/// What is known of a connection.
#[derive(Clone, Copy, Default)]
struct Known {
    seen: Option<Seen>,
    /// Which worker sent its first packet.
    worker: Option<u16>,
    split: bool,
}

struct Run {
    trial: Trial,
    fleet: Fleet,
    known: Vec<Known>,
    /// Who received what is on its way, by its number.
    under_way: BTreeMap<u32, usize>,
    outcome: Outcome,
}

impl Trial {
    /// Runs it. `Err` only if the fleet cannot be had.
    pub fn run(&self) -> anyhow::Result<Outcome> {
        self.run_in_custody(Box::new(()))
    }

    /// As [`Trial::run`], watched.
    pub fn run_in_custody(&self, custodian: Box<dyn Custodian>) -> anyhow::Result<Outcome> {
        let mut run = self.begin(custodian)?;
        run.all()?;
        Ok(run.outcome)
    }

    /// A fleet with all connections established, and how their real servers see them.
    pub(super) fn established(&self) -> anyhow::Result<(Fleet, Vec<Option<Seen>>)> {
        let mut run = self.begin(Box::new(()))?;
        run.all()?;
        let faults = self.faults(&run.outcome);
        anyhow::ensure!(faults.is_empty(), "{}", faults.join("; "));
        let seen = run.known.iter().map(|known| known.seen).collect();
        Ok((run.fleet, seen))
    }

    fn begin(&self, custodian: Box<dyn Custodian>) -> anyhow::Result<Run> {
        let plan = Plan {
            workers: self.workers,
            model: self.model,
            cabling: self.cabling,
            skewed: false,
            // All may be one worker's.
            max_connections: self.flows as usize + self.flows as usize / 4 + 64,
        };
        let network = self.cabling.network(self.method, &STEADY);
        Ok(Run {
            trial: *self,
            fleet: Fleet::in_custody(&plan, &network, custodian)?,
            known: vec![Known::default(); self.flows as usize],
            under_way: BTreeMap::new(),
            outcome: Outcome::default(),
        })
    }

    /// Whether the appliance sees what real servers answer.
    pub fn both_ways(&self) -> bool {
        matches!(self.method, Method::Nat | Method::FullNat)
    }
}

impl Run {
    fn all(&mut self) -> anyhow::Result<()> {
        let mut order: Vec<u32> = (0..self.trial.flows).collect();
        for (step, what) in STEPS.iter().enumerate() {
            if !what.by_client && !self.trial.both_ways() {
                continue;
            }
            shuffle(&mut order, step as u64 + 1);
            for chunk in order.chunks(BURSTS * 32 * self.trial.workers) {
                for flow in chunk {
                    self.send(*flow, step);
                }
                self.fleet.settle()?;
                self.collect();
            }
        }
        let outcome = &mut self.outcome;
        outcome.connections = self.fleet.sum(|cells| cells.connections.read());
        let each = self.fleet.cells().iter();
        let least = each.map(|cells| cells.connections.read()).min();
        outcome.least = least.unwrap_or_default();
        outcome.handed_off = self.fleet.sum(|cells| cells.books.handed_out.read());
        outcome.passed_over = self.fleet.sum(|cells| cells.ports_passed_over.read());
        outcome.split = self.known.iter().filter(|known| known.split).count() as u64;
        let drops = self.fleet.drops();
        if !drops.is_empty() {
            self.fault(|| format!("dropped: {drops:?}"));
        }
        if let Some(imbalance) = self.fleet.imbalance() {
            self.fault(|| imbalance);
        }
        Ok(())
    }

    /// Puts a packet on the wire; one of a server that never heard of its client is lost before.
    fn send(&mut self, flow: u32, step: usize) {
        let cabling = self.trial.cabling;
        let (port, frame) = if STEPS[step].by_client {
            (cabling.clients(), flows::from_client(cabling, flow, step))
        } else {
            let Some(seen) = self.known[flow as usize].seen else {
                return self.lose(|| format!("connection {flow} has reached no real server"));
            };
            let frame = flows::from_server(cabling, seen, flow, step);
            (cabling.replies(), frame)
        };
        self.outcome.packets += 1;
        let predicted =
            packet(&frame).and_then(|packet| self.fleet.steering().reaches(port, &packet));
        match self.fleet.receive(port, &frame) {
            Some(queue) => {
                if predicted.is_some_and(|worker| usize::from(worker.0) != queue) {
                    self.outcome.mispredicted += 1;
                }
                self.under_way.insert(flows::number(flow, step), queue);
            }
            None => self.lose(|| "the NIC's queue is full".to_owned()),
        }
    }

    /// Looks at everything that came out for what is under way; the rest is lost.
    fn collect(&mut self) {
        while let Some(sent) = self.fleet.sent() {
            if let Err(error) = self.look_at(&sent) {
                self.outcome.wrong += 1;
                self.fault(|| format!("{error:#}"));
            }
        }
        for number in std::mem::take(&mut self.under_way).into_keys() {
            let (flow, step) = flow_and_step(number);
            self.lose(|| format!("packet {step} of connection {flow} never came out"));
        }
    }

    fn look_at(&mut self, sent: &Sent) -> anyhow::Result<()> {
        let Trial {
            cabling, method, ..
        } = self.trial;
        let bytes = sent.bytes();
        let (.., number) = frame::read(bytes).context("something that nobody sent")?;
        let (flow, step) = flow_and_step(number);
        let received = self.under_way.remove(&number);
        let received = received.context("nobody sent it, or it came out twice")?;
        self.outcome.moved += u64::from(received != sent.worker);
        let known = &mut self.known[flow as usize];
        let worker = *known.worker.get_or_insert(sent.worker as u16);
        known.split |= usize::from(worker) != sent.worker;
        let by_client = STEPS[step].by_client;
        let wanted = if by_client {
            cabling.servers()
        } else {
            cabling.clients()
        };
        anyhow::ensure!(sent.port == wanted, "it left by port {}", sent.port.0);
        let what = || format!("packet {step} of connection {flow}");
        if !by_client {
            return flows::at_client(cabling, bytes, flow, step).with_context(what);
        }
        let seen = flows::at_server(method, cabling, bytes, flow, step).with_context(what)?;
        let before = *known.seen.get_or_insert(seen);
        anyhow::ensure!(
            seen == before,
            "{}: {seen:?}, and before {before:?}",
            what()
        );
        Ok(())
    }

    fn lose(&mut self, how: impl FnOnce() -> String) {
        self.outcome.lost += 1;
        self.fault(how);
    }

    fn fault(&mut self, what: impl FnOnce() -> String) {
        if self.outcome.faults.len() < TOLD {
            self.outcome.faults.push(what());
        }
    }
}

/// What a NIC sees of a frame.
fn packet(frame: &[u8]) -> Option<Packet> {
    let (src, dst, _) = frame::read(frame)?;
    let [src, dst] = [src, dst].map(|end| Endpoint::new(*end.ip(), end.port()));
    Some(Packet::flow(Protocol::Tcp, &Ends::new(src, dst)))
}
