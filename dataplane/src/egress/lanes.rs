//! A worker's ports and its rings to other workers, with what is on its way out of them. Every frame ends here: sent, punted,
//! handed off or discarded, and counted as such.

use std::sync::Arc;

use super::Mac;
use crate::command::{PortId, WorkerId};
use crate::drop_reason::DropReason;
use crate::io::{Burst, Frame, Offloads, Port};
use crate::stats::{HandedAs, WorkerCells};
use crate::steer::note::Note;
use crate::steer::ring::{Errand, Origin, Peers};
use crate::worker::WorkerPort;

/// The ports in order of their ids, and the frames that wait for the end of the burst.
pub(crate) struct Lanes<P: Port> {
    lanes: Vec<Lane<P>>,
    peers: Peers<P::Frame>,
    /// Something may wait to go to another worker.
    handing: bool,
    trash: Burst<P::Frame>,
    cells: Arc<WorkerCells>,
}

struct Lane<P: Port> {
    worker_port: WorkerPort<P>,
    out: Burst<P::Frame>,
    out_bytes: u64,
    mac: Mac,
    mtu: u16,
    /// Times in a row that nothing was received.
    silent: u32,
    /// Who sends in place of this worker, which cannot.
    sent_by: Option<WorkerId>,
}

/// A port that was silent so often in a row may rest while others have work.
const SILENT: u32 = 64;

