//! Frames in DPDK's buffers.

use std::ptr::{self, NonNull};
use std::slice;

use dpdk_sys as sys;

use crate::io::{Burst, ChecksumRequest, Frame};

/// An owned frame in one buffer of a pool; dropping gives the buffer back.
///
/// The bytes are always initialised memory: pools are zeroed when made, and since then only frames were written.
#[derive(Debug)]
#[repr(transparent)]
pub struct Mbuf(NonNull<sys::rte_mbuf>);

// SAFETY: a mbuf has one owner, and pools take buffers back from any thread.
unsafe impl Send for Mbuf {}

impl Mbuf {
    /// Takes ownership.
    ///
    /// # Safety
    /// `raw` is a mbuf of one segment and reference, of a [`super::Mempool`], and nobody else will use or free it.
    pub(super) unsafe fn from_raw(raw: NonNull<sys::rte_mbuf>) -> Self {
        Self(raw)
    }

    /// Where field number `offset` is.
    ///
    /// # Safety
    /// `T` and `offset` belong together: one of the offsets of `dpdk_sys`.
    #[inline]
    unsafe fn field<T>(&self, offset: i32) -> *mut T {
        // SAFETY: offsets are inside the structure, of which we own one.
        unsafe { self.0.as_ptr().cast::<u8>().add(offset as usize).cast() }
    }

    #[inline]
    fn buffer(&self) -> *mut u8 {
        // SAFETY: a pointer in an initialised mbuf of ours.
        unsafe { self.field::<*mut u8>(sys::SLUICE_MBUF_BUF_ADDR).read() }
    }

    #[inline]
    fn buffer_len(&self) -> u16 {
        // SAFETY: a u16 in an initialised mbuf of ours.
        unsafe { self.field::<u16>(sys::SLUICE_MBUF_BUF_LEN).read() }
    }

    /// Bytes in front of the frame.
    #[inline]
    fn headroom(&self) -> u16 {
        // SAFETY: a u16 in an initialised mbuf of ours.
        unsafe { self.field::<u16>(sys::SLUICE_MBUF_DATA_OFF).read() }
    }

    #[inline]
    fn len(&self) -> u16 {
        // SAFETY: a u16 in an initialised mbuf of ours.
        unsafe { self.field::<u16>(sys::SLUICE_MBUF_DATA_LEN).read() }
    }

    /// Bytes behind the frame.
    #[inline]
    fn tailroom(&self) -> u16 {
        self.buffer_len() - self.headroom() - self.len()
    }

    #[inline]
    pub(super) fn segments(&self) -> u16 {
        // SAFETY: a u16 in an initialised mbuf of ours.
        unsafe { self.field::<u16>(sys::SLUICE_MBUF_NB_SEGS).read() }
    }

    /// The hash that the NIC received it with, if it tells.
    pub(super) fn rss_hash(&self) -> Option<u32> {
        // SAFETY: a u64 and a u32 in an initialised mbuf of ours.
        unsafe {
            let flags = self.field::<u64>(sys::SLUICE_MBUF_OL_FLAGS).read();
            let hash = self.field::<u32>(sys::SLUICE_MBUF_RSS_HASH).read();
            (flags & sys::SLUICE_MBUF_RX_RSS_HASH != 0).then_some(hash)
        }
    }

    /// Hints that the frame's bytes will be read soon.
    #[inline]
    pub(super) fn prefetch(&self) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let start = self.buffer().wrapping_add(usize::from(self.headroom()));
        // SAFETY: a prefetch reads nothing, wherever it points.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.cast()) };
    }

    /// Makes one segment of several. `false` when they do not fit the first one's buffer; then it may only be dropped.
    pub(super) fn linearise(&mut self) -> bool {
        // SAFETY: we own the whole chain; data only moves inside the buffers that it says it has.
        unsafe { sys::sluice_pktmbuf_linearize(self.0.as_ptr()) == 0 }
    }

    /// Sets where the frame begins in the buffer, and its length; the callers checked that both are inside.
    #[inline]
    fn set_extent(&mut self, headroom: u16, len: u16) {
        // SAFETY: fields of a mbuf of ours that has one segment, so that the packet is as long as the segment.
        unsafe {
            self.field::<u16>(sys::SLUICE_MBUF_DATA_OFF).write(headroom);
            self.field::<u16>(sys::SLUICE_MBUF_DATA_LEN).write(len);
            self.field::<u32>(sys::SLUICE_MBUF_PKT_LEN)
                .write(u32::from(len));
        }
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: we own it, and this is the end of it.
        unsafe { sys::sluice_pktmbuf_free(self.0.as_ptr()) };
    }
}

