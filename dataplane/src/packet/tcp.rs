//! TCP (RFC 9293).

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::Sum;
use crate::drop_reason::DropReason;

/// TCP header without options, viewed in place.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub struct Tcp {
    src_port: U16,
    dst_port: U16,
    seq: U32,
    ack: U32,
    data_offset: u8,
    flags: u8,
    window: U16,
    checksum: U16,
    urgent: U16,
}

/// The sender has finished.
pub const FIN: u8 = 0x01;
/// Opens a connection.
pub const SYN: u8 = 0x02;
/// Resets a connection.
pub const RST: u8 = 0x04;
/// The acknowledgement field counts.
pub const ACK: u8 = 0x10;

impl Tcp {
    /// Bytes of a header without options.
    pub const LEN: usize = size_of::<Self>();

    /// Views the front of `l4`. After `Ok` no accessor can fail.
    #[inline]
    pub fn view(l4: &[u8]) -> Result<&Self, DropReason> {
        Self::ref_from_prefix(l4)
            .map(|(tcp, _)| tcp)
            .map_err(|_| DropReason::ShortL4)
    }

    /// Views the front of `l4` to change it.
    #[inline]
    pub fn view_mut(l4: &mut [u8]) -> Result<&mut Self, DropReason> {
        Self::mut_from_prefix(l4)
            .map(|(tcp, _)| tcp)
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

    /// Bytes of the header, options included, as the header says.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.data_offset >> 4) * 4
    }

    /// Control bits ([`FIN`], [`SYN`], [`RST`], [`ACK`]).
    #[inline]
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Sets both ports; `delta` is the difference in the checksum's sum, addresses included ([`Sum::patch`]).
    #[inline]
    pub fn translate(&mut self, src_port: u16, dst_port: u16, delta: u16) {
        self.src_port.set(src_port);
        self.dst_port.set(dst_port);
        Sum::patch(&mut self.checksum, delta);
    }
}
