//! Who takes a new connection, where another worker is to say: the one that owns the client's persistence template, or what lblc and
//! lblcr remember of the destination (contract 3 of the design).
//!
//! The opening packet waits here while a note goes to the owner and its answer comes back; the connection is this worker's all the same.
//! The owner's template counts it, so its end is reported. Waiting is bounded in number and time: an owner that does not turn costs
//! drops of its own reasons, never a server chosen past it.

use std::collections::VecDeque;

use super::Pipeline;
use super::opening::template_key;
use crate::command::{PortId, WorkerId};
use crate::conn::template::{Ending, TemplateRef};
use crate::conn::{ConnId, FlowKey};
use crate::drop_reason::DropReason;
use crate::io::Port;
use crate::parse::{Flow, Related};
use crate::service::{Protocol, RealServerSpec, SchedulerKind, ServiceId, ServiceKey, ServiceSpec};
use crate::steer::note::{Advice, Note, Offer};
use crate::time::Ticks;

/// Opening packets of one worker that may wait for advice.
const MOST_WAITING: usize = 1024;

/// Milliseconds that one waits at most.
const PATIENCE_MS: u32 = 200;

/// Milliseconds until an owner that has yet to hear of the service is asked again.
const AGAIN_MS: u32 = 1;

/// Notes owed that there is room for beforehand.
const MOST_OWED: usize = 65_536;

/// Notes taken from each other worker, and notes of ends sent, in one turn.
const NOTES: usize = 64;

/// What one worker has asked others, and owes them.
pub(super) struct Correspondence<F> {
    /// In order of their tickets, without a gap.
    waiting: VecDeque<Option<Waiting<F>>>,
    /// The ticket of the first that waits.
    first: u64,
    /// Packets that wait.
    count: usize,
    /// When those are asked again that were told [`Advice::NotYet`].
    again: Option<Ticks>,
    /// Others may have written more than the last turn read.
    more_notes: bool,
    /// Notes that found no room yet. No more than there are connections: new ones need an answer first.
    owed: VecDeque<(WorkerId, Note)>,
    /// By connection's place: the worker that has its template, plus 1, and the template's place and generation. Memory that nothing
    /// touches until it is needed.
    templates: Box<[[u32; 3]]>,
}

/// What a packet that waits says.
#[derive(Clone, Copy)]
pub(super) enum Subject {
    /// It opens a connection.
    Opening(Flow),
    /// It is an error about a connection that nobody has, and schedules it (`schedule_icmp`).
    Error(Related),
}

impl Subject {
    /// What the client's packets show.
    fn client(&self) -> FlowKey {
        match self {
            Self::Opening(flow) => flow.key(),
            Self::Error(error) => error.answer(),
        }
    }
}

struct Waiting<F> {
    frame: F,
    subject: Subject,
    port: PortId,
    service: ServiceId,
    owner: WorkerId,
    deadline: Ticks,
    asks_again: bool,
}

impl<F> Correspondence<F> {
    /// Of a worker with so many connections at most.
    pub(super) fn new(connections: usize, alone: bool) -> Self {
        let (waiting, connections) = if alone {
            (0, 0)
        } else {
            (MOST_WAITING, connections)
        };
        Self {
            waiting: VecDeque::with_capacity(waiting),
            first: 0,
            count: 0,
            again: None,
            more_notes: false,
            owed: VecDeque::with_capacity(connections.min(MOST_OWED)),
            templates: vec![[0; 3]; connections].into_boxed_slice(),
        }
    }

