//! Between workers: packets that are another one's go there, and those that others found to be ours come in (contract 4 of the
//! design).

use std::sync::Arc;

use super::{Arrival, Pipeline};
use crate::command::{PortId, ServiceEdit, WorkerId};
use crate::conn::FlowKey;
use crate::io::{BURST, Burst, Port};
use crate::service::{ServiceKey, ServiceSpec};
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

    /// The other worker that a packet with this key belongs to, of which no connection here is. `None` for a packet that was handed
    /// over already: once is enough.
    #[inline]
    pub(super) fn elsewhere(&self, port: PortId, key: &FlowKey) -> Option<WorkerId> {
        if self.owners.alone() || self.arrival != Arrival::Received {
            return None;
        }
        let service = self.service_of(port, key);
        let service = service.and_then(|id| self.services.spec(id));
        self.owners
            .elsewhere(port, service.map(|spec| spec.key), key)
    }

    /// Who may have a connection that a packet with this key is of since before the steering was changed; then, back to the owner.
    #[cold]
    #[inline(never)]
    pub(super) fn former_owner(&self, port: PortId, key: &FlowKey) -> Option<(WorkerId, Errand)> {
        let (owner, others) = match self.arrival {
            Arrival::Received | Arrival::HandedIn => {
                let service = self.service_of(port, key);
                let service = service.and_then(|id| self.services.spec(id));
                let service = service.map(|spec| spec.key);
                let formers = self.owners.formers(port, service, key);
                if formers == 0 {
                    return None;
                }
                (self.owners.id(), formers)
            }
            Arrival::Former(owner, 0) => return Some((owner, Errand::Settled)),
            Arrival::Former(owner, others) => (owner, others),
            Arrival::Settled | Arrival::Sought(_) => return None,
        };
        let next = others.trailing_zeros() as u16;
        let others = others & (others - 1);
        Some((WorkerId(next), Errand::Former { owner, others }))
    }

    /// The same for what the kernel sends: only replies of a NAT server can be of any connection.
    #[inline]
    pub(super) fn owner_of_reply(&self, port: PortId, key: &FlowKey) -> Option<WorkerId> {
        if self.owners.alone() || self.arrival != Arrival::Received {
            return None;
        }
        self.owners.elsewhere(port, None, key)
    }

    /// Who else may know the connection that an ICMP error is about; `answer` is the key of a packet of it that goes where the error
    /// has to go. Which worker receives that connection's packets cannot always be told: then all are asked in turn.
    pub(super) fn who_knows(&self, port: PortId, answer: &FlowKey) -> Option<(WorkerId, Errand)> {
        let first = match self.arrival {
            Arrival::HandedIn | Arrival::Former(..) | Arrival::Settled => return None,
            Arrival::Received if self.owners.alone() => return None,
            Arrival::Received => self.owners.id(),
            Arrival::Sought(first) => first,
        };
        let service = self.service_of(port, answer);
        let service = service
            .and_then(|id| self.services.spec(id))
            .map(|of| of.key);
        if self.arrival == Arrival::Received
            && let Some(owner) = self.owner_of_errors(port, service, answer)
        {
            return (owner != self.owners.id()).then_some((owner, Errand::Received));
        }
        let next = self.owners.next();
        (service.is_some() && next != first).then_some((next, Errand::Sought { first }))
    }

    /// The owner of a connection by the key of its packet, where it can be told: that of who received it by where such packets arrive.
    fn owner_of_errors(
        &self,
        port: PortId,
        service: Option<ServiceKey>,
        answer: &FlowKey,
    ) -> Option<WorkerId> {
        self.owners.of(port, service, answer).or_else(|| {
            service?;
            let packet = Packet::flow(answer.protocol, &answer.ends());
            self.owners.steering().reaches(port, &packet)
        })
    }

    /// Gives a frame to another worker at the end of the burst.
    pub(super) fn hand_off(&mut self, to: WorkerId, port: PortId, frame: P::Frame, errand: Errand) {
        let origin = Origin { port, errand };
        self.forwarder.lanes.hand_off(to, frame, origin);
    }

    /// Walks what other workers handed over: up to a burst from each. Returns whether there was anything.
    pub(crate) fn take_handed_in(&mut self, burst: &mut Burst<P::Frame>) -> bool {
        let mut busy = false;
        for inbox in 0..self.forwarder.lanes.inboxes() {
            let mut left = BURST;
            while left > 0
                && let Some(origin) = self.forwarder.lanes.receive_handed(inbox, burst, left)
            {
                busy = true;
                left -= burst.len();
                self.walk_handed_in(origin, burst);
            }
        }
        busy
    }

    fn walk_handed_in(&mut self, origin: Origin, burst: &mut Burst<P::Frame>) {
        let port = origin.port;
        self.arrival = match origin.errand {
            Errand::Received | Errand::FromKernel | Errand::Send => Arrival::HandedIn,
            Errand::Sought { first } => Arrival::Sought(first),
            Errand::Former { owner, others } => Arrival::Former(owner, others),
            Errand::Settled => Arrival::Settled,
        };
        match origin.errand {
            // Who received them has counted their bytes.
            Errand::Received | Errand::Sought { .. } | Errand::Former { .. } | Errand::Settled => {
                self.walk_burst(port, burst);
            }
            Errand::FromKernel => self.walk_from_kernel(port, burst),
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
