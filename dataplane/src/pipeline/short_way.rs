//! The short way: a packet with nothing out of the ordinary, of a connection that it changes nothing of but when it was seen.
//!
//! Nearly all packets are such. They take no function call, and nothing is written before it is certain that they go out; all
//! others take the long way, unchanged, which decides everything anew. What holds for a packet holds on both ways: this one only
//! knows which of the rules have nothing to say. Most of that the long way has found out before: a connection remembers its next
//! hop in a direction only while plain packets in that direction change nothing ([`Pipeline::settled`]).

use super::{Kind, Pending, Pipeline};
use crate::command::PortId;
use crate::conn::state::{TcpTables, Viewpoint};
use crate::conn::{Conn, Direction, Hit};
use crate::egress::{ReadyHop, Treatment};
use crate::forward::{Outer, encapsulate, fill_in_udp_checksum};
use crate::io::{Burst, Frame, Port};
use crate::packet::ethernet::Ethernet;
use crate::packet::ipv4::Ipv4;
use crate::packet::tcp;
use crate::packet::usual::Usual;
use crate::parse::Flow;
use crate::service::Protocol;

impl<P: Port> Pipeline<P> {
    /// Takes the frames at the front that go the short way to the port that the last ones left by, and returns how many these were.
    /// When that is all, they are sent and gone; else they lie where they were, ready to be sent.
    #[inline(never)]
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
        self.complete_openings(port);
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
        let usual = Usual::view(frame.bytes())?;
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
        let ids = &mut self.forwarder.next_ip_id;
        let pmtu_disc = self.forwarder.pmtu_disc;
        let sent = treat(frame, total_len, hop, (conn, direction), (pmtu_disc, ids))?;
        conn.count_packet(direction);
        conn.seen = self.grain.short();
        server.traffic[at].count(total_len);
        service.traffic[at].count(total_len);
        Some(sent)
    }

    /// The end of the long way for a packet of which everything was decided, and that goes where its connection's last one went, or
    /// its real server's. `None` leaves it as it is.
    pub(super) fn follow(&mut self, frame: &mut P::Frame, flow: &Flow, hit: Hit) -> Option<Sent> {
        let conn = self.table.of_mut(hit);
        let at = hit.direction as usize;
        let way = match hit.direction {
            Direction::ToServer => self.services.server_at(conn.rs).hop,
            Direction::ToClient => conn.hops[at],
        };
        let hop = self.forwarder.hops.ready(way)?;
        let treatment = Treatment::of(conn.method(), hit.direction);
        let plain = usize::from(flow.header_len) == Ipv4::LEN && flow.protocol != Protocol::Sctp;
        let fits = flow.ttl > 1 && flow.total_len <= hop.fits;
        if hop.treatment != treatment || !plain || !fits {
            return None;
        }
        conn.hops[at] = way;
        let ids = &mut self.forwarder.next_ip_id;
        let tunnels = (self.forwarder.pmtu_disc, ids);
        let sent = treat(frame, flow.total_len, hop, (conn, hit.direction), tunnels)?;
        if treatment == Treatment::Translate && flow.no_checksum {
            let offloads = self.forwarder.lanes.offloads(sent.port);
            fill_in_udp_checksum(frame, flow, offloads.udp_checksum);
        }
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
pub(super) struct Sent {
    pub(super) port: PortId,
    /// Bytes of the frame, which are at most an IP packet's.
    len: u16,
}

/// Makes a frame with a packet of `total_len` bytes, without options, what goes to the next hop. `None` leaves it as it is: there is
/// no room for a tunnel's header.
#[inline(always)]
fn treat(
    frame: &mut impl Frame,
    total_len: u16,
    hop: &mut ReadyHop,
    (conn, direction): (&Conn, Direction),
    (pmtu_disc, next_ip_id): (bool, &mut u16),
) -> Option<Sent> {
    let mut len = Ethernet::LEN as u16 + total_len;
    if hop.treatment == Treatment::Encapsulate {
        len += Ipv4::LEN as u16;
        let outer = Outer {
            macs: &hop.macs,
            len: usize::from(len),
            source: hop.source,
            server: conn.tunnel_end(),
            pmtu_disc,
        };
        if !encapsulate(frame, &outer, next_ip_id) {
            return None;
        }
    } else {
        let usual = Usual::view_mut(frame.bytes_mut())?;
        if hop.treatment == Treatment::Translate {
            usual.translate(&hop.macs, conn.leaves_as(direction), conn.delta(direction));
        } else {
            usual.pass_on(&hop.macs);
        }
        frame.truncate(usize::from(len));
    }
    hop.used = true;
    Some(Sent {
        port: hop.port,
        len,
    })
}