    /// Bytes of memory, all told, as far as they grow with the connections.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(&*self.templates)
    }

    fn template_of(&self, conn: ConnId) -> Option<(WorkerId, TemplateRef)> {
        let [owner, place, generation] = *self.templates.get(conn.number() as usize)?;
        let owner = WorkerId(owner.checked_sub(1)? as u16);
        Some((owner, TemplateRef::new(place, generation)))
    }

    /// Whose answer this is, which waits no more; `None` when it came too late.
    fn take(&mut self, ticket: u64) -> Option<Waiting<F>> {
        let at = ticket.checked_sub(self.first)?;
        let waiting = self.waiting.get_mut(at as usize)?.take()?;
        self.count -= 1;
        Some(waiting)
    }

    fn ask_later(&mut self, ticket: u64) {
        let at = ticket.checked_sub(self.first);
        if let Some(Some(waiting)) = at.and_then(|at| self.waiting.get_mut(at as usize)) {
            waiting.asks_again = true;
        }
    }

    /// Takes away what has been answered in front, and the first that has waited until `now`.
    fn expired(&mut self, now: Ticks) -> Option<Waiting<F>> {
        while let Some(front) = self.waiting.front() {
            if front.as_ref().is_some_and(|packet| now < packet.deadline) {
                return None;
            }
            self.first += 1;
            if let Some(packet) = self.waiting.pop_front().flatten() {
                self.count -= 1;
                return Some(packet);
            }
        }
        None
    }
}

impl<P: Port> Pipeline<P> {
    /// Opening packets that wait for advice.
    pub(crate) fn waiting(&self) -> usize {
        self.correspondence.count
    }

    /// The other worker that says which server takes a connection to the service.
    pub(super) fn adviser(&self, service: &ServiceSpec, flow: &FlowKey) -> Option<WorkerId> {
        if self.owners.alone() {
            return None;
        }
        let owner = match service.persistence {
            Some(persistence) => {
                let key = template_key(service.key, persistence, flow);
                self.owners.of_template(&key)
            }
            None if matches!(
                service.scheduler,
                SchedulerKind::Lblc | SchedulerKind::Lblcr
            ) =>
            {
                self.owners.of_destination(flow.dst)
            }
            None => return None,
        };
        (owner != self.owners.id()).then_some(owner)
    }

    /// Asks another worker who takes the connection; the packet waits.
    #[cold]
    #[inline(never)]
    pub(super) fn ask(
        &mut self,
        owner: WorkerId,
        port: PortId,
        frame: P::Frame,
        subject: Subject,
        (service, key): (ServiceId, ServiceKey),
    ) {
        let letters = &mut self.correspondence;
        let ticket = letters.first + letters.waiting.len() as u64;
        let question = Note::Ask {
            ticket,
            service,
            key,
            flow: subject.client(),
        };
        let full = letters.waiting.len() >= MOST_WAITING;
        if full || self.forwarder.lanes.note(owner, question).is_err() {
            return self
                .forwarder
                .lanes
                .discard(frame, DropReason::AdviceQueueFull);
        }
        letters.waiting.push_back(Some(Waiting {
            frame,
            subject,
            port,
            service,
            owner,
            deadline: self.now + self.rate.millis(PATIENCE_MS),
            asks_again: false,
        }));
        letters.count += 1;
    }

    /// Reads and writes what is due between workers. Returns whether there was anything.
    #[inline(never)]
    pub(crate) fn correspond(&mut self) -> bool {
        let came = self.forwarder.lanes.notes_came();
        let busy = (came | self.correspondence.more_notes) && self.read_notes();
        while let Some(waiting) = self.correspondence.expired(self.now) {
            let lanes = &mut self.forwarder.lanes;
            lanes.discard(waiting.frame, DropReason::AdviceMissing);
        }
        if self
            .correspondence
            .again
            .take_if(|again| *again <= self.now)
            .is_some()
        {
            self.ask_again();
        }
        for _ in 0..NOTES.min(self.correspondence.owed.len()) {
            if let Some((to, note)) = self.correspondence.owed.pop_front() {
                self.write(to, note);
            }
        }
        self.services.release_reserved();
        busy
    }

    /// Up to so many from each other worker.
    #[inline(never)]
    fn read_notes(&mut self) -> bool {
        let mut busy = false;
        self.correspondence.more_notes = false;
        for inbox in 0..self.forwarder.lanes.inboxes() {
            for left in (0..NOTES).rev() {
                let Some((from, note)) = self.forwarder.lanes.next_note(inbox) else {
                    break;
                };
                busy = true;
                self.correspondence.more_notes |= left == 0;
                self.read(from, note);
            }
        }
        busy
    }

