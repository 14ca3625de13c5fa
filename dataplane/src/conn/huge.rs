//! Arrays on huge pages: a table of a million connections is 200 MB, which packets visit at random, and with pages of 4 KB nearly
//! every visit would miss the TLB too.
//!
//! Transparent huge pages, asked for by `madvise(2)`: they need no reservation, and where the kernel has none to give the
//! array works all the same. Memory belongs to the NUMA node of the thread that makes the array, which writes it first.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use memmap2::{Advice, MmapMut};

/// Bytes of a huge page on x86-64.
const HUGE: usize = 2 << 20;

/// An array of fixed length.
pub(super) struct HugeSlice<T> {
    /// `None` if the array is empty or on the heap.
    map: Option<MmapMut>,
    start: NonNull<T>,
    len: usize,
}

impl<T: Copy> HugeSlice<T> {
    /// An array of what `element` says for each place. Ends the process when there is no memory, as every allocation does.
    pub(super) fn from_fn(len: usize, element: impl Fn(usize) -> T) -> Self {
        let layout = std::alloc::Layout::array::<T>(len);
        let Ok(layout) = layout else {
            capacity_overflow()
        };
        if layout.size() < HUGE {
            let heap: Box<[T]> = (0..len).map(element).collect();
            let start = NonNull::from(Box::leak(heap)).cast();
            return Self {
                map: None,
                start,
                len,
            };
        }
        // Room to begin at a huge page.
        let Ok(mut map) = MmapMut::map_anon(layout.size() + HUGE) else {
            std::alloc::handle_alloc_error(layout)
        };
        // Only advice: kernels without huge pages refuse it.
        let _ = map.advise(Advice::HugePage);
        let skip = map.as_ptr().align_offset(HUGE);
        let start = map[skip..].as_mut_ptr().cast::<T>();
        for at in 0..len {
            // SAFETY: `len` elements fit behind `start`, which is aligned to more than any `T`; the map is ours alone.
            unsafe { start.add(at).write(element(at)) };
        }
        let Some(start) = NonNull::new(start) else {
            unreachable!("a map does not begin at 0")
        };
        Self {
            map: Some(map),
            start,
            len,
        }
    }
}

#[cold]
fn capacity_overflow() -> ! {
    panic!("an array larger than the address space")
}

impl<T> Drop for HugeSlice<T> {
    fn drop(&mut self) {
        if self.map.is_none() {
            let heap = std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.len);
            // SAFETY: without a map the array came from `Box::leak` with this length.
            drop(unsafe { Box::from_raw(heap) });
        }
    }
}

impl<T> Deref for HugeSlice<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        // SAFETY: `len` elements at `start` were written when it was made, and live as long as `self`.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for HugeSlice<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

// SAFETY: it owns its elements as a `Box<[T]>` does.
unsafe impl<T: Send> Send for HugeSlice<T> {}

impl<T> fmt::Debug for HugeSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HugeSlice({} elements)", self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_small_and_huge_hold_what_was_written() {
        for len in [0, 1, 1000, HUGE / 8 - 1, HUGE / 8, HUGE] {
            let mut array = HugeSlice::from_fn(len, |at| at as u64);
            assert_eq!(array.len(), len);
            assert!(array.iter().copied().eq(0..len as u64));
            array.iter_mut().for_each(|element| *element *= 3);
            assert!(array.iter().copied().eq((0..len as u64).map(|at| at * 3)));
        }
    }

    #[test]
    fn a_large_array_begins_at_a_huge_page() {
        let array = HugeSlice::from_fn(HUGE, |_| 0u8);
        assert_eq!(array.as_ptr().align_offset(HUGE), 0);
    }
}
