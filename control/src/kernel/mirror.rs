//! The task that keeps [`KernelUpdate`]s coming.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use sluice_dataplane::command::{Event, PortId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep_until;
use tracing::{debug, error, info, warn};

use super::KernelUpdate;
use super::clock::{Clock, RETRY};
use super::fib;
use super::neighbours::{NeighbourCounts, Neighbours};
use super::netlink::{Netlink, Notice, Picture};
use super::told::{PortState, Told, port_state};

/// After a loss, notifications from before it still wait in line, and would be taken for news after the reading that made
/// good for the loss. For this long each of them leads to another reading.
const OLD_NEWS: Duration = Duration::from_secs(5);

/// Questions of workers that may wait; more are dropped, and the workers ask again.
const QUESTIONS: usize = 1024;

/// A port that has an exception interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorPort {
    /// Which.
    pub port: PortId,
    /// The name of its exception interface.
    pub interface: String,
}

/// Starting the mirror failed.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// No netlink socket.
    #[error(
        "cannot open a netlink socket: {0}; a seccomp filter or a missing AF_NETLINK in \
         `RestrictAddressFamilies=` of the service unit would do that"
    )]
    Open(#[from] io::Error),
    /// The kernel could not be read.
    #[error("cannot read the kernel's interfaces, addresses and routes: {0}")]
    Read(rtnetlink::Error),
    /// The interface is not there.
    #[error(
        "the exception interface `{0}` does not exist in this network namespace; open its tap before the mirror is started"
    )]
    NoInterface(String),
    /// The interface cannot be switched on.
    #[error(
        "cannot bring the exception interface `{interface}` up: {source}; CAP_NET_ADMIN is needed"
    )]
    BringUp {
        /// Its name.
        interface: String,
        /// Why.
        source: rtnetlink::Error,
    },
}

/// How the mirror stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MirrorStatus {
    /// Neighbours of the ports.
    pub neighbours: NeighbourCounts,
    /// Those that do not answer now.
    pub failed: BTreeSet<(PortId, Ipv4Addr)>,
    /// Times that notifications were lost, and everything was read anew.
    pub resyncs: u64,
    /// Times that the kernel was read, for whatever reason.
    pub readings: u64,
    /// The kernel has reported changes that have not been passed on yet.
    pub pending: bool,
    /// What the kernel has and workers do not follow: policy rules, VRFs.
    pub not_mirrored: Vec<String>,
    /// Exception interfaces that are not there (any more) under their names.
    pub missing_interfaces: Vec<String>,
}

/// The running mirror. Dropping it stops the task; interfaces stay as they are.
pub struct KernelMirror {
    questions: mpsc::Sender<Question>,
    status: watch::Receiver<MirrorStatus>,
    updates: mpsc::WeakSender<KernelUpdate>,
    task: JoinHandle<()>,
}

/// What workers report of a neighbour.
#[derive(Clone, Copy, Debug)]
enum Question {
    Missing(PortId, Ipv4Addr),
    Used(PortId, Ipv4Addr),
}

impl KernelMirror {
    /// Brings the exception interfaces up and starts the task, in the calling thread's network namespace. Updates go into
    /// `updates`; while that is full they wait, and of several about the same thing only the last is kept.
    pub async fn start(
        ports: Vec<MirrorPort>,
        updates: mpsc::Sender<KernelUpdate>,
    ) -> Result<Self, MirrorError> {
        let netlink = Netlink::open()?;
        bring_up(&netlink, &ports).await?;
        let (questions, inbox) = mpsc::channel(QUESTIONS);
        let (status_in, status) = watch::channel(MirrorStatus::default());
        let mirror = Mirror {
            ports,
            indices: BTreeMap::new(),
            neighbours: Neighbours::default(),
            told: Told::default(),
            read_neighbours: true,
            incomplete: true,
            lost_at: None,
            inbox,
            status: status_in,
        };
        Ok(Self {
            questions,
            status,
            updates: updates.downgrade(),
            task: tokio::spawn(mirror.run(netlink, updates)),
        })
    }

    /// Passes on what a worker reports; events that are not about neighbours are ignored. Never blocks.
    pub fn event(&self, event: &Event) {
        let question = match *event {
            Event::NeighbourMissing { port, addr } => Question::Missing(port, addr),
            Event::NeighbourUsed { port, addr } => Question::Used(port, addr),
            _ => return,
        };
        if self.questions.try_send(question).is_err() {
            debug!(?question, "dropped: too many questions about neighbours");
        }
    }

    /// How it stands.
    pub fn status(&self) -> MirrorStatus {
        self.reporter()()
    }

    /// For whoever must tell how it stands without having it.
    pub fn reporter(&self) -> impl Fn() -> MirrorStatus + Send + 'static {
        let (status, updates) = (self.status.clone(), self.updates.clone());
        move || {
            let mut status = status.borrow().clone();
            // What waits in the channel has been passed on by us, but nobody has it yet.
            status.pending |= updates
                .upgrade()
                .is_some_and(|updates| updates.capacity() < updates.max_capacity());
            status
        }
    }
}

