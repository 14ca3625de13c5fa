//! IPv4 (RFC 791).

use std::net::Ipv4Addr;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::Sum;
use crate::drop_reason::DropReason;

/// IPv4 header without options, viewed in place.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub struct Ipv4 {
    version_ihl: u8,
    tos: u8,
    total_len: U16,
    id: U16,
    flags_offset: U16,
    ttl: u8,
    protocol: u8,
    checksum: U16,
    src: U32,
    dst: U32,
}

/// Protocol numbers (IANA).
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// IPv4 in IP (RFC 2003).
    pub const IPIP: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// SCTP.
    pub const SCTP: u8 = 132;
}

/// "Don't fragment".
pub const DF: u16 = 0x4000;
/// "More fragments".
pub const MF: u16 = 0x2000;
/// The fragment offset, in units of eight bytes.
pub const OFFSET: u16 = 0x1fff;

/// Everything in a header that sluice builds itself; the rest is fixed or computed.
#[derive(Clone, Copy, Debug)]
pub struct NewHeader {
    /// Type of service, ECN included.
    pub tos: u8,
    /// Bytes of the packet, header included.
    pub total_len: u16,
    /// Identification.
    pub id: u16,
    /// Whether it may be fragmented.
    pub dont_fragment: bool,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Source.
    pub src: Ipv4Addr,
    /// Destination.
    pub dst: Ipv4Addr,
}

impl Ipv4 {
    /// Bytes of a header without options.
    pub const LEN: usize = size_of::<Self>();

    /// What one less in the TTL adds to the header's sum ([`Sum::patch`]): one less in the upper byte of a word, in one's complement.
    pub(crate) const TTL_LESS: u16 = (!0x0100u16).to_be();

    /// Views the front of a packet; what it says of lengths is not checked. After `Ok` no accessor can fail.
    #[inline]
    pub fn view(packet: &[u8]) -> Result<(&Self, &[u8]), DropReason> {
        Self::ref_from_prefix(packet).map_err(|_| DropReason::BadIpv4Header)
    }

    /// Views the front of a packet to change it.
    #[inline]
    pub fn view_mut(packet: &mut [u8]) -> Result<(&mut Self, &mut [u8]), DropReason> {
        Self::mut_from_prefix(packet).map_err(|_| DropReason::BadIpv4Header)
    }

    /// A header of our own, its checksum filled in.
    #[inline(always)]
    pub fn new(header: &NewHeader) -> Self {
        // Composed in registers and written in few pieces, as it will lie in the packet: this is done for each packet of a tunnel.
        // The sum is the same in any byte order (RFC 1071 section 2).
        let flags = if header.dont_fragment { DF } else { 0 };
        let words = |high: u16, low: u16| (u32::from(high) << 16 | u32::from(low)).to_be();
        let kind = u32::from(header.tos) << 16 | u32::from(header.total_len);
        let kind = (kind | 0x4500_0000).to_be();
        let fragment = words(header.id, flags);
        let life = u16::from_ne_bytes([header.ttl, header.protocol]);
        let [src, dst] = [header.src, header.dst].map(|addr| u32::from_ne_bytes(addr.octets()));
        let sum = Sum::default().long(kind).long(fragment).word(life);
        let checksum = sum.long(src).long(dst).checksum();
        let [[ttl, protocol], [high, low]] = [life, checksum].map(u16::to_ne_bytes);
        let life = u32::from_ne_bytes([ttl, protocol, high, low]);
        zerocopy::transmute!([kind, fragment, life, src, dst].map(u32::to_ne_bytes))
    }

    /// Whether it is version 4, has no options and is no fragment.
    #[inline]
    pub fn is_plain(&self) -> bool {
        self.version_ihl == 0x45 && !self.is_fragment()
    }

    /// The version, 4 if all is well.
    #[inline]
    pub fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Bytes of the header, options included.
    #[inline]
    pub fn header_len(&self) -> usize {
        usize::from(self.version_ihl & 0xf) * 4
    }

    /// Type of service, ECN included.
    #[inline]
    pub fn tos(&self) -> u8 {
        self.tos
    }

    /// Bytes of the packet, header included.
    #[inline]
    pub fn total_len(&self) -> u16 {
        self.total_len.get()
    }

    /// Identification.
    #[inline]
    pub fn id(&self) -> u16 {
        self.id.get()
    }

    /// Flags and fragment offset ([`DF`], [`MF`], [`OFFSET`]).
    #[inline]
    pub fn flags_offset(&self) -> u16 {
        self.flags_offset.get()
    }

    /// Whether this is a fragment, the first one included.
    #[inline]
    pub fn is_fragment(&self) -> bool {
        self.flags_offset() & (MF | OFFSET) != 0
    }

