//! SipHash-1-3 (Aumasson and Bernstein, 2012; the variant with one round a block and three at the end) of one 32-bit number.

/// The low half of the hash of `value`, four bytes little endian, under the key (`key`, `key`).
pub(super) fn siphash13(key: u64, value: u32) -> u32 {
    let mut v = [
        key ^ 0x736f_6d65_7073_6575,
        key ^ 0x646f_7261_6e64_6f6d,
        key ^ 0x6c79_6765_6e65_7261,
        key ^ 0x7465_6462_7974_6573,
    ];
    // The only block carries the length in its top byte.
    let block = 4 << 56 | u64::from(value);
    v[3] ^= block;
    round(&mut v);
    v[0] ^= block;
    v[2] ^= 0xff;
    for _ in 0..3 {
        round(&mut v);
    }
    (v[0] ^ v[1] ^ v[2] ^ v[3]) as u32
}

fn round(v: &mut [u64; 4]) {
    let mut half = |a: usize, b: usize, c: usize, d: usize, by: (u32, u32)| {
        v[a] = v[a].wrapping_add(v[b]);
        v[c] = v[c].wrapping_add(v[d]);
        v[b] = v[b].rotate_left(by.0) ^ v[a];
        v[d] = v[d].rotate_left(by.1) ^ v[c];
        v[a] = v[a].rotate_left(32);
    };
    half(0, 1, 2, 3, (13, 16));
    half(2, 1, 0, 3, (17, 21));
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hasher};

    use super::*;

    #[test]
    fn with_key_0_it_is_the_standard_librarys_hash() {
        for value in [0, 1, 0x0a00_0001, u32::MAX] {
            let mut hasher = DefaultHasher::new();
            hasher.write(&value.to_le_bytes());
            assert_eq!(siphash13(0, value), hasher.finish() as u32, "{value}");
        }
    }
}
