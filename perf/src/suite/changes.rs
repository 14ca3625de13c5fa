//! A thousand changes of the configuration a second, while the worker has all it can do.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use sluice_control::api::Method;
use sluice_control::client::{Rpc, UnixClient};

use super::rig::{Rig, window};
use super::{memif, services};
use crate::loads::{self, Extent};
use crate::report::experiment::{Better, Experiment};
use crate::scenario::{SERVERS, server};

/// Clients that make changes.
const CLIENTS: u32 = 8;

/// Between two changes of one client: 1,000 a second of all together.
const PERIOD: Duration = Duration::from_millis(CLIENTS as u64);

/// Fewer changes a second than so many are not what is claimed.
const ENOUGH: f64 = 900.0;

/// Packets a second while latency is looked at.
const PPS: f64 = 100_000.0;

/// What the changes do to packets over memif: their latency, and how many are lost.
pub fn packets(rig: &Rig<'_>, rounds: usize) -> anyhow::Result<[Experiment; 2]> {
    let how = "10 k established TCP connections, DR, 100,000 packets a second of theirs, from client to real server; without changes, and while eight clients change real servers' weights, 1,000 a second together. Clients, control plane and generator share a core.";
    let [mut time, mut lost] = [
        (
            "Control changes at 1,000 a second: latency of packets",
            "µs",
        ),
        ("Control changes at 1,000 a second: loss", "per cent"),
    ]
    .map(|(title, unit)| memif::empty(title, how, unit, Better::Lower));
    let (setup, programs) = memif::parts(rig, Method::Dr)?;
    for round in 0..rounds {
        for (place, changing) in [("no changes", false), ("1,000 a second", true)] {
            eprintln!("memif, {place}, round {}", round + 1);
            let extent = Extent::default();
            let (run, ()) = loads::steady_during(&setup, &programs, extent, PPS, |socket, run| {
                if changing {
                    during(socket, 1, run).map(|_| ())
                } else {
                    run()
                }
            })?;
            memif::push_times(&mut time, place, &run);
            lost.push("DR", place, run.generator.trial.loss_percent());
        }
    }
    for experiment in [&mut time, &mut lost] {
        experiment.axis = "changes".to_owned();
    }
    Ok([time, lost])
}

/// Runs it: what it does to throughput, and how long a change takes.
pub fn run(rig: &Rig<'_>, rounds: usize, cpu: Duration) -> anyhow::Result<[Experiment; 2]> {
    let experiment = |title: &str, how: &str, unit: &str, better| Experiment {
        title: title.to_owned(),
        how: how.to_owned(),
        axis: "services × 100 servers".to_owned(),
        unit: unit.to_owned(),
        better,
        lines: Vec::new(),
    };
    let mut throughput = experiment(
        "Control changes at 1,000 a second under full load",
        "100 k established connections, DR; eight clients change real servers' weights, 1,000 a second together, one call a change, each waiting for its answers, which come when the worker has applied the change. No packet is lost.",
        "Mpps",
        Better::Higher,
    );
    let mut latency = experiment(
        "How long a change takes under full load",
        "From the call to its answer. The clients and the control plane share the other core.",
        "ms",
        Better::Lower,
    );
    for count in [1, services::MANY] {
        eprintln!("changes, {count} services");
        let mut daemon = services::start(rig, count)?;
        let (socket, at) = (rig.place().socket, count.to_string());
        for _ in 0..rounds {
            let quiet = window(&mut daemon, cpu, &[])?;
            throughput.push("no changes", &at, quiet.mpps());
            let (busy, changes) = during(&socket, count, || window(&mut daemon, cpu, &[]))?;
            throughput.push("1,000 a second", &at, busy.mpps());
            latency.push("half", &at, changes.quantile(0.5));
            latency.push("99 of 100", &at, changes.quantile(0.99));
        }
        rig.stop(daemon)?;
    }
    Ok([throughput, latency])
}

/// What a run of changes took.
struct Changes {
    /// Milliseconds each, in order of size.
    ms: Vec<f64>,
}

impl Changes {
    fn quantile(&self, share: f64) -> f64 {
        let at = (self.ms.len() as f64 * share) as usize;
        self.ms.get(at).copied().unwrap_or(f64::NAN)
    }
}

/// Changes weights while `act` runs. `Err` if a change failed, or if they did not come at the rate that is claimed.
fn during<T>(
    socket: &Path,
    services: u32,
    act: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<(T, Changes)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let start = Instant::now();
        let client = |first| {
            let stop = &stop;
            scope.spawn(move || change(socket, first, services, stop))
        };
        let clients: Vec<_> = (0..CLIENTS).map(client).collect();
        let result = act();
        stop.store(true, Ordering::Relaxed);
        let mut ms = Vec::new();
        for client in clients {
            let made = client.join();
            ms.extend(made.map_err(|_| anyhow::anyhow!("a client panicked"))??);
        }
        let rate = ms.len() as f64 / start.elapsed().as_secs_f64();
        ensure!(
            rate > ENOUGH,
            "only {rate:.0} changes a second were made instead of 1,000"
        );
        ms.sort_by(f64::total_cmp);
        Ok((result?, Changes { ms }))
    })
}

/// One client's changes: what each took, in milliseconds.
fn change(socket: &Path, first: u32, services: u32, stop: &AtomicBool) -> anyhow::Result<Vec<f64>> {
    let mut client = UnixClient::new(socket, Duration::from_secs(10));
    let (mut ms, start) = (Vec::new(), Instant::now());
    while !stop.load(Ordering::Relaxed) {
        let number = ms.len() as u32;
        let due = start + PERIOD * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let before = Instant::now();
        let params = weight(first + CLIENTS * number, services);
        let answer = client.call("real_server_set", params);
        answer.with_context(|| format!("change {number}"))?;
        ms.push(before.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(ms)
}

/// A change of another real server each time, of another service where there are many.
fn weight(number: u32, services: u32) -> Value {
    let service = number.wrapping_mul(0x9e37_79b1) % services;
    let address = format!("{}:80", server((number % u32::from(SERVERS)) as u8));
    json!({
        "service": services::name_of(service),
        "address": address,
        "weight": 1 + number % 7,
    })
}
