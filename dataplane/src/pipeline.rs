//! The straight walk over a burst (`SEMANTICS.md` section 2).
//!
//! Everything that is reached from here follows the rules of the packet path: no allocation for a packet of a known
//! connection, no lock, no system call, no log, no formatting, no shared atomic read-modify-write, no clock, no loop without
//! a bound. Three stages: parse and hash; look up; follow, change and send. A packet that stops
//! anywhere stops with one [`DropReason`].

use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::command::{PortId, Settings};
use crate::conn::local_ports::LocalPorts;
use crate::conn::state::{TcpState, TcpTables, TimeoutTable, Viewpoint};
use crate::conn::timer::{Timer, TimerWheel};
use crate::conn::{Conn, ConnFlags, ConnId, ConnTable, Direction, FlowKey, Hash, Hit};
use crate::drop_reason::DropReason;
use crate::forward::{Forwarder, Plan};
use crate::io::{BURST, Burst, Frame, Port};
use crate::packet::ethernet::Ethernet;
use crate::packet::icmp::Problem;
use crate::packet::tcp;
use crate::parse::{Flow, Parsed, parse};
use crate::service::{Method, Protocol, RealServerSpec, RsId, ServiceId, Services};
use crate::stats::WorkerCells;
use crate::time::{Span, TickRate, Ticks};

/// FTP's data port: connections from it are never scheduled (`SEMANTICS.md` section 2).
const FTP_DATA: u16 = 20;

/// Ports from here on are nobody's but the connections' on a FULLNAT local address.
const FIRST_LOCAL_PORT: u16 = 1024;

/// Timers handled in one turn of the worker, so that a wave of expiries does not hold packets up.
const EXPIRIES: usize = 256;

/// All that packets of one worker meet between receive and transmit.
pub(crate) struct Pipeline<P: Port> {
    pub(crate) forwarder: Forwarder<P>,
    pub(crate) services: Services,
    pub(crate) table: ConnTable,
    pub(crate) now: Ticks,
    wheel: TimerWheel,
    local_ports: LocalPorts,
    settings: Arc<Settings>,
    timeouts: TimeoutTable,
    rate: TickRate,
    cells: Arc<WorkerCells>,
}

/// What stage two found for a packet.
enum Found {
    Flow(Flow, Hash, Option<Hit>),
    Other(Parsed),
}

impl<P: Port> Pipeline<P> {
    pub(crate) fn new(
        forwarder: Forwarder<P>,
        table: ConnTable,
        rate: TickRate,
        now: Ticks,
        cells: Arc<WorkerCells>,
    ) -> Self {
        let settings = Arc::new(Settings::default());
        Self {
            forwarder,
            services: Services::new(cells.clone()),
            table,
            now,
            wheel: TimerWheel::new(rate, now),
            local_ports: LocalPorts::default(),
            timeouts: TimeoutTable::new(&settings.timeouts, rate),
            settings,
            rate,
            cells,
        }
    }

    /// From now on these settings hold.
    pub(crate) fn set_settings(&mut self, settings: Arc<Settings>) {
        self.timeouts = TimeoutTable::new(&settings.timeouts, self.rate);
        self.forwarder.pmtu_disc = settings.pmtu_disc;
        self.settings = settings;
    }

    /// Sets the time that holds for what follows.
    pub(crate) fn set_now(&mut self, now: Ticks) {
        self.now = now;
        self.forwarder.now = now;
    }

    /// Walks a burst that came in on `port`.
    pub(crate) fn walk(&mut self, port: PortId, burst: &mut Burst<P::Frame>) {
        let mac = self.forwarder.lanes.mac(port);
        let mut found: ArrayVec<Found, BURST> = ArrayVec::new();
        for frame in burst.iter() {
            frame.prefetch();
        }
        for frame in burst.iter() {
            found.push(match parse(frame.bytes(), mac) {
                Parsed::Flow(flow) => {
                    let hash = self.table.hash(flow.key);
                    self.table.prefetch(hash);
                    Found::Flow(flow, hash, None)
                }
                other => Found::Other(other),
            });
        }
        for found in &mut found {
            if let Found::Flow(flow, hash, hit) = found {
                *hit = self.table.lookup(*hash, flow.key);
            }
        }
        let removals = self.table.removals();
        for (frame, found) in burst.drain(..).zip(found) {
            match found {
                Found::Flow(flow, hash, hit) => {
                    let stale = self.table.removals() != removals;
                    let hit = if stale || hit.is_none() {
                        self.table.lookup(hash, flow.key)
                    } else {
                        hit
                    };
                    self.flow(port, frame, &flow, hit);
                }
                Found::Other(Parsed::Drop(reason)) => self.forwarder.lanes.discard(frame, reason),
                Found::Other(Parsed::Fragment { dst }) if self.services.is_vip(dst) => {
                    self.forwarder.lanes.discard(frame, DropReason::Fragment);
                }
                Found::Other(_) => self.forwarder.lanes.punt(port, frame),
            }
        }
    }

