//! Several workers of one appliance, turned in one thread.

use std::sync::Arc;

use sluice_dataplane::command::{Command, PortId, ServiceEdit, WorkerId};
use sluice_dataplane::drop_reason::DropReason;
use sluice_dataplane::io::Frame;
use sluice_dataplane::service::{Colleagues, Method, Protocol};
use sluice_dataplane::stats::{HandedAs, WorkerCells};
use sluice_dataplane::steer::ring::mesh;
use sluice_dataplane::steer::toeplitz::{KEY_LEN, Key, Toeplitz};
use sluice_dataplane::steer::{HashTypes, RssPlan, Spread, Steering};
use sluice_dataplane::time::Span;

use crate::rig::*;

/// Turns after which nothing can be on its way any more.
const SETTLED: usize = 64;

pub(crate) struct Team {
    pub(crate) workers: Vec<Rig>,
}

impl Team {
    /// So many workers, with the same service at `VIP:80`, and rings for `capacity` frames.
    pub(crate) fn new(workers: u16, capacity: usize, protocol: Protocol) -> Self {
        Self::sized(workers, capacity, protocol, 256)
    }

    /// With room for so many connections of each.
    pub(crate) fn sized(
        workers: u16,
        capacity: usize,
        protocol: Protocol,
        max_connections: usize,
    ) -> Self {
        let peers = mesh(workers, capacity).into_iter();
        let workers = peers.map(|peers| Rig::sized(protocol, peers, None, max_connections));
        let mut team = Self {
            workers: workers.collect(),
        };
        team.meet();
        team
    }

    /// Tells the workers of each other. They had no service before.
    fn meet(&mut self) {
        let cells = self.workers.iter().map(|rig| rig.cells.clone());
        let colleagues = Arc::new(Colleagues::new(cells.collect()));
        self.each(|rig| {
            rig.command(Command::DeleteService(rig.service.id));
            rig.command(Command::Colleagues(colleagues.clone()));
            rig.put(ServiceEdit::Created);
        });
    }

    /// The sum of something over all workers.
    pub(crate) fn sum(&self, what: impl Fn(&WorkerCells) -> u64) -> u64 {
        self.workers.iter().map(|rig| what(&rig.cells)).sum()
    }

    /// Lets so many nanoseconds pass.
    pub(crate) fn pass(&mut self, ns: u64) {
        self.each(|rig| rig.now = rig.now + Span(ns));
    }

    /// As many, of which only the last one can send.
    pub(crate) fn sent_by_the_last(workers: u16, protocol: Protocol) -> Self {
        let last = WorkerId(workers - 1);
        let workers = mesh(workers, 256).into_iter().map(|peers| {
            let sent_by = (peers.id() != last).then_some(last);
            Rig::beside_others(protocol, peers, sent_by)
        });
        Self {
            workers: workers.collect(),
        }
    }

    /// A TCP service with one server.
    pub(crate) fn of(workers: u16, method: Method) -> Self {
        let mut team = Self::new(workers, 256, Protocol::Tcp);
        let port = if method == Method::Nat || method == Method::FullNat {
            8080
        } else {
            80
        };
        team.each(|rig| {
            rig.set_laddrs(&[LADDR]);
            rig.add_server(1, port, method);
        });
        team
    }

    /// From now on the ports spread packets over all workers, but in a way that software cannot tell for TCP. Before that they spread
    /// nothing.
    pub(crate) fn spread_by_nics(&mut self) {
        self.spread(HashTypes::IPV4_UDP);
    }

    /// From now on the ports spread packets of these types over all workers.
    pub(crate) fn spread(&mut self, types: HashTypes) -> Arc<Steering> {
        let workers = self.workers.len() as u16;
        let owners: Vec<WorkerId> = (0..128).map(|entry| WorkerId(entry % workers)).collect();
        self.steer(Steering::new(workers, spreads(workers, types, &owners)))
    }

    /// From now on worker `to` has what worker `from` had.
    pub(crate) fn move_all(&mut self, steering: &Steering, from: u16, to: u16) -> Arc<Steering> {
        self.move_where(steering, |_, owner| {
            if owner == WorkerId(from) {
                WorkerId(to)
            } else {
                owner
            }
        })
    }

    /// From now on each entry's owner is what `owner` says of its number and its owner until now.
    pub(crate) fn move_where(
        &mut self,
        steering: &Steering,
        owner: impl Fn(usize, WorkerId) -> WorkerId,
    ) -> Arc<Steering> {
        let before = steering.owners().iter().enumerate();
        let owners: Vec<WorkerId> = before
            .map(|(entry, before)| owner(entry, *before))
            .collect();
        let spreads = Self::spreads(steering, &owners);
        self.steer(steering.moved(owners, spreads).unwrap())
    }

