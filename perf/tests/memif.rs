//! `sluice-pktgen` and a `sluiced` over memif, and `sluice-pktgen` and testpmd. Small, and nothing in it is timed: the rings hold
//! all packets that a test sends, so that nobody loses any however long it is kept from its core.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::env;

use sluice_control::api::Method;
use sluice_perf::loads::{self, Extent};
use sluice_perf::memif::{Measured, Programs, Setup, against_testpmd, measure};
use sluice_perf::pktgen::Report;
use sluice_perf::scenario::SERVERS;
use sluice_perf::testpmd::Mode;
use tempfile::TempDir;

/// Packets that are sent.
const PACKETS: u64 = 1500;

/// Flows that they belong to.
const FLOWS: u32 = 200;

/// As many as rings have room for all packets, their answers and those that open flows.
const RING_LOG2: u8 = 12;

fn setup(method: Method) -> Setup {
    let cores = core_affinity::get_core_ids().unwrap();
    Setup {
        ring_log2: RING_LOG2,
        max_connections: 1 << 16,
        worker_core: cores.last().unwrap().id,
        pktgen_core: cores[0].id,
        shared_cores: true,
        ..Setup::new(method)
    }
}

fn programs(home: &TempDir) -> Programs {
    Programs::beside(&env::current_exe().unwrap(), home.path()).unwrap()
}

fn arguments(more: &str) -> Vec<String> {
    let all = format!(
        "--rate=20k --packets={PACKETS} --flows={FLOWS} --duration=600 --drain=120 --patience=600 --start-timeout=120 {more}"
    );
    all.split_whitespace().map(str::to_owned).collect()
}

fn run(setup: &Setup, more: &str) -> Measured {
    let home = TempDir::with_prefix("sluice-memif-").unwrap();
    let measured = measure(setup, &programs(&home), &arguments(more)).unwrap();
    assert_clean(&measured.generator);
    assert!(measured.drops.is_empty(), "{:?}", measured.drops);
    assert_eq!(measured.unaccounted, 0);
    measured
}

/// Nothing lost, nothing wrong.
fn assert_clean(report: &Report) {
    assert!(report.complaints.is_empty(), "{report}");
    let trial = &report.trial;
    assert_eq!((trial.lost, trial.faults.total()), (0, 0), "{report}");
    assert_eq!(trial.sent, PACKETS);
    assert_eq!(trial.answered, trial.answers_due);
}

/// Established connections: every packet and answer arrives, and round robin has given each server as many flows.
fn every_packet_arrives(method: Method, two_arms: bool) {
    let setup = Setup {
        two_arms,
        ..setup(method)
    };
    let measured = run(&setup, "--traffic=tcp --size=imix --mtu=1500");
    let opening = measured.generator.opening.as_ref().unwrap();
    assert_eq!(opening.lost, 0);
    // A SYN a flow and its first data.
    let each = u64::from(FLOWS) * 2 / u64::from(SERVERS);
    assert!(
        opening.by_server.iter().all(|packets| *packets == each),
        "{opening}"
    );
    assert_eq!(measured.made, u64::from(FLOWS));
    let trial = &measured.generator.trial;
    assert_eq!(trial.arrived, Some(PACKETS));
    assert_eq!(trial.forward.unwrap().corrected.packets, PACKETS);
    let through_us = matches!(method, Method::Nat | Method::FullNat);
    assert_eq!(trial.round_trip.is_some(), through_us);
}

#[test]
fn nat_carries_every_packet_to_its_server_and_back() {
    every_packet_arrives(Method::Nat, true);
}

#[test]
fn fullnat_carries_every_packet_to_its_server_and_back() {
    every_packet_arrives(Method::FullNat, false);
}

#[test]
fn dr_carries_every_packet_to_its_server() {
    every_packet_arrives(Method::Dr, false);
}

