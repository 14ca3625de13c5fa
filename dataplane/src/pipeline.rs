//! The straight walk over a burst (`SEMANTICS.md` section 2).
//!
//! Everything that is reached from here follows the rules of the packet path: no allocation for a packet of a known
//! connection, no lock, no system call, no log, no formatting, no shared atomic read-modify-write, no clock, no loop without
//! a bound. Three stages, each over the whole burst: parse, hash and fetch the bucket; fetch the connection; look up, follow,
//! change and send. A packet that stops
//! anywhere stops with one [`DropReason`].

mod advice;
mod hand_off;
mod opening;
mod related;
mod short_way;
mod upkeep;

use std::sync::Arc;

use crate::command::{PortId, WorkerId};
use crate::conn::local_ports::LocalPorts;
use crate::conn::state::{State, TcpTables, TimeoutTable, Viewpoint};
use crate::conn::template::{Ending, Template, Templates};
use crate::conn::timer::TimerWheel;
use crate::conn::{Bucket, Conn, ConnId, ConnTable, Control, Direction, Guess, Half, Hash, Hit};
use crate::drop_reason::DropReason;
use crate::egress::HopRef;
use crate::forward::{Forwarder, Plan};
use crate::io::{BURST, Burst, Frame, Port};
use crate::packet::ethernet::Ethernet;
use crate::packet::sctp::Chunk;
use crate::packet::usual::Usual;
use crate::parse::{Flow, Parsed, parse, usual};
use crate::service::{MarkRules, Method, Protocol, Services};
use crate::settings::Settings;
use crate::stats::{HandedAs, WorkerCells};
use crate::steer::owner::Owners;
use crate::time::{Grain, GrainRate, TickRate, Ticks};
use advice::Correspondence;
use upkeep::Upkeep;

/// All that packets of one worker meet between receive and transmit.
pub(crate) struct Pipeline<P: Port> {
    pub(crate) forwarder: Forwarder<P>,
    pub(crate) services: Services,
    pub(crate) table: ConnTable,
    pub(crate) templates: Templates,
    pub(crate) mark_rules: Arc<MarkRules>,
    pub(crate) now: Ticks,
    owners: Owners,
    correspondence: Correspondence<P::Frame>,
    /// Where the packets that are walked come from.
    arrival: Arrival,
    /// Other workers may have handed over more than the last turn took.
    more_frames: bool,
    wheel: TimerWheel,
    local_ports: LocalPorts,
    settings: Arc<Settings>,
    timeouts: TimeoutTable,
    tcp_tables: TcpTables,
    /// Opening packets until `drop_packet` takes one.
    until_drop: u32,
    upkeep: Upkeep,
    rate: TickRate,
    grains: GrainRate,
    grain: Grain,
    cells: Arc<WorkerCells>,
    /// A burst between the stages.
    pending: Vec<Pending>,
    /// The port that frames of the short way left by last.
    out: PortId,
    /// Frames on the short way, to leave by the same port.
    run: Burst<P::Frame>,
    /// Connections that the burst opens, to be completed together; none between bursts.
    opened: Vec<Opened<P::Frame>>,
}

/// Where packets come from, as far as it matters to where they may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    /// A port, or the kernel: they may belong to another worker.
    Received,
    /// Another worker, which found that they belong here.
    HandedIn,
    /// Another worker, because this one owned such packets before the steering was changed; who owns them now.
    Former(WorkerId),
    /// A worker that was asked for their connection and has not got it, nor has any other.
    Settled,
    /// Another worker, which like all others since this one does not know the connection that they are about.
    Sought(WorkerId),
}

/// A connection that a burst opens, and the packet that does.
struct Opened<F> {
    half: Half,
    frame: F,
    flow: Flow,
}

/// What is known of a frame between the stages. Of one that is unusual the rest means nothing.
#[derive(Clone, Copy)]
struct Pending {
    kind: Kind,
    hash: Hash,
    bucket: Bucket,
    guess: Guess,
}

/// What the first look at a frame says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Kind {
    /// [`usual`] does not accept it.
    Unusual,
    /// It has to be looked at more closely.
    Usual,
    /// It may go the short way.
    Plain,
}

