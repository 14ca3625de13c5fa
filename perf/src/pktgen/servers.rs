//! Real servers: they check what comes and answer it.

use std::sync::Arc;

use rtrb::Producer;
use sluice_control::api::Method;
use sluice_dataplane::io::Frame;
use sluice_dataplane::packet::tcp::{ACK, FIN, SYN};
use sluice_dataplane::time::{TickRate, Ticks};

use super::fault::{Fault, Faults};
use super::flight::{Departure, FLOOD, SLOTS};
use super::latency::{Latency, LatencySummary};
use super::plan::{Plan, Traffic};
use super::shared::{Direct, Shared};
use super::tuple::Endpoint;
use super::wire::{self, DATA, Protocol, Seen};

/// What real servers know of a flow.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    /// Whose it is now.
    client: Endpoint,
    /// Who serves it.
    server: u16,
    /// The next sequence number to be sent.
    next: u32,
    /// The latest packet that came.
    last: u64,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// It is done with.
    Free,
    /// It has become an answer.
    SendBack,
}

/// What real servers have seen in a trial.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerFigures {
    pub(crate) arrived: u64,
    pub(crate) flood_arrived: u64,
    pub(crate) answered: u64,
    pub(crate) by_server: Vec<u64>,
    pub(crate) faults: Faults,
    pub(crate) latency: Option<LatencySummary>,
}

/// All real servers.
pub(crate) struct Servers {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    direct: Producer<Direct>,
    flows: Vec<Flow>,
    /// The latest packet that came of those that share a place.
    seen: Vec<u32>,
    figures: ServerFigures,
    latency: Latency,
}

impl Servers {
    /// Who have seen nothing yet. `direct` is their way to clients past the appliance.
    pub(crate) fn new(
        plan: Arc<Plan>,
        shared: Arc<Shared>,
        direct: Producer<Direct>,
        rate: TickRate,
    ) -> Self {
        let flows = if plan.traffic == Traffic::Syn {
            0
        } else {
            plan.flows
        };
        let mut servers = Self {
            flows: vec![Flow::default(); flows as usize],
            seen: vec![0; SLOTS],
            figures: ServerFigures::default(),
            latency: Latency::new(rate),
            plan,
            shared,
            direct,
        };
        servers.begin();
        servers
    }

    /// A new trial begins: flows go on, figures do not.
    pub(crate) fn begin(&mut self) {
        self.figures = ServerFigures {
            by_server: vec![0; self.plan.servers.into()],
            ..ServerFigures::default()
        };
        self.latency.clear();
    }

    /// What was seen since then.
    pub(crate) fn figures(&self) -> ServerFigures {
        ServerFigures {
            latency: self.latency.summary(),
            ..self.figures.clone()
        }
    }

    /// Whether the way past the appliance has room for the answers to a burst.
    pub(crate) fn may_receive(&self) -> bool {
        self.direct.slots() >= sluice_dataplane::io::BURST
    }

    /// Counts a frame that was unreadable.
    pub(crate) fn fault(&mut self, fault: Fault) {
        self.figures.faults.count(fault);
    }

    /// Tells how far things are. Once a turn.
    pub(crate) fn publish(&self) {
        let cells = &self.shared.servers;
        cells.arrived.set(self.figures.arrived);
        cells.flood_arrived.set(self.figures.flood_arrived);
    }

    /// Takes a packet.
    #[inline]
    pub(crate) fn receive<F: Frame>(&mut self, frame: &mut F, seen: &Seen, now: Ticks) -> Then {
        match self.accept(seen, now) {
            Ok((packet, server, method)) => self.answer(frame, seen, &packet, server, method),
            Err(fault) => {
                self.fault(fault);
                Then::Free
            }
        }
    }

