//! Between workers: packets that are another one's go there, and those that others found to be ours come in (contract 4 of the
//! design).

use std::sync::Arc;

use super::{Arrival, Pipeline};
use crate::command::{Census, PortId, ServiceEdit, WorkerId};
use crate::conn::{Conn, FlowKey};
use crate::io::{BURST, Burst, Port};
use crate::service::{Method, ServiceKey, ServiceSpec};
use crate::stats::HandedAs;
use crate::steer::owner::Owner;
use crate::steer::ring::{Errand, Origin};
use crate::steer::{Packet, Steering};

impl<P: Port> Pipeline<P> {
    /// A service is so from now on: who owns what follows from it.
    pub(crate) fn learn(&mut self, service: &ServiceSpec, edit: ServiceEdit) {
        self.owners.learn(service, edit);
    }

    /// Packets come to the workers in another way from now on.
    pub(crate) fn steer(&mut self, steering: Arc<Steering>) {
        self.owners.steer(steering);
    }

    /// Counts a connection if packets of it are another worker's since they moved.
    pub(crate) fn count_moved(&self, conn: &Conn, census: &mut Census) {
        self.owners.count_moved(conn, census);
    }

    /// The other worker that a packet with this key belongs to, of which no connection here is. `None` for a packet that was handed
    /// over already: once is enough.
    #[inline]
    pub(super) fn elsewhere(&self, port: PortId, key: &FlowKey) -> Option<Owner> {
        if self.owners.alone() || self.arrival != Arrival::Received {
            return None;
        }
        let service = self.key_of_service(port, key);
        self.owners.elsewhere(port, service, key)
    }

    /// Who may have a connection that a packet with this key is of since before the steering was changed; at last, back to the owner.
    /// Each is asked once: the way of a packet ends.
    #[cold]
    #[inline(never)]
    pub(super) fn former_owner(&self, port: PortId, key: &FlowKey) -> Option<(WorkerId, Errand)> {
        let owner = self.owner_before_formers()?;
        let next = self
            .owners
            .former(port, self.key_of_service(port, key), key, owner);
        match next {
            Some(next) => Some((next, Errand::Former { owner })),
            None if owner != self.owners.id() => Some((owner, Errand::Settled)),
            None => None,
        }
    }

    /// Who owns what has arrived here, as far as former owners may be asked for it.
    fn owner_before_formers(&self) -> Option<WorkerId> {
        match self.arrival {
            Arrival::Received | Arrival::HandedIn => Some(self.owners.id()),
            Arrival::Former(owner) => Some(owner),
            Arrival::Settled | Arrival::Sought(_) => None,
        }
    }

    /// The other worker that may know the connection of what the kernel sends, of which none is here: only replies of a NAT server
    /// can be of any.
    #[inline]
    pub(super) fn who_translates(&self, port: PortId, key: &FlowKey) -> Option<(WorkerId, Errand)> {
        if self.owners.alone() {
            return None;
        }
        if self.arrival == Arrival::Received
            && let Some(owner) = self.owners.elsewhere(port, None, key)
        {
            return Some((owner.worker, Errand::FromKernel));
        }
        if !self.owners.steering().has_moved() {
            return None;
        }
        let owner = self.owner_before_formers()?;
        let next = self.owners.former(port, None, key, owner)?;
        Some((next, Errand::FormerFromKernel { owner }))
    }

    /// Who else may know the connection that an ICMP error is about; `answer` is the key of a packet of it that goes where the error
    /// has to go. Which worker receives that connection's packets cannot always be told: then all are asked in turn.
    pub(super) fn who_knows(&self, port: PortId, answer: &FlowKey) -> Option<(WorkerId, Errand)> {
        if self.owners.alone() {
            return None;
        }
        let first = match self.arrival {
            Arrival::Received => match self.owner_of_errors(port, answer) {
                Some(owner) if owner != self.owners.id() => return Some((owner, Errand::Received)),
                Some(_) => return self.former_owner_if_moved(port, answer),
                None => self.owners.id(),
            },
            Arrival::Sought(first) => first,
            Arrival::HandedIn | Arrival::Former(_) | Arrival::Settled => {
                return self.former_owner_if_moved(port, answer);
            }
        };
        let next = self.owners.next();
        let of_service = self.service_of(port, answer).is_some();
        (of_service && next != first).then_some((next, Errand::Sought { first }))
    }

