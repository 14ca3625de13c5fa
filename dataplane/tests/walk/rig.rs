//! An appliance in memory: one worker, a client side and a server side, and hands to play both.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use etherparse::{PacketBuilder, SlicedPacket, TcpHeader};
use rtrb::{Consumer, Producer, RingBuffer};
use sluice_dataplane::command::{
    Census, Command, ConnFilter, ConnRow, ConnSlice, Envelope, Event, PortId, ServiceEdit,
    Settings, WorkerId,
};
use sluice_dataplane::conn::state::StateName;
use sluice_dataplane::drop_reason::DropReason;
use sluice_dataplane::egress::{Fib, Mac, Route};
use sluice_dataplane::io::Frame;
use sluice_dataplane::punt::{self, KernelPunt};
use sluice_dataplane::service::{
    ClientMask, Method, Persistence, Protocol, RealServerSpec, RsId, SchedulerKind, ServiceId,
    ServiceKey, ServiceSpec, Tunnel,
};
use sluice_dataplane::stats::WorkerCells;
use sluice_dataplane::steer::ring::Peers;
use sluice_dataplane::time::{TickRate, Ticks};
use sluice_dataplane::worker::{Worker, WorkerChannels, WorkerConfig, WorkerPort};

use crate::port::{TestFrame, TestPort};

pub(crate) const CLIENT_SIDE: PortId = PortId(0);
pub(crate) const SERVER_SIDE: PortId = PortId(1);
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub(crate) const LADDR: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 253);
const RATE: TickRate = TickRate::NANOSECONDS;

pub(crate) struct Rig {
    pub(crate) worker: Worker<TestPort>,
    pub(crate) kernel: Vec<KernelPunt<TestFrame>>,
    pub(crate) cells: Arc<WorkerCells>,
    pub(crate) now: Ticks,
    pub(crate) service: ServiceSpec,
    commands: Producer<Envelope>,
    events: Consumer<Event>,
    revision: u64,
}

/// Our MAC on a port.
pub(crate) fn mac(port: PortId) -> Mac {
    Mac([2, 0, 0, 0, 0, port.0 as u8 + 1])
}

/// The MAC of a neighbour.
pub(crate) fn mac_of(addr: Ipv4Addr) -> Mac {
    let [a, b, c, d] = addr.octets();
    Mac([2, 1, a, b, c, d])
}

pub(crate) fn server(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, number)
}

impl Rig {
    /// A TCP or UDP service at `VIP:80`, scheduled by rr, with no servers.
    pub(crate) fn new(protocol: Protocol) -> Self {
        Self::beside_others(protocol, Peers::none(), None)
    }

    /// One of several workers.
    pub(crate) fn beside_others(
        protocol: Protocol,
        peers: Peers<TestFrame>,
        sent_by: Option<WorkerId>,
    ) -> Self {
        Self::sized(protocol, peers, sent_by, 256)
    }

    /// With room for so many connections.
    pub(crate) fn sized(
        protocol: Protocol,
        peers: Peers<TestFrame>,
        sent_by: Option<WorkerId>,
        max_connections: usize,
    ) -> Self {
        let cells = Arc::new(WorkerCells::new(8, 32));
        let (commands, command_queue) = RingBuffer::new(256);
        let (event_queue, events) = RingBuffer::new(256);
        let (mut ports, mut kernel) = (Vec::new(), Vec::new());
        for id in [CLIENT_SIDE, SERVER_SIDE] {
            let (worker_end, kernel_end) = punt::rings(64);
            ports.push(WorkerPort {
                id,
                port: TestPort::sent_by(sent_by),
                punt: Some(worker_end),
            });
            kernel.push(kernel_end);
        }
        let channels = WorkerChannels {
            commands: command_queue,
            events: event_queue,
            cells: cells.clone(),
        };
        let config = WorkerConfig {
            id: peers.id(),
            rate: RATE,
            max_connections,
            max_held: 16,
            seed: 7,
        };
        let now = Ticks(1_000_000);
        let key = ServiceKey::Address {
            protocol,
            addr: IpAddr::V4(VIP),
            port: 80,
        };
        let service = ServiceSpec {
            scheduler: SchedulerKind::Rr,
            ..ServiceSpec::new(ServiceId(0), key)
        };
        let mut rig = Self {
            worker: Worker::new(config, ports, channels, peers, now),
            kernel,
            cells,
            now,
            service,
            commands,
            events,
            revision: 0,
        };
        for port in [CLIENT_SIDE, SERVER_SIDE] {
            rig.command(Command::PortState {
                port,
                mac: mac(port),
                mtu: 1500,
            });
        }
        rig.command(Command::Fib(Arc::new(fib())));
        for addr in (1..=8).map(server) {
            rig.neighbour(SERVER_SIDE, addr, Some(mac_of(addr)));
        }
        let router = Ipv4Addr::new(10, 0, 0, 253);
        rig.neighbour(CLIENT_SIDE, router, Some(mac_of(router)));
        rig.put(ServiceEdit::Created);
        rig
    }

