//! ICMP errors (RFC 792, RFC 1191).

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::checksum::Sum;

/// Header of an ICMP error.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub struct IcmpError {
    kind: u8,
    code: u8,
    checksum: U16,
    unused: U16,
    next_hop_mtu: U16,
}

/// Errors that are passed on to whom they concern (`SEMANTICS.md` section 7): destination unreachable, source quench, time
/// exceeded.
pub const PASSED_ON: [u8; 3] = [3, 4, 11];

/// An ICMP error that sluice sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// No real server takes the connection (type 3, code 3).
    PortUnreachable,
    /// Longer than the next hop's MTU and not to be fragmented (type 3, code 4; RFC 1191).
    FragmentationNeeded {
        /// Bytes of an IP packet that would fit.
        mtu: u16,
    },
    /// The TTL ran out (type 11, code 0).
    TtlExceeded,
}

impl IcmpError {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();

    /// Views the front of a message, and what it quotes.
    pub fn view(message: &[u8]) -> Option<(&Self, &[u8])> {
        Self::ref_from_prefix(message).ok()
    }

    /// What kind of message it is.
    pub fn kind(&self) -> u8 {
        self.kind
    }

    /// Whether a message's checksum is right.
    pub fn is_right(message: &[u8]) -> bool {
        Sum::default().bytes(message).folded() == 0xffff
    }

    /// Computes a message's checksum anew.
    pub fn seal(message: &mut [u8]) {
        if let Ok((icmp, _)) = Self::mut_from_prefix(message) {
            icmp.checksum.set(0);
        }
        let checksum = Sum::default().bytes(message).checksum();
        if let Ok((icmp, _)) = Self::mut_from_prefix(message) {
            icmp.checksum.set(checksum);
        }
    }

    /// The header about `problem` for a packet of which `quote` is quoted.
    pub fn new(problem: Problem, quote: &[u8]) -> Self {
        let (kind, code, mtu) = match problem {
            Problem::PortUnreachable => (3, 3, 0),
            Problem::FragmentationNeeded { mtu } => (3, 4, mtu),
            Problem::TtlExceeded => (11, 0, 0),
        };
        let mut icmp = Self {
            kind,
            code,
            checksum: U16::ZERO,
            unused: U16::ZERO,
            next_hop_mtu: U16::new(mtu),
        };
        icmp.checksum.set(
            Sum::default()
                .bytes(icmp.as_bytes())
                .bytes(quote)
                .checksum(),
        );
        icmp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragmentation_needed_carries_the_mtu_and_a_valid_checksum() {
        let quote = [0x45, 0, 0, 21, 1];
        let icmp = IcmpError::new(Problem::FragmentationNeeded { mtu: 1400 }, &quote);
        let bytes = icmp.as_bytes();
        assert_eq!(
            (bytes[0], bytes[1], &bytes[6..8]),
            (3, 4, &1400u16.to_be_bytes()[..])
        );
        assert_eq!(Sum::default().bytes(bytes).bytes(&quote).folded(), 0xffff);
    }
}
