//! The short way: a packet with nothing out of the ordinary, of a connection that it changes nothing of but when it was seen.
//!
//! Nearly all packets are such. They take no function call, and nothing is written before it is certain that they go out; all
//! others take the long way, unchanged, which decides everything anew. What holds for a packet holds on both ways: this one only
//! knows which of the rules have nothing to say.

use super::Pipeline;
use crate::command::PortId;
use crate::conn::state::Viewpoint;
use crate::conn::{Control, Direction, Guess};
use crate::drop_reason::DropReason;
use crate::forward::TUNNEL_OVERHEAD;
use crate::io::{Frame, Port};
use crate::packet::ethernet::Ethernet;
use crate::packet::tcp;
use crate::packet::usual::Usual;
use crate::service::{Method, Protocol};

impl<P: Port> Pipeline<P> {
    /// Makes the frame, which [`crate::parse::usual`] has accepted, what is to be sent if it is a packet of the connection guessed and may
    /// go the short way, and says by which port, or why not. `None` leaves it as it is.
    #[inline(always)]
    pub(super) fn short_way(
        &mut self,
        frame: &mut P::Frame,
        guess: Guess,
    ) -> Option<Result<PortId, DropReason>> {
        let usual = Usual::view_mut(frame.bytes_mut())?;
        let protocol = usual.transport();
        let (conn, direction) = self.table.confirm(guess, protocol, usual.ends())?;
        let to_server = direction == Direction::ToServer;
        let state = conn.state;
        let (stays, timeout) = match protocol {
            Protocol::Tcp => {
                let flags = usual.tcp_flags();
                let viewpoint = Viewpoint::new(to_server, conn.no_output);
                let stays = state.after(flags, viewpoint, self.tcp_tables) == state;
                (stays && flags & tcp::SYN == 0, self.timeouts.tcp(state))
            }
            Protocol::Udp | Protocol::Sctp => {
                let fills_in = conn.translated() && !usual.has_udp_checksum();
                let stays = !fills_in && conn.control != Control::Tentative;
                (stays, self.timeouts.udp())
            }
        };
        if !stays || conn.timeout != timeout || conn.displaced || usual.ttl() <= 1 {
            return None;
        }
        let hop = self.forwarder.hops.ready(conn.hops[direction as usize])?;
        let server = self.services.server_at(conn.rs);
        if self.now >= hop.report_at || !server.available {
            return None;
        }
        let total_len = usual.total_len();
        let tunnel = conn.method() == Method::Tun && to_server;
        let overhead = if tunnel { TUNNEL_OVERHEAD } else { 0 };
        if usize::from(total_len) + usize::from(overhead) > usize::from(hop.hop.mtu) {
            return None;
        }

        if to_server {
            conn.packets = conn.packets.saturating_add(1);
        } else {
            conn.no_output = false;
        }
        conn.seen = self.grain.short();
        let at = direction as usize;
        self.cells.servers[conn.rs as usize].traffic[at].count(total_len);
        self.cells.services[server.service.0 as usize].traffic[at].count(total_len);
        let out = hop.hop.port;
        if tunnel {
            usual.take_ttl();
            frame.truncate(Ethernet::LEN + usize::from(total_len));
            let (macs, source, server) = (hop.macs, hop.hop.source, conn.server().addr);
            if !self.forwarder.encapsulate(frame, &macs, source, server) {
                return Some(Err(DropReason::NoHeadroom));
            }
        } else {
            if conn.translated() {
                usual.translate(&hop.macs, conn.leaves_as(direction), conn.delta(direction));
            } else {
                usual.pass_on(&hop.macs);
            }
            frame.truncate(Ethernet::LEN + usize::from(total_len));
        }
        Some(Ok(out))
    }
}