    pub(crate) fn command(&mut self, command: Command) {
        self.revision += 1;
        let envelope = Envelope {
            revision: self.revision,
            more: false,
            command,
        };
        self.commands.push(envelope).expect("the queue has room");
        self.worker.poll(self.now);
        assert_eq!(self.cells.applied(), self.revision);
    }

    pub(crate) fn neighbour(&mut self, port: PortId, addr: Ipv4Addr, mac: Option<Mac>) {
        self.command(Command::Neighbour { port, addr, mac });
    }

    pub(crate) fn put(&mut self, edit: ServiceEdit) {
        let service = Arc::new(self.service.clone());
        self.command(Command::PutService { service, edit });
    }

    pub(crate) fn add_server(&mut self, number: u8, port: u16, method: Method) -> RsId {
        let id = RsId {
            index: u32::from(number),
            generation: 0,
        };
        self.service.real_servers.insert(
            0,
            RealServerSpec {
                id,
                addr: IpAddr::V4(server(number)),
                port,
                method,
                tunnel: Tunnel::Ipip,
                weight: 1,
                last_weight: 1,
                upper_threshold: 0,
                lower_threshold: 0,
            },
        );
        self.put(ServiceEdit::ServerAdded { id, revived: false });
        id
    }

    /// Another service beside, of one NAT or DR server.
    pub(crate) fn beside(
        &mut self,
        id: u32,
        key: ServiceKey,
        number: u8,
        port: u16,
        method: Method,
    ) {
        let mut service = ServiceSpec {
            scheduler: SchedulerKind::Rr,
            ..ServiceSpec::new(ServiceId(id), key)
        };
        std::mem::swap(&mut self.service, &mut service);
        self.put(ServiceEdit::Created);
        self.add_server(number, port, method);
        std::mem::swap(&mut self.service, &mut service);
    }

    pub(crate) fn settings(&mut self, change: impl FnOnce(&mut Settings)) {
        let mut settings = Settings::default();
        change(&mut settings);
        self.command(Command::Settings(Arc::new(settings)));
    }

    pub(crate) fn persist(&mut self, timeout_s: u32, mask: [u8; 4]) {
        self.service.persistence = Some(Persistence {
            timeout_s,
            mask: ClientMask::V4(mask.into()),
        });
        self.put(ServiceEdit::Edited);
    }

    /// The server's number that a client's SYN goes to, if any.
    pub(crate) fn syn(&mut self, from: (Ipv4Addr, u16), to: (Ipv4Addr, u16)) -> Option<u8> {
        let out = self.packet(CLIENT_SIDE, &tcp(from, to, "S", b""));
        number_of(&out)
    }

    /// Templates as listed: client, virtual port, server's number and port, state, seconds left.
    pub(crate) fn templates(&mut self) -> Vec<(Ipv4Addr, u16, u8, u16, StateName, u64)> {
        let mut rows = self.connections();
        rows.retain(|row| row.template);
        rows.sort_by_key(|row| (row.client, row.virtual_addr));
        let shown = rows.iter().map(|row| {
            let (server, port) = row.server;
            let vport = row.virtual_addr.1;
            let number = server.octets()[3];
            let left = row.expires_ms / 1000;
            (row.client.0, vport, number, port, row.state, left)
        });
        shown.collect()
    }

    pub(crate) fn delete_server(&mut self, id: RsId) {
        self.service.real_servers.retain(|server| server.id != id);
        self.put(ServiceEdit::ServerDeleted(id));
    }

    pub(crate) fn set_weight(&mut self, id: RsId, weight: u32) {
        self.service
            .real_servers
            .iter_mut()
            .filter(|s| s.id == id)
            .for_each(|s| s.weight = weight);
        self.put(ServiceEdit::ServerEdited(id));
    }

