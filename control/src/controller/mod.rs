//! The one who decides: configuration, workers, statistics and what the kernel says, in one synchronous object.
//!
//! Nothing here waits, sleeps or reads a clock. Requests come in by [`Controller::handle`], what the kernel mirror sees
//! by [`Controller::local_addresses`] and its siblings, and time by [`Controller::tick`]. The daemon drives it from
//! its control thread; tests and replays drive it by hand ([`Controller::call`]).

mod call;
mod listing;
mod methods;
mod network;
mod params;
mod peer;
mod statistics;
mod steering;
mod sync;
mod view;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sluice_dataplane::command::{Command, Event, Settings};
use sluice_dataplane::service::RsId;
use tracing::{debug, info, warn};

use crate::api::{Applied, ErrorKind, KernelStats, PortStats};
use crate::api_error::ApiError;
use crate::config::{At, Change, Config, Fresh, Limits, Step, TRASH_PERIOD};
use crate::publish::{Publisher, Retired, WorkerLink};
use listing::Listings;
use network::Network;
use statistics::{ESTIMATE_PERIOD, Meter, Meters};
use steering::Tables;
use sync::SyncDaemons;

pub use listing::ListingId;
pub use network::Statics;
pub use peer::Peer;

/// Steps of time that are caught up with one by one; beyond, rates are long settled.
const MAX_CATCH_UP: u32 = 128;

/// How often defences go up or down (`SEMANTICS.md` section 8).
const DEFENCE_PERIOD: Duration = Duration::from_secs(1);

/// How often the samples of the NICs' hashes are looked at.
const HASH_WATCH_PERIOD: Duration = Duration::from_secs(10);

/// What a controller is made of.
pub struct Setup {
    /// How much may be configured. [`Limits::cells`] makes counters to fit.
    pub limits: Limits,
    /// The workers by their ids, from 0.
    pub workers: Vec<(WorkerInfo, WorkerLink)>,
    /// Asks the ports how they are.
    pub ports: Box<dyn FnMut() -> Vec<PortStats> + Send>,
    /// The DPDK release that runs, or `none`.
    pub dpdk: String,
    /// Addresses, routes and neighbours from the boot file.
    pub statics: Statics,
}

/// What control knows of a worker beside what it publishes.
#[derive(Clone, Copy, Debug)]
pub struct WorkerInfo {
    /// Its core.
    pub core: usize,
    /// Connections that its table can hold.
    pub max_connections: usize,
}

/// What [`Controller::handle`] answers.
#[derive(Debug)]
pub enum Reply {
    /// This.
    Now(Result<Value, ApiError>),
    /// This, once [`Controller::applied`] has reached the revision.
    WhenApplied {
        /// The change's revision.
        revision: u64,
        /// What to answer then.
        value: Value,
    },
    /// What [`Controller::take_listing`] gives for this id, sooner or later.
    Connections(ListingId),
}

/// See the module.
pub struct Controller {
    config: Config,
    publisher: Publisher,
    workers: Vec<WorkerInfo>,
    ports: Box<dyn FnMut() -> Vec<PortStats> + Send>,
    kernel: Option<Box<dyn Fn() -> KernelStats + Send>>,
    dpdk: String,
    network: Network,
    settings: Arc<Settings>,
    services: Meters,
    servers: Meters,
    total: Meter,
    listings: Listings,
    sync: SyncDaemons,
    neighbour_events: VecDeque<Event>,
    now: Duration,
    next_estimate: Duration,
    next_defence: Duration,
    /// Tells how many pages of memory are free.
    free_pages: Box<dyn Fn() -> u64 + Send>,
    next_trash: Option<Duration>,
    tables: Tables,
    next_hash_watch: Duration,
    /// Ports whose hashes were said to be wrong.
    wrong_hashes: BTreeSet<String>,
}