impl Pending {
    /// A frame of which nothing is known.
    const UNUSUAL: Self = Self {
        hash: Hash::NONE,
        bucket: Bucket::NONE,
        guess: Guess::NONE,
        kind: Kind::Unusual,
    };
}

impl<P: Port> Pipeline<P> {
    pub(crate) fn new(
        forwarder: Forwarder<P>,
        table: ConnTable,
        owners: Owners,
        rate: TickRate,
        now: Ticks,
        cells: Arc<WorkerCells>,
    ) -> Self {
        let settings = Arc::new(Settings::default());
        let correspondence = Correspondence::new(table.capacity(), owners.alone());
        let grains = GrainRate::new(rate);
        let grain = grains.at(now);
        Self {
            forwarder,
            services: Services::new(cells.clone()),
            wheel: TimerWheel::new(table.capacity(), grain),
            templates: Templates::new(table.capacity(), grain),
            mark_rules: Arc::default(),
            table,
            now,
            local_ports: LocalPorts::new(cells.clone(), owners.id()),
            correspondence,
            owners,
            arrival: Arrival::Received,
            more_frames: false,
            timeouts: TimeoutTable::new(&settings.timeouts, rate, grains),
            tcp_tables: TcpTables::NORMAL,
            until_drop: 0,
            upkeep: Upkeep::new(now),
            settings,
            rate,
            grains,
            grain,
            cells,
            pending: vec![Pending::UNUSUAL; BURST],
            out: PortId(0),
            run: Burst::new(),
            opened: Vec::with_capacity(BURST),
        }
    }

    /// Bytes of connections, templates and their timers.
    pub(crate) fn connection_bytes(&self) -> usize {
        self.table.bytes()
            + self.wheel.bytes()
            + self.templates.bytes()
            + self.correspondence.bytes()
    }

    /// From now on these settings hold. Returns what [`Forwarder::forget_hops`] does.
    #[must_use]
    pub(crate) fn set_settings(&mut self, settings: Arc<Settings>) -> bool {
        // What connections found out of their packets may hold no more.
        let unsettles = settings.timeouts != self.settings.timeouts
            || settings.defence.secure_tcp != self.settings.defence.secure_tcp;
        self.timeouts = TimeoutTable::new(&settings.timeouts, self.rate, self.grains);
        self.tcp_tables = if settings.defence.secure_tcp {
            TcpTables::SECURE
        } else {
            TcpTables::NORMAL
        };
        let rate = settings.defence.drop_rate;
        if rate != self.settings.defence.drop_rate && settings.policy.drop_packet == 2 {
            self.until_drop = rate;
        }
        self.forwarder.pmtu_disc = settings.pmtu_disc;
        self.settings = settings;
        unsettles && self.forwarder.forget_hops()
    }

    /// Sets the time that holds for what follows.
    pub(crate) fn set_now(&mut self, now: Ticks) {
        self.now = now;
        self.grain = self.grains.at(now);
        self.forwarder.now = now;
    }

    /// Walks a burst that came in on `port`.
    #[inline]
    pub(crate) fn walk(&mut self, port: PortId, burst: &mut Burst<P::Frame>) {
        let bytes = self.walk_burst(port, burst);
        self.cells.books.rx_bytes.add(bytes);
    }

    /// Returns the bytes of all frames. A function of its own, as its stages are: their loops need all registers.
    #[inline(never)]
    fn walk_burst(&mut self, port: PortId, burst: &mut Burst<P::Frame>) -> u64 {
        if self.services.is_empty() {
            return self.stand_aside(port, burst);
        }
        let mac = self.forwarder.lanes.mac(port);
        let mut pending = std::mem::take(&mut self.pending);
        let mut bytes = 0;
        for (frame, packet) in burst.iter().zip(&mut pending) {
            let frame = frame.bytes();
            bytes += frame.len() as u64;
            packet.kind = match usual(frame, mac) {
                Some(usual) => {
                    packet.hash = self.table.hash(usual.protocol(), usual.ends());
                    packet.bucket = self.table.prefetch(packet.hash);
                    if usual.is_plain() {
                        Kind::Plain
                    } else {
                        Kind::Usual
                    }
                }
                None => Kind::Unusual,
            };
        }
        let pieces = &mut pending[..burst.len()];
        for packet in &mut *pieces {
            if packet.kind > Kind::Unusual {
                packet.guess = self.table.guess(packet.hash, packet.bucket);
            }
        }
        let went = self.whole_way(burst, pieces);
        if went < burst.len() {
            self.mixed_ways(port, burst, pieces, went);
        }
        self.pending = pending;
        bytes
    }

