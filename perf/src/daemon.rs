//! A `sluiced` of our own: started on a boot file, asked, stopped.

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
use sluice_control::api::{Drops, Stats, WorkerStats};
use sluice_control::client::{RpcError, UnixClient, ask};

use crate::interrupt;

/// How long it may take to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// For one answer.
const ANSWER: Duration = Duration::from_secs(10);

/// The packets' last account: a line of the log.
const LAST_WORD: &str = "worker has stopped";

/// A running `sluiced`. Ends with this.
pub struct Daemon {
    child: Child,
    client: UnixClient,
    log: PathBuf,
}

/// What it said of its packets at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Books {
    /// Received.
    pub rx: u64,
    /// Sent.
    pub tx: u64,
    /// Dropped.
    pub dropped: u64,
    /// Counted by services.
    pub served: u64,
}

impl Daemon {
    /// Starts it on a boot file of this text, which names `socket`. Does not wait for it. Boot file and log are in `folder`.
    pub fn start(binary: &Path, boot: &str, socket: &Path, folder: &Path) -> anyhow::Result<Self> {
        let (file, log) = (folder.join("boot.toml"), folder.join("sluiced.log"));
        fs::write(&file, boot)?;
        let mut command = Command::new(binary);
        command
            .arg("--config")
            .arg(&file)
            .args(["--log-level", "sluice_control::daemon=info,warn"])
            .env_remove("NOTIFY_SOCKET")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        let child = interrupt::spawn(&mut command)
            .with_context(|| format!("{} does not start", binary.display()))?;
        Ok(Self {
            client: UnixClient::new(socket, ANSWER),
            child,
            log,
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks until `wanted` is content with the worker, for at most so long. `Err` with what was seen last, or if it ended.
    pub fn await_worker(
        &mut self,
        patience: Duration,
        mut wanted: impl FnMut(&Stats, &WorkerStats) -> bool,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut seen = None;
        while start.elapsed() < patience {
            interrupt::check()?;
            if let Some(status) = self.child.try_wait()? {
                bail!("sluiced ended with {status}: {}", self.log_tail());
            }
            // Nobody answers while it starts.
            if let Ok(stats) = ask::<Stats>(&mut self.client, "stats", Value::Null) {
                let worker = stats.workers.first().context("no worker")?;
                if wanted(&stats, worker) {
                    return Ok(());
                }
                seen = Some(worker.clone());
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!(
            "after {} s: {seen:?}: {}",
            patience.as_secs(),
            self.log_tail()
        );
    }

    /// Calls a method without parameters.
    pub fn ask<T: DeserializeOwned>(&mut self, method: &str) -> anyhow::Result<T> {
        ask(&mut self.client, method, Value::Null).map_err(|error: RpcError| {
            // A moment for the kernel to note how it ended, if it did.
            thread::sleep(Duration::from_millis(50));
            match self.child.try_wait() {
                Ok(Some(status)) => anyhow!("sluiced ended with {status}: {}", self.log_tail()),
                _ => anyhow!(error),
            }
        })
    }

    /// What its only worker counts.
    pub fn worker(&mut self) -> anyhow::Result<WorkerStats> {
        let stats: Stats = self.ask("stats")?;
        stats.workers.into_iter().next().context("no worker")
    }

    /// The reasons for which it has dropped packets, and how many.
    pub fn drops(&mut self) -> anyhow::Result<HashMap<String, u64>> {
        Ok(counted(&self.ask("drops")?))
    }

    /// Stops it and takes its last word. `Err` if it does not end well.
    pub fn stop(mut self) -> anyhow::Result<Books> {
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
        Ok(Books {
            rx: said("rx")?,
            tx: said("tx")?,
            dropped: said("dropped")?,
            served: said("served")?,
        })
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

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The reasons that occurred.
pub fn counted(drops: &Drops) -> HashMap<String, u64> {
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
