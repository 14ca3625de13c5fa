//! The front of most frames, viewed as a whole: Ethernet, IPv4 without options, and TCP or UDP.
//!
//! One check of the length does for all of it, and what is compared or changed together lies together. A view says nothing of
//! what the bytes mean before [`Usual::is_right`] has looked.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::Sum;
use super::ethernet::{self, Ethernet};
use super::ipv4::{DF, Ipv4, MF, OFFSET, protocol};
use super::tcp;
use super::udp::Udp;
use crate::conn::{Delta, Ends};
use crate::egress::Mac;

/// Headers of a TCP packet without IP options in an Ethernet frame (RFC 791, RFC 9293); of a UDP packet (RFC 768) with what follows
/// it, which in a short packet is padding.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub(crate) struct Usual {
    /// Destination, then source.
    macs: [u8; 12],
    ether_type: U16,
    version_ihl: u8,
    tos: u8,
    total_len: U16,
    id: U16,
    flags_offset: U16,
    ttl: u8,
    protocol: u8,
    checksum: U16,
    ends: Ends,
    /// Behind the ports.
    udp_len: U16,
    udp_checksum: U16,
    tcp_ack: [u8; 4],
    tcp_offset: u8,
    tcp_flags: u8,
    tcp_window: U16,
    tcp_checksum: U16,
    tcp_urgent: U16,
}

impl Usual {
    /// Bytes of it.
    pub(crate) const LEN: usize = size_of::<Self>();

    /// Views a frame that is long enough.
    #[inline(always)]
    pub(crate) fn view(frame: &[u8]) -> Option<&Self> {
        Self::ref_from_prefix(frame).ok().map(|(usual, _)| usual)
    }

    /// Views a frame that is long enough, to change it.
    #[inline(always)]
    pub(crate) fn view_mut(frame: &mut [u8]) -> Option<&mut Self> {
        Self::mut_from_prefix(frame).ok().map(|(usual, _)| usual)
    }

    /// Whether it is addressed to `mac` and is IPv4 without options, no fragment, with a right header checksum. Looks at
    /// whole words and decides once: nearly always the answer is yes.
    #[inline(always)]
    pub(crate) fn is_right(&self, mac: Mac) -> bool {
        /// EtherType, IP version and header length; the type of service is not looked at.
        const KIND: [u8; 4] = [(ethernet::IPV4 >> 8) as u8, ethernet::IPV4 as u8, 0x45, 0];
        const KIND_MASK: u32 = u32::from_ne_bytes([0xff, 0xff, 0xff, 0]);
        const MAC_MASK: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
        const FRAGMENT: u16 = (MF | OFFSET).to_be();
        let bytes: &[u8; Self::LEN] = zerocopy::transmute_ref!(self);
        let [a, b, c, d, e, f] = mac.0;
        let us = u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]);
        let to = u64::from_ne_bytes(piece(bytes, 0));
        let kind = u32::from_ne_bytes(piece(bytes, 12));
        let fragment = u16::from_ne_bytes(piece(bytes, 20));
        let wrong = (to ^ us) & MAC_MASK
            | u64::from((kind ^ u32::from_ne_bytes(KIND)) & KIND_MASK)
            | u64::from(fragment & FRAGMENT);
        wrong == 0 && Sum::is_right(&piece(bytes, Ethernet::LEN))
    }

    /// Bytes of the IP packet.
    #[inline(always)]
    pub(crate) fn total_len(&self) -> u16 {
        self.total_len.get()
    }

    /// Whether it may not be fragmented.
    #[inline(always)]
    pub(crate) fn dont_fragment(&self) -> bool {
        self.flags_offset.get() & DF != 0
    }

    /// Time to live.
    #[inline(always)]
    pub(crate) fn ttl(&self) -> u8 {
        self.ttl
    }

    /// Protocol of the payload.
    #[inline(always)]
    pub(crate) fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Addresses and ports.
    #[inline(always)]
    pub(crate) fn ends(&self) -> &Ends {
        &self.ends
    }

    /// TCP control bits.
    #[inline(always)]
    pub(crate) fn tcp_flags(&self) -> u8 {
        self.tcp_flags
    }

    /// Whether a packet that was found usual is of the kind that most are: it neither opens nor ends a TCP connection, and its TTL lets
    /// it go on.
    #[inline(always)]
    pub(crate) fn is_plain(&self) -> bool {
        const KIND: u8 = tcp::SYN | tcp::FIN | tcp::RST | tcp::ACK;
        let goes_on = self.protocol != protocol::TCP || self.tcp_flags & KIND == tcp::ACK;
        goes_on && self.ttl > 1
    }

    /// Whether it is a UDP packet without checksum.
    #[inline(always)]
    pub(crate) fn lacks_checksum(&self) -> bool {
        self.protocol == protocol::UDP && !self.has_udp_checksum()
    }

    /// Whether the sender of a UDP packet computed a checksum.
    #[inline(always)]
    pub(crate) fn has_udp_checksum(&self) -> bool {
        self.udp_checksum.get() != 0
    }

    /// Addresses the frame (destination, then source) and takes one off the TTL, which must not be zero.
    #[inline(always)]
    pub(crate) fn pass_on(&mut self, macs: &[u8; 12]) {
        self.macs = *macs;
        self.take_ttl();
    }

    /// Like [`Usual::pass_on`] with other addresses and ports; `delta` is what they add to the sums (RFC 1624, equation 3).
    #[inline(always)]
    pub(crate) fn translate(&mut self, macs: &[u8; 12], ends: Ends, delta: Delta) {
        self.macs = *macs;
        self.take_ttl();
        Sum::patch(&mut self.checksum, delta.ip);
        self.ends = ends;
        if self.protocol == protocol::TCP {
            Sum::patch(&mut self.tcp_checksum, delta.l4);
        } else {
            Udp::patch(&mut self.udp_checksum, delta.l4);
        }
    }

    #[inline(always)]
    fn take_ttl(&mut self) {
        self.ttl = self.ttl.wrapping_sub(1);
        Sum::patch(&mut self.checksum, Ipv4::TTL_LESS);
    }
}

/// `N` bytes from `at` on.
#[inline(always)]
fn piece<const N: usize>(bytes: &[u8; Usual::LEN], at: usize) -> [u8; N] {
    match bytes[at..].first_chunk() {
        Some(piece) => *piece,
        None => unreachable!("pieces end with the headers"),
    }
}

const _: () = assert!(Usual::LEN == 54, "Ethernet, IPv4 and TCP");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::tests::{MAC, syn};

    #[test]
    fn every_wrong_bit_that_matters_is_seen() {
        let right = syn();
        assert!(Usual::view(&right).unwrap().is_right(MAC));
        let unlooked_at = |byte: usize| matches!(byte, 6..12 | 34..);
        for byte in 0..Usual::LEN {
            for bit in 0..8 {
                let mut frame = syn();
                frame[byte] ^= 1 << bit;
                let is_right = Usual::view(&frame).unwrap().is_right(MAC);
                assert_eq!(is_right, unlooked_at(byte), "byte {byte}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_frame_shorter_than_the_headers_is_not_viewed() {
        assert!(Usual::view(&syn()[..Usual::LEN - 1]).is_none());
    }
}