    /// Which packet it is, who got it, and how.
    #[inline]
    fn accept(&mut self, seen: &Seen, now: Ticks) -> Result<(Departure, u16, Method), Fault> {
        let (server, method) = self.receiver(seen)?;
        let number = seen.header.number;
        let packet = self.shared.flight.find(number).ok_or(Fault::Unknown)?;
        let kept = seen.header.src == packet.client;
        // A NAT real server and one of FULLNAT differ in whom they see.
        let method = if method == Method::Nat && !kept {
            Method::FullNat
        } else {
            method
        };
        if self.plan.method.is_some_and(|wanted| wanted != method) {
            return Err(Fault::WrongMethod);
        }
        if !kept && method != Method::FullNat {
            return Err(Fault::WrongClient);
        }
        let seq_end = seen.header.seq.wrapping_add(seen.advance());
        if seen.protocol == Protocol::Tcp && seq_end != packet.end {
            return Err(Fault::BadSequence);
        }
        let place = &mut self.seen[number as usize & (SLOTS - 1)];
        if *place == number {
            return Err(Fault::Duplicate);
        }
        *place = number;
        if packet.flow == FLOOD {
            self.figures.flood_arrived += 1;
            return Ok((packet, server, method));
        }
        self.figures.arrived += 1;
        self.figures.by_server[usize::from(server)] += 1;
        self.latency.record(&packet, now);
        self.follow(&packet, server);
        Ok((packet, server, method))
    }

    /// Who got it, and how: FULLNAT looks like NAT here.
    #[inline]
    fn receiver(&self, seen: &Seen) -> Result<(u16, Method), Fault> {
        let plan = &self.plan;
        let dst = seen.header.dst;
        let to_vip = dst == plan.vip();
        let found = if let Some(end) = seen.tunnel {
            (plan.server_at(end).filter(|_| to_vip), Method::Tun)
        } else if to_vip {
            (plan.server_with(seen.dst_mac), Method::Dr)
        } else {
            let right_port = dst.port == plan.first_server.port();
            (plan.server_at(dst.addr).filter(|_| right_port), Method::Nat)
        };
        Ok((found.0.ok_or(Fault::NoServer)?, found.1))
    }

    /// Checks order and server against the flow's earlier packets.
    #[inline]
    fn follow(&mut self, packet: &Departure, server: u16) {
        let Some(flow) = self.flows.get_mut(packet.flow as usize) else {
            return;
        };
        if flow.client != packet.client {
            if packet.number < flow.last {
                // Of a connection whose place another has taken since: between connections there is no order.
                return;
            }
            *flow = Flow {
                client: packet.client,
                server,
                next: initial(packet),
                last: packet.number,
            };
            return;
        }
        if flow.server != server {
            self.figures.faults.count(Fault::WrongServer);
        } else if packet.number < flow.last {
            self.figures.faults.count(Fault::Reordered);
        }
        flow.last = flow.last.max(packet.number);
    }

    #[inline]
    fn answer<F: Frame>(
        &mut self,
        frame: &mut F,
        seen: &Seen,
        packet: &Departure,
        server: u16,
        method: Method,
    ) -> Then {
        let wants = seen.protocol == Protocol::Udp || seen.advance() > 0;
        if packet.flow == FLOOD || !wants {
            return Then::Free;
        }
        let flags = if seen.header.flags & SYN != 0 {
            SYN | ACK
        } else if seen.header.flags & FIN != 0 {
            FIN | ACK
        } else {
            DATA
        };
        let advance = seen.advance();
        let mut alone = initial(packet);
        let next = match self.flows.get_mut(packet.flow as usize) {
            Some(flow) => &mut flow.next,
            None => &mut alone,
        };
        let seq = *next;
        *next = next.wrapping_add(advance);
        self.figures.answered += 1;
        if matches!(method, Method::Nat | Method::FullNat) {
            wire::answer(frame.bytes_mut(), seen, server, (seq, packet.end, flags));
            return Then::SendBack;
        }
        let direct = Direct {
            number: seen.header.number,
            seq,
            flags,
            advance,
        };
        if self.direct.push(direct).is_err() {
            unreachable!("nothing is received unless there is room for its answers");
        }
        Then::Free
    }
}

/// The real server's first sequence number of a connection that this packet opens.
fn initial(packet: &Departure) -> u32 {
    (packet.number as u32).wrapping_mul(0x85eb_ca6b) ^ packet.client.addr
}