    fn former_owner_if_moved(&self, port: PortId, key: &FlowKey) -> Option<(WorkerId, Errand)> {
        if !self.owners.steering().has_moved() {
            return None;
        }
        self.former_owner(port, key)
    }

    fn key_of_service(&self, port: PortId, key: &FlowKey) -> Option<ServiceKey> {
        let service = self.service_of(port, key)?;
        self.services.spec(service).map(|spec| spec.key)
    }

    /// The owner of a connection by the key of its packet, where it can be told: that of who received it by where such packets arrive.
    fn owner_of_errors(&self, port: PortId, answer: &FlowKey) -> Option<WorkerId> {
        let service = self.key_of_service(port, answer);
        self.owners.of(port, service, answer).or_else(|| {
            service?;
            let packet = Packet::flow(answer.protocol, &answer.ends());
            self.owners.steering().reaches(port, &packet)
        })
    }

    /// Gives a frame to another worker at the end of the burst.
    pub(super) fn hand_off(
        &mut self,
        to: WorkerId,
        port: PortId,
        frame: P::Frame,
        errand: Errand,
        kind: HandedAs,
    ) {
        let origin = Origin { port, errand };
        self.forwarder.lanes.hand_off(to, frame, origin, kind);
    }

    /// How a packet with this key is forwarded, that is handed over because of `method`; where that leaves it open, as the rule says that
    /// names its owner, or as the first server of its service is reached.
    #[cold]
    pub(super) fn handed_as(
        &self,
        method: Option<Method>,
        port: PortId,
        key: &FlowKey,
    ) -> HandedAs {
        let by_service = || {
            let service = self.service_of(port, key);
            let spec = service.and_then(|id| self.services.spec(id));
            let rule = self.owners.owner(port, spec.map(|spec| spec.key), key);
            rule.and_then(|owner| owner.method)
                .or_else(|| spec?.real_servers.first().map(|real| real.method))
        };
        method
            .or_else(by_service)
            .map_or(HandedAs::Unknown, HandedAs::Method)
    }

    /// Walks what other workers handed over: up to a burst from each. Returns whether there was anything.
    #[inline]
    pub(crate) fn take_handed_in(&mut self, burst: &mut Burst<P::Frame>) -> bool {
        let came = self.forwarder.lanes.frames_came();
        (came | self.more_frames) && self.walk_inboxes(burst)
    }

    #[inline(never)]
    fn walk_inboxes(&mut self, burst: &mut Burst<P::Frame>) -> bool {
        let mut busy = false;
        self.more_frames = false;
        for inbox in 0..self.forwarder.lanes.inboxes() {
            let mut left = BURST;
            while left > 0
                && let Some(origin) = self.forwarder.lanes.receive_handed(inbox, burst, left)
            {
                busy = true;
                left -= burst.len();
                self.walk_handed_in(origin, burst);
            }
            self.more_frames |= left == 0;
        }
        busy
    }

    fn walk_handed_in(&mut self, origin: Origin, burst: &mut Burst<P::Frame>) {
        let port = origin.port;
        self.arrival = match origin.errand {
            Errand::Received | Errand::FromKernel | Errand::Send => Arrival::HandedIn,
            Errand::Sought { first } => Arrival::Sought(first),
            Errand::Former { owner } | Errand::FormerFromKernel { owner } => Arrival::Former(owner),
            Errand::Settled => Arrival::Settled,
        };
        match origin.errand {
            // Who received them has counted their bytes.
            Errand::Received | Errand::Sought { .. } | Errand::Former { .. } | Errand::Settled => {
                self.walk_burst(port, burst);
            }
            Errand::FromKernel | Errand::FormerFromKernel { .. } => {
                self.walk_from_kernel(port, burst);
            }
            Errand::Send => {
                for frame in burst.drain(..) {
                    self.forwarder.lanes.send(port, frame);
                }
            }
        }
        self.arrival = Arrival::Received;
        self.forwarder.lanes.flush();
    }
}