    /// No service at all: everything is the kernel's (`SEMANTICS.md` section 1), but what is not fit to be passed on.
    #[cold]
    #[inline(never)]
    fn stand_aside(&mut self, port: PortId, burst: &mut Burst<P::Frame>) -> u64 {
        let mac = self.forwarder.lanes.mac(port);
        let mut total = 0;
        for frame in burst.drain(..) {
            let bytes = frame.bytes();
            total += bytes.len() as u64;
            match parse(bytes, mac) {
                Parsed::Drop(reason) => self.forwarder.lanes.discard(frame, reason),
                _ => self.forwarder.lanes.punt(port, frame),
            }
        }
        total
    }

    /// Everything that the short way did not take.
    #[inline(never)]
    fn long_way(&mut self, port: PortId, frame: P::Frame, packet: &Pending) {
        let usual = Usual::view(frame.bytes()).filter(|_| packet.kind > Kind::Unusual);
        let (flow, hash) = match usual {
            Some(usual) => (Flow::from(usual), packet.hash),
            None => {
                let mac = self.forwarder.lanes.mac(port);
                let flow = match parse(frame.bytes(), mac) {
                    Parsed::Flow(flow) => flow,
                    other => {
                        self.complete_openings(port);
                        return self.set_aside(port, frame, other);
                    }
                };
                let hash = self.table.hash(flow.protocol.number(), &flow.ends);
                (flow, hash)
            }
        };
        let mut found = self.table.lookup(hash, flow.protocol, &flow.ends);
        if found.is_some() && !self.opened.is_empty() {
            // Completing them may end the very connection found, or take its server's packets away from it.
            self.complete_openings(port);
            found = self.table.lookup(hash, flow.protocol, &flow.ends);
        }
        match found {
            Some(hit) => self.flow(port, frame, &flow, hit),
            None => self.open(port, frame, &flow, hash),
        }
    }

    /// A frame that is no whole TCP, UDP or SCTP packet.
    #[cold]
    #[inline(never)]
    fn set_aside(&mut self, port: PortId, frame: P::Frame, parsed: Parsed) {
        match parsed {
            Parsed::Drop(reason) => self.forwarder.lanes.discard(frame, reason),
            Parsed::Related(error) => self.relate(port, frame, &error),
            Parsed::Fragment { dst } if self.services.is_vip(dst) => {
                self.forwarder.lanes.discard(frame, DropReason::Fragment);
            }
            Parsed::Fragment { .. } | Parsed::Kernel | Parsed::Flow(_) => {
                self.forwarder.lanes.punt(port, frame);
            }
        }
    }

    /// Walks a burst that the kernel sent out of the exception interface of `port`. Replies of a real server that is
    /// this machine itself are translated; all else goes out as it is (contract 5 e).
    pub(crate) fn walk_from_kernel(&mut self, port: PortId, burst: &mut Burst<P::Frame>) {
        for frame in burst.drain(..) {
            let reply = match kernel_flow(frame.bytes()) {
                Some(flow) => {
                    let hit = self.table.find(flow.key());
                    if hit.is_none()
                        && let Some((to, errand)) = self.who_translates(port, &flow.key())
                    {
                        let kind = HandedAs::Method(Method::Nat);
                        self.hand_off(to, port, frame, errand, kind);
                        continue;
                    }
                    hit.filter(|hit| hit.direction == Direction::ToClient)
                        .map(|hit| (flow, hit))
                }
                None => None,
            };
            let reply = reply.map(|(flow, hit)| {
                self.seen(hit, &flow);
                (flow, Plan::new(self.table.of(hit), hit.direction))
            });
            let reply = reply.as_ref().map(|(flow, plan)| (flow, plan));
            self.forwarder.forward_from_kernel(port, frame, reply);
        }
    }

