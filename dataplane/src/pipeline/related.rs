//! ICMP errors about packets of connections, of either side (`SEMANTICS.md` section 7).

use super::Pipeline;
use super::opening::is_beside_ftp;
use crate::command::PortId;
use crate::conn::{Conn, Direction, FlowKey};
use crate::drop_reason::DropReason;
use crate::io::Port;
use crate::parse::Related;
use crate::service::{Protocol, ServiceId};
use crate::stats::HandedAs;

/// Seconds that a connection lives of which nothing was seen but an error.
const UNSEEN_S: u32 = 3;

impl<P: Port> Pipeline<P> {
    /// Passes an error on to the end of the connection that sent the packet quoted. It counts, but keeps nothing alive. What is
    /// about no connection of any worker is the kernel's, or with `schedule_icmp` makes one.
    #[cold]
    #[inline(never)]
    pub(super) fn relate(&mut self, port: PortId, frame: P::Frame, error: &Related) {
        // It goes where an answer to the packet quoted would go.
        let answer = error.quoted.reversed().key(error.protocol);
        let Some(hit) = self.table.find(answer) else {
            if let Some((worker, errand)) = self.who_knows(port, &answer) {
                return self.hand_off(worker, port, frame, errand, HandedAs::Unknown);
            }
            return if self.settings.schedule_icmp {
                self.open_by_error(port, frame, error, &answer)
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
    fn open_by_error(&mut self, port: PortId, frame: P::Frame, error: &Related, client: &FlowKey) {
        let Some(service) = self.service_of(port, client) else {
            return self.forwarder.lanes.punt(port, frame);
        };
        if self.settings.defence.drop_rate > 0 && self.sacrifices() {
            return self.forwarder.lanes.discard(frame, DropReason::Defence);
        }
        match self.connect_by_error(service, client) {
            Ok(Some(conn)) => self.relay(port, frame, error, &conn, Direction::ToServer),
            Ok(None) => self.leave_error(port, frame, service, client),
            Err(reason) => self.forwarder.lanes.discard(frame, reason),
        }
    }

    fn connect_by_error(
        &mut self,
        service: ServiceId,
        client: &FlowKey,
    ) -> Result<Option<Conn>, DropReason> {
        let elsewhere = self
            .services
            .spec(service)
            .and_then(|spec| self.adviser(spec, client));
        if elsewhere.is_some() {
            // Errors do not wait: the client's own packet will find out.
            return Err(DropReason::AdviceMissing);
        }
        let Some(chosen) = self.chosen(service, client)? else {
            return Ok(None);
        };
        let one_packet = self.services.spec(service).is_some_and(|of| of.one_packet);
        if one_packet && client.protocol == Protocol::Udp {
            let (conn, _) = self.connection(service, &chosen, client)?;
            self.bind(service, conn.rs);
            self.services.unbind(conn.rs, false);
            return Ok(Some(conn));
        }
        let hit = self.connect(service, &chosen, client)?;
        self.table.of_mut(hit).seen = self.grain.short();
        let timeout = self.grains.at_least(self.rate.seconds(UNSEEN_S));
        self.retime(hit, timeout);
        Ok(Some(*self.table.of(hit)))
    }

    /// No server takes it: errors are not answered.
    fn leave_error(&mut self, port: PortId, frame: P::Frame, service: ServiceId, key: &FlowKey) {
        match self.services.spec(service) {
            Some(spec) if is_beside_ftp(spec.key, key) => self.forwarder.lanes.punt(port, frame),
            _ => self.forwarder.lanes.discard(frame, DropReason::NoServer),
        }
    }
}