    pub(crate) fn set_tunnel(&mut self, id: RsId, tunnel: Tunnel) {
        self.service
            .real_servers
            .iter_mut()
            .filter(|s| s.id == id)
            .for_each(|s| s.tunnel = tunnel);
        self.put(ServiceEdit::ServerEdited(id));
    }

    pub(crate) fn set_laddrs(&mut self, laddrs: &[Ipv4Addr]) {
        self.service.laddrs = laddrs.to_vec();
        self.put(ServiceEdit::Edited);
    }

    /// Puts an IP packet on a port's wire and returns what comes out of either, oldest first.
    pub(crate) fn packet(&mut self, side: PortId, packet: &[u8]) -> Vec<Sent> {
        self.frame(side, &ethernet(mac(side), packet))
    }

    pub(crate) fn frame(&mut self, side: PortId, frame: &[u8]) -> Vec<Sent> {
        self.worker.port_mut(side).unwrap().port.deliver(frame);
        self.poll();
        self.sent()
    }

    pub(crate) fn poll(&mut self) {
        self.turn(|worker, now| {
            worker.poll(now);
        });
        assert!(self.cells.books.balance(), "{:?}", self.cells.books);
    }

    /// A turn of the worker, in which nothing may be allocated: only commands may.
    pub(crate) fn turn(&mut self, turn: impl FnOnce(&mut Worker<TestPort>, Ticks)) {
        let allocated = allocation_counter::measure(|| turn(&mut self.worker, self.now));
        assert_eq!(allocated.count_total, 0, "{allocated:?}");
    }

    pub(crate) fn sent(&mut self) -> Vec<Sent> {
        let mut sent = Vec::new();
        for side in [CLIENT_SIDE, SERVER_SIDE] {
            let port = &mut self.worker.port_mut(side).unwrap().port;
            sent.extend(
                port.outgoing
                    .drain(..)
                    .map(|frame| Sent::new(side, frame.bytes())),
            );
        }
        sent
    }

    /// What the kernel got on this side.
    pub(crate) fn punted(&mut self, side: PortId) -> Vec<Vec<u8>> {
        let ring = &mut self.kernel[usize::from(side.0)].from_worker;
        std::iter::from_fn(|| ring.pop().ok())
            .map(|frame| frame.bytes().to_vec())
            .collect()
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.events.pop().ok()).collect()
    }

    pub(crate) fn drops(&self, reason: DropReason) -> u64 {
        self.cells.books.drops[reason as usize].read()
    }

    /// Lets time pass, in steps that a worker would poll in.
    pub(crate) fn sleep(&mut self, ms: u32) {
        for _ in 0..ms.div_ceil(100) {
            self.now = self.now + RATE.millis(100);
            self.poll();
        }
    }

    /// All connections, listed in slices of two.
    pub(crate) fn connections(&mut self) -> Vec<ConnRow> {
        let (mut rows, mut cursor) = (Vec::new(), Some(0));
        while let Some(at) = cursor {
            let slice = ConnSlice {
                query: 1,
                cursor: Some(at),
                filter: ConnFilter::default(),
                rows: Vec::with_capacity(2),
            };
            self.command(Command::ListConnections(Box::new(slice)));
            let slice = self.answer(|event| match event {
                Event::Connections(slice) => Some(slice),
                _ => None,
            });
            rows.extend(slice.rows);
            cursor = slice.cursor;
        }
        rows
    }

    /// What this worker has left of so many classes that may have moved.
    pub(crate) fn census(&mut self, classes: usize) -> Box<Census> {
        self.command(Command::CountMoved(Box::new(Census::new(1, classes))));
        self.answer(|event| match event {
            Event::Counted(census) => Some(census),
            _ => None,
        })
    }

    /// Turns the worker until it has answered.
    fn answer<T>(&mut self, wanted: impl Fn(Event) -> Option<T>) -> T {
        loop {
            if let Some(answer) = self.events().into_iter().find_map(&wanted) {
                return answer;
            }
            self.poll();
        }
    }
}

/// The server's number that the only packet sent goes to.
pub(crate) fn number_of(sent: &[Sent]) -> Option<u8> {
    let [sent] = sent else { return None };
    (sent.side == SERVER_SIDE).then_some(sent.to.0[5])
}

pub(crate) fn address(protocol: Protocol, port: u16) -> ServiceKey {
    ServiceKey::Address {
        protocol,
        addr: IpAddr::V4(VIP),
        port,
    }
}