    /// A packet of a known connection. A client's may start a new one in its place, or have lost its real server (section 2,
    /// steps 4 and 5).
    fn flow(&mut self, port: PortId, frame: P::Frame, flow: &Flow, hit: Hit) {
        if hit.direction == Direction::ToServer {
            if flow.opens() && !self.keeps(hit) {
                return self.reopen(port, frame, flow, hit);
            }
            if !self.services.server_at(self.table.of(hit).rs).available {
                return self.orphan(port, frame, flow, hit);
            }
        }
        if self.table.of(hit).displaced {
            self.table.relink(hit);
        }
        self.pass(port, frame, flow, hit);
    }

    /// A packet of a known connection: statistics, state, timer, and on.
    fn pass(&mut self, port: PortId, mut frame: P::Frame, flow: &Flow, hit: Hit) {
        self.seen(hit, flow);
        match self.follow(&mut frame, flow, hit) {
            Some(sent) => self.forwarder.lanes.send(sent.port, frame),
            None => self.lead(port, frame, flow, hit),
        }
        let conn = self.table.of_mut(hit);
        if !Self::settled(conn, hit.direction, self.tcp_tables) {
            conn.hops[hit.direction as usize] = HopRef::NONE;
        }
    }

    /// Looks the way up, for later packets too.
    #[inline(never)]
    fn lead(&mut self, port: PortId, frame: P::Frame, flow: &Flow, hit: Hit) {
        let conn = self.table.of_mut(hit);
        self.forwarder
            .forward(port, frame, flow, conn, hit.direction);
        if hit.direction == Direction::ToServer {
            let way = conn.hops[hit.direction as usize];
            self.services.remember_hop(conn.rs, way);
        }
    }

    /// A client's packet whose real server was deleted (section 2, step 5).
    #[cold]
    #[inline(never)]
    fn orphan(&mut self, port: PortId, frame: P::Frame, flow: &Flow, hit: Hit) {
        if !self.settings.expire_nodest_conn {
            return self.forwarder.lanes.discard(frame, DropReason::ServerGone);
        }
        self.reopen(port, frame, flow, hit);
    }

    /// A new connection in the place of one that is over.
    #[cold]
    #[inline(never)]
    fn reopen(&mut self, port: PortId, frame: P::Frame, flow: &Flow, hit: Hit) {
        self.expire(hit.id, Ending::Forced);
        let hash = self.table.hash(flow.protocol.number(), &flow.ends);
        self.open(port, frame, flow, hash);
    }

    /// Whether a client's opening packet belongs to the connection found, and does not start a new one in its place
    /// (section 2, step 4).
    fn keeps(&self, hit: Hit) -> bool {
        let conn = self.table.of(hit);
        if self.settings.expire_nodest_conn && self.services.server_at(conn.rs).weight == 0 {
            return false;
        }
        let mode = self.settings.conn_reuse_mode;
        let finished =
            conn.state.is_over() || mode & 2 != 0 && conn.state == State::FinWait && conn.no_output;
        mode == 0 || !finished || conn.control != Control::Free
    }

    /// A packet of a known connection was seen: statistics, state, timer.
    fn seen(&mut self, hit: Hit, flow: &Flow) {
        let mut conn = self.table.of_mut(hit);
        let to_server = hit.direction == Direction::ToServer;
        let timeout = match flow.protocol {
            Protocol::Tcp => {
                let viewpoint = Viewpoint::new(to_server, conn.no_output);
                let state = conn.state.after(flow.tcp_flags, viewpoint, self.tcp_tables);
                if state != conn.state {
                    self.enter(hit, state);
                    conn = self.table.of_mut(hit);
                }
                self.timeouts.tcp(state)
            }
            Protocol::Sctp => {
                let timeout = self.sctp_seen(hit, flow);
                conn = self.table.of_mut(hit);
                timeout
            }
            Protocol::Udp => {
                if conn.control == Control::Tentative && !to_server {
                    conn.control = Control::Confirmed;
                    self.assure(hit.id);
                    conn = self.table.of_mut(hit);
                }
                self.timeouts.udp()
            }
        };
        if timeout != conn.timeout {
            self.retime(hit, timeout);
            conn = self.table.of_mut(hit);
        }
        conn.count_packet(hit.direction);
        if conn.no_output && !to_server {
            conn.no_output = false;
            // Another table holds for the client's packets from now on.
            conn.hops[Direction::ToServer as usize] = HopRef::NONE;
        }
        conn.seen = self.grain.short();
        let rs = conn.rs;
        self.count(rs, hit.direction, flow.total_len);
    }

