//! Pools of frames, each on one NUMA node.

use std::ffi::{CStr, CString, c_int, c_uint, c_void};
use std::mem;
use std::ptr::{self, NonNull};

use dpdk_sys as sys;

use super::eal::{errno_text, last_errno};
use super::{Backing, Eal, Mbuf};
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
    /// Frames that each lcore may keep for itself; at most 512, and at most half of `frames`, count.
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
        // SAFETY: computes; the last argument may be null.
        let object = unsafe { sys::rte_mempool_calc_obj_size(self.element(), 0, ptr::null_mut()) };
        // In the ring, whose size is a power of two, an object takes a pointer.
        let ring = (u64::from(self.frames) + 1).next_power_of_two() * 8;
        u64::from(self.frames) * u64::from(object) + ring + sys::SLUICE_MEMPOOL_OVERHEAD as u64
    }

    /// Bytes of a mbuf and its buffer.
    fn element(&self) -> u32 {
        sys::SLUICE_MBUF_SIZE as u32 + headroom() + u32::from(self.frame_len)
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
        "pool {name}: {frames} frames take {want_mb} MB and DPDK's memory has {free_mb} MB free, {short_mb} MB too few \
         ({errno}); raise memory_mb, or configure fewer frames"
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
        /// The difference; at least 1, as free memory may be in pieces.
        short_mb: u64,
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
    pub fn new(eal: &Eal, config: &PoolConfig) -> Result<Self, MempoolError> {
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
        // Ordinary pages are smaller than two frames, and no device that needs contiguous ones works with them.
        let flags = match eal.backing() {
            Backing::Ordinary => sys::SLUICE_MEMPOOL_NO_IOVA_CONTIG as u32,
            Backing::Hugetlbfs | Backing::AnonymousHugepages => 0,
        };
        let create = |socket| create(config, &name, socket, flags);
        let raw = match create(config.socket) {
            Err(_) if config.socket != Socket::ANY => {
                let elsewhere = create(Socket::ANY);
                if elsewhere.is_ok() {
                    let node = config.socket.0;
                    tracing::warn!(
                        pool = config.name,
                        node,
                        "no memory on the NUMA node: any is used"
                    );
                }
                elsewhere
            }
            made => made,
        };
        let raw = raw.map_err(|errno| {
            let want_mb = config.bytes().div_ceil(1 << 20);
            let free_mb = free_bytes() >> 20;
            MempoolError::Refused {
                name: config.name.clone(),
                frames: config.frames,
                want_mb,
                free_mb,
                short_mb: want_mb.saturating_sub(free_mb).max(1),
                errno: errno_text(errno),
            }
        })?;
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

/// A pool with mbufs in it, or an error number.
fn create(
    config: &PoolConfig,
    name: &CStr,
    socket: Socket,
    flags: u32,
) -> Result<NonNull<sys::rte_mempool>, c_int> {
    let private = mem::size_of::<sys::rte_pktmbuf_pool_private>() as u32;
    // SAFETY: EAL is initialised; the name is terminated, and copied.
    let pool = NonNull::new(unsafe {
        sys::rte_mempool_create_empty(
            name.as_ptr(),
            config.frames,
            config.element(),
            config
                .cache
                .min(sys::SLUICE_MEMPOOL_CACHE_MAX as u32)
                .min(config.frames / 2),
            private,
            socket.0,
            flags,
        )
    })
    .ok_or_else(last_errno)?;
    let raw = pool.as_ptr();
    let mut sizes = sys::rte_pktmbuf_pool_private {
        mbuf_data_room_size: config.frame_len + headroom() as u16,
        mbuf_priv_size: 0,
        flags: 0,
    };
    // SAFETY: the pool is new, without objects and ours; the private area has the size of what is copied there, and
    // the objects get the size that `rte_pktmbuf_init` fills.
    let populated = unsafe {
        match sys::rte_mempool_set_ops_byname(raw, ring().as_ptr(), ptr::null_mut()) {
            0 => {
                sys::rte_pktmbuf_pool_init(raw, (&raw mut sizes).cast());
                sys::rte_mempool_populate_default(raw)
            }
            error => error,
        }
    };
    if populated < 0 {
        // SAFETY: nobody else has the pool.
        unsafe { sys::rte_mempool_free(raw) };
        return Err(-populated);
    }
    // SAFETY: the pool is new, so nobody else uses its objects, of which both functions take any.
    unsafe {
        sys::rte_mempool_obj_iter(raw, Some(sys::rte_pktmbuf_init), ptr::null_mut());
        sys::rte_mempool_obj_iter(raw, Some(zero), ptr::null_mut());
    }
    Ok(pool)
}

/// What holds the free frames. DPDK's usual ring makes all wait for a thread that is preempted in the middle of it, as
/// the punt thread can be, which has no cache; in this one the others go on. Devices with pools of their own need those.
fn ring() -> &'static CStr {
    // SAFETY: returns a terminated string that lives as long as the process.
    match unsafe { CStr::from_ptr(sys::rte_mbuf_best_mempool_ops()) } {
        usual if usual == c"ring_mp_mc" => c"ring_mt_rts",
        devices => devices,
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
            let mut stats: sys::rte_malloc_socket_stats = unsafe { mem::zeroed() };
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
