//! Sending a connection's packet on: what is to be changed ([`Plan`]), and the steps that change it, the same for every
//! method and direction.
//!
//! The order is IPVS's (`SEMANTICS.md` section 7): route, TTL, MTU, rewrite or encapsulate, transmit. Nothing of
//! a packet is changed before it is certain that it goes out.

mod fragment;
mod icmp;
mod plan;
mod tunnel;

use std::net::Ipv4Addr;
use std::sync::Arc;

use rtrb::Producer;

pub(crate) use self::icmp::ErrorBudget;
pub(crate) use self::plan::Plan;
use crate::command::{Event, PortId};
use crate::drop_reason::DropReason;
use crate::egress::{Fib, Lanes, Mac, Neighbours, Notice, Route};
use crate::io::{ChecksumRequest, Frame, Port};
use crate::packet::checksum::Sum;
use crate::packet::ethernet::{self, Ethernet};
use crate::packet::icmp::Problem;
use crate::packet::ipv4::Ipv4;
use crate::packet::tcp::Tcp;
use crate::packet::udp::Udp;
use crate::parse::Flow;
use crate::service::Protocol;
use crate::stats::WorkerCells;
use crate::time::Ticks;

/// Everything between a decision and the wire.
pub(crate) struct Forwarder<P: Port> {
    pub(crate) lanes: Lanes<P>,
    pub(crate) fib: Arc<Fib>,
    pub(crate) neighbours: Neighbours<P::Frame>,
    pub(crate) events: Producer<Event>,
    pub(crate) errors: ErrorBudget,
    pub(crate) cells: Arc<WorkerCells>,
    /// Whether a tunnel reports packets that are too long (`pmtu_disc`); else it fragments.
    pub(crate) pmtu_disc: bool,
    /// Identification of tunnel packets that may be fragmented.
    pub(crate) next_ip_id: u16,
    pub(crate) now: Ticks,
}

/// The way to an address.
#[derive(Clone, Copy, Debug)]
struct Hop {
    port: PortId,
    neighbour: Ipv4Addr,
    source: Ipv4Addr,
    mtu: u16,
}

enum Way {
    Hop(Hop),
    Local,
}

impl<P: Port> Forwarder<P> {
    /// Sends a packet of a connection on, or says why not: `flow` describes `frame`, which came in on `port`.
    pub(crate) fn forward(&mut self, port: PortId, mut frame: P::Frame, flow: &Flow, plan: &Plan) {
        let hop = match self.way(plan.to) {
            Ok(Way::Hop(hop)) => hop,
            Ok(Way::Local) => return self.deliver(port, frame, flow, plan),
            Err(reason) => return self.lanes.discard(frame, reason),
        };
        if flow.ttl <= 1 {
            self.report(port, &frame, plan, Problem::TtlExceeded);
            return self.lanes.discard(frame, DropReason::TtlExceeded);
        }
        let Some(mtu) = hop
            .mtu
            .checked_sub(plan.overhead())
            .filter(|mtu| *mtu >= 68)
        else {
            return self.lanes.discard(frame, DropReason::TooLong);
        };
        let too_long = flow.total_len > mtu;
        if too_long && flow.dont_fragment && (!plan.tunnel || self.pmtu_disc) {
            if plan.to_server {
                // The quote shows the TTL that the packet would have had (section 7).
                decrement_ttl(&mut frame);
            }
            self.report(port, &frame, plan, Problem::FragmentationNeeded { mtu });
            return self.lanes.discard(frame, DropReason::FragmentationNeeded);
        }
        frame.truncate(Ethernet::LEN + usize::from(flow.total_len));
        decrement_ttl(&mut frame);
        self.rewrite(hop.port, &mut frame, flow, plan);
        if plan.tunnel && !self.encapsulate(&mut frame, &hop, plan.to) {
            return self.lanes.discard(frame, DropReason::NoHeadroom);
        }
        if too_long {
            self.fragment(frame, &hop)
        } else {
            self.transmit(frame, &hop)
        }
    }