impl Controller {
    /// With no services. Static routes and neighbours go to the workers at once.
    pub fn new(setup: Setup) -> Self {
        let (workers, links): (_, Vec<WorkerLink>) = setup.workers.into_iter().unzip();
        let mut controller = Self {
            config: Config::new(setup.limits),
            publisher: Publisher::new(links),
            workers,
            ports: setup.ports,
            kernel: None,
            dpdk: setup.dpdk,
            network: Network::new(setup.statics),
            settings: Arc::default(),
            services: Meters::default(),
            servers: Meters::default(),
            total: Meter::default(),
            listings: Listings::default(),
            sync: SyncDaemons::default(),
            neighbour_events: VecDeque::new(),
            now: Duration::ZERO,
            next_estimate: ESTIMATE_PERIOD,
            next_defence: DEFENCE_PERIOD,
            free_pages: Box::new(|| u64::MAX),
            next_trash: None,
            tables: Tables::default(),
            next_hash_watch: HASH_WATCH_PERIOD,
            wrong_hashes: BTreeSet::new(),
        };
        let names = (controller.ports)().into_iter().map(|port| port.name);
        controller.config.name_ports(names.collect());
        controller.introduce_workers();
        controller.start_network();
        controller
    }

    /// Where to ask how well the kernel is followed.
    pub fn kernel_reporter(&mut self, report: impl Fn() -> KernelStats + Send + 'static) {
        self.kernel = Some(Box::new(report));
    }

    /// Where to ask how many pages of memory are free, for automatic defences; without that there is always enough.
    pub fn memory_reporter(&mut self, free_pages: impl Fn() -> u64 + Send + 'static) {
        self.free_pages = Box::new(free_pages);
    }

    /// Performs one request. Never waits: see [`Reply`].
    pub fn handle(&mut self, method: &str, params: Value, peer: &Peer) -> Reply {
        methods::handle(self, method, params, peer)
    }

    /// Makes one change, or refuses it. Returns its revision; it is in force when [`Controller::applied`] gets there.
    pub fn change(&mut self, change: &Change, peer: &Peer) -> Result<u64, ApiError> {
        if let Some(worker) = self.publisher.stuck() {
            return Err(ApiError::new(
                ErrorKind::Full,
                format!(
                    "worker {} has stopped taking changes and too many wait for it",
                    worker.0
                ),
            ));
        }
        let at = At {
            revision: self.publisher.revision() + 1,
            applied: self.publisher.applied(),
        };
        let allowed = self.sync.allow(change);
        match allowed.and_then(|()| self.config.apply(change, at)) {
            Ok(step) => {
                let revision = self.take(step);
                info!(revision, who = %peer, "{change}");
                for warning in change.warnings() {
                    warn!(revision, "{warning}");
                }
                Ok(revision)
            }
            Err(error) => {
                debug!(who = %peer, %error, "refused: {change}");
                Err(error)
            }
        }
    }

