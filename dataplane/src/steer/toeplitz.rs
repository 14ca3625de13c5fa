//! The Toeplitz hash of receive-side scaling, in software ("RSS hashing functions", Microsoft NDIS documentation): bit `i` of the
//! input, where it is set, adds the 32 bits of the key that begin at its bit `i`.
//!
//! It is linear over XOR, so a table for each byte of the input does for any key: 12 reads for IPv4 with ports, 36 for IPv6. Under a
//! key whose 16-bit words are all the same, equal words cancel out: there the words of the input are folded first, and 2 reads do.

use std::fmt;

/// Bytes of the longest input: IPv6 addresses and ports.
pub const LONGEST_INPUT: usize = 36;

/// Bytes of the shortest key that hashes [`LONGEST_INPUT`]; the usual length. Some NICs have 52.
pub const KEY_LEN: usize = LONGEST_INPUT + 4;

/// A key of a NIC.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(Vec<u8>);

/// A key that cannot hash IPv6 addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an RSS key of {0} bytes is too short: it takes {KEY_LEN}")]
pub struct ShortKey(pub usize);

impl Key {
    /// A key of at least [`KEY_LEN`] bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, ShortKey> {
        if bytes.len() < KEY_LEN {
            return Err(ShortKey(bytes.len()));
        }
        Ok(Self(bytes.to_vec()))
    }

    /// 0x6d5a again and again (Woo and Park, "Scalable TCP session monitoring with symmetric receive-side scaling", 2012), of `len`
    /// bytes or [`KEY_LEN`] if that is more. Under it the place of a field does not matter: a source hashes like the same address
    /// and port as a destination, wherever a NIC puts the one field that it was told to hash.
    pub fn symmetric(len: usize) -> Self {
        let bytes = [0x6d, 0x5a].into_iter().cycle();
        Self(bytes.take(len.max(KEY_LEN)).collect())
    }

    /// The key in Microsoft's documentation, which many drivers start with.
    pub fn microsoft() -> Self {
        Self(
            [
                0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
                0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
                0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
            ]
            .to_vec(),
        )
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether all its 16-bit words are the same.
    pub fn is_symmetric(&self) -> bool {
        let (first, rest) = self.0.split_at(2);
        rest.iter().zip(first.iter().cycle()).all(|(a, b)| a == b)
    }

    /// Whether both keys hash everything alike: only the bytes that matter are compared.
    pub fn hashes_like(&self, other: &Self) -> bool {
        self.0[..KEY_LEN] == other.0[..KEY_LEN]
    }

    /// The 32 bits that begin at this bit.
    fn window(&self, bit: usize) -> u32 {
        let mut bytes = [0; 8];
        let from = self.0[bit / 8..].iter();
        bytes
            .iter_mut()
            .zip(from)
            .for_each(|(to, from)| *to = *from);
        (u64::from_be_bytes(bytes) << (bit % 8) >> 32) as u32
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

impl fmt::Display for Key {
    /// `6d:5a:6d:5a:…`, as `ethtool -x` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

/// A key, made ready for hashing. Read only: workers share it.
#[derive(Clone)]
pub struct Toeplitz {
    key: Key,
    /// What each value of a byte adds, by its place; of two bytes alone where words are folded.
    tables: Box<[[u32; 256]]>,
    folds: bool,
}

impl Toeplitz {
    /// Fills the tables: 36 KB, or 2 where words are folded.
    pub fn new(key: Key) -> Self {
        let folds = key.is_symmetric();
        let places = if folds { 2 } else { LONGEST_INPUT };
        let tables = (0..places).map(|place| byte_table(&key, place)).collect();
        Self { key, tables, folds }
    }

    /// The key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Hashes addresses, and ports if any, as they lie in a packet. `N` is even and at most [`LONGEST_INPUT`].
    #[inline]
    pub fn hash<const N: usize>(&self, input: &[u8; N]) -> u32 {
        const { assert!(N <= LONGEST_INPUT && N.is_multiple_of(2)) };
        if self.folds {
            let words = input.chunks_exact(2);
            let folded = words.fold([0; 2], |sum, word| [sum[0] ^ word[0], sum[1] ^ word[1]]);
            self.tables[0][usize::from(folded[0])] ^ self.tables[1][usize::from(folded[1])]
        } else {
            let bytes = self.tables.iter().zip(input);
            bytes.fold(0, |hash, (table, byte)| hash ^ table[usize::from(*byte)])
        }
    }
}

impl fmt::Debug for Toeplitz {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Toeplitz({})", self.key)
    }
}

fn byte_table(key: &Key, place: usize) -> [u32; 256] {
    let mut table = [0; 256];
    for value in 1..256usize {
        // Without its lowest bit it is an entry before this one.
        let lowest = 7 - value.trailing_zeros() as usize;
        table[value] = table[value & (value - 1)] ^ key.window(8 * place + lowest);
    }
    table
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    /// Source, destination, the hash of the addresses, the hash with ports: "Verifying the RSS hash calculation", Microsoft.
    type Vector<'a> = (&'a str, u16, &'a str, u16, u32, u32);

    const V4: [Vector<'_>; 5] = [
        (
            "66.9.149.187",
            2794,
            "161.142.100.80",
            1766,
            0x323e_8fc2,
            0x51cc_c178,
        ),
        (
            "199.92.111.2",
            14230,
            "65.69.140.83",
            4739,
            0xd718_262a,
            0xc626_b0ea,
        ),
        (
            "24.19.198.95",
            12898,
            "12.22.207.184",
            38024,
            0xd2d0_a5de,
            0x5c2b_394a,
        ),
        (
            "38.27.205.30",
            48228,
            "209.142.163.6",
            2217,
            0x8298_9176,
            0xafc7_327f,
        ),
        (
            "153.39.163.191",
            44251,
            "202.188.127.2",
            1303,
            0x5d18_09c5,
            0x10e8_28a2,
        ),
    ];

    const V6: [Vector<'_>; 3] = [
        (
            "3ffe:2501:200:1fff::7",
            2794,
            "3ffe:2501:200:3::1",
            1766,
            0x2cc1_8cd5,
            0x4020_7d3d,
        ),
        (
            "3ffe:501:8::260:97ff:fe40:efab",
            14230,
            "ff02::1",
            4739,
            0x0f0c_461c,
            0xdde5_1bbf,
        ),
        (
            "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
            44251,
            "fe80::200:f8ff:fe21:67cf",
            38024,
            0x4b61_e985,
            0x02d1_feef,
        ),
    ];

    /// What the documentation says, bit by bit.
    fn by_definition(key: &Key, input: &[u8]) -> u32 {
        let bits = (0..input.len() * 8).filter(|bit| input[bit / 8] & (0x80 >> (bit % 8)) != 0);
        bits.fold(0, |hash, bit| {
            let window = (0..32).fold(0, |window, next| {
                let at = bit + next;
                window << 1 | u32::from(key.bytes()[at / 8] >> (7 - at % 8) & 1)
            });
            hash ^ window
        })
    }

    fn joined<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
        parts.concat().try_into().unwrap()
    }

    #[test]
    fn microsofts_vectors_hold_for_ipv4() {
        let toeplitz = Toeplitz::new(Key::microsoft());
        for (src, src_port, dst, dst_port, addresses, ports) in V4 {
            let [src, dst] = [src, dst].map(|addr| addr.parse::<Ipv4Addr>().unwrap().octets());
            let [src_port, dst_port] = [src_port, dst_port].map(u16::to_be_bytes);
            assert_eq!(toeplitz.hash::<8>(&joined(&[&src, &dst])), addresses);
            let with_ports = joined(&[&src, &dst, &src_port, &dst_port]);
            assert_eq!(toeplitz.hash::<12>(&with_ports), ports);
        }
    }

    #[test]
    fn microsofts_vectors_hold_for_ipv6() {
        let toeplitz = Toeplitz::new(Key::microsoft());
        for (src, src_port, dst, dst_port, addresses, ports) in V6 {
            let [src, dst] = [src, dst].map(|addr| addr.parse::<Ipv6Addr>().unwrap().octets());
            let [src_port, dst_port] = [src_port, dst_port].map(u16::to_be_bytes);
            assert_eq!(toeplitz.hash::<32>(&joined(&[&src, &dst])), addresses);
            let with_ports = joined(&[&src, &dst, &src_port, &dst_port]);
            assert_eq!(toeplitz.hash::<36>(&with_ports), ports);
        }
    }

    #[test]
    fn only_a_key_of_one_word_is_symmetric() {
        assert!(Key::symmetric(40).is_symmetric() && Key::symmetric(52).is_symmetric());
        assert!(!Key::microsoft().is_symmetric());
        assert!(Key::symmetric(40).hashes_like(&Key::symmetric(52)));
        assert_eq!(Key::symmetric(0).bytes().len(), KEY_LEN);
        assert_eq!(Key::new(&[0; 39]), Err(ShortKey(39)));
        assert!(Key::symmetric(40).to_string().starts_with("6d:5a:6d:5a:"));
    }

    proptest! {
        #[test]
        fn tables_give_what_the_definition_gives(
            key in proptest::collection::vec(any::<u8>(), 40..=52),
            word in any::<[u8; 2]>(),
            input in proptest::array::uniform32(any::<u8>()),
        ) {
            let repeated: Vec<u8> = word.into_iter().cycle().take(key.len()).collect();
            for key in [key, repeated] {
                let key = Key::new(&key).unwrap();
                let toeplitz = Toeplitz::new(key.clone());
                let short: [u8; 12] = joined(&[&input[..12]]);
                let longest: [u8; 36] = joined(&[&input, &input[3..7]]);
                prop_assert_eq!(toeplitz.hash(&short), by_definition(&key, &short));
                prop_assert_eq!(toeplitz.hash(&input), by_definition(&key, &input));
                prop_assert_eq!(toeplitz.hash(&longest), by_definition(&key, &longest));
            }
        }

        #[test]
        fn a_symmetric_key_cares_for_no_places(src in any::<[u8; 4]>(), port in any::<[u8; 2]>()) {
            let toeplitz = Toeplitz::new(Key::symmetric(KEY_LEN));
            let none: &[u8] = &[0; 4];
            let as_source = toeplitz.hash::<12>(&joined(&[&src, none, &port, &none[..2]]));
            let as_destination = toeplitz.hash::<12>(&joined(&[none, &src, &none[..2], &port]));
            let alone = toeplitz.hash::<6>(&joined(&[&src, &port]));
            prop_assert_eq!(as_source, as_destination);
            prop_assert_eq!(as_source, alone);
        }
    }
}
