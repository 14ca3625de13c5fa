//! Pools of frames, each on one NUMA node.

use std::ffi::{CString, c_int, c_uint, c_void};
use std::ptr::{self, NonNull};

use dpdk_sys as sys;

use super::eal::{errno_text, last_errno};
use super::{Eal, Mbuf};
use crate::io::{FramePool, HEADROOM};

const _: () = assert!(HEADROOM <= sys::SLUICE_PKTMBUF_HEADROOM as usize);

/// A NUMA node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket(pub(super) c_int);

impl Socket {
    /// Wherever there is memory.
    pub const ANY: Self = Self(sys::SLUICE_SOCKET_ID_ANY);
}

/// How big a pool is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Its name, at most 25 bytes; unique in the process.
    pub name: String,
    /// How many frames. Receive and transmit descriptors of all queues, what the workers hold and the caches must fit.
    pub frames: u32,
    /// Bytes of the longest frame that fits one buffer. Longer ones are refused.
    pub frame_len: u16,
    /// Frames that each lcore keeps for itself, at most 512 and at most two thirds of `frames`.
    pub cache: u32,
    /// Where the memory shall be. Falls back to any other node.
    pub socket: Socket,
}

impl PoolConfig {
    /// A pool of `frames` frames of up to 2048 bytes, anywhere.
    pub fn new(name: impl Into<String>, frames: u32) -> Self {
        Self {
            name: name.into(),
            frames,
            frame_len: 2048,
            cache: 512.min(frames / 4),
            socket: Socket::ANY,
        }
    }

    /// Bytes of memory that it takes. May be asked before EAL starts, to size its memory.
    pub fn bytes(&self) -> u64 {
        let element = sys::SLUICE_MBUF_SIZE as u32 + u32::from(self.frame_len) + headroom();
        // SAFETY: computes; the last argument may be null.
        let object = unsafe { sys::rte_mempool_calc_obj_size(element, 0, ptr::null_mut()) };
        // Besides the objects: 8 bytes each in the ring, whose size is the next power of two.
        u64::from(self.frames) * u64::from(object)
            + u64::from(self.frames + 1).next_power_of_two() * 8
    }
}

/// A pool could not be made. Control thread only.
#[derive(Debug, thiserror::Error)]
pub enum MempoolError {
    /// The name is empty, too long or holds a zero byte.
    #[error("pool name {0:?} is not 1 to 25 bytes without zero")]
    BadName(String),
    /// Buffers hold at most 65535 bytes, headroom included.
    #[error(
        "pool {name}: frames of {frame_len} bytes are too long for one buffer; at most {max} fit"
    )]
    TooLong {
        /// Which pool.
        name: String,
        /// Wanted.
        frame_len: u16,
        /// Possible.
        max: u16,
    },
    /// DPDK refused.
    #[error(
        "pool {name}: {frames} frames take {want_mb} MB and DPDK's memory has {free_mb} MB free ({errno}); \
         give DPDK more memory, or configure fewer frames"
    )]
    Refused {
        /// Which pool.
        name: String,
        /// How many frames.
        frames: u32,
        /// What they take.
        want_mb: u64,
        /// What is left.
        free_mb: u64,
        /// The error number's text.
        errno: String,
    },
}

/// A pool of frames. Copies are handles of the same pool, which lives as long as the process: frames may be on
/// any thread, and no one could know when the last one has come back.
#[derive(Clone, Copy, Debug)]
pub struct Mempool {
    raw: NonNull<sys::rte_mempool>,
    frames: u32,
    frame_len: u16,
}

// SAFETY: pools take and give from any thread, lcores through a cache of their own.
unsafe impl Send for Mempool {}
// SAFETY: as above; nothing in the handle changes.
unsafe impl Sync for Mempool {}

