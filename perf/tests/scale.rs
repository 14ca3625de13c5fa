//! `make scale` in a size that takes seconds.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use sluice_dataplane::io::rss_nic::Model;
use sluice_perf::scale::cabling::Cabling;
use sluice_perf::scale::table;
use sluice_perf::scale::trial::Trial;
use sluice_perf::scenario::METHODS;

/// Connections of a trial.
const FLOWS: u32 = 2000;

/// Every method, cabling and kind of NIC with so many workers. Fails with the lines of what went wrong.
fn all_is_well_with(workers: usize) {
    let mut failed = Vec::new();
    for model in Model::ALL {
        for (cabling, method) in Cabling::ALL
            .into_iter()
            .flat_map(|cabling| METHODS.map(|method| (cabling, method)))
        {
            let trial = Trial {
                model,
                cabling,
                method,
                workers,
                flows: FLOWS,
            };
            let outcome = trial.run().unwrap();
            if !trial.faults(&outcome).is_empty() {
                failed.push(table::line(&trial, &outcome, None));
            }
        }
    }
    assert!(failed.is_empty(), "\n{}", failed.join("\n"));
}

#[test]
fn one_worker_forwards_every_packet_of_every_connection_as_it_must() {
    all_is_well_with(1);
}

#[test]
fn two_workers_act_as_one() {
    all_is_well_with(2);
}

#[test]
fn three_workers_act_as_one() {
    all_is_well_with(3);
}

#[test]
fn five_workers_act_as_one() {
    all_is_well_with(5);
}

#[test]
fn eight_workers_act_as_one() {
    all_is_well_with(8);
}

#[test]
fn sixteen_workers_act_as_one() {
    all_is_well_with(16);
}

#[test]
fn what_is_counted_is_forwarded() {
    for model in [Model::Full, Model::None] {
        for (method, workers) in METHODS.into_iter().zip([1, 2, 8, 16]) {
            let trial = Trial {
                model,
                cabling: Cabling::TwoArms,
                method,
                workers,
                flows: FLOWS,
            };
            trial.forward_steadily().unwrap();
        }
    }
}
