//! Clients: they send, and check the answers.

use std::collections::VecDeque;
use std::sync::Arc;

use rtrb::Consumer;
use sluice_dataplane::io::Frame;
use sluice_dataplane::packet::tcp::SYN;
use sluice_dataplane::time::{TickRate, Ticks};

use super::fault::{Fault, Faults};
use super::flight::{Departure, FLOOD, NO_FLOW, SLOTS};
use super::flow::{Answer, Flow, Rules, Step, initial};
use super::latency::{Latency, LatencySummary};
use super::pick::Picker;
use super::plan::{Plan, Role, Traffic};
use super::shared::{Direct, Shared};
use super::tuple::{Clients, Endpoint};
use super::wire::{Header, Protocol, Seen, Template};

/// Flows looked at for one that has something to send.
const TRIES: usize = 16;

/// What clients have done and seen in a trial.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientFigures {
    pub(crate) sent: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) flood_sent: u64,
    pub(crate) answers_due: u64,
    pub(crate) answered: u64,
    pub(crate) began: u64,
    pub(crate) opened: u64,
    pub(crate) closed: u64,
    pub(crate) gave_up: u64,
    /// Times that a packet was due and no flow could send it yet.
    pub(crate) not_ready: u64,
    pub(crate) faults: Faults,
    pub(crate) latency: Option<LatencySummary>,
}

/// All clients.
pub(crate) struct Client {
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    direct: Consumer<Direct>,
    rules: Rules,
    picker: Picker,
    clients: Clients,
    flood: Clients,
    flows: Vec<Flow>,
    /// Flows that have something to send at once.
    ready: VecDeque<u32>,
    full: Vec<Template>,
    bare: Template,
    /// Of the latest packet; from 1, over all trials.
    number: u64,
    /// The latest answer that came of those that share a place.
    seen: Vec<u32>,
    /// The next flow to be opened.
    cursor: u32,
    /// Flows that have sent data.
    flows_open: u32,
    ended: u64,
    figures: ClientFigures,
    latency: Latency,
}

impl Client {
    /// Who have sent nothing yet. `direct` is what comes to them past the appliance.
    pub(crate) fn new(
        plan: Arc<Plan>,
        shared: Arc<Shared>,
        direct: Consumer<Direct>,
        rate: TickRate,
    ) -> anyhow::Result<Self> {
        let macs = (plan.client_mac, plan.appliance_mac);
        let protocol = plan.traffic.protocol();
        let flows = if plan.traffic == Traffic::Syn {
            0
        } else {
            plan.flows
        };
        let full = |len| Template::full(protocol, macs, len);
        Ok(Self {
            rules: Rules {
                tcp: protocol == Protocol::Tcp,
                life: plan.life,
                patience: rate.seconds(plan.patience_s),
            },
            picker: Picker::new(plan.spread, plan.flows, plan.seed)?,
            clients: Clients::new(plan.clients),
            flood: Clients::new(plan.flood_clients),
            flows: vec![Flow::default(); flows as usize],
            ready: VecDeque::with_capacity(1 << 16),
            full: plan.sizes.lengths().map(full).collect(),
            bare: Template::bare(Protocol::Tcp, macs),
            number: 0,
            seen: vec![0; SLOTS],
            cursor: 0,
            flows_open: 0,
            ended: 0,
            figures: ClientFigures::default(),
            latency: Latency::new(rate),
            plan,
            shared,
            direct,
        })
    }

    /// A new trial begins: flows go on, figures do not.
    pub(crate) fn begin(&mut self) {
        self.figures = ClientFigures::default();
        self.latency.clear();
        self.ended = 0;
    }

    /// What was done and seen since then.
    pub(crate) fn figures(&self) -> ClientFigures {
        ClientFigures {
            latency: self.latency.summary(),
            ..self.figures.clone()
        }
    }

    /// Packets sent since then, those of a flood left out.
    pub(crate) fn sent(&self) -> u64 {
        self.figures.sent
    }

    /// Answers that have come.
    pub(crate) fn answered(&self) -> u64 {
        self.figures.answered
    }

    /// Answers that have not come yet.
    pub(crate) fn outstanding(&self) -> u64 {
        self.figures.answers_due - self.figures.answered.min(self.figures.answers_due)
    }

