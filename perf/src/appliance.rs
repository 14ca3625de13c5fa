//! The appliance itself under load, and whether its books say what they must.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sluice_control::api::{Drops, ServiceList, Stats, WorkerStats};
use sluice_control::client::{UnixClient, ask};

use crate::interrupt;
use crate::scenario::{Place, STEADY, Scenario, boot_file};
use crate::timing::{ThreadClock, WORKER, Window};

/// How long it may take to start and to open all connections, beside a second for 20,000 of them.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between what is read first and what is read last of one snapshot, packets go on.
const BLUR: u64 = 20_000;

/// The packets' last account: a line of the log.
const LAST_WORD: &str = "worker has stopped";

/// A `sluiced` that forwards. Ends with this.
pub struct Appliance {
    child: Child,
    client: UnixClient,
    log: PathBuf,
    scenario: Scenario,
}

/// Everything that is read at one moment.
struct Snapshot {
    worker: WorkerStats,
    drops: Drops,
}

impl Appliance {
    /// Starts it and waits until all connections are there.
    pub fn start(
        binary: &Path,
        scenario: &Scenario,
        place: &Place,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let (boot, log) = (folder.join("boot.toml"), folder.join("sluiced.log"));
        fs::write(&boot, boot_file(scenario, &STEADY, place))?;
        let mut command = Command::new(binary);
        command
            .arg("--config")
            .arg(&boot)
            .args(["--log-level", "sluice_control::daemon=info,warn"])
            .env_remove("NOTIFY_SOCKET")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let child = interrupt::spawn(&mut command)
            .with_context(|| format!("{} does not start", binary.display()))?;
        let mut appliance = Self {
            client: UnixClient::new(&place.socket, Duration::from_secs(10)),
            child,
            log,
            scenario: *scenario,
        };
        appliance.await_connections()?;
        Ok(appliance)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    fn await_connections(&mut self) -> anyhow::Result<()> {
        let wanted = u64::from(self.scenario.flows);
        let patience = PATIENCE + Duration::from_micros(50) * self.scenario.flows;
        let start = Instant::now();
        let mut seen = None;
        while start.elapsed() < patience {
            interrupt::check()?;
            if let Some(status) = self.child.try_wait()? {
                bail!("sluiced ended with {status}: {}", self.log_tail());
            }
            let stats: Option<Stats> = ask(&mut self.client, "stats", Value::Null).ok();
            seen = stats.and_then(|stats| Some(stats.workers.first()?.connections));
            if seen == Some(wanted) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!(
            "{}: {seen:?} of {wanted} connections after {} s: {}",
            self.scenario,
            patience.as_secs(),
            self.log_tail()
        );
    }

    fn ask<T: DeserializeOwned>(&mut self, method: &str) -> anyhow::Result<T> {
        ask(&mut self.client, method, Value::Null).map_err(|error| {
            // A moment for the kernel to note how it ended, if it did.
            thread::sleep(Duration::from_millis(50));
            match self.child.try_wait() {
                Ok(Some(status)) => anyhow!("sluiced ended with {status}: {}", self.log_tail()),
                _ => anyhow!(error),
            }
        })
    }

    fn worker(&mut self) -> anyhow::Result<WorkerStats> {
        let stats: Stats = self.ask("stats")?;
        stats.workers.into_iter().next().context("no worker")
    }

    fn snapshot(&mut self) -> anyhow::Result<Snapshot> {
        Ok(Snapshot {
            worker: self.worker()?,
            drops: self.ask("drops")?,
        })
    }

    /// Packets forwarded in so much CPU time. `Err` if any was lost, or if a connection came or went.
    pub fn measure(&mut self, warm_up: Duration, cpu: Duration) -> anyhow::Result<Window> {
        let clock = ThreadClock::find(self.child.id(), WORKER)?;
        clock.window(warm_up, &mut || self.worker(), |worker| worker.tx)?;
        let before = self.snapshot()?;
        let (window, first, last) =
            clock.window(cpu, &mut || self.worker(), |worker: &WorkerStats| worker.tx)?;
        let after = self.snapshot()?;
        self.check(&before, &after, &first, &last)
            .with_context(|| format!("{}: the books", self.scenario))?;
        Ok(window)
    }

    fn check(
        &mut self,
        before: &Snapshot,
        after: &Snapshot,
        first: &WorkerStats,
        last: &WorkerStats,
    ) -> anyhow::Result<()> {
        let flows = u64::from(self.scenario.flows);
        ensure!(
            before.drops == after.drops,
            "packets were dropped: {:?}, before {:?}",
            counted(&after.drops),
            counted(&before.drops)
        );
        for worker in [&before.worker, first, last, &after.worker] {
            let connections = worker.connections;
            ensure!(
                connections == flows,
                "{connections} connections instead of {flows}"
            );
            let sources = worker.rx + worker.from_kernel + worker.generated;
            let sinks = worker.tx + worker.punted + worker.held + worker.dropped;
            let kept = sources.abs_diff(sinks);
            ensure!(kept < BLUR, "{kept} packets are unaccounted for");
            ensure!(
                worker.from_kernel + worker.generated + worker.punted + worker.held == 0,
                "packets that are none of the load"
            );
        }
        let services: ServiceList = self.ask("service_list")?;
        let service = services.services.first().context("no service")?;
        let made = service.stats.conns;
        ensure!(
            made == flows,
            "{made} connections were made instead of {flows}"
        );
        let active: u64 = service
            .real_servers
            .iter()
            .map(|server| server.active)
            .sum();
        ensure!(
            active == flows,
            "{active} connections are established of {flows}"
        );
        Ok(())
    }

    /// Stops it and takes its last word. `Err` if that does not account for every packet.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let drops = counted(&self.ask("drops")?);
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, Signal::SIGTERM)?;
        let status = self.await_end()?;
        ensure!(
            status.success(),
            "sluiced ended with {status}: {}",
            self.log_tail()
        );
        let log = fs::read_to_string(&self.log)?;
        let line = log.lines().find(|line| line.contains(LAST_WORD));
        let said = numbers(line.context("sluiced did not say its books")?);
        let said = |name: &str| {
            said.get(name)
                .copied()
                .with_context(|| format!("no {name}"))
        };
        let dropped: u64 = drops.values().sum();
        let (rx, tx) = (said("rx")?, said("tx")?);
        ensure!(
            said("dropped")? == dropped,
            "packets were dropped at the end"
        );
        ensure!(
            rx == tx + dropped && tx == said("served")?,
            "{}: {rx} received, {tx} sent, {dropped} dropped, {} served",
            self.scenario,
            said("served")?
        );
        Ok(())
    }

    fn await_end(&mut self) -> anyhow::Result<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("sluiced does not end on SIGTERM");
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Appliance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The reasons that occurred.
fn counted(drops: &Drops) -> HashMap<String, u64> {
    let counted = drops.drops.iter().filter(|drop| drop.packets > 0);
    counted
        .map(|drop| (drop.reason.clone(), drop.packets))
        .collect()
}

/// `name=number` in a line of the log.
fn numbers(line: &str) -> HashMap<&str, u64> {
    line.split(' ')
        .filter_map(|word| word.split_once('='))
        .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_out_of_a_line_of_the_log() {
        let line =
            "2026-01-01T00:00:00Z  INFO worker has stopped worker=0 rx=12 tx=11 balance=true";
        let numbers = numbers(line);
        assert_eq!((numbers["rx"], numbers["tx"]), (12, 11));
        assert!(!numbers.contains_key("balance"));
    }
}
