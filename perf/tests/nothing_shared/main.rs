//! Workers share nothing: no worker writes to a page of another, nor of control, while packets pass.
//!
//! Every party of a fleet has its heap in pages of its own, and its large arrays in mappings of their own. While a worker has its turn
//! only its pages can be written to, and those of the rings between parties; all others are locked, the program's statics with them, and
//! a write there ends the test by a signal, which says who wrote where. Not looked at are the statics of shared libraries.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod arena;
mod regions;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arena::{Arenas, Lock, Watch};
use sluice_control::api::Method;
use sluice_dataplane::io::rss_nic::Model;
use sluice_perf::scale::cabling::Cabling;
use sluice_perf::scale::fleet::{Custodian, Party};
use sluice_perf::scale::trial::Trial;

#[global_allocator]
static ARENAS: Arenas = Arenas;

fn trial(model: Model, method: Method) -> Trial {
    Trial {
        model,
        cabling: Cabling::TwoArms,
        method,
        workers: 4,
        flows: 1000,
    }
}

/// So many connections that each worker's table is a large mapping.
const MANY: u32 = 40_000;

fn run(trial: Trial, mapped: usize) {
    let outcome = trial.run_in_custody(Box::new(Watch { mapped })).unwrap();
    assert_eq!(trial.faults(&outcome), [""; 0], "{trial:?}");
}

/// One after the other: memory has one lock for all threads.
#[test]
fn no_worker_writes_to_anothers_memory() {
    a_write_to_another_partys_heap_is_found();
    a_write_to_another_partys_large_mapping_is_found();
    a_workers_write_to_a_static_is_found();
    for method in [Method::Nat, Method::FullNat, Method::Dr, Method::Tun] {
        for model in [Model::Full, Model::Common, Model::Foreign] {
            run(trial(model, method), 0);
        }
    }
    let many = Trial {
        flows: MANY,
        ..trial(Model::Common, Method::Nat)
    };
    run(many, regions::LARGE);
}

/// Does not mind who has mapped what.
fn unasking() -> Watch {
    Watch { mapped: 0 }
}

const PARTIES: [Party; 4] = [
    Party::Worker(0),
    Party::Worker(1),
    Party::Bench,
    Party::Exchange,
];

/// Whether a party's write to a word ends the process that does it.
fn dies_of(writer: Party, word: *mut u64) -> bool {
    arena::dies(|| {
        let _lock = Lock::all();
        unasking().enter(writer);
        // SAFETY: a word that lives on, and that nobody else uses in this process.
        unsafe { word.write_volatile(1) };
    })
}

/// Two workers and control: whose turn it is may write to its own and to what lies between, and to nothing else.
fn holds(whose: Party, word: *mut u64) {
    for writer in PARTIES {
        let between = whose == Party::Exchange;
        let wire = (writer, whose) == (Party::Exchange, Party::Bench);
        let allowed = whose == writer || between || wire;
        assert_eq!(
            dies_of(writer, word),
            !allowed,
            "{writer:?} writes to {whose:?}"
        );
    }
}

fn a_write_to_another_partys_heap_is_found() {
    let words = PARTIES.map(|party| {
        unasking().enter(party);
        std::ptr::from_mut(Box::leak(Box::new(0u64)))
    });
    unasking().enter(Party::Bench);
    for (whose, word) in PARTIES.into_iter().zip(words) {
        holds(whose, word);
    }
}

fn a_write_to_another_partys_large_mapping_is_found() {
    let maps = PARTIES.map(|party| {
        unasking().enter(party);
        regions::large()
    });
    unasking().enter(Party::Bench);
    for (whose, map) in PARTIES.into_iter().zip(maps) {
        holds(whose, map);
    }
}

fn a_workers_write_to_a_static_is_found() {
    static ZERO: AtomicU64 = AtomicU64::new(0);
    static DATA: AtomicU64 = AtomicU64::new(7);
    for word in [&ZERO, &DATA] {
        holds(Party::Bench, word.as_ptr());
        assert_ne!(word.load(Relaxed), 1, "only other processes wrote to it");
    }
}
