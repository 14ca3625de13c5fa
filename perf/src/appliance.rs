//! The appliance itself under load, and whether its books say what they must.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use sluice_control::api::{Drops, ServiceList, WorkerStats};

use crate::daemon::{Daemon, counted};
use crate::scenario::{Place, STEADY, Scenario, boot_file};
use crate::timing::{ThreadClock, WORKER, Window};

/// How long it may take to start and to open all connections, beside a second for 20,000 of them.
const PATIENCE: Duration = Duration::from_secs(60);

/// Between what is read first and what is read last of one snapshot, packets go on.
const BLUR: u64 = 20_000;

/// A `sluiced` that forwards. Ends with this.
pub struct Appliance {
    daemon: Daemon,
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
        let boot = boot_file(scenario, &STEADY, place);
        let mut daemon = Daemon::start(binary, &boot, &place.socket, folder)?;
        let wanted = u64::from(scenario.connections());
        let patience = PATIENCE + Duration::from_micros(50) * scenario.connections();
        daemon
            .await_worker(patience, |_, worker| worker.connections == wanted)
            .with_context(|| format!("{scenario}: {wanted} connections are awaited"))?;
        Ok(Self {
            daemon,
            scenario: *scenario,
        })
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    fn snapshot(&mut self) -> anyhow::Result<Snapshot> {
        Ok(Snapshot {
            worker: self.daemon.worker()?,
            drops: self.daemon.ask("drops")?,
        })
    }

    /// Packets forwarded in so much CPU time. `Err` if any was lost, or if a connection came or went.
    pub fn measure(&mut self, warm_up: Duration, cpu: Duration) -> anyhow::Result<Window> {
        let clock = ThreadClock::find(self.daemon.pid(), WORKER)?;
        clock.window(warm_up, &mut || self.daemon.worker(), |worker| worker.tx)?;
        let before = self.snapshot()?;
        let (window, first, last) =
            clock.window(cpu, &mut || self.daemon.worker(), |worker: &WorkerStats| {
                worker.tx
            })?;
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
        let wanted = u64::from(self.scenario.connections());
        ensure!(
            before.drops == after.drops,
            "packets were dropped: {:?}, before {:?}",
            counted(&after.drops),
            counted(&before.drops)
        );
        for worker in [&before.worker, first, last, &after.worker] {
            let connections = worker.connections;
            ensure!(
                connections == wanted,
                "{connections} connections instead of {wanted}"
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
        let services: ServiceList = self.daemon.ask("service_list")?;
        let service = services.services.first().context("no service")?;
        let made = service.stats.conns;
        ensure!(
            made == wanted,
            "{made} connections were made instead of {wanted}"
        );
        let active: u64 = service
            .real_servers
            .iter()
            .map(|server| server.active)
            .sum();
        ensure!(
            active == wanted,
            "{active} connections are established of {wanted}"
        );
        Ok(())
    }

    /// Stops it and takes its last word. `Err` if that does not account for every packet.
    pub fn stop(mut self) -> anyhow::Result<()> {
        let dropped: u64 = self.daemon.drops()?.values().sum();
        let books = self.daemon.stop()?;
        ensure!(books.dropped == dropped, "packets were dropped at the end");
        ensure!(
            books.rx == books.tx + dropped && books.tx == books.served,
            "{}: {books:?}",
            self.scenario
        );
        Ok(())
    }
}
