//! What the machine's network is like: addresses, routes, neighbours, ports. From the kernel mirror, and from the boot
//! file for rigs without a kernel side; where both speak, the boot file holds.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::Ipv4Net;
use sluice_dataplane::command::{Command, Event, PortId, WorkerId};
use sluice_dataplane::egress::{Fib, Mac, Route};
use sluice_dataplane::service::Colleagues;
use sluice_dataplane::steer::Steering;
use tracing::debug;

use super::Controller;
use crate::publish::Retired;

/// Events that may wait for the kernel mirror; more are dropped, the workers report again.
const MAX_EVENTS: usize = 4096;

/// Addresses, routes and neighbours that hold whatever the kernel says.
#[derive(Clone, Debug, Default)]
pub struct Statics {
    /// Addresses of this machine.
    pub local: HashSet<IpAddr>,
    /// Routes, those to the local addresses and their links among them.
    pub routes: Vec<(Ipv4Net, Route)>,
    /// Neighbours.
    pub neighbours: Vec<(PortId, Ipv4Addr, Mac)>,
}

/// What is known.
#[derive(Debug)]
pub(super) struct Network {
    statics: Statics,
    fib: Arc<Fib>,
    /// What the workers were told; until then they have a steering of their own making.
    steering: Option<Arc<Steering>>,
}

impl Network {
    pub(super) fn new(statics: Statics) -> Self {
        Self {
            statics,
            fib: Arc::default(),
            steering: None,
        }
    }
}

impl Network {
    /// What the workers were told of how packets come to them.
    pub(super) fn steering(&self) -> Option<&Arc<Steering>> {
        self.steering.as_ref()
    }
}

impl Controller {
    /// These are the machine's addresses, on whichever interface: services match while theirs is among them.
    pub fn local_addresses(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut local = self.network.statics.local.clone();
        local.extend(addresses);
        let step = self.config.with_local_addresses(local);
        let moved = step.commands.len();
        self.take(step);
        if moved > 0 {
            debug!(services = moved, "local addresses changed");
        }
    }

    /// This is the kernel's routing table, whole; static routes are put over it.
    pub fn fib(&mut self, kernel: &Fib) {
        let mut fib = kernel.clone();
        for (prefix, route) in &self.network.statics.routes {
            fib.insert(*prefix, *route);
        }
        let fib = Arc::new(fib);
        let old = std::mem::replace(&mut self.network.fib, Arc::clone(&fib));
        self.publisher
            .publish(&[Command::Fib(fib)], [old as Retired]);
    }

    /// A neighbour is reachable at this MAC, or no more.
    pub fn neighbour(&mut self, port: PortId, addr: Ipv4Addr, mac: Option<Mac>) {
        let fixed = self.network.statics.neighbours.iter();
        if fixed.clone().any(|(p, a, _)| (*p, *a) == (port, addr)) {
            return;
        }
        self.publisher
            .publish(&[Command::Neighbour { port, addr, mac }], []);
    }

    /// A port's own MAC, and its MTU in bytes of an IP packet.
    pub fn port_state(&mut self, port: PortId, mac: Mac, mtu: u16) {
        self.publisher
            .publish(&[Command::PortState { port, mac, mtu }], []);
    }

    /// Packets come to the workers like this from now on. Returns the revision.
    pub fn steer(&mut self, steering: Arc<Steering>) -> u64 {
        let old = self.network.steering.replace(Arc::clone(&steering));
        let retired = old.map(|old| old as Retired);
        self.publisher
            .publish(&[Command::Steering(steering)], retired)
    }

    /// What the workers have reported of neighbours since the last call ([`Event::NeighbourMissing`] and
    /// [`Event::NeighbourUsed`]); for the kernel mirror, soon after each [`Controller::progress`].
    pub fn take_neighbour_events(&mut self) -> Vec<Event> {
        self.neighbour_events.drain(..).collect()
    }

    /// The routing table that the workers have.
    pub fn routes(&self) -> &Fib {
        &self.network.fib
    }

    pub(super) fn note(&mut self, event: Event) {
        if self.neighbour_events.len() < MAX_EVENTS {
            self.neighbour_events.push_back(event);
        }
    }

    /// Tells workers of each other; one alone hears nothing. No change of the configuration.
    pub(super) fn introduce_workers(&mut self) {
        let workers = self.publisher.workers();
        if workers > 1 {
            let colleagues = Arc::new(Colleagues::new(self.publisher.shared_cells()));
            for id in (0..workers as u16).map(WorkerId) {
                let command = Command::Colleagues(Arc::clone(&colleagues));
                self.publisher.ask(id, command);
            }
        }
    }

    pub(super) fn start_network(&mut self) {
        self.local_addresses([]);
        if !self.network.statics.routes.is_empty() {
            self.fib(&Fib::default());
        }
        let neighbours = self.network.statics.neighbours.iter();
        let commands: Vec<Command> = neighbours
            .map(|&(port, addr, mac)| Command::Neighbour {
                port,
                addr,
                mac: Some(mac),
            })
            .collect();
        self.publisher.publish(&commands, []);
    }
}
