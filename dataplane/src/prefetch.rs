//! Hints to the cache.

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

/// Hints that element `at` of `slice` will be read soon. Has no other effect, also if there is none.
#[inline(always)]
pub(crate) fn read<T>(slice: &[T], at: usize) {
    // SAFETY: a prefetch has no architectural effect, whatever the address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(slice.as_ptr().wrapping_add(at).cast()) }
}
