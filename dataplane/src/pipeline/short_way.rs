//! The short way: a packet with nothing out of the ordinary, of a connection that it changes nothing of but when it was seen.
//!
//! Nearly all packets are such. They take no function call, and nothing is written before it is certain that they go out; all
//! others take the long way, unchanged, which decides everything anew. What holds for a packet holds on both ways: this one only
//! knows which of the rules have nothing to say. Most of that the long way has found out before: a connection remembers its next
//! hop in a direction only while plain packets in that direction change nothing ([`Pipeline::settled`]).

use super::{Kind, Pending, Pipeline};
use crate::command::PortId;
use crate::conn::state::{TcpTables, Viewpoint};
use crate::conn::{Conn, Direction};
use crate::egress::Treatment;
use crate::forward::{Outer, encapsulate};
use crate::io::{Burst, Frame, Port};
use crate::packet::ethernet::Ethernet;
use crate::packet::ipv4::Ipv4;
use crate::packet::tcp;
use crate::packet::usual::Usual;
use crate::service::Protocol;

impl<P: Port> Pipeline<P> {
    /// Takes the frames at the front that go the short way to the port that the last ones left by, and returns how many these were.
    /// When that is all, they are sent and gone; else they lie where they were, ready to be sent.
    #[inline(always)]
    pub(super) fn whole_way(&mut self, burst: &mut Burst<P::Frame>, pieces: &[Pending]) -> usize {
        let mut went = 0;
        let mut bytes = 0;
        for (frame, packet) in burst.iter_mut().zip(pieces) {
            let Some(sent) = self.short_way(frame, packet, Some(self.out)) else {
                break;
            };
            bytes += u64::from(sent.len);
            went += 1;
        }
        if went == burst.len() {
            self.forwarder.lanes.send_run(self.out, burst, bytes);
            return 0;
        }
        went
    }

    /// Takes each frame its way, in order, the first `went` of which need only be sent.
    #[inline(never)]
    pub(super) fn mixed_ways(
        &mut self,
        port: PortId,
        burst: &mut Burst<P::Frame>,
        pieces: &[Pending],
        went: usize,
    ) {
        let mut bytes = 0;
        for (at, (mut frame, packet)) in burst.drain(..).zip(pieces).enumerate() {
            let sent = if at < went {
                Some(Sent {
                    port: self.out,
                    len: frame.bytes().len() as u16,
                })
            } else {
                self.short_way(&mut frame, packet, None)
            };
            if sent.is_none_or(|sent| sent.port != self.out) {
                self.send_run(&mut bytes);
            }
            match sent {
                Some(sent) => {
                    self.out = sent.port;
                    bytes += u64::from(sent.len);
                    self.run.push(frame);
                }
                None => self.long_way(port, frame, packet),
            }
        }
        self.send_run(&mut bytes);
    }

    fn send_run(&mut self, bytes: &mut u64) {
        if !self.run.is_empty() {
            let bytes = std::mem::take(bytes);
            let lanes = &mut self.forwarder.lanes;
            lanes.send_run(self.out, &mut self.run, bytes);
        }
    }

    /// Makes the frame what is to be sent if it is a packet of the connection guessed and may go the short way, and says where it went;
    /// `only` by this port, if that is given. `None` leaves it as it is.
    #[inline(always)]
    fn short_way(
        &mut self,
        frame: &mut P::Frame,
        packet: &Pending,
        only: Option<PortId>,
    ) -> Option<Sent> {
        if packet.kind != Kind::Plain {
            return None;
        }
        let usual = Usual::view_mut(frame.bytes_mut())?;
        let (conn, direction) = self
            .table
            .confirm(packet.guess, usual.protocol(), usual.ends())?;
        let at = direction as usize;
        let hop = self.forwarder.hops.ready(conn.hops[at])?;
        let server = &self.cells.servers[conn.rs as usize];
        let total_len = usual.total_len();
        let fills_in = hop.treatment == Treatment::Translate && usual.lacks_checksum();
        let elsewhere = only.is_some_and(|only| only != hop.port);
        if total_len > hop.fits || fills_in || elsewhere {
            return None;
        }
        // A server that was deleted is in none.
        let service = self.cells.service_of(server)?;
        let mut sent = Sent {
            port: hop.port,
            len: Ethernet::LEN as u16 + total_len,
        };
        match hop.treatment {
            Treatment::Readdress => usual.pass_on(&hop.macs),
            Treatment::Translate => {
                usual.translate(&hop.macs, conn.leaves_as(direction), conn.delta(direction));
            }
            Treatment::Encapsulate => {
                let outer = Outer {
                    macs: hop.macs,
                    source: hop.source,
                    server: conn.server().addr,
                    pmtu_disc: self.forwarder.pmtu_disc,
                };
                if !encapsulate(frame, &outer, &mut self.forwarder.next_ip_id) {
                    return None;
                }
                sent.len += Ipv4::LEN as u16;
            }
        }
        frame.truncate(usize::from(sent.len));
        conn.count_packet(direction);
        conn.seen = self.grain.short();
        server.traffic[at].count(total_len);
        service.traffic[at].count(total_len);
        hop.used = true;
        Some(sent)
    }

    /// Whether plain packets in this direction change nothing of the connection, whose last packet went that way, until
    /// one that is not plain comes, or settings or routes change.
    pub(super) fn settled(conn: &Conn, direction: Direction, tables: TcpTables) -> bool {
        let stays = match conn.protocol() {
            Protocol::Tcp => {
                let to_server = direction == Direction::ToServer;
                let viewpoint = Viewpoint::new(to_server, conn.no_output);
                conn.state.after(tcp::ACK, viewpoint, tables) == conn.state
            }
            Protocol::Udp | Protocol::Sctp => true,
        };
        stays && !conn.displaced
    }
}

/// A frame of the short way.
#[derive(Clone, Copy)]
struct Sent {
    port: PortId,
    /// Bytes of the frame, which are at most an IP packet's.
    len: u16,
}