    /// Walks a burst that the kernel sent out of the exception interface of `port`. Replies of a real server that is
    /// this machine itself are translated; all else goes out as it is (contract 5 e).
    pub(crate) fn walk_from_kernel(&mut self, port: PortId, burst: &mut Burst<P::Frame>) {
        for frame in burst.drain(..) {
            let reply = match kernel_flow(frame.bytes()) {
                Some(flow) => self
                    .table
                    .lookup(self.table.hash(flow.key), flow.key)
                    .filter(|hit| hit.direction == Direction::ToClient)
                    .map(|hit| (flow, hit)),
                None => None,
            };
            let plan = reply.and_then(|(flow, hit)| Some((flow, self.seen(hit, &flow)?)));
            self.forwarder.forward_from_kernel(
                port,
                frame,
                plan.as_ref().map(|(flow, plan)| (flow, plan)),
            );
        }
    }

    fn flow(&mut self, port: PortId, frame: P::Frame, flow: &Flow, hit: Option<Hit>) {
        match hit {
            Some(hit) if hit.direction == Direction::ToClient || self.keeps(hit.id, flow) => {
                let gone = hit.direction == Direction::ToServer && self.server_gone(hit.id);
                if gone && !self.settings.expire_nodest_conn {
                    return self.forwarder.lanes.discard(frame, DropReason::ServerGone);
                }
                if gone {
                    self.expire(hit.id);
                    return self.open(port, frame, flow);
                }
                match self.seen(hit, flow) {
                    Some(plan) => self.forwarder.forward(port, frame, flow, &plan),
                    None => unreachable!("a hit's connection vanished within its own packet"),
                }
            }
            Some(hit) => {
                self.expire(hit.id);
                self.open(port, frame, flow);
            }
            None => self.open(port, frame, flow),
        }
    }

    /// Whether a client's packet belongs to the connection found, and does not start a new one in its place
    /// (section 2, step 4).
    fn keeps(&self, id: ConnId, flow: &Flow) -> bool {
        if flow.key.protocol != Protocol::Tcp || flow.tcp_flags & tcp::SYN == 0 {
            return true;
        }
        let Some(conn) = self.table.conn(id) else {
            return false;
        };
        let quiesced = self
            .services
            .server(conn.rs)
            .is_some_and(|server| server.weight == 0);
        if self.settings.expire_nodest_conn && quiesced {
            return false;
        }
        let mode = self.settings.conn_reuse_mode;
        let finished = matches!(conn.state, TcpState::TimeWait | TcpState::Close)
            || mode & 2 != 0 && conn.state == TcpState::FinWait && conn.flags.no_output;
        mode == 0 || !finished
    }

    fn server_gone(&self, id: ConnId) -> bool {
        let server = self
            .table
            .conn(id)
            .and_then(|conn| self.services.server(conn.rs));
        !server.is_some_and(|server| server.available)
    }

    /// A packet of a known connection was seen: statistics, state, timer. Returns what to do with it.
    fn seen(&mut self, hit: Hit, flow: &Flow) -> Option<Plan> {
        let conn = self.table.conn_mut(hit.id)?;
        let before = conn.deadline();
        let was_active = conn.flags.active;
        if hit.direction == Direction::ToClient {
            conn.flags.no_output = false;
        }
        conn.last_seen = self.now;
        conn.timeout = match conn.client.protocol {
            Protocol::Tcp => {
                let viewpoint = match hit.direction {
                    Direction::ToClient => Viewpoint::Server,
                    Direction::ToServer if conn.flags.no_output => Viewpoint::ClientOnly,
                    Direction::ToServer => Viewpoint::Client,
                };
                conn.state = conn
                    .state
                    .after(flow.tcp_flags, viewpoint, TcpTables::Normal);
                conn.flags.active = conn.state.is_active();
                self.timeouts.tcp(conn.state)
            }
            Protocol::Udp | Protocol::Sctp => self.timeouts.udp(),
        };
        let conn = *conn;
        if conn.deadline() < before {
            self.file(hit.id, conn.deadline());
        }
        if conn.flags.active != was_active {
            self.services.set_active(conn.rs, conn.flags.active);
        }
        self.count(
            conn.rs,
            conn.service,
            hit.direction,
            u64::from(flow.total_len),
        );
        Some(Plan::new(&conn, hit.direction))
    }