impl<P: Port> Lanes<P> {
    pub(crate) fn new(
        ports: Vec<WorkerPort<P>>,
        peers: Peers<P::Frame>,
        cells: Arc<WorkerCells>,
    ) -> Self {
        let lanes = ports
            .into_iter()
            .map(|worker_port| Lane {
                sent_by: worker_port.port.sent_by(),
                worker_port,
                out: Burst::new(),
                out_bytes: 0,
                mac: Mac::default(),
                mtu: 1500,
                silent: 0,
            })
            .collect();
        Self {
            lanes,
            peers,
            handing: false,
            trash: Burst::new(),
            cells,
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.lanes.len()
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = PortId> + use<P> {
        (0..self.lanes.len()).map(|at| PortId(at as u16))
    }

    pub(crate) fn port_mut(&mut self, port: PortId) -> Option<&mut WorkerPort<P>> {
        self.lanes
            .get_mut(usize::from(port.0))
            .map(|lane| &mut lane.worker_port)
    }

    /// Our own MAC on this port.
    pub(crate) fn mac(&self, port: PortId) -> Mac {
        self.lanes[usize::from(port.0)].mac
    }

    /// Bytes of an IP packet that fit the link.
    pub(crate) fn mtu(&self, port: PortId) -> u16 {
        self.lanes[usize::from(port.0)].mtu
    }

    pub(crate) fn offloads(&self, port: PortId) -> Offloads {
        self.lanes[usize::from(port.0)].worker_port.port.offloads()
    }

    pub(crate) fn set_state(&mut self, port: PortId, mac: Mac, mtu: u16) {
        if let Some(lane) = self.lanes.get_mut(usize::from(port.0)) {
            (lane.mac, lane.mtu) = (mac, mtu);
        }
    }

    /// Whether it is likely that nothing waits on this port: asking a driver in vain costs up to a system call.
    pub(crate) fn is_silent(&self, port: PortId) -> bool {
        self.lanes[usize::from(port.0)].silent >= SILENT
    }

    /// Receives a burst, counted but for its bytes, which are not looked at here: they may still be on their way to the cache.
    pub(crate) fn receive(&mut self, port: PortId, burst: &mut Burst<P::Frame>) {
        let lane = &mut self.lanes[usize::from(port.0)];
        let books = &self.cells.books;
        lane.silent = lane.silent.saturating_add(1);
        if lane.worker_port.port.rx(burst) > 0 {
            lane.silent = 0;
            books.rx.add(burst.len() as u64);
        }
        let refused = lane.worker_port.port.refused();
        if refused.oversize > 0 {
            books.rx.add(refused.oversize);
            books.drops[DropReason::Oversize as usize].add(refused.oversize);
        }
    }

    /// Takes a burst of what the kernel sent out of the port's exception interface, counted.
    pub(crate) fn receive_from_kernel(&mut self, port: PortId, burst: &mut Burst<P::Frame>) {
        let Some(punt) = &mut self.lanes[usize::from(port.0)].worker_port.punt else {
            return;
        };
        while !burst.is_full()
            && let Ok(frame) = punt.from_kernel.pop()
        {
            burst.push(frame);
        }
        if !burst.is_empty() {
            self.cells.books.from_kernel.add(burst.len() as u64);
        }
    }

    /// Queues a finished frame for a port.
    #[inline(always)]
    pub(crate) fn send(&mut self, port: PortId, frame: P::Frame) {
        let at = usize::from(port.0);
        let lane = &mut self.lanes[at];
        let len = frame.bytes().len() as u64;
        match lane.out.try_push(frame) {
            Ok(()) => lane.out_bytes += len,
            Err(full) => self.flush_and_send(at, full.element()),
        }
    }

    /// Queues finished frames, `bytes` in all, for a port. Leaves `run` empty.
    pub(crate) fn send_run(&mut self, port: PortId, run: &mut Burst<P::Frame>, bytes: u64) {
        let at = usize::from(port.0);
        if run.len() > self.lanes[at].out.remaining_capacity() {
            self.flush_port(at);
        }
        let lane = &mut self.lanes[at];
        lane.out_bytes += bytes;
        if lane.out.is_empty() {
            std::mem::swap(&mut lane.out, run);
        } else {
            lane.out.extend(run.drain(..));
        }
    }

    #[cold]
    #[inline(never)]
    fn flush_and_send(&mut self, at: usize, frame: P::Frame) {
        self.flush_port(at);
        self.lanes[at].out_bytes += frame.bytes().len() as u64;
        self.lanes[at].out.push(frame);
    }

    /// Gives a frame, as it came off the wire, to the kernel.
    pub(crate) fn punt(&mut self, port: PortId, frame: P::Frame) {
        let Some(punt) = &mut self.lanes[usize::from(port.0)].worker_port.punt else {
            return self.discard(frame, DropReason::NoKernel);
        };
        match punt.to_kernel.push(frame) {
            Ok(()) => self.cells.books.punted.add(1),
            Err(rtrb::PushError::Full(frame)) => self.discard(frame, DropReason::PuntFull),
        }
    }

    /// Drops a frame, counted.
    #[inline]
    pub(crate) fn discard(&mut self, frame: P::Frame, reason: DropReason) {
        self.cells.books.dropped(reason);
        self.trash(frame);
    }

    /// An empty frame for a packet of our own; counted once it is sent on its way.
    pub(crate) fn alloc(&mut self, port: PortId) -> Option<P::Frame> {
        self.lanes[usize::from(port.0)].worker_port.port.alloc()
    }

    /// Gives a frame to another worker.
    #[cold]
    #[inline(never)]
    pub(crate) fn hand_off(
        &mut self,
        to: WorkerId,
        frame: P::Frame,
        origin: Origin,
        kind: HandedAs,
    ) {
        self.handing = true;
        let mut handed = self.peers.hand(to, frame, origin, kind);
        if let Err(frame) = handed {
            self.send_off(to);
            handed = self.peers.hand(to, frame, origin, kind);
        }
        match handed {
            Ok(()) => self.cells.handed(origin.port).of(kind).add(1),
            Err(frame) => self.discard(frame, DropReason::HandOffFull),
        }
    }

    /// Writes to another worker. `Err` gives the note back: there is no room now.
    pub(crate) fn note(&mut self, to: WorkerId, note: Note) -> Result<(), Note> {
        self.peers.note(to, note)
    }

    /// The next note from a worker, and who that is.
    pub(crate) fn next_note(&mut self, inbox: usize) -> Option<(WorkerId, Note)> {
        self.peers.next_note(inbox)
    }

    /// Whether other workers may have handed frames over since this was last asked.
    #[inline]
    pub(crate) fn frames_came(&self) -> bool {
        self.peers.frames_came()
    }

    /// Whether other workers may have written since this was last asked.
    #[inline]
    pub(crate) fn notes_came(&self) -> bool {
        self.peers.notes_came()
    }

    /// Tells other workers of what they were brought in this turn.
    #[inline]
    pub(crate) fn ring(&mut self) {
        self.peers.ring();
    }

    /// How many rings from other workers there are.
    pub(crate) fn inboxes(&self) -> usize {
        self.peers.inboxes()
    }

    /// Takes frames of one origin, at most `most`, out of a ring from another worker, counted.
    pub(crate) fn receive_handed(
        &mut self,
        inbox: usize,
        burst: &mut Burst<P::Frame>,
        most: usize,
    ) -> Option<Origin> {
        let origin = self.peers.receive(inbox, burst, most)?;
        self.cells.books.handed_in.add(burst.len() as u64);
        Some(origin)
    }

    /// Sends all that is queued, and gives the buffers of dropped frames back.
    pub(crate) fn flush(&mut self) {
        for at in 0..self.lanes.len() {
            if !self.lanes[at].out.is_empty() {
                self.flush_port(at);
            }
        }
        if self.handing {
            self.send_all_off();
        }
        self.empty_trash();
    }

    #[inline(never)]
    fn flush_port(&mut self, at: usize) {
        let lane = &mut self.lanes[at];
        if let Some(to) = lane.sent_by {
            return self.have_sent(at, to);
        }
        let books = &self.cells.books;
        let queued = lane.out.len();
        let bytes = std::mem::take(&mut lane.out_bytes);
        let sent = lane.worker_port.port.tx(&mut lane.out);
        let unsent: u64 = lane
            .out
            .iter()
            .map(|frame| frame.bytes().len() as u64)
            .sum();
        books.tx.add(sent as u64);
        books.tx_bytes.add(bytes - unsent);
        if sent < queued {
            books.drops[DropReason::TxFull as usize].add((queued - sent) as u64);
            lane.worker_port.port.free(&mut lane.out);
        }
    }

    /// Another worker sends what is queued for a port.
    #[cold]
    #[inline(never)]
    fn have_sent(&mut self, at: usize, to: WorkerId) {
        let origin = Origin {
            port: PortId(at as u16),
            errand: Errand::Send,
        };
        let mut out = std::mem::take(&mut self.lanes[at].out);
        self.lanes[at].out_bytes = 0;
        for frame in out.drain(..) {
            self.hand_off(to, frame, origin, HandedAs::Finished);
        }
    }

    #[cold]
    #[inline(never)]
    fn send_all_off(&mut self) {
        let mut from = 0;
        while let Some(to) = self.peers.awaited(from) {
            self.send_off(to);
            from = to.0 + 1;
        }
        self.handing = false;
    }

    #[cold]
    #[inline(never)]
    fn send_off(&mut self, to: WorkerId) {
        let sent = self.peers.flush_to(to);
        self.cells.books.handed_out.add(sent as u64);
        while let Some((frame, port, kind)) = self.peers.refused(to) {
            self.cells.handed(port).of(kind).sub(1);
            self.discard(frame, DropReason::HandOffFull);
        }
    }

    fn trash(&mut self, frame: P::Frame) {
        if self.trash.is_full() {
            self.empty_trash();
        }
        self.trash.push(frame);
    }

    /// Buffers know their pool, so any port can give them back.
    fn empty_trash(&mut self) {
        match self.lanes.first_mut() {
            Some(lane) if !self.trash.is_empty() => lane.worker_port.port.free(&mut self.trash),
            _ => self.trash.clear(),
        }
    }
}
