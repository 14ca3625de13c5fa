//! Sending a connection's packet on: what is to be changed ([`Plan`]), and the steps that change it, the same for every
//! method and direction.
//!
//! The order is IPVS's (`SEMANTICS.md` section 7): route, TTL, MTU, rewrite or encapsulate, transmit. Nothing of
//! a packet is changed before it is certain that it goes out. A packet of a connection that remembers its next hop, and with which
//! nothing is out of the ordinary, never gets here ([`crate::pipeline`]); all others look everything up.

mod fragment;
mod icmp;
mod plan;
mod relay;
mod tunnel;

use std::net::Ipv4Addr;
use std::sync::Arc;

use rtrb::Producer;

pub(crate) use self::icmp::ErrorBudget;
pub(crate) use self::plan::Plan;
use self::plan::Translation;
pub(crate) use self::tunnel::{Outer, encapsulate};
use crate::command::{Event, PortId};
use crate::conn::{Conn, Direction};
use crate::drop_reason::DropReason;
use crate::egress::{
    Fib, Hop, HopRef, Hops, Lanes, Mac, NeighbourKey, Neighbours, Notice, Route, Treatment,
};
use crate::io::{ChecksumRequest, Frame, Port};
use crate::packet::ethernet::{self, Ethernet};
use crate::packet::icmp::Problem;
use crate::packet::ipv4::Ipv4;
use crate::packet::sctp::Sctp;
use crate::packet::tcp::Tcp;
use crate::packet::udp::Udp;
use crate::parse::Flow;
use crate::service::Protocol;
use crate::stats::WorkerCells;
use crate::time::{Span, Ticks};

/// Remembered next hops looked at in one turn for whether they are in use.
const REPORTS: usize = 64;

/// Everything between a decision and the wire.
pub(crate) struct Forwarder<P: Port> {
    pub(crate) lanes: Lanes<P>,
    pub(crate) fib: Arc<Fib>,
    pub(crate) neighbours: Neighbours<P::Frame>,
    pub(crate) hops: Hops,
    pub(crate) events: Producer<Event>,
    pub(crate) errors: ErrorBudget,
    pub(crate) cells: Arc<WorkerCells>,
    /// Whether a tunnel reports packets that are too long (`pmtu_disc`); else it fragments.
    pub(crate) pmtu_disc: bool,
    /// Identification of tunnel packets that may be fragmented.
    pub(crate) next_ip_id: u16,
    /// When neighbours in use are looked for again.
    pub(crate) next_report: Ticks,
    /// How often that is done.
    pub(crate) report_again: Span,
    pub(crate) now: Ticks,
}

enum Way {
    Hop(Hop),
    Local,
}

impl<P: Port> Forwarder<P> {
    /// Sends a packet of `conn` on, or says why not: `flow` describes `frame`, which came in on `port`. The connection
    /// remembers the next hop, so that the next packet may go the short way.
    pub(crate) fn forward(
        &mut self,
        port: PortId,
        frame: P::Frame,
        flow: &Flow,
        conn: &mut Conn,
        direction: Direction,
    ) {
        let plan = Plan::new(conn, direction);
        conn.hops[direction as usize] = self.look_up_and_forward(port, frame, flow, &plan);
    }

    /// Returns the next hop, for the connection to remember.
    fn look_up_and_forward(
        &mut self,
        port: PortId,
        frame: P::Frame,
        flow: &Flow,
        plan: &Plan,
    ) -> HopRef {
        match self.way(plan.to) {
            Ok(Way::Hop(hop)) => {
                self.forward_by(&hop, port, frame, flow, plan);
                self.remember(&hop, plan)
            }
            Ok(Way::Local) => {
                self.deliver(port, frame, flow, plan);
                HopRef::NONE
            }
            Err(reason) => {
                self.lanes.discard(frame, reason);
                HopRef::NONE
            }
        }
    }

    fn remember(&mut self, hop: &Hop, plan: &Plan) -> HopRef {
        let mac = self.neighbours.mac((hop.port, hop.neighbour));
        let (Some(mac), Some(fits)) = (mac, plan.room(hop.mtu)) else {
            return HopRef::NONE;
        };
        let macs = (mac, self.lanes.mac(hop.port));
        self.hops.remember(*hop, macs, plan.treatment, fits)
    }

