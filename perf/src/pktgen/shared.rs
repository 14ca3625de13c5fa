//! What the generator's core and the real servers' core tell each other, and whoever watches them.

use std::sync::atomic::{AtomicBool, Ordering};

use sluice_dataplane::stats::Cell;

use super::flight::Flight;

/// An answer that goes to the client without passing the appliance, as those of DR and TUN do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Direct {
    /// What it answers.
    pub(crate) number: u32,
    pub(crate) seq: u32,
    pub(crate) flags: u8,
    /// How far it takes the real server's sequence numbers.
    pub(crate) advance: u32,
}

/// Answers that may be on that way.
pub(crate) const DIRECT: usize = 4096;

/// One for all.
pub(crate) struct Shared {
    /// Packets on their way.
    pub(crate) flight: Flight,
    /// Counters of the generator.
    pub(crate) client: ClientCells,
    /// Counters of the real servers.
    pub(crate) servers: ServerCells,
    stop: AtomicBool,
    open: AtomicBool,
    over: AtomicBool,
}

/// What the generator has done since the trial began.
#[derive(Debug, Default)]
pub(crate) struct ClientCells {
    pub(crate) sent: Cell,
    pub(crate) answers_due: Cell,
    pub(crate) answered: Cell,
}

/// What real servers have seen since the trial began.
#[derive(Debug, Default)]
pub(crate) struct ServerCells {
    pub(crate) arrived: Cell,
    pub(crate) flood_arrived: Cell,
}

impl Shared {
    /// Nothing was sent yet.
    pub(crate) fn new() -> Self {
        Self {
            flight: Flight::new(),
            client: ClientCells::default(),
            servers: ServerCells::default(),
            stop: AtomicBool::new(false),
            open: AtomicBool::new(false),
            over: AtomicBool::new(false),
        }
    }

    /// A new trial begins. While no core is at work.
    pub(crate) fn begin(&self) {
        for cell in [
            &self.client.sent,
            &self.client.answers_due,
            &self.client.answered,
            &self.servers.arrived,
            &self.servers.flood_arrived,
        ] {
            cell.set(0);
        }
        self.open.store(false, Ordering::Release);
        self.over.store(false, Ordering::Release);
    }

    /// Real servers receive.
    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::Release);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    /// From now on nothing is sent, in this trial and all others.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The generator has seen all that it will.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    pub(crate) fn ended(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}
