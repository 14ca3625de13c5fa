//! Memory that is no heap: large mappings, known because `mmap` is ours, and the statics of this program.

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use crate::arena::{BENCH, current, record};

/// From how many bytes on a mapping is watched. Stacks that the standard library maps are smaller.
pub(crate) const LARGE: usize = 2 << 20;

const MOST: usize = 512;

/// Where large mappings and statics are, and whose they are. All zeros at first.
pub(crate) struct Record {
    /// A length of 0 is none.
    mappings: [Region; MOST],
    /// Of control: workers have none to write to.
    statics: [Region; 2],
}

struct Region {
    owner: AtomicUsize,
    start: AtomicUsize,
    len: AtomicUsize,
}

impl Record {
    fn add(&self, owner: usize, start: usize, len: usize) {
        let free = self.mappings.iter().find(|region| {
            let taken = region.len.compare_exchange(0, len, SeqCst, SeqCst);
            taken.is_ok()
        });
        let Some(region) = free else {
            std::process::abort();
        };
        region.owner.store(owner, SeqCst);
        region.start.store(start, SeqCst);
    }

    fn remove(&self, start: usize) {
        let mut mappings = self.mappings.iter();
        let known = mappings
            .find(|region| region.start.load(SeqCst) == start && region.len.load(SeqCst) > 0);
        if let Some(region) = known {
            region.start.store(0, SeqCst);
            region.len.store(0, SeqCst);
        }
    }

    /// Calls `each` with the owner, the start and the length of each region.
    pub(crate) fn for_each(&self, mut each: impl FnMut(usize, usize, usize)) {
        for region in self.mappings.iter().chain(&self.statics) {
            let (start, len) = (region.start.load(SeqCst), region.len.load(SeqCst));
            if start != 0 && len != 0 {
                each(region.owner.load(SeqCst), start, len);
            }
        }
    }

    /// Bytes of the large mappings of a party.
    pub(crate) fn mapped(&self, owner: usize) -> usize {
        let own = self
            .mappings
            .iter()
            .filter(|region| region.owner.load(SeqCst) == owner);
        own.map(|region| region.len.load(SeqCst)).sum()
    }

    /// Finds the statics that can be written to, once: the parts of this program's file that are mapped so, and what follows them.
    pub(crate) fn find_statics(&self) {
        if self.statics[0].len.load(SeqCst) != 0 {
            return;
        }
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let program = std::env::current_exe().unwrap();
        let mut regions = self.statics.iter();
        let mut end_of_last = 0;
        for line in maps.lines() {
            let mut fields = line.split_ascii_whitespace();
            let (range, rights) = (fields.next().unwrap(), fields.next().unwrap());
            let (start, end) = range.split_once('-').unwrap();
            let [start, end] = [start, end].map(|at| usize::from_str_radix(at, 16).unwrap());
            let file = fields.nth(3).unwrap_or_default();
            let beyond_file = file.is_empty() && start == end_of_last;
            if rights == "rw-p" && (file == program.to_string_lossy() || beyond_file) {
                let region = regions
                    .next()
                    .expect("no more than data and what is zero at first");
                region.owner.store(BENCH, SeqCst);
                region.start.store(start, SeqCst);
                region.len.store(end - start, SeqCst);
                end_of_last = end;
            }
        }
        assert_ne!(end_of_last, 0, "statics are somewhere");
    }
}

/// Makes pages writable or not.
pub(crate) fn protect(start: usize, len: usize, writable: bool) {
    let prot = if writable {
        libc::PROT_READ | libc::PROT_WRITE
    } else {
        libc::PROT_READ
    };
    // SAFETY: mappings of this process that hold data; who reads them goes on, and who writes is caught.
    let done = unsafe { libc::mprotect(start as *mut c_void, len, prot) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Maps memory that nobody watches.
pub(crate) fn map(len: usize) -> usize {
    let (prot, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
    );
    let start = system_map(ptr::null_mut(), len, prot, flags, -1, 0);
    if start == libc::MAP_FAILED {
        std::process::abort();
    }
    start as usize
}

/// A word in the middle of a large mapping, made as the program makes them.
pub(crate) fn large() -> *mut u64 {
    let (prot, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    );
    // SAFETY: a fresh mapping at an address of the kernel's choice, which stays.
    let start = unsafe { libc::mmap64(ptr::null_mut(), 2 * LARGE, prot, flags, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    start.wrapping_byte_add(LARGE).cast()
}

fn system_map(
    at: *mut c_void,
    len: usize,
    prot: c_int,
    flags: c_int,
    file: c_int,
    offset: i64,
) -> *mut c_void {
    // SAFETY: what the caller wants, whoever it is, as without us.
    unsafe { libc::syscall(libc::SYS_mmap, at, len, prot, flags, file, offset) as *mut c_void }
}

/// What the program calls instead of the C library's: the party whose turn it is owns what it maps.
// SAFETY: the C library's function of that name, with its signature and its effect.
#[unsafe(no_mangle)]
extern "C" fn mmap64(
    at: *mut c_void,
    len: usize,
    prot: c_int,
    flags: c_int,
    file: c_int,
    offset: i64,
) -> *mut c_void {
    let start = system_map(at, len, prot, flags, file, offset);
    if start != libc::MAP_FAILED && file < 0 && len >= LARGE {
        record().add(current(), start as usize, len);
    }
    start
}

/// As above.
// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn munmap(at: *mut c_void, len: usize) -> c_int {
    record().remove(at as usize);
    // SAFETY: what the caller wants, whoever it is, as without us.
    unsafe { libc::syscall(libc::SYS_munmap, at, len) as c_int }
}
