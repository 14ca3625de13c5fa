//! Hints to the cache.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Hints that `value` will be read soon. Has no other effect.
#[inline(always)]
pub(crate) fn read<T>(value: &T) {
    // SAFETY: a prefetch has no architectural effect, whatever the address; this one is of a live reference.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(value).cast()) }
}
