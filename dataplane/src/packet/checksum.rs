//! The Internet checksum: whole (RFC 1071) and by difference (RFC 1624).

use zerocopy::network_endian::U16;

/// A one's complement sum in the making. Fold it once, at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// Continues from the sum that a stored checksum stands for (its complement).
    #[inline]
    pub fn of_checksum(checksum: u16) -> Self {
        Self(u64::from(!checksum))
    }

    /// Adds bytes, as 16-bit words in network order; an odd last byte is padded with zero. Only the last
    /// piece of a message may be odd.
    #[inline]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut sum = self.0;
        for word in words {
            sum += u64::from(u32::from_be_bytes(*word));
        }
        let (pairs, odd) = rest.as_chunks::<2>();
        for pair in pairs {
            sum += u64::from(u16::from_be_bytes(*pair));
        }
        if let [last] = odd {
            sum += u64::from(*last) << 8;
        }
        Self(sum)
    }

    /// Whether the header of 20 bytes, not all of them zero, carries a right checksum. The sum is the same whatever the byte order
    /// (RFC 1071 section 2), so it is taken in the machine's own. It is right if its words add up to nothing in one's
    /// complement, that is to a multiple of 65,535; and so does the number that the words are the digits of.
    #[inline]
    pub fn is_right(header: &[u8; 20]) -> bool {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t] = *header;
        let (sum, first) = u64::from_ne_bytes([a, b, c, d, e, f, g, h])
            .overflowing_add(u64::from_ne_bytes([i, j, k, l, m, n, o, p]));
        let rest = u64::from(u32::from_ne_bytes([q, r, s, t])) + u64::from(first);
        let (sum, second) = sum.overflowing_add(rest);
        (sum + u64::from(second)).is_multiple_of(0xffff)
    }

    /// Adds a 16-bit word.
    #[inline]
    pub fn word(self, value: u16) -> Self {
        Self(self.0 + u64::from(value))
    }

    /// Adds a 32-bit word.
    #[inline]
    pub fn long(self, value: u32) -> Self {
        Self(self.0 + u64::from(value))
    }

    /// Replaces a 16-bit word of what was summed (RFC 1624, equation 3).
    #[inline]
    pub fn replace_word(self, old: u16, new: u16) -> Self {
        Self(self.0 + u64::from(!old) + u64::from(new))
    }

    /// Replaces a 32-bit word of what was summed.
    #[inline]
    pub fn replace_long(self, old: u32, new: u32) -> Self {
        Self(self.0 + u64::from(!old) + u64::from(new))
    }

    /// Patches a stored checksum: what it covers has grown by `delta` (RFC 1624, equation 3, where `HC' = ~(~HC + delta)`, which is
    /// `HC - delta` in one's complement). `delta` is a sum as it lies in packets: see [`Self::folded_wire`].
    #[inline(always)]
    pub fn patch(checksum: &mut U16, delta: u16) {
        let (less, borrow) = u16::from_ne_bytes(checksum.to_bytes()).overflowing_sub(delta);
        *checksum = U16::from_bytes(less.wrapping_sub(u16::from(borrow)).to_ne_bytes());
    }

    /// Like [`Self::folded`], in the byte order of packets.
    #[inline]
    pub fn folded_wire(self) -> u16 {
        self.folded().to_be()
    }

    /// The sum in 16 bits, not complemented: what a NIC wants in the checksum field.
    #[inline]
    pub fn folded(self) -> u16 {
        // Each step adds the upper half to the lower one with the carry coming round.
        let (sum, carry) = (self.0 as u32).overflowing_add((self.0 >> 32) as u32);
        let sum = sum + u32::from(carry);
        let (sum, carry) = (sum as u16).overflowing_add((sum >> 16) as u16);
        sum + u16::from(carry)
    }

    /// The checksum: the complement of the folded sum.
    #[inline]
    pub fn checksum(self) -> u16 {
        !self.folded()
    }

    /// UDP's checksum: zero would mean that there is none, so all ones stand for it (RFC 768).
    #[inline]
    pub fn udp_checksum(self) -> u16 {
        match self.checksum() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::default().bytes(&bytes).folded(), 0xddf2);
    }

    #[test]
    fn the_example_of_rfc_1624_gives_zero() {
        // Section 4: HC = DD2F, m = 5555, m' = 3285.
        assert_eq!(
            Sum::of_checksum(0xdd2f)
                .replace_word(0x5555, 0x3285)
                .checksum(),
            0x0000
        );
    }

    proptest! {
        #[test]
        fn a_difference_equals_the_whole(
            mut bytes in prop::collection::vec(any::<u8>(), 8..200),
            place in 0usize..64,
            value in any::<u32>(),
        ) {
            let at = (place * 2) % (bytes.len() - 4);
            let at = at & !1;
            let before = Sum::default().bytes(&bytes).checksum();
            let mut old = [0; 4];
            old.copy_from_slice(&bytes[at..at + 4]);
            bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
            let whole = Sum::default().bytes(&bytes).checksum();
            let patched = Sum::of_checksum(before).replace_long(u32::from_be_bytes(old), value).checksum();
            // Zero has two representations in one's complement.
            prop_assert!(patched == whole || (patched ^ whole) == 0xffff && (patched == 0 || whole == 0));
        }

        #[test]
        fn a_message_with_its_checksum_sums_to_all_ones(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let even = &bytes[..bytes.len() & !1];
            let checksum = Sum::default().bytes(even).checksum();
            prop_assert_eq!(Sum::default().bytes(even).word(checksum).folded(), 0xffff);
        }
    }
}
