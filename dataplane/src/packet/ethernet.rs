//! Ethernet II.

use zerocopy::network_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::drop_reason::DropReason;
use crate::egress::Mac;

/// Ethernet header, viewed in place.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned, Debug)]
#[repr(C)]
pub struct Ethernet {
    /// Destination, then source.
    addresses: [u8; 12],
    ether_type: U16,
}

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;

impl Ethernet {
    /// Bytes of the header.
    pub const LEN: usize = size_of::<Self>();

    /// Views the front of a frame, and what follows. After `Ok` no accessor can fail.
    #[inline]
    pub fn view(frame: &[u8]) -> Result<(&Self, &[u8]), DropReason> {
        Self::ref_from_prefix(frame).map_err(|_| DropReason::ShortEthernet)
    }

    /// Views the front of a frame to change it.
    #[inline]
    pub fn view_mut(frame: &mut [u8]) -> Result<(&mut Self, &mut [u8]), DropReason> {
        Self::mut_from_prefix(frame).map_err(|_| DropReason::ShortEthernet)
    }

    /// Destination.
    #[inline]
    pub fn dst(&self) -> Mac {
        let [a, b, c, d, e, f, ..] = self.addresses;
        Mac([a, b, c, d, e, f])
    }

    /// EtherType, or a length below 1536.
    #[inline]
    pub fn ether_type(&self) -> u16 {
        self.ether_type.get()
    }

    /// Sets destination and source, in this order.
    #[inline]
    pub fn readdress(&mut self, addresses: [u8; 12]) {
        self.addresses = addresses;
    }

    /// Sets the EtherType.
    pub fn set_ether_type(&mut self, ether_type: u16) {
        self.ether_type.set(ether_type);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_and_readdressed_in_place() {
        let mut frame = [
            0x02, 0, 0, 0, 0, 1, // destination
            0x02, 0, 0, 0, 0, 2, // source
            0x08, 0x00, // IPv4
            0x45,
        ];
        let (ethernet, rest) = Ethernet::view(&frame).unwrap();
        assert_eq!(
            (ethernet.dst(), ethernet.ether_type()),
            (Mac([2, 0, 0, 0, 0, 1]), IPV4)
        );
        assert_eq!(rest, [0x45]);
        let (ethernet, _) = Ethernet::view_mut(&mut frame).unwrap();
        ethernet.readdress([2, 9, 9, 9, 9, 9, 2, 8, 8, 8, 8, 8]);
        assert_eq!(frame[..12], [2, 9, 9, 9, 9, 9, 2, 8, 8, 8, 8, 8]);
        assert_eq!(
            Ethernet::view(&frame[..13]).unwrap_err(),
            DropReason::ShortEthernet
        );
    }
}
