//! Passing on ICMP errors about packets of connections (`SEMANTICS.md` section 7).

use std::net::Ipv4Addr;

use super::{Forwarder, Plan, Translation, Way, lost_header};
use crate::command::PortId;
use crate::conn::{Conn, Direction};
use crate::drop_reason::DropReason;
use crate::egress::{Hop, Treatment};
use crate::io::{Frame, Port};
use crate::packet::ethernet::Ethernet;
use crate::packet::icmp::IcmpError;
use crate::packet::ipv4::Ipv4;
use crate::parse::Related;

impl<P: Port> Forwarder<P> {
    /// Passes an error that goes `direction` on to the other end of the connection that it is about. Nobody is told if that does
    /// not work: there are no errors about errors (RFC 1122 section 3.2.2).
    pub(crate) fn relay(
        &mut self,
        port: PortId,
        mut frame: P::Frame,
        error: &Related,
        conn: &Conn,
        direction: Direction,
    ) {
        let plan = Plan::new(conn, direction);
        frame.truncate(Ethernet::LEN + usize::from(error.total_len));
        let way = match self.way(plan.to) {
            Ok(way) => way,
            Err(reason) => return self.lanes.discard(frame, reason),
        };
        let stops = matches!(way, Way::Hop(_)) && error.ttl <= 1;
        if stops {
            return self.lanes.discard(frame, DropReason::TtlExceeded);
        }
        if let Some(translation) = &plan.translation {
            let packet = &mut frame.bytes_mut()[Ethernet::LEN..];
            if !IcmpError::is_right(&packet[usize::from(error.header_len)..]) {
                return self.lanes.discard(frame, DropReason::BadIcmpChecksum);
            }
            // Who sent it is told to the real server, but in FULLNAT, which hides whatever is on the clients' side.
            let hides = direction == Direction::ToClient || conn.local().is_some();
            let source = hides.then(|| translation.ends.src().addr);
            translate(packet, error, translation, source);
        }
        match way {
            Way::Local if direction == Direction::ToServer => self.lanes.punt(port, frame),
            Way::Local => self.lanes.discard(frame, DropReason::NoRoute),
            Way::Hop(hop) => self.relay_by(&hop, frame, error, &plan),
        }
    }

    fn relay_by(&mut self, hop: &Hop, mut frame: P::Frame, error: &Related, plan: &Plan) {
        let Some(mtu) = plan.room(hop.mtu) else {
            return self.lanes.discard(frame, DropReason::TooLong);
        };
        let tunnel = plan.treatment == Treatment::Encapsulate;
        let too_long = error.total_len > mtu;
        if too_long && error.dont_fragment && (!tunnel || self.pmtu_disc) {
            return self.lanes.discard(frame, DropReason::TooLong);
        }
        if tunnel {
            if !self.wrap(&mut frame, hop, plan.to) {
                return self.lanes.discard(frame, DropReason::NoHeadroom);
            }
        } else {
            match Ipv4::view_mut(&mut frame.bytes_mut()[Ethernet::LEN..]) {
                Ok((ip, _)) => ip.decrement_ttl(),
                Err(_) => lost_header(),
            }
        }
        if too_long {
            self.fragment(frame, hop)
        } else {
            self.transmit(frame, hop)
        }
    }
}

/// Addresses an error, from `source` if it is to be another, and makes its quote what the receiver once sent: a packet of the
/// other direction. The checksum of the TCP, UDP or SCTP packet quoted stays as it is.
fn translate(packet: &mut [u8], error: &Related, to: &Translation, source: Option<Ipv4Addr>) {
    let (header, message) = packet.split_at_mut(usize::from(error.header_len));
    let Ok((ip, _)) = Ipv4::view(header) else {
        lost_header()
    };
    let source = source.unwrap_or(ip.src());
    let sent = to.ends.reversed();
    let (quote, ports) =
        message[IcmpError::LEN..].split_at_mut(usize::from(error.quoted_header_len));
    let readdressed = Ipv4::readdress(header, source, to.ends.dst().addr)
        .and_then(|()| Ipv4::readdress(quote, sent.src().addr, sent.dst().addr));
    if readdressed.is_err() {
        lost_header()
    }
    ports[..2].copy_from_slice(&sent.src().port.to_be_bytes());
    ports[2..4].copy_from_slice(&sent.dst().port.to_be_bytes());
    IcmpError::seal(message);
}
