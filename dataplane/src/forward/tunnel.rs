//! TUN: a packet inside another (RFC 2003; `SEMANTICS.md` section 7).

use std::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Forwarder;
use crate::io::{Frame, Port};
use crate::packet::ethernet::{self, Ethernet};
use crate::packet::ipv4::{Ipv4, NewHeader, protocol};

/// The front of a frame that is sent.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Front {
    macs: [u8; 12],
    ether_type: U16,
    outer: Ipv4,
    inner: Ipv4,
}

impl<P: Port> Forwarder<P> {
    /// Wraps the packet in one from `source` to `server`, in a frame with these addresses (destination, then source). `false`
    /// when there is no headroom: then nothing changed.
    #[inline(always)]
    pub(crate) fn encapsulate(
        &mut self,
        frame: &mut P::Frame,
        macs: &[u8; 12],
        source: Ipv4Addr,
        server: Ipv4Addr,
    ) -> bool {
        if !frame.push_front(Ipv4::LEN) {
            return false;
        }
        let Ok((front, _)) = Front::mut_from_prefix(frame.bytes_mut()) else {
            unreachable!("the frame has an IP header, and has just grown by another");
        };
        let inner = &front.inner;
        let dont_fragment = inner.dont_fragment() && self.pmtu_disc;
        let id = if dont_fragment {
            0
        } else {
            self.next_ip_id = self.next_ip_id.wrapping_add(1);
            self.next_ip_id
        };
        front.outer = Ipv4::new(&NewHeader {
            tos: outer_tos(inner.tos()),
            total_len: inner.total_len() + Ipv4::LEN as u16,
            id,
            dont_fragment,
            ttl: inner.ttl(),
            protocol: protocol::IPIP,
            src: source,
            dst: server,
        });
        front.ether_type = U16::new(ethernet::IPV4);
        front.macs = *macs;
        true
    }
}

/// The frame's Ethernet header and the packet's own begin so far apart.
const _: () = assert!(size_of::<Front>() == Ethernet::LEN + 2 * Ipv4::LEN);

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
