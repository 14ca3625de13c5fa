//! ICMP errors about packets of connections, of either side (`SEMANTICS.md` section 7).

use super::Pipeline;
use super::advice::Subject;
use super::opening::{Chosen, is_beside_ftp};
use crate::command::PortId;
use crate::conn::{Conn, Direction, FlowKey, Hit};
use crate::drop_reason::DropReason;
use crate::io::Port;
use crate::parse::Related;
use crate::service::{Protocol, ServiceId, ServiceKey};
use crate::stats::HandedAs;

/// Seconds that a connection lives of which nothing was seen but an error.
const UNSEEN_S: u32 = 3;

impl<P: Port> Pipeline<P> {
    /// Passes an error on to the end of the connection that sent the packet quoted. It counts, but keeps nothing alive. What is
    /// about no connection of any worker is the kernel's, or with `schedule_icmp` makes one.
    #[cold]
    #[inline(never)]
    pub(super) fn relate(&mut self, port: PortId, frame: P::Frame, error: &Related) {
        let answer = error.answer();
        let Some(hit) = self.table.find(answer) else {
            if let Some((worker, errand)) = self.who_knows(port, &answer) {
                return self.hand_off(worker, port, frame, errand, HandedAs::Unknown);
            }
            return if self.settings.schedule_icmp {
                self.open_by_error(port, frame, error)
            } else {
                self.forwarder.lanes.punt(port, frame)
            };
        };
        let conn = *self.table.of(hit);
        // What is on its way from a DR or TUN server to a client is complete.
        if hit.direction == Direction::ToClient && !conn.translated() {
            return self.forwarder.lanes.punt(port, frame);
        }
        self.relay(port, frame, error, &conn, hit.direction);
    }

    fn relay(
        &mut self,
        port: PortId,
        frame: P::Frame,
        error: &Related,
        conn: &Conn,
        direction: Direction,
    ) {
        self.count(conn.rs, direction, error.total_len);
        self.forwarder.relay(port, frame, error, conn, direction);
    }

    /// `schedule_icmp`: schedules the connection that the error is about.
    fn open_by_error(&mut self, port: PortId, frame: P::Frame, error: &Related) {
        let client = error.answer();
        let Some(service) = self.service_of(port, &client) else {
            return self.forwarder.lanes.punt(port, frame);
        };
        if self.settings.defence.drop_rate > 0 && self.sacrifices() {
            return self.forwarder.lanes.discard(frame, DropReason::Defence);
        }
        let Some(spec) = self.services.spec(service) else {
            unreachable!("lookup finds services that are there");
        };
        let (of, one_packet) = (spec.key, spec.one_packet);
        if let Some(owner) = self.adviser(spec, &client) {
            return self.ask(owner, port, frame, Subject::Error(*error), (service, of));
        }
        let chosen = match self.chosen(service, &client) {
            Ok(Some(chosen)) => chosen,
            Ok(None) => return self.leave_error(port, frame, &client, of),
            Err(reason) => return self.forwarder.lanes.discard(frame, reason),
        };
        if one_packet && client.protocol == Protocol::Udp {
            return self.relay_alone(port, frame, error, service, &chosen);
        }
        match self.connect(service, &chosen, &client) {
            Ok(hit) => self.relay_first(port, frame, error, hit),
            Err(reason) => self.forwarder.lanes.discard(frame, reason),
        }
    }

    /// Passes an error on of whose connection, just opened, nothing else was seen.
    pub(super) fn relay_first(&mut self, port: PortId, frame: P::Frame, error: &Related, hit: Hit) {
        self.table.of_mut(hit).seen = self.grain.short();
        let timeout = self.grains.at_least(self.rate.seconds(UNSEEN_S));
        self.retime(hit, timeout);
        let conn = *self.table.of(hit);
        self.relay(port, frame, error, &conn, Direction::ToServer);
    }

    /// As [`Pipeline::pass_alone`].
    pub(super) fn relay_alone(
        &mut self,
        port: PortId,
        frame: P::Frame,
        error: &Related,
        service: ServiceId,
        chosen: &Chosen,
    ) {
        match self.connection(service, chosen, &error.answer()) {
            Ok((conn, _)) => {
                self.bind(service, conn.rs);
                self.services.unbind(conn.rs, false);
                self.relay(port, frame, error, &conn, Direction::ToServer);
            }
            Err(reason) => self.forwarder.lanes.discard(frame, reason),
        }
    }

    /// No server takes it: errors are not answered.
    pub(super) fn leave_error(
        &mut self,
        port: PortId,
        frame: P::Frame,
        client: &FlowKey,
        service: ServiceKey,
    ) {
        if is_beside_ftp(service, client) {
            self.forwarder.lanes.punt(port, frame)
        } else {
            self.forwarder.lanes.discard(frame, DropReason::NoServer)
        }
    }
}
