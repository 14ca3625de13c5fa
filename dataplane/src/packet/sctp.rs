//! SCTP (RFC 9260): the common header, and what the first chunk is.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::drop_reason::DropReason;

/// SCTP common header (section 3.1), viewed in place.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub struct Sctp {
    src_port: U16,
    dst_port: U16,
    tag: [u8; 4],
    /// CRC32c of header and chunks, this field being zero; least significant byte first.
    checksum: [u8; 4],
}

impl Sctp {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();

    /// Views the front of `l4`, and what is behind. After `Ok` no accessor can fail.
    pub fn view(l4: &[u8]) -> Result<(&Self, &[u8]), DropReason> {
        Self::ref_from_prefix(l4).map_err(|_| DropReason::ShortL4)
    }

    /// Source port.
    pub fn src_port(&self) -> u16 {
        self.src_port.get()
    }

    /// Destination port.
    pub fn dst_port(&self) -> u16 {
        self.dst_port.get()
    }

    /// Sets both ports of the packet `l4`. Its checksum, which covers no addresses, is computed anew if they change, and be it to
    /// make a wrong one right (`SEMANTICS.md` section 6).
    pub fn translate(l4: &mut [u8], src_port: u16, dst_port: u16) -> Result<(), DropReason> {
        let (sctp, _) = Self::mut_from_prefix(l4).map_err(|_| DropReason::ShortL4)?;
        if (sctp.src_port(), sctp.dst_port()) == (src_port, dst_port) {
            return Ok(());
        }
        sctp.src_port.set(src_port);
        sctp.dst_port.set(dst_port);
        sctp.checksum = [0; 4];
        let checksum = crc32c::crc32c(l4).to_le_bytes();
        let (sctp, _) = Self::mut_from_prefix(l4).map_err(|_| DropReason::ShortL4)?;
        sctp.checksum = checksum;
        Ok(())
    }
}

/// What a packet's first chunk means to its connection (section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Chunk {
    /// There is none.
    Missing,
    /// User data, and what else changes nothing: acknowledgements, heartbeats, anything unknown.
    Data,
    /// Opens an association.
    Init,
    /// Answers that.
    InitAck,
    /// Brings the cookie of that answer back.
    CookieEcho,
    /// Answers that: open.
    CookieAck,
    /// Begins the end.
    Shutdown,
    /// Answers that.
    ShutdownAck,
    /// Answers that: over.
    ShutdownComplete,
    /// Something was not understood.
    Error,
    /// Ends at once.
    Abort,
}

impl Chunk {
    const HEADER: usize = 4;

    /// Of a packet whose chunks these are. A cookie and an abort together are an abort.
    pub fn first(chunks: &[u8]) -> Self {
        let Some((kind, len)) = header(chunks) else {
            return Self::Missing;
        };
        let chunk = Self::of(kind);
        if !matches!(chunk, Self::CookieEcho | Self::CookieAck) || len < Self::HEADER {
            return chunk;
        }
        let next = chunks.get(len.next_multiple_of(4)..).and_then(header);
        match next {
            Some((kind, _)) if Self::of(kind) == Self::Abort => Self::Abort,
            _ => chunk,
        }
    }

    fn of(kind: u8) -> Self {
        match kind {
            1 => Self::Init,
            2 => Self::InitAck,
            6 => Self::Abort,
            7 => Self::Shutdown,
            8 => Self::ShutdownAck,
            9 => Self::Error,
            10 => Self::CookieEcho,
            11 => Self::CookieAck,
            14 => Self::ShutdownComplete,
            _ => Self::Data,
        }
    }
}

/// Kind and length of the chunk at the front of `chunks`.
fn header(chunks: &[u8]) -> Option<(u8, usize)> {
    let [kind, _flags, high, low] = *chunks.first_chunk::<{ Chunk::HEADER }>()?;
    Some((kind, usize::from(u16::from_be_bytes([high, low]))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An INIT from port 6201 to 9899, as a kernel's IPVS received it.
    const INIT: [u8; 32] = [
        0x18, 0x39, 0x26, 0xab, // ports
        0x00, 0x00, 0x00, 0x09, // verification tag
        0x3b, 0xcc, 0x22, 0x73, // CRC32c
        0x01, 0x00, 0x00, 0x14, // INIT, 20 bytes
        0x11, 0x22, 0x33, 0x44, // initiate tag
        0x00, 0x00, 0xff, 0xff, // window
        0x00, 0x0a, 0x00, 0x0a, // streams
        0x00, 0x00, 0x00, 0x01, // first number
    ];

    #[test]
    fn another_port_brings_another_checksum() {
        let mut packet = INIT;
        Sctp::translate(&mut packet, 6201, 9900).unwrap();
        assert_eq!(packet[..4], [0x18, 0x39, 0x26, 0xac]);
        // As the kernel's IPVS sent it on.
        assert_eq!(packet[8..12], [0x22, 0x50, 0xf9, 0xbf]);
        assert_eq!(packet[12..], INIT[12..]);
    }

    #[test]
    fn the_same_ports_leave_a_wrong_checksum_wrong() {
        let mut packet = INIT;
        packet[11] ^= 1;
        let wrong = packet;
        Sctp::translate(&mut packet, 6201, 9899).unwrap();
        assert_eq!(packet, wrong);
    }

    #[test]
    fn the_first_chunk_counts_but_for_an_abort_behind_a_cookie() {
        assert_eq!(Chunk::first(&INIT[12..]), Chunk::Init);
        assert_eq!(Chunk::first(&[]), Chunk::Missing);
        assert_eq!(Chunk::first(&[1, 0, 0]), Chunk::Missing);
        assert_eq!(Chunk::first(&[4, 0, 0, 4, 6, 0, 0, 4]), Chunk::Data);
        // A cookie of one byte, padded to four.
        let echo = [10, 0, 0, 5, 0xaa, 0, 0, 0, 6, 0, 0, 4];
        assert_eq!(Chunk::first(&echo), Chunk::Abort);
        assert_eq!(Chunk::first(&echo[..11]), Chunk::CookieEcho);
        let acknowledged = [11, 0, 0, 4, 6, 0, 0, 4];
        assert_eq!(Chunk::first(&acknowledged), Chunk::Abort);
        assert_eq!(Chunk::first(&[11, 0, 0, 3, 6, 0, 0, 4]), Chunk::CookieAck);
        assert_eq!(Chunk::first(&[11, 0, 0xff, 0xff, 6]), Chunk::CookieAck);
    }
}
