//! The worker's loop: commands, receive, pipeline, transmit, timers, statistics.
//!
//! A [`Worker`] owns its queues, its connections and its view of the services; nobody else touches them. The caller
//! pins the thread, reads the TSC and calls [`Worker::poll`] again and again.

mod survey;

use std::collections::VecDeque;
use std::sync::Arc;

use rtrb::{Consumer, Producer};

use crate::command::{Command, Envelope, Event, PortId, ServiceEdit, WorkerId};
use crate::conn::ConnTable;
use crate::egress::{Fib, Hops, Lanes, Neighbours};
use crate::forward::{ErrorBudget, Forwarder};
use crate::io::{Burst, Port};
use crate::pipeline::Pipeline;
use crate::punt::WorkerPunt;
use crate::stats::WorkerCells;
use crate::steer::owner::Owners;
use crate::steer::ring::Peers;
use crate::time::{TickRate, Ticks};
use survey::Survey;

/// Commands applied in one turn, so that a flood of changes does not hold packets up.
const COMMANDS: usize = 64;

/// Sizes and constants of a worker, fixed at start.
#[derive(Clone, Copy, Debug)]
pub struct WorkerConfig {
    /// Which worker this is.
    pub id: WorkerId,
    /// Ticks a second of the times passed to [`Worker::poll`].
    pub rate: TickRate,
    /// Connections that the table can hold.
    pub max_connections: usize,
    /// Packets that may wait for next hops.
    pub max_held: usize,
    /// Seeds the table's hash: keep it secret from those who send packets.
    pub seed: u64,
}

/// A worker's ends of its queues to and from control, and what it publishes.
#[derive(Debug)]
pub struct WorkerChannels {
    /// What control wants done.
    pub commands: Consumer<Envelope>,
    /// What control should know.
    pub events: Producer<Event>,
    /// Counters; sized for as many services and real servers as control will ever name.
    pub cells: Arc<WorkerCells>,
}

/// One interface as a worker has it.
pub struct WorkerPort<P: Port> {
    /// Which.
    pub id: PortId,
    /// Its queues.
    pub port: P,
    /// Its way to the kernel, if it has an exception interface.
    pub punt: Option<WorkerPunt<P::Frame>>,
}

/// One worker.
pub struct Worker<P: Port> {
    config: WorkerConfig,
    pipeline: Pipeline<P>,
    commands: Consumer<Envelope>,
    cells: Arc<WorkerCells>,
    burst: Burst<P::Frame>,
    surveys: VecDeque<Survey>,
    turns: u64,
    was_busy: bool,
    /// It is not alone.
    beside_others: bool,
}

/// Bytes that a worker beside others takes for each connection, beyond what [`crate::conn::bytes_for`] says.
pub const BYTES_BESIDE_OTHERS: usize = 12;

/// A silent port is asked in one of so many turns while other work waits.
const REST: u64 = 8;

impl<P: Port> Worker<P> {
    /// A worker with no services, whose time starts at `now`. `ports` in order of their ids, from 0, the same for all workers; `peers`
    /// are its ends of [`crate::steer::ring::mesh`], in order of the workers' ids, or [`Peers::none`] for one that is alone.
    pub fn new(
        config: WorkerConfig,
        ports: Vec<WorkerPort<P>>,
        channels: WorkerChannels,
        peers: Peers<P::Frame>,
        now: Ticks,
    ) -> Self {
        let WorkerChannels {
            commands,
            events,
            cells,
        } = channels;
        let beside_others = peers.workers() > 1;
        let owners = Owners::new(peers.id(), peers.workers());
        let forwarder = Forwarder {
            lanes: Lanes::new(ports, peers, cells.clone()),
            fib: Arc::new(Fib::default()),
            neighbours: Neighbours::new(config.max_held, config.rate),
            hops: Hops::new(),
            events,
            errors: ErrorBudget::new(config.rate, now),
            cells: cells.clone(),
            pmtu_disc: true,
            next_ip_id: 0,
            next_report: now,
            report_again: config.rate.seconds(1),
            now,
        };
        let table = ConnTable::new(config.max_connections, config.seed);
        Self {
            config,
            pipeline: Pipeline::new(forwarder, table, owners, config.rate, now, cells.clone()),
            commands,
            cells,
            burst: Burst::new(),
            surveys: VecDeque::new(),
            turns: 0,
            was_busy: false,
            beside_others,
        }
    }

    /// Bytes that connections and their timers take, all of it allocated.
    pub fn connection_bytes(&self) -> usize {
        self.pipeline.connection_bytes()
    }

