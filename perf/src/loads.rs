//! What is measured on [`memif`](crate::memif): rate without loss by size, latency under load, new connections, churn, floods.
//!
//! Each function runs the generator a few times against fresh appliances and returns figures that serialise. They are of the
//! wall clock, unlike those of net_pcap: on a machine with other work they are low, and say so by `kept_up`.

use std::path::Path;

use anyhow::ensure;
use serde::{Deserialize, Serialize};

use crate::memif::{Measured, Programs, Setup, measure, measure_during};

/// How long trials are, and how many flows they have.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Extent {
    /// Seconds of a trial.
    pub seconds: f64,
    /// Flows at a time.
    pub flows: u32,
    /// How close a search comes, in per cent.
    pub precision_percent: f64,
    /// Seconds to wait at the end of a trial for what is still missing.
    pub drain_s: f64,
    /// Seconds that links may take to come up, and real servers to answer while flows are opened.
    pub start_timeout_s: u64,
}

impl Default for Extent {
    fn default() -> Self {
        Self {
            seconds: 2.0,
            flows: 10_000,
            precision_percent: 5.0,
            drain_s: 0.5,
            start_timeout_s: 30,
        }
    }
}

/// The highest rate of a size without loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossFree {
    /// Bytes of a frame, frame check sequence included, or the name of a mix.
    pub size: String,
    /// Packets a second that clients sent; real servers answered as many.
    pub pps: f64,
    /// All of it.
    pub measured: Measured,
}

/// Latency at a share of the rate without loss.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Loaded {
    /// Per cent of the rate without loss.
    pub percent: u32,
    /// Packets a second asked for.
    pub pps: f64,
    /// All of it.
    pub measured: Measured,
}

/// The highest rate without loss of TCP connections that are there already, with frames of this size. Of TUN at most 1498
/// bytes: a tunnel's header goes in front.
pub fn loss_free(
    setup: &Setup,
    programs: &Programs,
    extent: Extent,
    size: &str,
) -> anyhow::Result<LossFree> {
    let precision = extent.precision_percent;
    let more = format!("--size={size} --search --search-precision={precision} --rate=max");
    let measured = established(setup, programs, extent, &more)?;
    let found = measured.generator.search.as_ref();
    Ok(LossFree {
        size: size.to_owned(),
        pps: found.map_or(0.0, |found| found.loss_free_pps),
        measured,
    })
}

/// Latency of 64-byte packets of such connections at 10, 50 and 90 per cent of `loss_free_pps`.
pub fn latency(
    setup: &Setup,
    programs: &Programs,
    extent: Extent,
    loss_free_pps: f64,
) -> anyhow::Result<Vec<Loaded>> {
    ensure!(
        loss_free_pps >= 1.0,
        "nothing passes without loss, so there is no share of that"
    );
    let at = |percent: u32| {
        let pps = loss_free_pps * f64::from(percent) / 100.0;
        let measured = established(setup, programs, extent, &format!("--rate={pps:.0}"))?;
        Ok(Loaded {
            percent,
            pps,
            measured,
        })
    };
    [10, 50, 90].into_iter().map(at).collect()
}

/// The highest rate without loss of SYNs each of which opens a connection. The appliance's table must hold them all:
/// `setup.max_connections`.
pub fn new_connections(
    setup: &Setup,
    programs: &Programs,
    extent: Extent,
    ceiling_per_s: f64,
) -> anyhow::Result<LossFree> {
    let precision = extent.precision_percent;
    let more = format!(
        "--traffic=syn --clients=11.0.0.0/8 --search --search-from={ceiling_per_s} --search-precision={precision}"
    );
    let measured = run(setup, programs, extent, &more)?;
    let found = measured.generator.search.as_ref();
    Ok(LossFree {
        size: "64".to_owned(),
        pps: found.map_or(0.0, |found| found.loss_free_pps),
        measured,
    })
}

/// Connections that are there, of which so many a second give way to others, at a fixed rate of packets.
pub fn churn(
    setup: &Setup,
    programs: &Programs,
    extent: Extent,
    pps: f64,
    churn_per_s: f64,
) -> anyhow::Result<Measured> {
    let more = format!("--rate={pps:.0} --churn={churn_per_s}");
    established(setup, programs, extent, &more)
}

/// A fixed rate of packets of connections that are there, with `times` as many SYNs of a flood beside them. Compare it with the same
/// without a flood: `times` 0.
pub fn flood(
    setup: &Setup,
    programs: &Programs,
    extent: Extent,
    pps: f64,
    times: u32,
) -> anyhow::Result<Measured> {
    let more = format!("--rate={pps:.0} --flood={times}");
    established(setup, programs, extent, &more)
}

/// A fixed rate of packets of connections that are there, while something else goes on: see [`measure_during`].
pub fn steady_during<T>(
    setup: &Setup,
    programs: &Programs,
    extent: Extent,
    pps: f64,
    meanwhile: impl FnOnce(&Path, &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<T>,
) -> anyhow::Result<(Measured, T)> {
    let flows = extent.flows;
    let more = format!("--traffic=tcp --flows={flows} --rate={pps:.0}");
    measure_during(&tcp(setup), programs, &arguments(extent, &more), meanwhile)
}

fn established(
    setup: &Setup,
    programs: &Programs,
    extent: Extent,
    more: &str,
) -> anyhow::Result<Measured> {
    let flows = extent.flows;
    run(
        setup,
        programs,
        extent,
        &format!("--traffic=tcp --flows={flows} {more}"),
    )
}

fn run(setup: &Setup, programs: &Programs, extent: Extent, more: &str) -> anyhow::Result<Measured> {
    measure(&tcp(setup), programs, &arguments(extent, more))
}

fn arguments(extent: Extent, more: &str) -> Vec<String> {
    let Extent {
        seconds,
        drain_s,
        start_timeout_s,
        ..
    } = extent;
    words(&format!(
        "--duration={seconds} --drain={drain_s} --start-timeout={start_timeout_s} {more}"
    ))
}

fn tcp(setup: &Setup) -> Setup {
    Setup {
        tcp: true,
        ..setup.clone()
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}
