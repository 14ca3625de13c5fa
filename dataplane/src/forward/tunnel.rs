//! TUN: a packet inside another (RFC 2003; `SEMANTICS.md` section 7).

use std::net::Ipv4Addr;

use zerocopy::IntoBytes;

use super::Forwarder;
use crate::egress::Hop;
use crate::io::{Frame, Port};
use crate::packet::ethernet::Ethernet;
use crate::packet::ipv4::{Ipv4, NewHeader, protocol};

/// Bytes of the outer headers.
const FRONT: usize = Ethernet::LEN + Ipv4::LEN;

impl<P: Port> Forwarder<P> {
    /// Wraps the packet in one to `server`. `false` when there is no headroom: then nothing changed.
    pub(super) fn encapsulate(
        &mut self,
        frame: &mut P::Frame,
        hop: &Hop,
        server: Ipv4Addr,
    ) -> bool {
        let Ok((inner, _)) = Ipv4::view(&frame.bytes()[Ethernet::LEN..]) else {
            return false;
        };
        let dont_fragment = inner.dont_fragment() && self.pmtu_disc;
        let id = if dont_fragment {
            0
        } else {
            self.next_ip_id = self.next_ip_id.wrapping_add(1);
            self.next_ip_id
        };
        let outer = Ipv4::new(&NewHeader {
            tos: outer_tos(inner.tos()),
            total_len: inner.total_len() + Ipv4::LEN as u16,
            id,
            dont_fragment,
            ttl: inner.ttl(),
            protocol: protocol::IPIP,
            src: hop.source,
            dst: server,
        });
        if !frame.push_front(Ipv4::LEN) {
            return false;
        }
        let Some(front) = frame.bytes_mut().first_chunk_mut::<FRONT>() else {
            unreachable!("the frame has just grown by an IP header");
        };
        let mut ethernet = [0; Ethernet::LEN];
        ethernet.copy_from_slice(&front[Ipv4::LEN..]);
        front[..Ethernet::LEN].copy_from_slice(&ethernet);
        front[Ethernet::LEN..].copy_from_slice(outer.as_bytes());
        true
    }
}

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