    /// Whether it may not be fragmented.
    #[inline]
    pub fn dont_fragment(&self) -> bool {
        self.flags_offset() & DF != 0
    }

    /// Time to live.
    #[inline]
    pub fn ttl(&self) -> u8 {
        self.ttl
    }

    /// Protocol of the payload.
    #[inline]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Source.
    #[inline]
    pub fn src(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.src.get())
    }

    /// Destination.
    #[inline]
    pub fn dst(&self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.dst.get())
    }

    /// Sets both addresses, whose difference in the header's sum is `delta`; the checksum follows ([`Sum::patch`]).
    #[inline]
    pub fn translate(&mut self, src: Ipv4Addr, dst: Ipv4Addr, delta: u16) {
        self.src.set(src.to_bits());
        self.dst.set(dst.to_bits());
        Sum::patch(&mut self.checksum, delta);
    }

    /// Sets both addresses of a whole header, options included, and computes its checksum anew.
    pub fn readdress(header: &mut [u8], src: Ipv4Addr, dst: Ipv4Addr) -> Result<(), DropReason> {
        let (ip, _) = Self::view_mut(header)?;
        ip.src.set(src.to_bits());
        ip.dst.set(dst.to_bits());
        ip.checksum.set(0);
        let checksum = Sum::default().bytes(header).checksum();
        let (ip, _) = Self::view_mut(header)?;
        ip.checksum.set(checksum);
        Ok(())
    }

    /// Takes one off the TTL, which must not be zero; the checksum follows.
    #[inline]
    pub fn decrement_ttl(&mut self) {
        self.ttl = self.ttl.wrapping_sub(1);
        Sum::patch(&mut self.checksum, Self::TTL_LESS);
    }

    /// Makes it the fragment at `offset` (in bytes, a multiple of eight) of `total_len` bytes; the header checksum
    /// is patched.
    pub fn set_fragment(&mut self, offset: u16, more: bool, total_len: u16) {
        let flags = (self.flags_offset() & DF) | (offset / 8) | if more { MF } else { 0 };
        let sum = self
            .sum()
            .replace_word(self.flags_offset(), flags)
            .replace_word(self.total_len(), total_len);
        self.flags_offset.set(flags);
        self.total_len.set(total_len);
        self.checksum.set(sum.checksum());
    }

    /// Sum over the pseudo-header of TCP and UDP for a payload of `len` bytes.
    pub fn pseudo_header(&self, len: u16) -> Sum {
        Sum::default()
            .long(self.src.get())
            .long(self.dst.get())
            .word(u16::from(self.protocol))
            .word(len)
    }

    #[inline]
    fn sum(&self) -> Sum {
        Sum::of_checksum(self.checksum.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> [u8; 20] {
        [
            0x45, 0x10, // version and length, TOS
            0x00, 0x3c, // total length
            0x11, 0x11, // id
            0x40, 0x00, // DF
            0x39, 0x06, // TTL 57, TCP
            0xfc, 0x5f, // checksum
            198, 51, 100, 7, // source
            10, 0, 0, 1, // destination
        ]
    }

    #[test]
    fn rewriting_keeps_the_checksum_right() {
        let mut bytes = header();
        let (ip, _) = Ipv4::view_mut(&mut bytes).unwrap();
        ip.decrement_ttl();
        let (src, dst) = (Ipv4Addr::new(10, 1, 1, 1), Ipv4Addr::new(192, 168, 1, 1));
        let delta = Sum::default()
            .replace_long(ip.src().to_bits(), src.to_bits())
            .replace_long(ip.dst().to_bits(), dst.to_bits());
        ip.translate(src, dst, delta.folded_wire());
        ip.set_fragment(16, true, 36);
        assert_eq!(
            (ip.ttl(), ip.flags_offset(), ip.total_len()),
            (56, DF | MF | 2, 36)
        );
        assert_eq!(Sum::default().bytes(&bytes).folded(), 0xffff);
    }

    #[test]
    fn a_new_header_is_valid() {
        let ip = Ipv4::new(&NewHeader {
            tos: 0x10,
            total_len: 80,
            id: 0,
            dont_fragment: true,
            ttl: 56,
            protocol: protocol::IPIP,
            src: Ipv4Addr::new(192, 168, 1, 254),
            dst: Ipv4Addr::new(192, 168, 1, 1),
        });
        assert_eq!(Sum::default().bytes(ip.as_bytes()).folded(), 0xffff);
        assert_eq!(
            (
                ip.version(),
                ip.header_len(),
                ip.dont_fragment(),
                ip.is_fragment()
            ),
            (4, 20, true, false)
        );
    }
}
