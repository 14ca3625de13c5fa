//! Our Toeplitz hash is DPDK's.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use proptest::prelude::*;
use sluice_dataplane::steer::toeplitz::{Key, Toeplitz};

/// DPDK's hash of what lies in a packet like this.
fn softrss(input: &[u8], key: &Key) -> u32 {
    let words = input.chunks_exact(4);
    let mut words: Vec<u32> = words
        .map(|word| u32::from_be_bytes(word.try_into().unwrap()))
        .collect();
    // DPDK reads the key as words, so it must lie like words.
    let aligned: Vec<u32> = key
        .bytes()
        .chunks_exact(4)
        .map(|word| u32::from_ne_bytes(word.try_into().unwrap()))
        .collect();
    assert!(aligned.len() > words.len());
    // SAFETY: reads the words, and of the key one word more than that, which the assertion above shows to be there. No part
    // of DPDK need be initialised for it.
    unsafe {
        dpdk_sys::sluice_softrss(
            words.as_mut_ptr(),
            words.len() as u32,
            aligned.as_ptr().cast(),
        )
    }
}

proptest! {
    #[test]
    fn ours_is_what_dpdk_computes(
        key in proptest::collection::vec(any::<u8>(), 40),
        v4 in any::<[u8; 12]>(),
        v6 in proptest::array::uniform32(any::<u8>()),
    ) {
        for key in [Key::new(&key).unwrap(), Key::symmetric(52), Key::microsoft()] {
            let toeplitz = Toeplitz::new(key.clone());
            prop_assert_eq!(toeplitz.hash(&v4), softrss(&v4, &key));
            prop_assert_eq!(toeplitz.hash(&v6), softrss(&v6, &key));
            let longest: [u8; 36] = [&v6[..], &v4[8..]].concat().try_into().unwrap();
            prop_assert_eq!(toeplitz.hash(&longest), softrss(&longest, &key));
        }
    }
}