    /// Sends a note now, or later.
    fn write(&mut self, to: WorkerId, note: Note) {
        if let Err(note) = self.forwarder.lanes.note(to, note) {
            self.correspondence.owed.push_back((to, note));
        }
    }

    fn read(&mut self, from: WorkerId, note: Note) {
        match note {
            Note::Ask {
                ticket,
                service,
                key,
                flow,
            } => {
                let advice = self.advise(service, key, &flow);
                // A question came for each answer, so what is owed of them is bounded by what others may hold.
                self.write(from, Note::Answer { ticket, advice });
            }
            Note::Answer { ticket, advice } => self.take_advice(from, ticket, advice),
            Note::Assured(template) => self.templates.assure_referred(template),
            Note::Ended {
                template,
                natural,
                assured,
            } => {
                if assured {
                    self.templates.assure_referred(template);
                }
                let ending = if natural {
                    Ending::Natural
                } else {
                    Ending::Forced
                };
                if let Some(template) = self.templates.release_referred(template, ending) {
                    self.forget(&template);
                }
            }
        }
    }

    /// Says for another worker who takes a connection.
    fn advise(&mut self, service: ServiceId, key: ServiceKey, flow: &FlowKey) -> Advice {
        let known = self.services.spec(service);
        if known.is_none_or(|spec| spec.key != key) {
            return Advice::NotYet;
        }
        let chosen = match self.chosen(service, flow) {
            Ok(Some(chosen)) => chosen,
            Ok(None) => return Advice::Nobody,
            Err(_) => return Advice::NoRoom,
        };
        let id = chosen.server().id;
        Advice::Server(Offer {
            id,
            template: chosen.template().map(|id| self.templates.refer(id)),
            reserved: self.services.give_reserved(id.index),
        })
    }

    fn take_advice(&mut self, from: WorkerId, ticket: u64, advice: Advice) {
        match advice {
            Advice::Server(offer) => self.take_offer(from, ticket, offer),
            Advice::NotYet => self.reconsider(ticket),
            Advice::Nobody => {
                if let Some(waiting) = self.correspondence.take(ticket) {
                    self.turn_away(waiting);
                }
            }
            Advice::NoRoom => {
                if let Some(waiting) = self.correspondence.take(ticket) {
                    let lanes = &mut self.forwarder.lanes;
                    lanes.discard(waiting.frame, DropReason::TemplatesFull);
                }
            }
        }
    }

    fn take_offer(&mut self, from: WorkerId, ticket: u64, offer: Offer) {
        let server = self.services.real_server(offer.id.index).copied();
        let Some(server) = server.filter(|server| server.id == offer.id) else {
            self.decline(from, offer);
            return self.reconsider(ticket);
        };
        match self.correspondence.take(ticket) {
            Some(waiting) => self.open_as_advised(waiting, server, from, offer),
            None => self.decline(from, offer),
        }
    }

    /// One of the two has yet to hear of a change: the question is asked again in a moment.
    fn reconsider(&mut self, ticket: u64) {
        self.correspondence.ask_later(ticket);
        let again = self.now + self.rate.millis(AGAIN_MS);
        self.correspondence.again.get_or_insert(again);
    }

    /// No server takes what waited.
    fn turn_away(&mut self, waiting: Waiting<P::Frame>) {
        let service = self.services.spec(waiting.service).map(|spec| spec.key);
        let (port, frame) = (waiting.port, waiting.frame);
        match (service, waiting.subject) {
            (Some(service), Subject::Opening(flow)) => {
                self.leave(port, frame, &flow.key(), service);
            }
            (Some(service), Subject::Error(error)) => {
                self.leave_error(port, frame, &error.answer(), service);
            }
            (None, _) => self.forwarder.lanes.punt(port, frame),
        }
    }