    /// Sends a packet of the kernel's on; its Ethernet header is complete, its TTL stays.
    pub(crate) fn forward_from_kernel(
        &mut self,
        port: PortId,
        mut frame: P::Frame,
        translation: Option<(&Flow, &Plan)>,
    ) {
        if let Some((flow, plan)) = translation {
            self.rewrite(port, &mut frame, flow, plan);
        }
        self.lanes.send(port, frame);
    }

    /// A real server that is this machine itself: translated, but its TTL stays (`SEMANTICS.md` section 1).
    fn deliver(&mut self, port: PortId, mut frame: P::Frame, flow: &Flow, plan: &Plan) {
        if !plan.to_server || plan.source.is_some() {
            return self.lanes.discard(frame, DropReason::NoRoute);
        }
        self.rewrite_in_software(&mut frame, flow, plan);
        self.lanes.punt(port, frame);
    }

    fn way(&self, addr: Ipv4Addr) -> Result<Way, DropReason> {
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
    fn transmit(&mut self, mut frame: P::Frame, hop: &Hop) {
        let key = (hop.port, hop.neighbour);
        let (mac, notice) = self.neighbours.resolve(key, self.now);
        if let Some(notice) = notice {
            // Control also learns of neighbours otherwise; a full queue costs only time.
            let (port, addr) = key;
            let _ = self.events.push(match notice {
                Notice::Missing => Event::NeighbourMissing { port, addr },
                Notice::Used => Event::NeighbourUsed { port, addr },
            });
        }
        match mac {
            Some(mac) => self.send_to(hop.port, mac, frame),
            None => {
                // The source address is filled in too when the packet is released.
                readdress(&mut frame, Mac::default(), Mac::default());
                if let Err(frame) = self.neighbours.hold(key, frame, self.now) {
                    self.lanes.discard(frame, DropReason::NeighbourQueueFull);
                }
            }
        }
    }

    fn send_to(&mut self, port: PortId, mac: Mac, mut frame: P::Frame) {
        readdress(&mut frame, mac, self.lanes.mac(port));
        self.lanes.send(port, frame);
    }

    /// A neighbour became known, moved, or went. Packets that waited for it leave.
    pub(crate) fn set_neighbour(&mut self, port: PortId, addr: Ipv4Addr, mac: Option<Mac>) {
        self.neighbours.set((port, addr), mac);
        let Some(mac) = mac else { return };
        if usize::from(port.0) >= self.lanes.count() {
            return;
        }
        while let Some(frame) = self.neighbours.release((port, addr)) {
            self.send_to(port, mac, frame);
        }
    }

    /// Drops packets that have waited too long for a next hop.
    pub(crate) fn give_up_waiting(&mut self) {
        while let Some(frame) = self.neighbours.give_up(self.now) {
            self.lanes.discard(frame, DropReason::NeighbourUnresolved);
        }
    }

    /// Translates, with the port's help where a UDP packet came without checksum.
    fn rewrite(&mut self, port: PortId, frame: &mut P::Frame, flow: &Flow, plan: &Plan) {
        let offload = self.lanes.offloads(port).udp_checksum && !plan.tunnel;
        if !(offload && plan.translates() && udp_without_checksum(frame, flow)) {
            return self.rewrite_in_software(frame, flow, plan);
        }
        translate(frame, flow, plan);
        let l3_len = flow.header_len;
        let packet = &mut frame.bytes_mut()[Ethernet::LEN..];
        let (header, payload) = packet.split_at_mut(usize::from(l3_len));
        if let (Ok((ip, _)), Ok(udp)) = (Ipv4::view(header), Udp::view_mut(payload)) {
            let len = flow.total_len - u16::from(l3_len);
            udp.set_checksum_field(ip.pseudo_header(len).folded());
        }
        let l2_len = Ethernet::LEN as u8;
        frame.request_checksums(ChecksumRequest {
            l2_len,
            l3_len,
            ipv4: false,
            udp: true,
        });
    }

    fn rewrite_in_software(&mut self, frame: &mut P::Frame, flow: &Flow, plan: &Plan) {
        if !plan.translates() {
            return;
        }
        let fill_in = udp_without_checksum(frame, flow);
        translate(frame, flow, plan);
        if fill_in {
            fill_in_udp_checksum(frame, flow);
        }
    }
}

fn readdress(frame: &mut impl Frame, dst: Mac, src: Mac) {
    if let Ok((ethernet, _)) = Ethernet::view_mut(frame.bytes_mut()) {
        ethernet.readdress(dst, src);
        ethernet.set_ether_type(ethernet::IPV4);
    }
}

fn decrement_ttl(frame: &mut impl Frame) {
    if let Ok((ip, _)) = Ipv4::view_mut(&mut frame.bytes_mut()[Ethernet::LEN..]) {
        ip.decrement_ttl();
    }
}

/// Changes addresses and ports as planned; checksums follow by difference (RFC 1624), so a wrong one stays wrong.
fn translate(frame: &mut impl Frame, flow: &Flow, plan: &Plan) {
    let packet = &mut frame.bytes_mut()[Ethernet::LEN..];
    let (header, payload) = packet.split_at_mut(usize::from(flow.header_len));
    let Ok((ip, _)) = Ipv4::view_mut(header) else {
        return;
    };
    if let Some((addr, port)) = plan.source {
        let (old, new) = (ip.src().to_bits(), addr.to_bits());
        ip.set_src(addr);
        let delta = |sum: Sum| sum.replace_long(old, new);
        match flow.key.protocol {
            Protocol::Tcp => on_header(Tcp::view_mut(payload), |tcp| tcp.set_src_port(port, delta)),
            Protocol::Udp => on_header(Udp::view_mut(payload), |udp| udp.set_src_port(port, delta)),
            Protocol::Sctp => {}
        }
    }
    if let Some((addr, port)) = plan.destination {
        let (old, new) = (ip.dst().to_bits(), addr.to_bits());
        ip.set_dst(addr);
        let delta = |sum: Sum| sum.replace_long(old, new);
        match flow.key.protocol {
            Protocol::Tcp => on_header(Tcp::view_mut(payload), |tcp| tcp.set_dst_port(port, delta)),
            Protocol::Udp => on_header(Udp::view_mut(payload), |udp| udp.set_dst_port(port, delta)),
            Protocol::Sctp => {}
        }
    }
}

/// Parsing has seen that the header is there.
fn on_header<H>(header: Result<&mut H, DropReason>, change: impl FnOnce(&mut H)) {
    match header {
        Ok(header) => change(header),
        Err(reason) => unreachable!("a parsed flow lost its header: {reason:?}"),
    }
}

fn udp_without_checksum(frame: &impl Frame, flow: &Flow) -> bool {
    flow.key.protocol == Protocol::Udp
        && Udp::view(&frame.bytes()[Ethernet::LEN + usize::from(flow.header_len)..])
            .is_ok_and(|udp| !udp.has_checksum())
}

/// A translated UDP packet that came without checksum gets one (`SEMANTICS.md` section 7).
fn fill_in_udp_checksum(frame: &mut impl Frame, flow: &Flow) {
    let packet = &mut frame.bytes_mut()[Ethernet::LEN..Ethernet::LEN + usize::from(flow.total_len)];
    let (header, payload) = packet.split_at_mut(usize::from(flow.header_len));
    let Ok((ip, _)) = Ipv4::view(header) else {
        return;
    };
    let sum = ip.pseudo_header(payload.len() as u16).bytes(payload);
    if let Ok(udp) = Udp::view_mut(payload) {
        udp.set_checksum(sum.checksum());
    }
}