impl Frame for Mbuf {
    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: `headroom` and `len` are kept inside the buffer by DPDK and by `set_extent`'s callers; its bytes are
        // initialised (see the type), and nobody else has the buffer.
        unsafe {
            slice::from_raw_parts(
                self.buffer().add(usize::from(self.headroom())),
                usize::from(self.len()),
            )
        }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed exclusively.
        unsafe {
            slice::from_raw_parts_mut(
                self.buffer().add(usize::from(self.headroom())),
                usize::from(self.len()),
            )
        }
    }

    #[inline]
    fn push_front(&mut self, len: usize) -> bool {
        let (headroom, old) = (self.headroom(), self.len());
        let grown = u16::try_from(len)
            .ok()
            .and_then(|len| Some((headroom.checked_sub(len)?, old.checked_add(len)?)));
        if let Some((headroom, len)) = grown {
            self.set_extent(headroom, len);
        }
        grown.is_some()
    }

    #[inline]
    fn reshape(&mut self, front: usize, len: usize) -> bool {
        let room = front <= usize::from(self.headroom());
        let longest = usize::from(self.len()) + front;
        let fits = room && longest <= usize::from(u16::MAX);
        if fits {
            // Inside the buffer: no further in front than its headroom, and no longer than what was there and is added.
            self.set_extent(self.headroom() - front as u16, len.min(longest) as u16);
        }
        fits
    }

    #[inline]
    fn pull_front(&mut self, len: usize) -> bool {
        let enough = len <= usize::from(self.len());
        if enough {
            // No longer than the frame, whose length is a u16.
            let len = len as u16;
            self.set_extent(self.headroom() + len, self.len() - len);
        }
        enough
    }

    #[inline]
    fn push_back(&mut self, len: usize) -> bool {
        let room = len <= usize::from(self.tailroom());
        if room {
            // No longer than the room, whose length is a u16.
            self.set_extent(self.headroom(), self.len() + len as u16);
        }
        room
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        if len < usize::from(self.len()) {
            // Shorter than the frame, whose length is a u16.
            self.set_extent(self.headroom(), len as u16);
        }
    }

    #[inline]
    fn request_checksums(&mut self, request: ChecksumRequest) {
        let mut flags = sys::SLUICE_MBUF_TX_IPV4;
        if request.ipv4 {
            flags |= sys::SLUICE_MBUF_TX_IP_CKSUM;
        }
        if request.udp {
            flags |= sys::SLUICE_MBUF_TX_UDP_CKSUM;
        }
        let lengths = u64::from(request.l2_len) << sys::SLUICE_MBUF_L2_LEN_SHIFT
            | u64::from(request.l3_len) << sys::SLUICE_MBUF_L3_LEN_SHIFT;
        // SAFETY: u64 fields of an initialised mbuf of ours. The flags replace those of reception, which nobody reads.
        unsafe {
            self.field::<u64>(sys::SLUICE_MBUF_OL_FLAGS).write(flags);
            self.field::<u64>(sys::SLUICE_MBUF_TX_OFFLOAD)
                .write(lengths);
        }
    }
}

/// Gives all buffers of `burst` back at once.
#[inline]
pub(super) fn free_all(burst: &mut Burst<Mbuf>) {
    let count = burst.len() as u32;
    // SAFETY: the burst forgets its frames, so that the call below has the only copies. `Mbuf` is a transparent pointer.
    unsafe {
        burst.set_len(0);
        sys::rte_pktmbuf_free_bulk(burst.as_mut_ptr().cast(), count);
    }
}

/// Forgets the first `count` frames of `burst`, which now belong to someone else; the others move up.
///
/// # Safety
/// `count` is at most the burst's length, and each of the first `count` frames has a new owner.
#[inline]
pub(super) unsafe fn forget_front(burst: &mut Burst<Mbuf>, count: usize) {
    let rest = burst.len() - count;
    // SAFETY: the last `rest` elements are initialised and inside the array; the regions may overlap.
    unsafe {
        burst.set_len(0);
        let start = burst.as_mut_ptr();
        ptr::copy(start.add(count), start, rest);
        burst.set_len(rest);
    }
}
