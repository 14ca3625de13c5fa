//! TUN: a packet inside another (RFC 2003; `SEMANTICS.md` section 7).

use std::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Forwarder;
use crate::egress::Hop;
use crate::io::{Frame, Port};
use crate::packet::ethernet::{self, Ethernet};
use crate::packet::ipv4::{Ipv4, NewHeader, protocol};
use crate::packet::usual::Usual;

/// What of a packet shows outside.
pub(crate) struct Inner {
    macs: [u8; 12],
    tos: u8,
    ttl: u8,
    total_len: u16,
    dont_fragment: bool,
}

/// The front of a frame that is sent.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Front {
    macs: [u8; 12],
    ether_type: U16,
    outer: Ipv4,
}

impl Inner {
    /// Of a packet whose headers are viewed whole, in a frame with these addresses (destination, then source).
    #[inline(always)]
    pub(crate) fn usual(usual: &Usual, macs: [u8; 12]) -> Self {
        Self {
            macs,
            tos: usual.tos(),
            ttl: usual.ttl(),
            total_len: usual.total_len(),
            dont_fragment: usual.dont_fragment(),
        }
    }

    /// Of any packet; the frame's addresses are filled in later.
    pub(super) fn of(packet: &[u8]) -> Option<Self> {
        let (ip, _) = Ipv4::view(packet).ok()?;
        Some(Self {
            macs: [0; 12],
            tos: ip.tos(),
            ttl: ip.ttl(),
            total_len: ip.total_len(),
            dont_fragment: ip.dont_fragment(),
        })
    }
}

impl<P: Port> Forwarder<P> {
    /// Wraps the packet, which `inner` describes, in one to `server`. `false` when there is no headroom: then nothing
    /// changed.
    #[inline(always)]
    pub(crate) fn encapsulate(
        &mut self,
        frame: &mut P::Frame,
        inner: &Inner,
        hop: &Hop,
        server: Ipv4Addr,
    ) -> bool {
        if !frame.push_front(Ipv4::LEN) {
            return false;
        }
        let dont_fragment = inner.dont_fragment && self.pmtu_disc;
        let id = if dont_fragment {
            0
        } else {
            self.next_ip_id = self.next_ip_id.wrapping_add(1);
            self.next_ip_id
        };
        let outer = Ipv4::new(&NewHeader {
            tos: outer_tos(inner.tos),
            total_len: inner.total_len + Ipv4::LEN as u16,
            id,
            dont_fragment,
            ttl: inner.ttl,
            protocol: protocol::IPIP,
            src: hop.source,
            dst: server,
        });
        let Ok((front, _)) = Front::mut_from_prefix(frame.bytes_mut()) else {
            unreachable!("the frame has just grown by an IP header");
        };
        front.macs = inner.macs;
        front.ether_type = U16::new(ethernet::IPV4);
        front.outer = outer;
        true
    }
}

/// The frame's Ethernet header and the packet's own begin so far apart.
const _: () = assert!(size_of::<Front>() == Ethernet::LEN + Ipv4::LEN);

/// The TOS is copied, but "congestion experienced" becomes ECT(0): the tunnel's end could not tell whose it is.
fn outer_tos(inner: u8) -> u8 {
    if inner & 3 == 3 {
        inner & !3 | 2
    } else {
        inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn congestion_inside_is_capable_transport_outside() {
        assert_eq!(
            [0x10, 0x11, 0x12, 0x13].map(outer_tos),
            [0x10, 0x11, 0x12, 0x12]
        );
    }
}