impl Drop for KernelMirror {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn bring_up(netlink: &Netlink, ports: &[MirrorPort]) -> Result<(), MirrorError> {
    let picture = netlink.picture().await.map_err(MirrorError::Read)?;
    for port in ports {
        let link = picture
            .links
            .iter()
            .find(|link| link.name == port.interface)
            .ok_or_else(|| MirrorError::NoInterface(port.interface.clone()))?;
        netlink
            .bring_up(link.index)
            .await
            .map_err(|source| MirrorError::BringUp {
                interface: port.interface.clone(),
                source,
            })?;
    }
    Ok(())
}

/// What the task has.
struct Mirror {
    ports: Vec<MirrorPort>,
    /// Ports by interface index, as of the last reading.
    indices: BTreeMap<u32, PortId>,
    neighbours: Neighbours,
    told: Told,
    /// Neighbours, too, must be read next time.
    read_neighbours: bool,
    /// The next reading completes what is known.
    incomplete: bool,
    /// When notifications were last lost.
    lost_at: Option<Instant>,
    inbox: mpsc::Receiver<Question>,
    status: watch::Sender<MirrorStatus>,
}

/// Why the conversation with the kernel ended.
enum End {
    /// Nobody wants updates any more.
    Unwanted,
    /// The socket broke.
    Broken,
}

impl Mirror {
    async fn run(mut self, netlink: Netlink, updates: mpsc::Sender<KernelUpdate>) {
        let mut open = Some(netlink);
        loop {
            if let Some(netlink) = open.take() {
                self.must_resync();
                match self.talk(netlink, &updates).await {
                    End::Unwanted => return,
                    End::Broken => error!("the netlink socket broke; opening another"),
                }
            }
            tokio::time::sleep(RETRY).await;
            match Netlink::open() {
                Ok(netlink) => open = Some(netlink),
                Err(error) => error!(%error, "cannot open a netlink socket; trying again"),
            }
        }
    }

    async fn talk(&mut self, mut netlink: Netlink, updates: &mpsc::Sender<KernelUpdate>) -> End {
        let mut clock = Clock::new();
        loop {
            self.publish_pending(&clock);
            self.ask_forgotten(&netlink).await;
            tokio::select! {
                notice = netlink.notice() => match notice {
                    Some(notice) => self.note(notice, &mut clock),
                    None => return End::Broken,
                },
                Some(question) = self.inbox.recv() => self.answer(&netlink, question).await,
                permit = updates.reserve(), if self.has_news() => match permit {
                    Ok(permit) => {
                        if let Some(update) = self.next_update() {
                            permit.send(update);
                        }
                    }
                    Err(_) => return End::Unwanted,
                },
                () = updates.closed() => return End::Unwanted,
                () = sleep_until(clock.addresses_due.unwrap_or(clock.due).into()), if clock.addresses_due.is_some() => {
                    let start = Instant::now();
                    self.read_addresses(&netlink).await;
                    clock.addresses_read(start);
                }
                () = sleep_until(clock.due.into()) => {
                    self.read_neighbours |= clock.quiet;
                    let start = Instant::now();
                    let ok = self.read(&netlink).await;
                    clock.read(start, ok);
                }
            }
        }
    }

    fn note(&mut self, notice: Notice, clock: &mut Clock) {
        match notice {
            Notice::Changed => clock.changed(),
            Notice::Addresses => clock.addresses_changed(),
            Notice::Neighbour((interface, addr), standing) => {
                if let Some(&port) = self.indices.get(&interface) {
                    self.neighbours.set((port, addr), standing);
                    self.publish_neighbours();
                    if self.lost_at.is_some_and(|at| at.elapsed() < OLD_NEWS) {
                        self.read_neighbours = true;
                        clock.changed();
                    }
                }
            }
            Notice::Lost => {
                info!("the kernel changed faster than could be followed; reading all anew");
                self.status.send_modify(|status| status.resyncs += 1);
                self.must_resync();
                self.lost_at = Some(Instant::now());
                clock.changed();
            }
        }
    }

    fn must_resync(&mut self) {
        self.read_neighbours = true;
        self.incomplete = true;
    }

    /// Makes the kernel look for a neighbour, or go on checking it.
    async fn answer(&mut self, netlink: &Netlink, question: Question) {
        let (Question::Missing(port, addr) | Question::Used(port, addr)) = question;
        let interface = self.indices.iter().find(|(_, p)| **p == port);
        let Some((&interface, _)) = interface else {
            return debug!(?question, "the port has no exception interface");
        };
        let now = Instant::now();
        let wanted = match question {
            Question::Missing(..) => self.neighbours.missing((port, addr), now),
            Question::Used(..) => self.neighbours.used((port, addr), now),
        };
        if !wanted {
            return;
        }
        self.publish_neighbours();
        if let Err(error) = netlink.use_neighbour((interface, addr)).await {
            debug!(%error, ?question, "the kernel would not look for the neighbour");
        }
    }

