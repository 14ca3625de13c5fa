//! An allocator with pages for each party, and locks on them.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use sluice_perf::scale::fleet::{Custodian, Party};

/// Addresses of one party, of which only what is used costs memory.
const ARENA: usize = 4 << 30;

/// Control, what lies between, and workers.
const ARENAS: usize = 2 + 4;

const BENCH: usize = 0;
const EXCHANGE: usize = 1;

/// What a process that broke a lock ends with.
const BROKEN: i32 = 70;

/// Where the arenas are; 0 before the first allocation.
static BASE: AtomicUsize = AtomicUsize::new(0);

/// What is used of each.
static USED: [AtomicUsize; ARENAS] = [const { AtomicUsize::new(0) }; ARENAS];

/// Whose turn it is.
static CURRENT: AtomicUsize = AtomicUsize::new(BENCH);

static LOCKED: AtomicBool = AtomicBool::new(false);

/// The allocator. What is freed is not used again.
pub(crate) struct Arenas;

fn base() -> usize {
    let known = BASE.load(SeqCst);
    if known != 0 {
        return known;
    }
    let (prot, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
    );
    // SAFETY: a fresh mapping at an address of the kernel's choice.
    let map = unsafe { libc::mmap(ptr::null_mut(), ARENAS * ARENA, prot, flags, -1, 0) };
    if map == libc::MAP_FAILED {
        std::process::abort();
    }
    match BASE.compare_exchange(0, map as usize, SeqCst, SeqCst) {
        Ok(_) => map as usize,
        // Another thread was faster; this mapping is left alone.
        Err(first) => first,
    }
}

// SAFETY: every block is a piece of a mapping that stays, aligned, and given out once.
unsafe impl GlobalAlloc for Arenas {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let party = CURRENT.load(SeqCst);
        let arena = base() + party * ARENA;
        let place = |used: usize| used.next_multiple_of(layout.align());
        let before = USED[party].fetch_update(SeqCst, SeqCst, |used| {
            let end = place(used) + layout.size();
            (end <= ARENA).then_some(end)
        });
        match before {
            Ok(used) => (arena + place(used)) as *mut u8,
            Err(_) => ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, _block: *mut u8, _layout: Layout) {}
}

fn index(party: Party) -> usize {
    match party {
        Party::Bench => BENCH,
        Party::Exchange => EXCHANGE,
        Party::Worker(id) => 2 + usize::from(id),
    }
}

fn protect(arena: usize, writable: bool) {
    let prot = if writable {
        libc::PROT_READ | libc::PROT_WRITE
    } else {
        libc::PROT_READ
    };
    let start = (base() + arena * ARENA) as *mut libc::c_void;
    // SAFETY: the mapping of `base`, of which this is one arena.
    let done = unsafe { libc::mprotect(start, ARENA, prot) };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Whether a party's turn lets it write to an arena. The bench plays the wire too.
fn may_write(current: usize, arena: usize) -> bool {
    arena == current || arena == EXCHANGE || arena == BENCH && current == EXCHANGE
}

/// While it lives, only what the party whose turn it is may write to can be written to.
pub(crate) struct Lock;

impl Lock {
    pub(crate) fn all() -> Self {
        catch_faults();
        let current = CURRENT.load(SeqCst);
        for arena in 0..ARENAS {
            protect(arena, may_write(current, arena));
        }
        LOCKED.store(true, SeqCst);
        Self
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        LOCKED.store(false, SeqCst);
        for arena in 0..ARENAS {
            protect(arena, true);
        }
    }
}

/// Moves the lock with the turns.
pub(crate) struct Watch;

impl Custodian for Watch {
    fn enter(&mut self, party: Party) {
        let party = index(party);
        let before = CURRENT.swap(party, SeqCst);
        if LOCKED.load(SeqCst) {
            for arena in 0..ARENAS {
                let may = may_write(party, arena);
                if may != may_write(before, arena) {
                    protect(arena, may);
                }
            }
        }
    }

    fn made(&mut self) {
        std::mem::forget(Lock::all());
    }

    fn over(&mut self) {
        drop(Lock);
    }
}

/// Whether something done in another process, which begins as a copy of this one, breaks a lock.
pub(crate) fn dies(what: impl FnOnce()) -> bool {
    // SAFETY: the child runs `what` in its only thread and ends without unwinding or running anything of the parent's.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "{}", std::io::Error::last_os_error());
    if child == 0 {
        what();
        // SAFETY: ends the process at once.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: the child just made, and a place for its status.
    let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(waited, child);
    assert!(libc::WIFEXITED(status), "status {status:#x}");
    match libc::WEXITSTATUS(status) {
        0 => false,
        BROKEN => true,
        other => panic!("the child ended with {other}"),
    }
}

fn catch_faults() {
    // SAFETY: all zeros is a valid `sigaction`; `on_fault` has the signature that SA_SIGINFO wants and allocates nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSEGV, &raw const action, ptr::null_mut());
    }
}

/// Says who wrote where, and ends the process.
extern "C" fn on_fault(_signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `info` for SIGSEGV.
    let address = unsafe { (*info).si_addr() } as usize;
    let arena = address.wrapping_sub(BASE.load(SeqCst)) / ARENA;
    say("\n");
    say(name(CURRENT.load(SeqCst)));
    say(" wrote to memory of ");
    say(name(arena));
    say("\n");
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(BROKEN) };
}

fn name(arena: usize) -> &'static str {
    let names = [
        "control",
        "the exchange",
        "worker 0",
        "worker 1",
        "worker 2",
        "worker 3",
    ];
    names.get(arena).copied().unwrap_or("nobody")
}

fn say(words: &str) {
    // SAFETY: a buffer and its length; what cannot be written is not said.
    unsafe { libc::write(2, words.as_ptr().cast(), words.len()) };
}
