//! TUN: a packet inside another (RFC 2003; `SEMANTICS.md` section 7).

use std::net::Ipv4Addr;

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::io::Frame;
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

/// What a packet is wrapped in.
pub(crate) struct Outer<'a> {
    /// The frame's addresses: destination, then source.
    pub(crate) macs: &'a [u8; 12],
    /// Bytes of the frame then, without padding.
    pub(crate) len: usize,
    /// Where the outer packet comes from.
    pub(crate) source: Ipv4Addr,
    /// Where it goes.
    pub(crate) server: Ipv4Addr,
    /// Whether "don't fragment" counts for the outer packet too.
    pub(crate) pmtu_disc: bool,
}

/// Takes one off the packet's TTL, which must not be zero, and wraps it in another; `next_ip_id` counts those that may be fragmented.
/// `false` when there is no headroom: then nothing changed.
#[inline(always)]
pub(crate) fn encapsulate(frame: &mut impl Frame, outer: &Outer<'_>, next_ip_id: &mut u16) -> bool {
    if !frame.reshape(Ipv4::LEN, outer.len) {
        return false;
    }
    let Ok((front, _)) = Front::mut_from_prefix(frame.bytes_mut()) else {
        unreachable!("the frame has an IP header, and has just grown by another");
    };
    let inner = &mut front.inner;
    inner.decrement_ttl();
    let dont_fragment = inner.dont_fragment() && outer.pmtu_disc;
    let id = if dont_fragment {
        0
    } else {
        *next_ip_id = next_ip_id.wrapping_add(1);
        *next_ip_id
    };
    let new = NewHeader {
        tos: outer_tos(inner.tos()),
        total_len: (outer.len - Ethernet::LEN) as u16,
        id,
        dont_fragment,
        ttl: inner.ttl(),
        protocol: protocol::IPIP,
        src: outer.source,
        dst: outer.server,
    };
    front.outer = Ipv4::new(&new);
    front.ether_type = U16::new(ethernet::IPV4);
    front.macs = *outer.macs;
    true
}

/// The frame's Ethernet header and the packet's own begin so far apart.
const _: () = assert!(size_of::<Front>() == Ethernet::LEN + 2 * Ipv4::LEN);

/// The TOS is copied, but "congestion experienced" becomes ECT(0): the tunnel's end could not tell whose it is.
fn outer_tos(inner: u8) -> u8 {
    inner & !(inner >> 1 & inner & 1)
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