#[test]
fn tun_carries_every_packet_to_its_server() {
    let setup = Setup {
        two_arms: true,
        ..setup(Method::Tun)
    };
    // A tunnel's header must fit beside the data.
    let measured = run(&setup, "--traffic=tcp --size=64:1,1498:1");
    assert_eq!(measured.generator.trial.arrived, Some(PACKETS));
}

#[test]
fn connections_are_opened_and_closed_through_it() {
    let measured = run(&setup(Method::FullNat), "--traffic=tcp --life=2");
    let trial = &measured.generator.trial;
    // SYN, two with data, FIN, the last acknowledgement.
    assert!(trial.began >= PACKETS / 5, "{trial}");
    assert!(trial.closed >= trial.began - u64::from(FLOWS), "{trial}");
    assert_eq!(measured.made, trial.began);
}

#[test]
fn datagrams_of_changing_clients_pass_in_both_directions() {
    let setup = Setup {
        tcp: false,
        two_arms: true,
        ..setup(Method::Nat)
    };
    let measured = run(&setup, "--traffic=udp --life=5 --spread=zipf");
    let trial = &measured.generator.trial;
    assert_eq!(measured.made, trial.began);
    assert!(trial.began >= PACKETS / 5, "{trial}");
}

/// A core for clients and one for real servers: the same two as everybody has, or one twice.
#[test]
fn clients_and_servers_may_have_a_core_each() {
    for method in [Method::FullNat, Method::Dr] {
        let setup = Setup {
            two_arms: true,
            second_core: Some(setup(method).worker_core),
            ..setup(method)
        };
        let measured = run(&setup, "--traffic=tcp");
        assert_eq!(measured.generator.trial.arrived, Some(PACKETS));
    }
}

#[test]
fn stock_testpmd_is_a_peer_too() {
    for (mode, traffic) in [(Mode::MacSwap, "tcp"), (Mode::FiveTupleSwap, "udp")] {
        let home = TempDir::with_prefix("sluice-memif-").unwrap();
        let more = arguments(&format!("--traffic={traffic} --size=imix"));
        let report = against_testpmd(&setup(Method::Nat), mode, &programs(&home), &more).unwrap();
        assert_clean(&report);
        assert_eq!(report.trial.answered, PACKETS);
    }
}

#[test]
fn every_load_that_is_measured_runs_and_gives_figures() {
    let home = TempDir::with_prefix("sluice-memif-").unwrap();
    let (programs, setup) = (programs(&home), setup(Method::Nat));
    let extent = Extent {
        seconds: 0.2,
        flows: FLOWS,
        precision_percent: 40.0,
        drain_s: 0.5,
        start_timeout_s: 120,
    };
    // Where nothing is lost, nobody waits for what does not come.
    let patient = Extent {
        drain_s: 120.0,
        ..extent
    };
    let found = loads::loss_free(&setup, &programs, extent, "imix").unwrap();
    let search = found.measured.generator.search.as_ref().unwrap();
    assert!(!search.trials.is_empty());
    let loaded = loads::latency(&setup, &programs, patient, 10_000.0).unwrap();
    let percent: Vec<u32> = loaded.iter().map(|at| at.percent).collect();
    assert_eq!(percent, [10, 50, 90]);
    assert!(
        loaded
            .iter()
            .all(|at| at.measured.generator.trial.round_trip.is_some())
    );
    let opened = loads::new_connections(&setup, &programs, extent, 5000.0).unwrap();
    let trial = &opened.measured.generator.trial;
    assert_eq!(trial.began, trial.sent);
    assert!(opened.measured.made > 0);
    let churn = loads::churn(&setup, &programs, patient, 10_000.0, 1000.0).unwrap();
    assert!(churn.made >= u64::from(FLOWS), "{}", churn.generator);
    let flood = loads::flood(&setup, &programs, patient, 1000.0, 10).unwrap();
    let trial = &flood.generator.trial;
    assert!(trial.flood_sent >= (trial.sent - 1) * 10, "{trial}");
}
