//! The Internet checksum (RFC 1071), written apart from the data plane's own so that one mistake cannot hide in both.

use std::net::IpAddr;

/// The complement of the ones' complement sum of `parts`, each padded to whole words.
pub(crate) fn internet(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        let (words, rest) = part.as_chunks::<2>();
        sum += words
            .iter()
            .map(|word| u64::from(u16::from_be_bytes(*word)))
            .sum::<u64>();
        sum += rest.first().map_or(0, |last| u64::from(*last) << 8);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The same over the pseudo-header of `protocol` and the whole of `l4`.
pub(crate) fn transport(src: IpAddr, dst: IpAddr, protocol: u8, l4: &[u8]) -> u16 {
    let length = (l4.len() as u32).to_be_bytes();
    let protocol = [0, 0, 0, protocol];
    match (src, dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            internet(&[&src.octets(), &dst.octets(), &protocol, &length, l4])
        }
        (src, dst) => internet(&[&octets(src), &octets(dst), &protocol, &length, l4]),
    }
}

fn octets(addr: IpAddr) -> [u8; 16] {
    match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_header_sums_to_zero() {
        let header = [
            0x45, 0x10, 0x00, 0x3c, 0x11, 0x11, 0x40, 0x00, 0x39, 0x06, 0xfc, 0x5f, 0xc6, 0x33,
            0x64, 0x07, 0x0a, 0x00, 0x00, 0x01,
        ];
        assert_eq!(internet(&[&header]), 0);
        assert_eq!(internet(&[&header[..10], &[0, 0], &header[12..]]), 0xfc5f);
    }

    #[test]
    fn an_odd_last_byte_counts_as_the_high_one() {
        assert_eq!(internet(&[&[0x12, 0x34, 0x56]]), !(0x1234 + 0x5600));
    }
}
