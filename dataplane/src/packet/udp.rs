//! UDP (RFC 768).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::Sum;
use crate::drop_reason::DropReason;

/// UDP header, viewed in place.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub struct Udp {
    src_port: U16,
    dst_port: U16,
    length: U16,
    checksum: U16,
}

impl Udp {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();

    /// Views the front of `l4`. After `Ok` no accessor can fail.
    #[inline]
    pub fn view(l4: &[u8]) -> Result<&Self, DropReason> {
        Self::ref_from_prefix(l4)
            .map(|(udp, _)| udp)
            .map_err(|_| DropReason::ShortL4)
    }

    /// Views the front of `l4` to change it.
    #[inline]
    pub fn view_mut(l4: &mut [u8]) -> Result<&mut Self, DropReason> {
        Self::mut_from_prefix(l4)
            .map(|(udp, _)| udp)
            .map_err(|_| DropReason::ShortL4)
    }

    /// Source port.
    #[inline]
    pub fn src_port(&self) -> u16 {
        self.src_port.get()
    }

    /// Destination port.
    #[inline]
    pub fn dst_port(&self) -> u16 {
        self.dst_port.get()
    }

    /// Whether the sender computed a checksum.
    #[inline]
    pub fn has_checksum(&self) -> bool {
        self.checksum.get() != 0
    }

    /// Sets both ports; `delta` is the difference in the checksum's sum, addresses included ([`Sum::patch`]). No checksum stays none.
    #[inline]
    pub fn translate(&mut self, src_port: u16, dst_port: u16, delta: u16) {
        self.src_port.set(src_port);
        self.dst_port.set(dst_port);
        if self.has_checksum() {
            Self::patch(&mut self.checksum, delta);
        }
    }

    /// [`Sum::patch`] for a UDP checksum that is there: zero would mean that there is none, so all ones stand for it (RFC 768).
    #[inline(always)]
    pub(crate) fn patch(checksum: &mut U16, delta: u16) {
        Sum::patch(checksum, delta);
        if *checksum == U16::ZERO {
            *checksum = U16::MAX_VALUE;
        }
    }

    /// Sets the checksum field as it is: a sum for the NIC to go on from, or zero.
    pub fn set_checksum_field(&mut self, value: u16) {
        self.checksum.set(value);
    }

    /// Sets the checksum that a sum comes to.
    #[inline]
    pub fn set_checksum(&mut self, sum: Sum) {
        self.checksum.set(sum.udp_checksum());
    }
}