    /// Whether every packet has arrived, as far as anybody tells, and every answer has come.
    pub(crate) fn is_settled(&self) -> bool {
        let cells = &self.shared.servers;
        let arrived = match self.plan.role {
            Role::Both => {
                cells.arrived.read() >= self.figures.sent
                    && cells.flood_arrived.read() >= self.figures.flood_sent
            }
            Role::Send | Role::Client => true,
        };
        arrived && self.outstanding() == 0
    }

    /// Whether somebody wants everything to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.shared.stopped()
    }

    /// Whether every flow has sent data.
    pub(crate) fn all_open(&self) -> bool {
        self.flows_open as usize == self.flows.len()
    }

    /// Flows that have sent data.
    pub(crate) fn flows_open(&self) -> u32 {
        self.flows_open
    }

    /// Counts a frame that was unreadable.
    pub(crate) fn fault(&mut self, fault: Fault) {
        self.figures.faults.count(fault);
    }

    /// Tells how far things are. Once a turn.
    pub(crate) fn publish(&self) {
        let cells = &self.shared.client;
        cells.sent.set(self.figures.sent);
        cells.answers_due.set(self.figures.answers_due);
        cells.answered.set(self.figures.answered);
    }

    /// Makes the next packet of the run. So many connections should have ended by now. `false` if no flow has anything to send.
    #[inline]
    pub(crate) fn emit<F: Frame>(
        &mut self,
        frame: &mut F,
        ended: u64,
        times: (Ticks, Ticks),
    ) -> bool {
        if self.plan.traffic == Traffic::Syn {
            return self.emit_syn(frame, NO_FLOW, times);
        }
        if let Some(flow) = self.ready.pop_front()
            && self.emit_of(flow, frame, times)
        {
            return true;
        }
        if self.ended < ended {
            let flow = self.picker.any();
            if self.flows[flow as usize].end() {
                self.ended += 1;
                return self.emit_of(flow, frame, times);
            }
        }
        for _ in 0..TRIES {
            let flow = self.picker.pick();
            if self.emit_of(flow, frame, times) {
                return true;
            }
        }
        self.figures.not_ready += 1;
        false
    }

    /// Makes the next packet that takes flows to where they send data. `false` if there is none now.
    pub(crate) fn emit_opening<F: Frame>(&mut self, frame: &mut F, now: Ticks) -> bool {
        if let Some(flow) = self.ready.pop_front() {
            return self.emit_of(flow, frame, (now, now));
        }
        while (self.cursor as usize) < self.flows.len() {
            let flow = self.cursor;
            self.cursor += 1;
            if self.flows[flow as usize].is_new() {
                return self.emit_of(flow, frame, (now, now));
            }
        }
        false
    }

    /// Makes a packet of the flood.
    #[inline]
    pub(crate) fn emit_flood<F: Frame>(&mut self, frame: &mut F, times: (Ticks, Ticks)) -> bool {
        self.emit_syn(frame, FLOOD, times)
    }

    fn emit_syn<F: Frame>(&mut self, frame: &mut F, flow: u32, times: (Ticks, Ticks)) -> bool {
        let flood = flow == FLOOD;
        let clients = if flood {
            &mut self.flood
        } else {
            &mut self.clients
        };
        let client = clients.draw();
        let seq = initial(self.number + 1);
        let step = Step {
            seq,
            flags: SYN,
            wants_answer: !flood,
            opens: !flood,
            ..Step::default()
        };
        self.send(frame, flow, client, &step, (seq.wrapping_add(1), 0), times)
    }

    #[inline]
    fn emit_of<F: Frame>(&mut self, flow: u32, frame: &mut F, times: (Ticks, Ticks)) -> bool {
        let number = self.number + 1;
        let size = self.plan.sizes.of(number);
        let state = &mut self.flows[flow as usize];
        let Some(step) = state.step(&self.rules, &mut self.clients, number, times.1) else {
            return false;
        };
        if step.full {
            state.sent(self.full[size].payload() as u32);
        }
        // A datagram ends nowhere.
        let end = if self.rules.tcp {
            state.end_of_sent()
        } else {
            0
        };
        let client = state.client;
        let again = !step.wants_answer;
        self.flows_open += u32::from(step.first_data);
        let sent = self.send(frame, flow, client, &step, (end, size), times);
        if again {
            // It is over: the next one begins.
            self.ready.push_back(flow);
        }
        sent
    }

    #[inline]
    fn send<F: Frame>(
        &mut self,
        frame: &mut F,
        flow: u32,
        client: Endpoint,
        step: &Step,
        (end, size): (u32, usize),
        (intended, now): (Ticks, Ticks),
    ) -> bool {
        self.number += 1;
        let template = if step.full {
            &self.full[size]
        } else {
            &self.bare
        };
        let header = Header {
            src: client,
            dst: self.plan.vip(),
            number: self.number as u32,
            seq: step.seq,
            ack: step.ack,
            flags: step.flags,
        };
        let fits = template.stamp(frame, &header);
        debug_assert!(fits, "pools are made for the longest frame");
        self.shared.flight.depart(&Departure {
            number: self.number,
            flow,
            client,
            end,
            intended,
            sent: now,
        });
        if flow == FLOOD {
            self.figures.flood_sent += 1;
            return fits;
        }
        let figures = &mut self.figures;
        figures.sent += 1;
        figures.sent_bytes += template.len() as u64;
        figures.answers_due += u64::from(match self.plan.role {
            Role::Send => false,
            Role::Client => true,
            Role::Both => step.wants_answer,
        });
        figures.began += u64::from(step.opens);
        figures.gave_up += u64::from(step.gave_up);
        fits
    }

    /// Takes what comes past the appliance. Returns whether there was anything.
    pub(crate) fn receive_direct(&mut self) -> bool {
        let waiting = self.direct.slots();
        for _ in 0..waiting {
            let Ok(direct) = self.direct.pop() else {
                break;
            };
            let Some(packet) = self.shared.flight.find(direct.number) else {
                self.fault(Fault::Unknown);
                continue;
            };
            let answer = Answer {
                number: packet.number,
                seq: direct.seq,
                flags: direct.flags,
                advance: direct.advance,
                server: None,
                echo: false,
            };
            self.settle(&packet, &answer);
        }
        waiting > 0
    }

    /// Whether a packet is for clients.
    #[inline]
    pub(crate) fn is_for_us(&self, seen: &Seen) -> bool {
        self.plan.role != Role::Both || seen.header.src == self.plan.vip()
    }

    /// Takes a packet.
    #[inline]
    pub(crate) fn receive(&mut self, seen: &Seen, now: Ticks) {
        if let Err(fault) = self.accept(seen, now) {
            self.fault(fault);
        }
    }

    #[inline]
    fn accept(&mut self, seen: &Seen, now: Ticks) -> Result<(), Fault> {
        let header = &seen.header;
        let packet = self
            .shared
            .flight
            .find(header.number)
            .ok_or(Fault::Unknown)?;
        let echo = self.plan.role != Role::Both;
        let ours = header.dst == packet.client || echo && header.src == packet.client;
        if !ours {
            return Err(Fault::WrongClient);
        }
        let right = match (seen.protocol, echo) {
            (Protocol::Udp, _) => true,
            (Protocol::Tcp, true) => header.seq.wrapping_add(seen.advance()) == packet.end,
            (Protocol::Tcp, false) => header.ack == packet.end,
        };
        if !right {
            return Err(Fault::BadSequence);
        }
        let place = &mut self.seen[header.number as usize & (SLOTS - 1)];
        if *place == header.number {
            return Err(Fault::Duplicate);
        }
        *place = header.number;
        self.latency.record(&packet, now);
        let answer = Answer {
            number: packet.number,
            seq: header.seq,
            flags: header.flags,
            advance: seen.advance(),
            server: seen.server,
            echo,
        };
        self.settle(&packet, &answer);
        Ok(())
    }

    #[inline]
    fn settle(&mut self, packet: &Departure, answer: &Answer) {
        if packet.flow == FLOOD {
            return;
        }
        self.figures.answered += 1;
        let Some(flow) = self.flows.get_mut(packet.flow as usize) else {
            self.figures.opened += u64::from(answer.flags & SYN != 0);
            return;
        };
        // The answer to a connection that another has followed changes nothing.
        if flow.client != packet.client {
            return;
        }
        let settled = flow.settle(answer);
        self.figures.opened += u64::from(settled.opened);
        self.figures.closed += u64::from(settled.closed);
        if settled.ready {
            self.ready.push_back(packet.flow);
        }
        if let Some(fault) = settled.fault {
            self.fault(fault);
        }
    }
}