    fn forward_by(
        &mut self,
        hop: &Hop,
        port: PortId,
        mut frame: P::Frame,
        flow: &Flow,
        plan: &Plan,
    ) {
        if flow.ttl <= 1 {
            self.report(port, &frame, flow, plan, Problem::TtlExceeded);
            return self.lanes.discard(frame, DropReason::TtlExceeded);
        }
        let Some(mtu) = plan.room(hop.mtu) else {
            return self.lanes.discard(frame, DropReason::TooLong);
        };
        let tunnel = plan.treatment == Treatment::Encapsulate;
        let too_long = flow.total_len > mtu;
        if too_long && flow.dont_fragment && (!tunnel || self.pmtu_disc) {
            if plan.direction == Direction::ToServer
                && let Ok((ip, _)) = Ipv4::view_mut(&mut frame.bytes_mut()[Ethernet::LEN..])
            {
                // The quote shows the TTL that the packet would have had (section 7).
                ip.decrement_ttl();
            }
            self.report(
                port,
                &frame,
                flow,
                plan,
                Problem::FragmentationNeeded { mtu },
            );
            return self.lanes.discard(frame, DropReason::FragmentationNeeded);
        }
        frame.truncate(Ethernet::LEN + usize::from(flow.total_len));
        if tunnel {
            if !self.wrap(&mut frame, hop, plan.to) {
                return self.lanes.discard(frame, DropReason::NoHeadroom);
            }
        } else {
            change(&mut frame, flow, plan.translation);
        }
        if plan.translation.is_some() && flow.no_checksum {
            let offload = self.lanes.offloads(hop.port).udp_checksum && !too_long;
            fill_in_udp_checksum(&mut frame, flow, offload);
        }
        if too_long {
            self.fragment(frame, hop)
        } else {
            self.transmit(frame, hop)
        }
    }

    /// [`encapsulate`] for a packet that goes by `hop`, whose MAC need not be known yet.
    fn wrap(&mut self, frame: &mut P::Frame, hop: &Hop, server: Ipv4Addr) -> bool {
        let outer = Outer {
            macs: &[0; 12],
            len: frame.bytes().len() + Ipv4::LEN,
            source: hop.source,
            server,
            pmtu_disc: self.pmtu_disc,
        };
        encapsulate(frame, &outer, &mut self.next_ip_id)
    }

    /// Sends a packet of the kernel's on; its Ethernet header is complete, its TTL stays.
    pub(crate) fn forward_from_kernel(
        &mut self,
        port: PortId,
        mut frame: P::Frame,
        reply: Option<(&Flow, &Plan)>,
    ) {
        if let Some((flow, plan)) = reply {
            translate(&mut frame, flow, plan);
        }
        self.lanes.send(port, frame);
    }

    /// A real server that is this machine itself: translated, but its TTL stays (`SEMANTICS.md` section 1).
    fn deliver(&mut self, port: PortId, mut frame: P::Frame, flow: &Flow, plan: &Plan) {
        let client_hidden = plan
            .translation
            .is_some_and(|translation| translation.ends.src().addr != flow.ends.src().addr);
        // The kernel refuses loopback destinations from outside (SEMANTICS.md section 1).
        let martian = plan.translation.is_some() && plan.to.is_loopback();
        if plan.direction == Direction::ToClient || client_hidden || martian {
            return self.lanes.discard(frame, DropReason::NoRoute);
        }
        translate(&mut frame, flow, plan);
        self.lanes.punt(port, frame);
    }

    fn way(&self, addr: Ipv4Addr) -> Result<Way, DropReason> {
        if addr.is_loopback() {
            return Ok(Way::Local);
        }
        match self.fib.lookup(addr) {
            Some(Route::Via {
                port,
                gateway,
                source,
                mtu,
            }) => {
                if usize::from(port.0) >= self.lanes.count() {
                    return Err(DropReason::NoRoute);
                }
                let link = self.lanes.mtu(port);
                let mtu = mtu.map_or(link, |mtu| mtu.min(link));
                Ok(Way::Hop(Hop {
                    port,
                    neighbour: gateway.unwrap_or(addr),
                    source,
                    mtu,
                }))
            }
            Some(Route::Local) => Ok(Way::Local),
            Some(Route::Kernel | Route::Unreachable) | None => Err(DropReason::NoRoute),
        }
    }

    /// Addresses a finished packet to its next hop and sends it; it waits while the next hop's MAC is not known.
    fn transmit(&mut self, frame: P::Frame, hop: &Hop) {
        let key = (hop.port, hop.neighbour);
        match self.resolve(key) {
            Some(mac) => self.send_to(hop.port, mac, frame),
            None => {
                if let Err(frame) = self.neighbours.hold(key, frame, self.now) {
                    self.lanes.discard(frame, DropReason::NeighbourQueueFull);
                }
            }
        }
    }

    /// A neighbour's MAC, if it is known. Control hears of it now and then, so that the kernel keeps it alive or asks for it.
    fn resolve(&mut self, key: NeighbourKey) -> Option<Mac> {
        let (mac, notice) = self.neighbours.resolve(key, self.now);
        if let Some(notice) = notice {
            // Control also learns of neighbours otherwise; a full queue costs only time.
            let (port, addr) = key;
            let _ = self.events.push(match notice {
                Notice::Missing => Event::NeighbourMissing { port, addr },
                Notice::Used => Event::NeighbourUsed { port, addr },
            });
        }
        mac
    }

    /// Tells control of neighbours that packets went to without anybody looking them up.
    pub(crate) fn report_neighbours(&mut self) {
        if self.now < self.next_report {
            return;
        }
        for _ in 0..REPORTS {
            match self.hops.report() {
                Some(Some(key)) => {
                    self.resolve(key);
                }
                Some(None) => {}
                None => {
                    self.next_report = self.now + self.report_again;
                    return;
                }
            }
        }
    }

