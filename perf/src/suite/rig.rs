//! The appliance on net_pcap with a boot file of any shape, and what it forwards in a window.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use sluice_control::api::{Drops, WorkerStats};
use toml::Table;

use crate::capture;
use crate::daemon::{Daemon, counted};
use crate::scenario::{Place, STEADY, Scenario, boot_file};
use crate::timing::{ThreadClock, WORKER, Window};

/// Before a window: caches and branch predictors fill.
const WARM_UP: Duration = Duration::from_millis(150);

/// How long it may take to start and to open all connections.
const PATIENCE: Duration = Duration::from_secs(180);

/// Where things are.
#[derive(Clone, Copy, Debug)]
pub struct Rig<'a> {
    /// The appliance.
    pub sluiced: &'a Path,
    /// For files; the rig's own.
    pub folder: &'a Path,
    /// The worker's core.
    pub core: usize,
    /// Whether there are hugepages.
    pub hugepages: bool,
}

/// A boot file that can be changed.
#[derive(Clone, Debug)]
pub struct Boot(pub Table);

impl Boot {
    /// The one of `make bench` for this scenario.
    pub fn of(scenario: &Scenario, place: &Place) -> anyhow::Result<Self> {
        Ok(Self(boot_file(scenario, &STEADY, place).parse()?))
    }

    /// Sets a key of a table.
    pub fn set(&mut self, table: &str, key: &str, value: impl Into<toml::Value>) {
        let table = self.0.entry(table).or_insert_with(|| Table::new().into());
        if let Some(table) = table.as_table_mut() {
            table.insert(key.to_owned(), value.into());
        }
    }

    /// Frames of up to so many bytes, with memory for `frames` of them.
    pub fn set_room(&mut self, mtu: u16, frames: u32) {
        const HEADERS: i64 = 128 + 64 + 128;
        let room = i64::from(mtu) + 64;
        if let Some(ports) = self.0.get_mut("port").and_then(toml::Value::as_array_mut) {
            for port in ports.iter_mut().filter_map(toml::Value::as_table_mut) {
                port.insert("mtu".to_owned(), i64::from(mtu).into());
            }
        }
        self.set("workers", "frame_len", room);
        let bytes = i64::from(frames) * (room + HEADERS) * 17 / 16;
        self.set("eal", "memory_mb", 128 + (bytes >> 20));
    }
}

impl Rig<'_> {
    /// Files and names.
    pub fn place(&self) -> Place {
        Place {
            steady: self.folder.join("steady.pcap"),
            opening: self.folder.join("opening.pcap"),
            socket: self.folder.join("rpc.sock"),
            file_prefix: format!("sluice-suite-{}", std::process::id()),
            worker_core: self.core,
            control_core: 0,
            hugepages: self.hugepages,
        }
    }

    /// Starts the appliance on the captures of [`Self::place`] and waits until it has so many connections.
    pub fn start(&self, boot: &Boot, connections: u64) -> anyhow::Result<Daemon> {
        let text = toml::to_string(&boot.0)?;
        let place = self.place();
        let mut daemon = Daemon::start(self.sluiced, &text, &place.socket, self.folder)?;
        daemon
            .await_worker(PATIENCE, |_, worker| worker.connections >= connections)
            .with_context(|| format!("{connections} connections are awaited"))?;
        Ok(daemon)
    }

    /// Writes the captures.
    pub fn write(
        &self,
        opening: impl Iterator<Item = impl AsRef<[u8]>>,
        steady: impl Iterator<Item = impl AsRef<[u8]>>,
    ) -> anyhow::Result<()> {
        let place = self.place();
        capture::write(&place.opening, opening)?;
        capture::write(&place.steady, steady)
    }

    /// Stops it. `Err` if it does not account for every packet.
    pub fn stop(&self, mut daemon: Daemon) -> anyhow::Result<()> {
        let dropped: u64 = daemon.drops()?.values().sum();
        let books = daemon.stop()?;
        // Between that question and the end packets go on: they may be dropped as those before were.
        ensure!(
            books.rx == books.tx + books.dropped && books.dropped >= dropped,
            "packets are unaccounted for: {books:?}, {dropped} dropped before"
        );
        let runtime = Path::new("/var/run/dpdk").join(self.place().file_prefix);
        let _ = fs::remove_dir_all(runtime);
        Ok(())
    }
}

/// What the worker received in so much CPU time. `Err` if a connection came or went, or if packets were dropped for any other
/// reason than `allowed`.
pub fn window(daemon: &mut Daemon, cpu: Duration, allowed: &[&str]) -> anyhow::Result<Window> {
    let clock = ThreadClock::find(daemon.pid(), WORKER)?;
    let rx = |worker: &WorkerStats| worker.rx;
    clock.window(WARM_UP, &mut || daemon.worker(), rx)?;
    let before: Drops = daemon.ask("drops")?;
    let (window, first, last) = clock.window(cpu, &mut || daemon.worker(), rx)?;
    let after: Drops = daemon.ask("drops")?;
    ensure!(
        first.connections == last.connections,
        "connections came or went: {} before, {} after",
        first.connections,
        last.connections
    );
    let (before, after) = (counted(&before), counted(&after));
    for (reason, packets) in &after {
        let known = before.get(reason).copied().unwrap_or_default();
        ensure!(
            *packets == known || allowed.contains(&reason.as_str()),
            "{} packets were dropped: {reason}",
            packets - known
        );
    }
    Ok(window)
}