    fn count(&self, rs: RsId, service: ServiceId, direction: Direction, bytes: u64) {
        // A server that was revived in another service object counts there.
        let (current, service) = match self.services.server(rs) {
            Some(server) => (
                true,
                if server.available {
                    server.service
                } else {
                    service
                },
            ),
            None => (false, service),
        };
        let of_service = &self.cells.services[service.0 as usize];
        let of_server = &self.cells.servers[rs.index as usize];
        match direction {
            Direction::ToServer => {
                of_service.in_packets.add(1);
                of_service.in_bytes.add(bytes);
                if current {
                    of_server.in_packets.add(1);
                    of_server.in_bytes.add(bytes);
                }
            }
            Direction::ToClient => {
                of_service.out_packets.add(1);
                of_service.out_bytes.add(bytes);
                if current {
                    of_server.out_packets.add(1);
                    of_server.out_bytes.add(bytes);
                }
            }
        }
    }

    /// A packet of no connection: schedule it, or leave it to the kernel (section 2, steps 6 and 7).
    fn open(&mut self, port: PortId, frame: P::Frame, flow: &Flow) {
        let Some(service) = self.wanted(flow) else {
            let local =
                flow.key.dst_port >= FIRST_LOCAL_PORT && self.services.is_laddr(flow.key.dst);
            return if local {
                self.forwarder
                    .lanes
                    .discard(frame, DropReason::StrayLocalPort);
            } else {
                self.forwarder.lanes.punt(port, frame);
            };
        };
        let Some(server) = self.services.schedule(service, &flow.key) else {
            self.forwarder
                .send_error(port, &frame, Some(flow.key.dst), Problem::PortUnreachable);
            return self.forwarder.lanes.discard(frame, DropReason::NoServer);
        };
        match self.connect(service, &server, &flow.key) {
            Ok(hit) => {
                if let Some(plan) = self.seen(hit, flow) {
                    self.forwarder.forward(port, frame, flow, &plan);
                }
            }
            Err(reason) => self.forwarder.lanes.discard(frame, reason),
        }
    }

    /// The service that a packet may open a connection to.
    fn wanted(&self, flow: &Flow) -> Option<ServiceId> {
        let opens = match flow.key.protocol {
            Protocol::Tcp => {
                let (syn, rst) = (
                    flow.tcp_flags & tcp::SYN != 0,
                    flow.tcp_flags & tcp::RST != 0,
                );
                !rst && (syn || self.settings.sloppy_tcp)
            }
            Protocol::Udp | Protocol::Sctp => true,
        };
        if !opens || flow.key.src_port == FTP_DATA {
            return None;
        }
        self.services.lookup(&flow.key)
    }

    fn connect(
        &mut self,
        service: ServiceId,
        server: &RealServerSpec,
        client: &FlowKey,
    ) -> Result<Hit, DropReason> {
        let std::net::IpAddr::V4(addr) = server.addr else {
            unreachable!("control refuses IPv6 servers");
        };
        let port = if server.port == 0 {
            client.dst_port
        } else {
            server.port
        };
        let local = match (server.method, self.services.spec(service)) {
            (Method::FullNat, Some(spec)) => Some(self.local_ports.choose(
                &self.table,
                client.protocol,
                (addr, port),
                &spec.laddrs,
            )?),
            _ => None,
        };
        let conn = Conn {
            client: *client,
            server: (addr, port),
            local,
            method: server.method,
            state: TcpState::None,
            flags: ConnFlags {
                no_output: matches!(server.method, Method::Dr | Method::Tun),
                active: false,
            },
            rs: server.id,
            service,
            last_seen: self.now,
            timeout: Span(u64::MAX / 2),
        };
        let id = self.table.insert(conn).map_err(|_| DropReason::TableFull)?;
        self.services.bind(server.id);
        self.cells.servers[server.id.index as usize].conns.add(1);
        self.cells.services[service.0 as usize].conns.add(1);
        self.cells.connections.set(self.table.len() as u64);
        Ok(Hit {
            id,
            direction: Direction::ToServer,
        })
    }

    fn file(&mut self, id: ConnId, due: Ticks) {
        self.wheel.file(Timer {
            id,
            generation: self.table.generation(id),
            due,
        });
    }

    /// Ends connections whose time has come. Returns whether there were any timers to handle.
    pub(crate) fn expire_due(&mut self) -> bool {
        let mut busy = false;
        for _ in 0..EXPIRIES {
            let Some(timer) = self.wheel.pop(self.now) else {
                break;
            };
            busy = true;
            if timer.generation != self.table.generation(timer.id) {
                continue;
            }
            let Some(conn) = self.table.conn(timer.id) else {
                continue;
            };
            let deadline = conn.deadline();
            if deadline <= self.now {
                self.expire(timer.id);
            } else {
                self.file(timer.id, deadline);
            }
        }
        busy
    }

    fn expire(&mut self, id: ConnId) {
        if let Some(conn) = self.table.remove(id) {
            self.services.unbind(conn.rs, conn.flags.active);
            self.cells.connections.set(self.table.len() as u64);
        }
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