    /// Changes the settings that connections and forwarding follow. Returns the revision.
    pub fn set_settings(&mut self, settings: Settings) -> u64 {
        let settings = Arc::new(settings);
        let old = std::mem::replace(&mut self.settings, Arc::clone(&settings));
        self.publisher
            .publish(&[Command::Settings(settings)], [old as Retired])
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Takes what the workers report and gives them what waits. Call it every millisecond or so; costs next to
    /// nothing when there is nothing to do.
    pub fn progress(&mut self) {
        self.publisher.turn();
        self.program_tables();
        while let Some((worker, event)) = self.publisher.event() {
            match event {
                Event::NeighbourMissing { .. } | Event::NeighbourUsed { .. } => self.note(event),
                Event::Connections(slice) => {
                    self.listings
                        .answered(worker, &slice, self.now, &mut self.publisher);
                }
                Event::Counted(census) => self.counted(worker, &census),
            }
        }
    }

    /// It is `now`, counted from the start: [`Controller::progress`], and whatever is due (rates every two seconds, the
    /// trash every minute).
    pub fn tick(&mut self, now: Duration) {
        self.now = now;
        self.progress();
        self.listings.expire(now);
        let mut steps = 0;
        while self.next_estimate <= now {
            if steps < MAX_CATCH_UP {
                self.estimate();
            }
            steps += 1;
            self.next_estimate += ESTIMATE_PERIOD;
        }
        if self.next_defence <= now {
            self.next_defence = now + DEFENCE_PERIOD;
            self.defend();
        }
        if self.next_hash_watch <= now {
            self.next_hash_watch = now + HASH_WATCH_PERIOD;
            self.watch_hashes();
            self.settle_moves();
        }
        while let Some(due) = self.next_trash.filter(|due| *due <= now) {
            self.collect_trash(due);
        }
    }

    /// The revision of the latest change.
    pub fn revision(&self) -> u64 {
        self.publisher.revision()
    }

    /// The revision that all workers have applied.
    pub fn applied(&self) -> u64 {
        self.publisher.applied()
    }

    /// What to answer when a change was not applied everywhere in time.
    pub fn applied_partially(&self, revision: u64) -> ApiError {
        ApiError::applied_partially(revision, self.publisher.behind(revision))
    }

    /// A listing's answer, once it is there. It is given once.
    pub fn take_listing(&mut self, id: ListingId) -> Option<Result<Value, ApiError>> {
        self.listings.take(id)
    }

    /// The configuration in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Makes a step the configuration, and tells the workers.
    fn take(&mut self, step: Step) -> u64 {
        self.config = step.config;
        for fresh in step.fresh {
            let cells = self.publisher.cells();
            match fresh {
                Fresh::Service(id) => {
                    let now = statistics::of_service(cells, id.0);
                    self.services.start(id.0, now);
                }
                Fresh::Server(RsId { index, .. }) => {
                    let now = statistics::of_server(cells, index);
                    self.servers.start(index, now);
                }
            }
        }
        if self.config.trash_len() > 0 && self.next_trash.is_none() {
            self.next_trash = Some(self.now + TRASH_PERIOD);
        }
        self.publisher.publish(&step.commands, step.retired)
    }

    fn collect_trash(&mut self, due: Duration) {
        let Self {
            config, publisher, ..
        } = self;
        let forgotten = config.collect_trash(due, publisher.applied(), |id| {
            statistics::connections(publisher.cells(), id.index) != (0, 0)
                || statistics::templates(publisher.cells(), id.index) > 0
        });
        if forgotten > 0 {
            debug!(
                forgotten,
                "deleted real servers without connections are forgotten"
            );
        }
        self.next_trash = (config.trash_len() > 0).then(|| due + TRASH_PERIOD);
    }

    /// Takes defences up or down.
    fn defend(&mut self) {
        let mut settings = Settings::clone(&self.settings);
        let free_pages = if settings.policy.is_automatic() {
            (self.free_pages)()
        } else {
            u64::MAX
        };
        settings.defence = settings.policy.evaluate(free_pages);
        if settings != *self.settings {
            info!("defences: {:?}", settings.defence);
            self.set_settings(settings);
        }
    }

    /// Says once of each port if its NIC hashes otherwise than sluice computes.
    fn watch_hashes(&mut self) {
        for PortStats { name, rss, .. } in (self.ports)() {
            let Some(rss) = rss.filter(|rss| rss.mismatched > 0) else {
                continue;
            };
            if self.wrong_hashes.insert(name.clone()) {
                warn!(
                    port = name,
                    sampled = rss.sampled,
                    mismatched = rss.mismatched,
                    "the NIC hashes packets otherwise than sluice computes: they are handed over to their owners, which costs; sluice rss counts on"
                );
            }
        }
    }

    fn estimate(&mut self) {
        if !self.settings.run_estimation {
            return;
        }
        let Self {
            config, publisher, ..
        } = self;
        for spec in config.services() {
            if let Some(meter) = self.services.at_mut(spec.id.0) {
                meter.estimate(statistics::of_service(publisher.cells(), spec.id.0));
            }
            for RsId { index, .. } in spec.real_servers.iter().map(|server| server.id) {
                if let Some(meter) = self.servers.at_mut(index) {
                    meter.estimate(statistics::of_server(publisher.cells(), index));
                }
            }
        }
        let total = self.total_sums();
        self.total.estimate(total);
    }

    /// Changes answer this.
    fn when_applied(revision: u64, warnings: Vec<String>) -> Reply {
        match serde_json::to_value(Applied { revision, warnings }) {
            Ok(value) => Reply::WhenApplied { revision, value },
            Err(error) => Reply::Now(Err(ApiError::new(ErrorKind::Internal, error.to_string()))),
        }
    }
}

#[cfg(test)]
mod tests;
