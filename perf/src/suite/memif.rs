//! What only a generator can tell: loss, latency, connections that come and go, by [`loads`] over memif.
//!
//! All of it is of the wall clock: the generator, the appliance and everything else of the machine share two cores.

use sluice_control::api::Method;

use super::rig::Rig;
use crate::loads::{self, Extent, Loaded};
use crate::memif::{Measured, Programs, Setup};
use crate::pktgen::Percentiles;
use crate::report::experiment::{Better, Experiment};
use crate::scenario::{METHODS, name};

/// Packets a second of the runs with churn and floods: what any machine keeps up with.
const PPS: f64 = 100_000.0;

/// Connections a second that give way to others.
const CHURN: [u32; 4] = [0, 1_000, 5_000, 20_000];

/// SYNs of a flood for each packet.
const FLOOD: u32 = 10;

/// Where the search for new connections begins, a second.
const CEILING: f64 = 4_000_000.0;

/// Connections that the table is made for, where ever new ones come for a few trials.
const ROOM: u32 = 1 << 23;

/// A percentile's name, and which it is.
type Share = (&'static str, fn(&Percentiles) -> f64);

/// The percentiles shown.
const SHARES: [Share; 6] = [
    ("50 %", |percentiles| percentiles.p50_us),
    ("90 %", |percentiles| percentiles.p90_us),
    ("99 %", |percentiles| percentiles.p99_us),
    ("99.9 %", |percentiles| percentiles.p99_9_us),
    ("99.99 %", |percentiles| percentiles.p99_99_us),
    ("max", |percentiles| percentiles.max_us),
];

/// Loss-free rates by method, and latency at shares of them.
pub fn latency(rig: &Rig<'_>, rounds: usize) -> anyhow::Result<Vec<Experiment>> {
    let mut rates = empty(
        "Rate without loss over memif",
        "10 k established TCP connections, 64-byte frames, clients and real servers on the other core: the highest rate of clients' packets at which none is lost (RFC 2544), within 5 %. 0 where other work of the machine costs packets at any rate.",
        "Mpps",
        Better::Higher,
    );
    let mut all = Vec::new();
    for method in METHODS {
        let mut times = empty(
            &format!("Latency over memif, {}", name(method)),
            "From client to real server through the appliance at 10, 50 and 90 % of the rate without loss, corrected for coordinated omission.",
            "µs",
            Better::Lower,
        );
        times.axis = "per cent of the rate without loss".to_owned();
        for round in 0..rounds {
            eprintln!("memif, {}, round {}", name(method), round + 1);
            let (setup, programs) = parts(rig, method)?;
            let found = loads::loss_free(&setup, &programs, Extent::default(), "64")?.pps;
            rates.push("loss-free", name(method), found / 1e6);
            if found < 1.0 {
                continue;
            }
            for loaded in loads::latency(&setup, &programs, Extent::default(), found)? {
                let Loaded {
                    percent, measured, ..
                } = &loaded;
                push_times(&mut times, &percent.to_string(), measured);
            }
        }
        all.push(times);
    }
    all.insert(0, rates);
    all.retain(|experiment| !experiment.lines.is_empty());
    Ok(all)
}

/// New connections as fast as none is lost, and connections that come and go.
pub fn life_cycles(rig: &Rig<'_>, rounds: usize) -> anyhow::Result<Vec<Experiment>> {
    let mut new = empty(
        "New connections without loss over memif",
        "SYNs of clients never seen before: the highest rate at which none is lost, within 5 %.",
        "million a second",
        Better::Higher,
    );
    let mut churn = empty(
        "Churn over memif",
        "10 k TCP connections with true sequence numbers, of which so many a second are closed and give way to others; 100,000 packets a second in all. Within how long 99 % of packets came to real servers.",
        "µs",
        Better::Lower,
    );
    churn.axis = "connections a second that give way".to_owned();
    for method in METHODS {
        let (setup, programs) = parts(rig, method)?;
        for round in 0..rounds {
            eprintln!("memif, {}, life cycles, round {}", name(method), round + 1);
            let roomy = Setup {
                max_connections: ROOM,
                ..setup.clone()
            };
            let extent = Extent {
                seconds: 0.5,
                ..Extent::default()
            };
            let found = loads::new_connections(&roomy, &programs, extent, CEILING)?;
            new.push("loss-free", name(method), found.pps / 1e6);
            for rate in CHURN {
                let extent = Extent::default();
                let run = loads::churn(&setup, &programs, extent, PPS, f64::from(rate))?;
                if let Some(forward) = run.generator.trial.forward {
                    churn.push(name(method), &rate.to_string(), forward.corrected.p99_us);
                }
            }
        }
    }
    Ok(vec![new, churn])
}

/// What a SYN flood does to the packets of established connections.
pub fn flood(rig: &Rig<'_>, rounds: usize) -> anyhow::Result<Vec<Experiment>> {
    let how = "10 k established TCP connections, 100,000 packets a second of theirs, without and with ten SYNs for each of clients never seen before. Only their own packets are counted.";
    let mut lost = empty(
        "A SYN flood over memif: loss",
        how,
        "per cent",
        Better::Lower,
    );
    let mut time = empty("A SYN flood over memif: latency", how, "µs", Better::Lower);
    for method in METHODS {
        let (setup, programs) = parts(rig, method)?;
        for (place, times) in [("alone", 0), ("under the flood", FLOOD)] {
            for _ in 0..rounds {
                eprintln!("memif, {}, {place}", name(method));
                let run = loads::flood(&setup, &programs, Extent::default(), PPS, times)?;
                let trial = &run.generator.trial;
                lost.push(name(method), place, trial.loss_percent());
                if let Some(forward) = trial.forward {
                    let line = format!("{}, 99 %", name(method));
                    time.push(&line, place, forward.corrected.p99_us);
                }
            }
        }
    }
    Ok(vec![lost, time])
}

pub(super) fn push_times(experiment: &mut Experiment, place: &str, measured: &Measured) {
    if let Some(forward) = measured.generator.trial.forward {
        for (share, of) in SHARES {
            experiment.push(share, place, of(&forward.corrected));
        }
    }
}

pub(super) fn parts(rig: &Rig<'_>, method: Method) -> anyhow::Result<(Setup, Programs)> {
    let setup = Setup {
        worker_core: rig.core,
        ..Setup::new(method)
    };
    Ok((setup, Programs::beside(rig.sluiced, rig.folder)?))
}

pub(super) fn empty(title: &str, how: &str, unit: &str, better: Better) -> Experiment {
    Experiment {
        title: title.to_owned(),
        how: how.to_owned(),
        axis: "method".to_owned(),
        unit: unit.to_owned(),
        better,
        lines: Vec::new(),
    }
}