impl Mempool {
    /// Makes a pool. Touches all its memory once: every byte of every buffer is written before Rust sees it.
    pub fn new(_eal: &Eal, config: &PoolConfig) -> Result<Self, MempoolError> {
        let name = CString::new(config.name.as_str())
            .ok()
            .filter(|name| {
                (1..sys::SLUICE_MEMPOOL_NAME_SIZE as usize).contains(&name.count_bytes())
            })
            .ok_or_else(|| MempoolError::BadName(config.name.clone()))?;
        let max = u16::MAX - headroom() as u16;
        if config.frame_len > max {
            return Err(MempoolError::TooLong {
                name: config.name.clone(),
                frame_len: config.frame_len,
                max,
            });
        }
        let create = |socket: Socket| {
            // SAFETY: EAL is initialised; the names are terminated strings, which DPDK copies.
            NonNull::new(unsafe {
                sys::rte_pktmbuf_pool_create_by_ops(
                    name.as_ptr(),
                    config.frames,
                    config.cache,
                    0,
                    config.frame_len + headroom() as u16,
                    socket.0,
                    ptr::null(),
                )
            })
        };
        let raw = create(config.socket)
            .or_else(|| {
                (config.socket != Socket::ANY).then_some(())?;
                tracing::warn!(
                    pool = config.name,
                    node = config.socket.0,
                    "no memory on the NUMA node: any other is used"
                );
                create(Socket::ANY)
            })
            .ok_or_else(|| MempoolError::Refused {
                name: config.name.clone(),
                frames: config.frames,
                want_mb: config.bytes().div_ceil(1 << 20),
                free_mb: free_bytes() >> 20,
                errno: errno_text(last_errno()),
            })?;
        // SAFETY: the pool is new, so nobody else uses its objects; `zero` takes such objects.
        unsafe { sys::rte_mempool_obj_iter(raw.as_ptr(), Some(zero), ptr::null_mut()) };
        Ok(Self {
            raw,
            frames: config.frames,
            frame_len: config.frame_len,
        })
    }

    /// An empty frame with headroom in front, or `None` when the pool is empty.
    #[inline]
    pub fn take(&self) -> Option<Mbuf> {
        // SAFETY: the pool lives as long as the process, and what it gives is ours alone.
        NonNull::new(unsafe { sys::sluice_pktmbuf_alloc(self.raw.as_ptr()) })
            // SAFETY: as `Mbuf` wants it: owned, one segment, of a pool that `new` has zeroed.
            .map(|raw| unsafe { Mbuf::from_raw(raw) })
    }

    /// Frames that are in the pool now, those in caches included. Exact only while nobody uses it; slow.
    pub fn available(&self) -> u32 {
        // SAFETY: the pool lives as long as the process; only counters are read.
        unsafe { sys::rte_mempool_avail_count(self.raw.as_ptr()) }
    }

    /// How many frames it was made with.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// Bytes of the longest frame that fits one buffer.
    pub fn frame_len(&self) -> u16 {
        self.frame_len
    }

    pub(super) fn as_ptr(&self) -> *mut sys::rte_mempool {
        self.raw.as_ptr()
    }
}

impl FramePool for Mempool {
    type Frame = Mbuf;

    fn alloc(&mut self) -> Option<Mbuf> {
        self.take()
    }
}

fn headroom() -> u32 {
    sys::SLUICE_PKTMBUF_HEADROOM as u32
}

/// What DPDK's heaps have left, on all nodes.
fn free_bytes() -> u64 {
    (0..)
        .map_while(|node| {
            // SAFETY: all zeroes is a value of this structure of numbers.
            let mut stats: sys::rte_malloc_socket_stats = unsafe { std::mem::zeroed() };
            // SAFETY: fills the structure, or fails past the last heap.
            let error = unsafe { sys::rte_malloc_get_socket_stats(node, &mut stats) };
            (error == 0).then_some(stats.heap_freesz_bytes as u64)
        })
        .sum()
}

/// Zeroes one new object's buffer.
unsafe extern "C" fn zero(
    _pool: *mut sys::rte_mempool,
    _argument: *mut c_void,
    object: *mut c_void,
    _index: c_uint,
) {
    let mbuf = object.cast::<u8>();
    // SAFETY: the object is an initialised mbuf with these fields at these places.
    let (buffer, len) = unsafe {
        (
            mbuf.add(sys::SLUICE_MBUF_BUF_ADDR as usize)
                .cast::<*mut u8>()
                .read(),
            mbuf.add(sys::SLUICE_MBUF_BUF_LEN as usize)
                .cast::<u16>()
                .read(),
        )
    };
    // SAFETY: the buffer belongs to the mbuf, has that length, and nobody else uses a new pool.
    unsafe { ptr::write_bytes(buffer, 0, usize::from(len)) };
}