pub(crate) fn fib() -> Fib {
    let mut fib = Fib::default();
    let via = |port, gateway: Option<Ipv4Addr>, source| Route::Via {
        port,
        gateway,
        source,
        mtu: None,
    };
    let router = Some(Ipv4Addr::new(10, 0, 0, 253));
    fib.insert(
        "0.0.0.0/0".parse().unwrap(),
        via(CLIENT_SIDE, router, Ipv4Addr::new(10, 0, 0, 254)),
    );
    fib.insert(
        "192.168.1.0/24".parse().unwrap(),
        via(SERVER_SIDE, None, Ipv4Addr::new(192, 168, 1, 254)),
    );
    fib.insert("10.0.0.1/32".parse().unwrap(), Route::Local);
    fib
}

pub(crate) fn ethernet(dst: Mac, packet: &[u8]) -> Vec<u8> {
    let mut frame = dst.0.to_vec();
    frame.extend([2, 0, 0, 0, 0xfe, 1, 8, 0]);
    frame.extend(packet);
    frame
}

/// A frame that came out.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) side: PortId,
    pub(crate) to: Mac,
    pub(crate) from: Mac,
    pub(crate) packet: Vec<u8>,
}

impl Sent {
    fn new(side: PortId, frame: &[u8]) -> Self {
        let addr = |at: usize| Mac(frame[at..at + 6].try_into().unwrap());
        assert_eq!(frame[12..14], [8, 0]);
        Self {
            side,
            to: addr(0),
            from: addr(6),
            packet: frame[14..].to_vec(),
        }
    }

    /// Source and destination address and port, after checking every checksum with another implementation.
    pub(crate) fn flow(&self) -> ((Ipv4Addr, u16), (Ipv4Addr, u16)) {
        flow(&self.packet)
    }

    pub(crate) fn ttl(&self) -> u8 {
        self.packet[8]
    }
}

pub(crate) fn flow(packet: &[u8]) -> ((Ipv4Addr, u16), (Ipv4Addr, u16)) {
    let sliced = SlicedPacket::from_ip(packet).unwrap();
    let Some(etherparse::NetSlice::Ipv4(ip)) = sliced.net else {
        panic!("not IPv4")
    };
    let ip = ip.header().to_header();
    assert_eq!(ip.header_checksum, ip.calc_header_checksum());
    let ports = match sliced.transport.unwrap() {
        etherparse::TransportSlice::Tcp(tcp) => {
            let header: TcpHeader = tcp.to_header();
            assert_eq!(
                header.checksum,
                header.calc_checksum_ipv4(&ip, tcp.payload()).unwrap()
            );
            (header.source_port, header.destination_port)
        }
        etherparse::TransportSlice::Udp(udp) => {
            let header = udp.to_header();
            assert_eq!(
                header.checksum,
                header.calc_checksum_ipv4(&ip, udp.payload()).unwrap()
            );
            (header.source_port, header.destination_port)
        }
        other => panic!("{other:?}"),
    };
    (
        (ip.source.into(), ports.0),
        (ip.destination.into(), ports.1),
    )
}

/// A TCP packet; `flags` as letters of `SAFR`.
pub(crate) fn tcp(
    from: (Ipv4Addr, u16),
    to: (Ipv4Addr, u16),
    flags: &str,
    payload: &[u8],
) -> Vec<u8> {
    let mut builder =
        PacketBuilder::ipv4(from.0.octets(), to.0.octets(), 64).tcp(from.1, to.1, 1000, 8000);
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'A' => builder.ack(1),
            'F' => builder.fin(),
            'R' => builder.rst(),
            other => panic!("no flag {other}"),
        };
    }
    let mut packet = Vec::new();
    builder.write(&mut packet, payload).unwrap();
    packet
}

pub(crate) fn udp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ipv4(from.0.octets(), to.0.octets(), 64).udp(from.1, to.1);
    builder.write(&mut packet, payload).unwrap();
    packet
}

/// Sets flags of the IP header (`0x4000` don't fragment) and its TTL, with a right checksum.
pub(crate) fn with_header(mut packet: Vec<u8>, flags: u16, ttl: u8) -> Vec<u8> {
    packet[6..8].copy_from_slice(&flags.to_be_bytes());
    packet[8] = ttl;
    packet[10..12].fill(0);
    let mut sum: u32 = packet[..20]
        .chunks(2)
        .map(|w| u32::from(u16::from_be_bytes([w[0], w[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    packet[10..12].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet
}