    fn send_to(&mut self, port: PortId, mac: Mac, mut frame: P::Frame) {
        let mut addresses = [0; 12];
        addresses[..6].copy_from_slice(&mac.0);
        addresses[6..].copy_from_slice(&self.lanes.mac(port).0);
        if let Ok((ethernet, _)) = Ethernet::view_mut(frame.bytes_mut()) {
            ethernet.readdress(addresses);
            ethernet.set_ether_type(ethernet::IPV4);
        }
        self.lanes.send(port, frame);
    }

    /// A neighbour became known, moved, or went. Packets that waited for it leave. Returns what
    /// [`Forwarder::forget_hops`] does.
    #[must_use]
    pub(crate) fn set_neighbour(&mut self, port: PortId, addr: Ipv4Addr, mac: Option<Mac>) -> bool {
        self.neighbours.set((port, addr), mac);
        let Some(mac) = mac else {
            return self.forget_hops();
        };
        self.hops.moved(port, addr, mac);
        if usize::from(port.0) < self.lanes.count() {
            while let Some(frame) = self.neighbours.release((port, addr)) {
                self.send_to(port, mac, frame);
            }
        }
        false
    }

    /// What connections remember of their next hops holds no more. Returns whether they must be made to forget one by one.
    #[must_use]
    pub(crate) fn forget_hops(&mut self) -> bool {
        self.hops.forget_all()
    }

    /// Drops packets that have waited too long for a next hop.
    pub(crate) fn give_up_waiting(&mut self) {
        while let Some(frame) = self.neighbours.give_up(self.now) {
            self.lanes.discard(frame, DropReason::NeighbourUnresolved);
        }
    }
}

/// All that changes in a packet that is passed on, but for headers in front of its own: TTL, addresses, ports.
/// Checksums follow by difference (RFC 1624), so a wrong one stays wrong.
fn change(frame: &mut impl Frame, flow: &Flow, to: Option<Translation>) {
    let packet = &mut frame.bytes_mut()[Ethernet::LEN..];
    let Ok((ip, _)) = Ipv4::view_mut(packet) else {
        lost_header()
    };
    ip.decrement_ttl();
    if let Some(to) = to {
        translate_packet(packet, flow, &to);
    }
}

fn translate(frame: &mut impl Frame, flow: &Flow, plan: &Plan) {
    let Some(to) = &plan.translation else { return };
    translate_packet(&mut frame.bytes_mut()[Ethernet::LEN..], flow, to);
    if flow.no_checksum {
        fill_in_udp_checksum(frame, flow, false);
    }
}

fn translate_packet(packet: &mut [u8], flow: &Flow, to: &Translation) {
    let Some((header, payload)) = packet.split_at_mut_checked(usize::from(flow.header_len)) else {
        lost_header()
    };
    let Ok((ip, _)) = Ipv4::view_mut(header) else {
        lost_header()
    };
    let (src, dst) = (to.ends.src(), to.ends.dst());
    ip.translate(src.addr, dst.addr, to.delta.ip);
    match flow.protocol {
        Protocol::Tcp => match Tcp::view_mut(payload) {
            Ok(tcp) => tcp.translate(src.port, dst.port, to.delta.l4),
            Err(_) => lost_header(),
        },
        Protocol::Udp => match Udp::view_mut(payload) {
            Ok(udp) => udp.translate(src.port, dst.port, to.delta.l4),
            Err(_) => lost_header(),
        },
        Protocol::Sctp => {
            let len = usize::from(flow.total_len) - usize::from(flow.header_len);
            if Sctp::translate(&mut payload[..len], src.port, dst.port).is_err() {
                lost_header()
            }
        }
    }
}

#[cold]
fn lost_header() -> ! {
    unreachable!("parsing saw this header whole");
}

/// A translated UDP packet that came without checksum gets one (`SEMANTICS.md` section 7), from the NIC if it offers that.
pub(crate) fn fill_in_udp_checksum(frame: &mut impl Frame, flow: &Flow, offload: bool) {
    let l3_len = flow.header_len;
    let packet = &mut frame.bytes_mut()[Ethernet::LEN..Ethernet::LEN + usize::from(flow.total_len)];
    let (header, payload) = packet.split_at_mut(usize::from(l3_len));
    let Ok((ip, _)) = Ipv4::view(header) else {
        lost_header()
    };
    let pseudo = ip.pseudo_header(payload.len() as u16);
    let Ok(udp) = Udp::view_mut(payload) else {
        lost_header()
    };
    if offload {
        udp.set_checksum_field(pseudo.folded());
        let l2_len = Ethernet::LEN as u8;
        frame.request_checksums(ChecksumRequest {
            l2_len,
            l3_len,
            ipv4: false,
            udp: true,
        });
    } else {
        udp.set_checksum_field(0);
        let whole = pseudo.bytes(payload);
        if let Ok(udp) = Udp::view_mut(payload) {
            udp.set_checksum(whole);
        }
    }
}