    fn open_as_advised(
        &mut self,
        waiting: Waiting<P::Frame>,
        server: RealServerSpec,
        from: WorkerId,
        offer: Offer,
    ) {
        let Waiting {
            frame,
            subject,
            port,
            service,
            ..
        } = waiting;
        let key = subject.client();
        let hash = self.table.hash(key.protocol.number(), &key.ends());
        if let Some(hit) = self.table.lookup(hash, key.protocol, &key.ends()) {
            // Opened by another packet while this one waited.
            self.decline(from, offer);
            return match subject {
                Subject::Opening(flow) => self.flow(port, frame, &flow, hit),
                Subject::Error(error) => self.relate(port, frame, &error),
            };
        }
        if offer.reserved {
            self.services.take_reserved(server.id.index);
        }
        let template = offer.template.map(|template| (from, template));
        let one_packet = self
            .services
            .spec(service)
            .is_some_and(|spec| spec.one_packet);
        let chosen = self.as_advised(service, server, template, &key);
        if one_packet && key.protocol == Protocol::Udp {
            match subject {
                Subject::Opening(flow) => self.pass_alone(port, frame, &flow, service, &chosen),
                Subject::Error(error) => self.relay_alone(port, frame, &error, service, &chosen),
            }
            if let Some((owner, template)) = template {
                self.report_end(owner, template, Ending::Natural, false);
            }
            return;
        }
        let half = self.half_connect(service, &chosen, &key, hash);
        if let (Err(_), Some((owner, template))) = (&half, template) {
            self.report_end(owner, template, Ending::Natural, false);
        }
        match (half.and_then(|half| self.complete(half)), subject) {
            (Ok(hit), Subject::Opening(flow)) => self.pass(port, frame, &flow, hit),
            (Ok(hit), Subject::Error(error)) => self.relay_first(port, frame, &error, hit),
            (Err(reason), _) => self.forwarder.lanes.discard(frame, reason),
        }
    }

    /// Another worker's template controls the connection at this place.
    pub(super) fn refer(&mut self, conn: ConnId, (owner, template): (WorkerId, TemplateRef)) {
        let (place, generation) = template.numbers();
        self.correspondence.templates[conn.number() as usize] =
            [u32::from(owner.0) + 1, place, generation];
    }

    /// The connection that a template controls, its own or another worker's, is confirmed from both sides.
    pub(super) fn assure(&mut self, conn: ConnId) {
        match self.correspondence.template_of(conn) {
            Some((owner, template)) => self.write(owner, Note::Assured(template)),
            None => self.templates.assure(conn),
        }
    }

    /// A connection that a template controls has ended, `assured` if it was confirmed from both sides.
    pub(super) fn release(&mut self, conn: ConnId, ending: Ending, assured: bool) {
        if let Some((owner, template)) = self.correspondence.template_of(conn) {
            self.correspondence.templates[conn.number() as usize] = [0; 3];
            self.report_end(owner, template, ending, assured);
        } else if let Some(template) = self.templates.release(conn, ending) {
            self.forget(&template);
        }
    }

    fn report_end(&mut self, to: WorkerId, template: TemplateRef, ending: Ending, assured: bool) {
        let natural = ending == Ending::Natural;
        self.write(
            to,
            Note::Ended {
                template,
                natural,
                assured,
            },
        );
    }

    /// Asks again on behalf of those that were told to.
    fn ask_again(&mut self) {
        for at in 0..self.correspondence.waiting.len() {
            let ticket = self.correspondence.first + at as u64;
            let Some(Some(waiting)) = self.correspondence.waiting.get_mut(at) else {
                continue;
            };
            if !std::mem::take(&mut waiting.asks_again) {
                continue;
            }
            let (owner, service, flow) = (waiting.owner, waiting.service, waiting.subject.client());
            let Some(key) = self.services.spec(service).map(|spec| spec.key) else {
                continue;
            };
            let question = Note::Ask {
                ticket,
                service,
                key,
                flow,
            };
            // Without room for it, it waits for its end.
            let _ = self.forwarder.lanes.note(owner, question);
        }
    }

    /// Gives back what an answer brings that nobody waits for.
    fn decline(&mut self, from: WorkerId, offer: Offer) {
        if offer.reserved {
            self.services.take_reserved(offer.id.index);
            self.services.release_reserved();
        }
        if let Some(template) = offer.template {
            // As if the connection had come and gone: others of the client are where it leads.
            self.report_end(from, template, Ending::Natural, false);
        }
    }
}