    /// Ports whose tables say this.
    pub(crate) fn spreads(steering: &Steering, owners: &[WorkerId]) -> Vec<Spread> {
        spreads(steering.workers(), HashTypes::EVERY_KIND, owners)
    }

    /// Has all former owners count what they have left, and tells all workers what follows from it, if anything does.
    pub(crate) fn settle_moves(&mut self, steering: &Steering) -> Option<Arc<Steering>> {
        let classes = steering.owners().len();
        let settled =
            steering
                .formers()
                .into_iter()
                .fold(None, |known: Option<Steering>, former| {
                    let census = self.workers[usize::from(former.0)].census(classes);
                    let steering = known.as_ref().unwrap_or(steering);
                    steering.settled(former, &census.classes).or(known)
                });
        settled.map(|settled| self.steer(settled))
    }

    fn steer(&mut self, steering: Steering) -> Arc<Steering> {
        let steering = Arc::new(steering);
        self.each(|rig| rig.command(Command::Steering(Arc::clone(&steering))));
        steering
    }

    /// Tells every worker the same.
    pub(crate) fn each(&mut self, mut tell: impl FnMut(&mut Rig)) {
        self.workers.iter_mut().for_each(&mut tell);
    }

    /// Lets one worker receive a packet, and returns what comes out of all of them.
    pub(crate) fn packet(&mut self, worker: usize, side: PortId, packet: &[u8]) -> Vec<Sent> {
        let rig = &mut self.workers[worker];
        let port = &mut rig.worker.port_mut(side).unwrap().port;
        port.deliver(&ethernet(mac(side), packet));
        self.settle();
        self.sent()
    }

    /// Turns all workers until nothing is on its way.
    pub(crate) fn settle(&mut self) {
        for _ in 0..SETTLED {
            self.each(Rig::poll);
        }
        let books = || self.workers.iter().map(|rig| &rig.cells.books);
        let out: u64 = books().map(|books| books.handed_out.read()).sum();
        let taken: u64 = books().map(|books| books.handed_in.read()).sum();
        assert_eq!(out, taken, "nothing is left in rings");
        for rig in &self.workers {
            let kinds = [CLIENT_SIDE, SERVER_SIDE].map(|side| rig.cells.handed(side).total());
            let out = rig.cells.books.handed_out.read();
            assert_eq!(kinds.iter().sum::<u64>(), out, "each is of one kind");
        }
    }

    pub(crate) fn sent(&mut self) -> Vec<Sent> {
        self.workers.iter_mut().flat_map(Rig::sent).collect()
    }

    /// Which worker has how many connections.
    pub(crate) fn connections(&self) -> Vec<u64> {
        let cells = self.workers.iter().map(|rig| &rig.cells);
        cells.map(|cells| cells.connections.read()).collect()
    }

    /// How many packets of a port were handed off as such.
    pub(crate) fn handed_as(&self, side: PortId, kind: HandedAs) -> u64 {
        self.sum(|cells| cells.handed(side).of(kind).read())
    }

    pub(crate) fn handed_out(&self) -> u64 {
        let books = self.workers.iter().map(|rig| &rig.cells.books);
        books.map(|books| books.handed_out.read()).sum()
    }

    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.workers.iter().map(|rig| rig.drops(reason)).sum()
    }

    /// What the kernel got on this side, from whomever.
    pub(crate) fn punted(&mut self, side: PortId) -> Vec<Vec<u8>> {
        let workers = self.workers.iter_mut();
        workers.flat_map(|rig| rig.punted(side)).collect()
    }

    /// The kernel sends an IP packet out of a port, by the first worker's ring.
    pub(crate) fn kernel_sends(&mut self, side: PortId, packet: &[u8]) -> Vec<Sent> {
        self.kernel_sends_by(0, side, packet)
    }

    /// The same by the ring of worker `by`.
    pub(crate) fn kernel_sends_by(&mut self, by: usize, side: PortId, packet: &[u8]) -> Vec<Sent> {
        let frame = ethernet(mac_of(CLIENT), packet);
        let mut made = crate::port::TestFrame::new(&[]);
        assert!(made.push_back(frame.len()));
        made.bytes_mut().copy_from_slice(&frame);
        let kernel = &mut self.workers[by].kernel[usize::from(side.0)];
        kernel.to_worker.push(made).unwrap();
        self.settle();
        self.sent()
    }
}

/// Two ports whose table says this.
fn spreads(workers: u16, types: HashTypes, owners: &[WorkerId]) -> Vec<Spread> {
    let toeplitz = Arc::new(Toeplitz::new(Key::symmetric(KEY_LEN)));
    let table = owners.iter().map(|owner| owner.0).collect();
    let polled_by = (0..workers).map(WorkerId).collect();
    let rss = RssPlan::new(toeplitz, types, table, polled_by).unwrap();
    vec![Spread::Rss(rss); 2]
}