    /// One turn: commands, bursts from other workers, from each port and from the kernel, due timers. Returns whether there was
    /// anything to do. `now` must not be earlier than at the last call.
    pub fn poll(&mut self, now: Ticks) -> bool {
        self.pipeline.set_now(now);
        let mut busy = self.apply_commands();
        if self.beside_others {
            busy |= self.pipeline.take_handed_in(&mut self.burst);
        }
        self.turns += 1;
        let rest = self.was_busy && !self.turns.is_multiple_of(REST);
        for port in self.pipeline.forwarder.lanes.ids() {
            self.pipeline
                .forwarder
                .lanes
                .receive_from_kernel(port, &mut self.burst);
            busy |= !self.burst.is_empty();
            self.pipeline.walk_from_kernel(port, &mut self.burst);
            if rest && self.pipeline.forwarder.lanes.is_silent(port) {
                continue;
            }
            self.pipeline.forwarder.lanes.receive(port, &mut self.burst);
            if !self.burst.is_empty() {
                busy = true;
                self.pipeline.walk(port, &mut self.burst);
                self.pipeline.forwarder.lanes.flush();
            }
        }
        if self.beside_others {
            busy |= self.pipeline.correspond();
        }
        busy |= self.pipeline.expire_due();
        busy |= self.pipeline.keep_up();
        self.pipeline.forwarder.give_up_waiting();
        self.pipeline.forwarder.report_neighbours();
        self.pipeline.forwarder.lanes.flush();
        if self.beside_others {
            self.pipeline.forwarder.lanes.ring();
        }
        busy |= !self.surveys.is_empty() && self.survey();
        self.publish(busy);
        self.was_busy = busy;
        busy
    }

    /// The port with this id, for whoever feeds it by hand.
    pub fn port_mut(&mut self, port: PortId) -> Option<&mut WorkerPort<P>> {
        self.pipeline.forwarder.lanes.port_mut(port)
    }

    /// Which worker this is.
    pub fn id(&self) -> WorkerId {
        self.config.id
    }

    fn publish(&mut self, busy: bool) {
        let cells = &self.cells;
        cells
            .books
            .held
            .set((self.pipeline.forwarder.neighbours.held() + self.pipeline.waiting()) as u64);
        cells.polls.add(1);
        cells.busy_polls.add(u64::from(busy));
        debug_assert!(
            cells.books.balance(),
            "a packet was lost or counted twice: {:?}",
            cells.books
        );
    }

    fn apply_commands(&mut self) -> bool {
        let mut busy = false;
        for _ in 0..COMMANDS {
            let Ok(envelope) = self.commands.pop() else {
                break;
            };
            busy = true;
            self.apply(envelope.command);
            if !envelope.more {
                self.cells.set_applied(envelope.revision);
            }
        }
        busy
    }

    fn apply(&mut self, command: Command) {
        let forwarder = &mut self.pipeline.forwarder;
        let sweep = match command {
            Command::Fib(fib) => {
                forwarder.fib = fib;
                forwarder.forget_hops()
            }
            Command::Neighbour { port, addr, mac } => forwarder.set_neighbour(port, addr, mac),
            Command::PortState { port, mac, mtu } => {
                forwarder.lanes.set_state(port, mac, mtu);
                forwarder.forget_hops()
            }
            Command::PutService { service, edit } => {
                self.pipeline.learn(&service, edit);
                self.pipeline.services.put(service, edit);
                if matches!(edit, ServiceEdit::ServerDeleted(_)) {
                    self.pipeline.servers_deleted();
                }
                false
            }
            Command::DeleteService(id) => {
                self.pipeline.services.delete(id);
                self.pipeline.servers_deleted();
                false
            }
            Command::MarkRules(rules) => {
                self.pipeline.mark_rules = rules;
                false
            }
            Command::Colleagues(colleagues) => {
                self.pipeline.services.meet(self.config.id, colleagues);
                false
            }
            Command::Steering(steering) => {
                self.pipeline.steer(steering);
                false
            }
            Command::Settings(settings) => self.pipeline.set_settings(settings),
            Command::ListConnections(slice) => {
                self.surveys.push_back(Survey::List(slice));
                false
            }
            Command::CountMoved(census) => {
                self.surveys.push_back(Survey::Count(census, 0));
                false
            }
        };
        if sweep {
            // Once in 65,535 changes of routes: the numbers that tell old from new begin anew.
            self.pipeline.table.forget_hops();
        }
    }
}