    /// Makes the kernel look for those in use that it was made to forget.
    async fn ask_forgotten(&mut self, netlink: &Netlink) {
        while let Some((port, addr)) = self.neighbours.next_forgotten() {
            let interface = self.indices.iter().find(|(_, p)| **p == port);
            let Some((&interface, _)) = interface else {
                continue;
            };
            if let Err(error) = netlink.use_neighbour((interface, addr)).await {
                debug!(%error, %addr, "the kernel would not look for the neighbour");
            }
        }
    }

    /// Reads the kernel and notes what is new. `false` when it could not be read.
    async fn read(&mut self, netlink: &Netlink) -> bool {
        let result = async {
            self.read_picture(netlink).await?;
            if std::mem::take(&mut self.read_neighbours) {
                self.read_all_neighbours(netlink).await?;
            }
            Ok::<_, rtnetlink::Error>(())
        }
        .await;
        if let Err(error) = result {
            warn!(%error, "cannot read the kernel's interfaces and routes; trying again");
            self.read_neighbours = true;
            return false;
        }
        self.told.complete_is_news |= std::mem::take(&mut self.incomplete);
        self.status.send_modify(|status| status.readings += 1);
        true
    }

    /// Ahead of the whole reading, which makes good for a failure.
    async fn read_addresses(&mut self, netlink: &Netlink) {
        match netlink.addresses().await {
            Ok(addresses) => self.told.set_local(&addresses),
            Err(error) => debug!(%error, "cannot read the kernel's addresses"),
        }
    }

    async fn read_picture(&mut self, netlink: &Netlink) -> Result<(), rtnetlink::Error> {
        let picture = netlink.picture().await?;
        let mut indices = BTreeMap::new();
        let mut missing = Vec::new();
        for port in &self.ports {
            let link = picture.links.iter().find(|l| l.name == port.interface);
            if link.is_none() {
                missing.push(port.interface.clone());
            }
            let state = link.and_then(port_state);
            self.told.set_port(port.port, state);
            indices.extend(link.map(|link| (link.index, port.port)));
        }
        self.read_neighbours |= indices != self.indices;
        self.indices = indices;
        self.told.set_local(&picture.addresses);
        let fib = fib::build(&picture.routes, &picture.addresses, &self.indices);
        self.told.set_fib(fib);
        self.report_missing(missing);
        self.report_unmirrored(&picture);
        Ok(())
    }

    async fn read_all_neighbours(&mut self, netlink: &Netlink) -> Result<(), rtnetlink::Error> {
        let standings = netlink.neighbours().await?;
        let ours = standings
            .into_iter()
            .filter_map(|((interface, addr), standing)| {
                Some(((*self.indices.get(&interface)?, addr), standing))
            })
            .collect();
        self.neighbours.replace(&ours);
        self.publish_neighbours();
        Ok(())
    }

    fn report_missing(&self, missing: Vec<String>) {
        self.status.send_if_modified(|status| {
            let news = status.missing_interfaces != missing;
            if news && !missing.is_empty() {
                let names = missing.join(", ");
                warn!("exception interfaces are gone, deleted or renamed: {names}");
            }
            status.missing_interfaces = missing;
            news
        });
    }

    fn report_unmirrored(&self, picture: &Picture) {
        let vrfs = picture.links.iter().filter(|link| link.is_vrf);
        let not_mirrored: Vec<_> = vrfs
            .map(|link| format!("the VRF {}", link.name))
            .chain(picture.rules.iter().cloned())
            .collect();
        self.status.send_if_modified(|status| {
            let news = status.not_mirrored != not_mirrored;
            if news && !not_mirrored.is_empty() {
                warn!(
                    "sluice forwards by the kernel's main routing table only and does not follow {}",
                    not_mirrored.join(", ")
                );
            }
            status.not_mirrored = not_mirrored;
            news
        });
    }

    fn publish_neighbours(&self) {
        self.status.send_modify(|status| {
            status.neighbours = self.neighbours.counts();
            if status.failed != *self.neighbours.failed() {
                status.failed.clone_from(self.neighbours.failed());
            }
        });
    }

    fn publish_pending(&self, clock: &Clock) {
        let pending = !clock.quiet || self.has_news();
        self.status
            .send_if_modified(|status| std::mem::replace(&mut status.pending, pending) != pending);
    }

    fn has_news(&self) -> bool {
        self.told.has_news() || self.neighbours.has_changes()
    }

    /// The next thing to tell: first who we are, then who is there, then the routes that lead there.
    fn next_update(&mut self) -> Option<KernelUpdate> {
        let told = &mut self.told;
        if std::mem::take(&mut told.local_is_news) {
            return told.local.clone().map(KernelUpdate::LocalAddresses);
        }
        if let Some(port) = told.news_of_ports.pop_first() {
            let &PortState { mac, mtu, up } = told.ports.get(&port)?;
            return Some(KernelUpdate::PortState { port, mac, mtu, up });
        }
        if let Some(((port, addr), mac)) = self.neighbours.next_change() {
            return Some(KernelUpdate::Neighbour { port, addr, mac });
        }
        if std::mem::take(&mut told.fib_is_news) {
            return told.fib.clone().map(KernelUpdate::Fib);
        }
        std::mem::take(&mut told.complete_is_news).then_some(KernelUpdate::Complete)
    }
}