    /// As for TCP, by the first chunk. Returns the timeout.
    #[cold]
    #[inline(never)]
    fn sctp_seen(&mut self, hit: Hit, flow: &Flow) -> u32 {
        let conn = self.table.of(hit);
        if flow.chunk == Chunk::Missing {
            return conn.timeout;
        }
        let viewpoint = Viewpoint::new(hit.direction == Direction::ToServer, conn.no_output);
        let state = conn.state.after_chunk(flow.chunk, viewpoint);
        if state != conn.state {
            self.enter(hit, state);
        }
        self.timeouts.sctp(state)
    }

    /// A TCP or SCTP connection is in another state from now on.
    #[inline(never)]
    fn enter(&mut self, hit: Hit, state: State) {
        let conn = self.table.of_mut(hit);
        let was_active = conn.state.is_active();
        conn.state = state;
        conn.hops = [HopRef::NONE; 2];
        if state.is_active() != was_active {
            self.services.set_active(conn.rs, !was_active);
        }
        if conn.control == Control::Tentative && state == State::Established {
            conn.control = Control::Confirmed;
            self.assure(hit.id);
        }
    }

    /// Another timeout holds from now on. Only an earlier deadline than the place's timer has needs one of its own
    /// (contract 6).
    #[inline(never)]
    fn retime(&mut self, hit: Hit, timeout: u32) {
        let conn = self.table.of_mut(hit);
        conn.timeout = timeout;
        let due = self.grain.0 + u64::from(timeout) + 1;
        let earlier = (due as u32).wrapping_sub(conn.filed) as i32;
        if !conn.armed || earlier < 0 {
            self.file(hit.id, Grain(due));
        }
    }

    fn count(&self, rs: u32, direction: Direction, bytes: u16) {
        let server = &self.cells.servers[rs as usize];
        server.traffic[direction as usize].count(bytes);
        // A deleted server's service may be gone too, and its place another's.
        if let Some(service) = self.cells.service_of(server) {
            service.traffic[direction as usize].count(bytes);
        }
    }

    /// Files a place's timer, and notes that it is the one that counts.
    fn file(&mut self, id: ConnId, due: Grain) {
        let table = &self.table;
        self.wheel
            .file_for_place(id, due, |timer| table.counts(timer));
        let (armed, filed) = self.table.timer_of(id);
        (*armed, *filed) = (true, due.short());
    }

    #[inline(never)]
    fn expire(&mut self, id: ConnId, ending: Ending) {
        let Some(conn) = self.table.remove(id) else {
            return;
        };
        self.services.unbind(conn.rs, conn.active());
        self.cells.connections.set(self.table.len() as u64);
        if conn.control != Control::Free {
            self.release(id, ending, conn.control == Control::Confirmed);
        }
    }

    /// Milliseconds until a connection expires.
    pub(crate) fn expires_ms(&self, conn: &Conn) -> u64 {
        self.grains.millis(conn.left(self.grain))
    }

    /// Milliseconds until a template expires.
    pub(crate) fn template_expires_ms(&self, template: &Template) -> u64 {
        self.grains.millis(template.left(self.grain))
    }
}

/// What the kernel sent, if it could be a reply of a connection. Its frames are addressed to others.
fn kernel_flow(frame: &[u8]) -> Option<Flow> {
    let (ethernet, _) = Ethernet::view(frame).ok()?;
    match parse(frame, ethernet.dst()) {
        Parsed::Flow(flow) => Some(flow),
        _ => None,
    }
}
