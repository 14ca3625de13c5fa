//! Workers share nothing: no worker writes to a page of another, nor of control, while packets pass.
//!
//! Every party of a fleet has its heap in pages of its own. While a worker has its turn only its pages can be written to, and those
//! of the rings between parties; all others are locked, and a write to them ends the test by a signal, which says who wrote where. Not
//! looked at is what is no heap: statics, of which workers have none to write to.

mod arena;

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

/// One after the other: memory has one lock for all threads.
#[test]
fn no_worker_writes_to_anothers_memory() {
    a_write_to_another_partys_memory_is_found();
    for method in [Method::Nat, Method::FullNat, Method::Dr, Method::Tun] {
        for model in [Model::Full, Model::Common, Model::Foreign] {
            let trial = trial(model, method);
            let outcome = trial.run_in_custody(Box::new(Watch)).unwrap();
            assert_eq!(trial.faults(&outcome), [""; 0], "{trial:?}");
        }
    }
}

/// Two workers and control: whose turn it is may write to its own and to what lies between, and to nothing else.
fn a_write_to_another_partys_memory_is_found() {
    let parties = [
        Party::Worker(0),
        Party::Worker(1),
        Party::Bench,
        Party::Exchange,
    ];
    let mut watch = Watch;
    let words = parties.map(|party| {
        watch.enter(party);
        Box::leak(Box::new(0u64))
    });
    watch.enter(Party::Bench);
    for (whose, word) in parties.into_iter().zip(words) {
        for writer in parties {
            let died = arena::dies(|| {
                let _lock = Lock::all();
                Watch.enter(writer);
                // SAFETY: a leaked word, that nobody else uses in this process.
                unsafe { std::ptr::from_mut(word).write_volatile(1) };
            });
            let between = whose == Party::Exchange;
            let wire = (writer, whose) == (Party::Exchange, Party::Bench);
            let allowed = whose == writer || between || wire;
            assert_eq!(died, !allowed, "{writer:?} writes to {whose:?}");
        }
    }
}
