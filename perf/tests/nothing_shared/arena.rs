//! An allocator with pages for each party, a record of large mappings and of statics, and locks on all of them.

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use sluice_perf::scale::fleet::{Custodian, Party};

use crate::regions;

/// Addresses of one party, of which only what is used costs memory.
const ARENA: usize = 4 << 30;

/// Control, what lies between, and workers.
const ARENAS: usize = 2 + 4;

pub(crate) const BENCH: usize = 0;
const EXCHANGE: usize = 1;

/// What a process that broke a lock ends with.
const BROKEN: i32 = 70;

/// Where the watch's own pages are, and behind them the arenas; 0 before the first allocation. Written once: statics are locked too.
static BASE: AtomicUsize = AtomicUsize::new(0);

/// Bytes of the watch's own pages.
const OWN: usize = 1 << 20;

/// What the watch writes while others may not. All zeros at first.
struct State {
    /// What is used of each arena.
    used: [AtomicUsize; ARENAS],
    /// Whose turn it is.
    current: AtomicUsize,
    locked: AtomicBool,
    regions: regions::Record,
}

const _: () = assert!(size_of::<State>() <= OWN);

/// The allocator. What is freed is not used again.
pub(crate) struct Arenas;

fn base() -> usize {
    let known = BASE.load(SeqCst);
    if known != 0 {
        return known;
    }
    let map = regions::map(OWN + ARENAS * ARENA);
    match BASE.compare_exchange(0, map, SeqCst, SeqCst) {
        Ok(_) => map,
        // Another thread was faster; this mapping is left alone.
        Err(first) => first,
    }
}

fn state() -> &'static State {
    // SAFETY: the mapping stays, is large enough and aligned to pages, and zeros are a `State`, which changes by atomics alone.
    unsafe { &*(base() as *const State) }
}

fn arena(party: usize) -> usize {
    base() + OWN + party * ARENA
}

/// Whose turn it is.
pub(crate) fn current() -> usize {
    state().current.load(SeqCst)
}

/// What is known of memory that is in no arena.
pub(crate) fn record() -> &'static regions::Record {
    &state().regions
}

// SAFETY: every block is a piece of a mapping that stays, aligned, and given out once.
unsafe impl GlobalAlloc for Arenas {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let party = current();
        let arena = arena(party);
        let place = |used: usize| used.next_multiple_of(layout.align());
        let before = state().used[party].fetch_update(SeqCst, SeqCst, |used| {
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

/// Whether a party's turn lets it write to an arena. The bench plays the wire too.
fn may_write(current: usize, arena: usize) -> bool {
    arena == current || arena == EXCHANGE || arena == BENCH && current == EXCHANGE
}

/// While it lives, only what the party whose turn it is may write to can be written to.
pub(crate) struct Lock;

impl Lock {
    pub(crate) fn all() -> Self {
        catch_faults();
        record().find_statics();
        let current = current();
        for_each(|owner, start, len| regions::protect(start, len, may_write(current, owner)));
        state().locked.store(true, SeqCst);
        Self
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        state().locked.store(false, SeqCst);
        for_each(|_, start, len| regions::protect(start, len, true));
    }
}

/// Calls `each` with the owner, the start and the length of all that is watched.
fn for_each(mut each: impl FnMut(usize, usize, usize)) {
    for party in 0..ARENAS {
        each(party, arena(party), ARENA);
    }
    record().for_each(each);
}

/// Moves the lock with the turns.
pub(crate) struct Watch {
    /// Bytes of large mappings that each worker must have.
    pub(crate) mapped: usize,
}

impl Custodian for Watch {
    fn enter(&mut self, party: Party) {
        let party = index(party);
        let before = state().current.swap(party, SeqCst);
        if state().locked.load(SeqCst) {
            for_each(|owner, start, len| {
                let may = may_write(party, owner);
                if may != may_write(before, owner) {
                    regions::protect(start, len, may);
                }
            });
        }
    }

    fn made(&mut self) {
        for worker in 2..ARENAS {
            assert!(
                record().mapped(worker) >= self.mapped,
                "{} has too few large mappings",
                name(worker)
            );
        }
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
    say("\n");
    say(name(current()));
    say(" wrote to memory of ");
    say(name(owner(address)));
    say("\n");
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(BROKEN) };
}

fn owner(address: usize) -> usize {
    let mut owner = usize::MAX;
    for_each(|party, start, len| {
        if (start..start + len).contains(&address) {
            owner = party;
        }
    });
    owner
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
