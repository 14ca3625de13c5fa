//! One worker between two replaying ports, with established connections in one method.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rtrb::{Consumer, Producer, RingBuffer};
use sluice_dataplane::command::{
    Command, Envelope, Event, PortId, ServiceEdit, Settings, WorkerId,
};
use sluice_dataplane::egress::{Fib, Mac, Route};
use sluice_dataplane::packet::checksum::Sum;
use sluice_dataplane::service::{
    Method, Protocol, RealServerSpec, RsId, SchedulerFlags, SchedulerKind, ServiceId, ServiceKey,
    ServiceSpec,
};
use sluice_dataplane::stats::WorkerCells;
use sluice_dataplane::time::{TickRate, Ticks};
use sluice_dataplane::worker::{Worker, WorkerChannels, WorkerConfig, WorkerPort};

use crate::bench_port::BenchPort;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OUR_MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const SERVERS: u32 = 100;

/// A worker under load.
pub struct Rig {
    /// The worker.
    pub worker: Worker<BenchPort>,
    /// What it publishes.
    pub cells: Arc<WorkerCells>,
    commands: Producer<Envelope>,
    _events: Consumer<Event>,
    revision: u64,
    now: Ticks,
}

/// `count` ACKs of distinct flows to the service, in an order that no prefetcher foresees.
pub fn client_frames(count: usize) -> Arc<[[u8; 64]]> {
    let mut order: Vec<u32> = (0..count as u32).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for at in (1..order.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        order.swap(at, (state >> 33) as usize % (at + 1));
    }
    order.into_iter().map(ack).collect()
}

fn ack(flow: u32) -> [u8; 64] {
    let mut frame = [0; 64];
    frame[..6].copy_from_slice(&OUR_MAC.0);
    frame[6..14].copy_from_slice(&[2, 0, 0, 0, 0xfe, 1, 8, 0]);
    frame[14..34].copy_from_slice(&[
        0x45, 0, 0, 50, 0, 1, 0x40, 0, 64, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ]);
    frame[26..30].copy_from_slice(&(0x0b00_0000 + flow / 50_000).to_be_bytes());
    frame[30..34].copy_from_slice(&VIP.octets());
    let sum = Sum::default().bytes(&frame[14..34]).checksum();
    frame[24..26].copy_from_slice(&sum.to_be_bytes());
    frame[34..36].copy_from_slice(&((1024 + flow % 50_000) as u16).to_be_bytes());
    frame[36..38].copy_from_slice(&80u16.to_be_bytes());
    frame[46] = 0x50;
    frame[47] = 0x10;
    frame
}

impl Rig {
    /// A worker with `flows` connections of one method, all made by their first packets.
    pub fn new(method: Method, flows: usize) -> Self {
        let cells = Arc::new(WorkerCells::new(4, 256));
        let (commands, queue) = RingBuffer::new(1024);
        let (event_queue, events) = RingBuffer::new(1024);
        let frames = client_frames(flows);
        let ports = (0..2)
            .map(|n| WorkerPort {
                id: PortId(n),
                port: BenchPort::new(frames.clone()),
                punt: None,
            })
            .collect();
        let channels = WorkerChannels {
            commands: queue,
            events: event_queue,
            cells: cells.clone(),
        };
        let config = WorkerConfig {
            id: WorkerId(0),
            rate: TickRate::NANOSECONDS,
            max_connections: flows.max(1000),
            max_held: 16,
            seed: 7,
        };
        let now = Ticks(1_000_000_000);
        let worker = Worker::new(config, ports, channels, now);
        let mut rig = Self {
            worker,
            cells,
            commands,
            _events: events,
            revision: 0,
            now,
        };
        rig.configure(method);
        rig.run(flows);
        rig
    }

    fn configure(&mut self, method: Method) {
        self.command(Command::Settings(Arc::new(Settings {
            sloppy_tcp: true,
            ..Settings::default()
        })));
        for port in [PortId(0), PortId(1)] {
            self.command(Command::PortState {
                port,
                mac: OUR_MAC,
                mtu: 1500,
            });
        }
        let mut fib = Fib::default();
        let via = Route::Via {
            port: PortId(0),
            gateway: None,
            source: Ipv4Addr::new(192, 168, 1, 254),
            mtu: None,
        };
        fib.insert(ipnet::Ipv4Net::default(), via);
        self.command(Command::Fib(Arc::new(fib)));
        let mut service = ServiceSpec {
            id: ServiceId(0),
            key: ServiceKey::Address {
                protocol: Protocol::Tcp,
                addr: IpAddr::V4(VIP),
                port: 80,
            },
            scheduler: SchedulerKind::Rr,
            scheduler_flags: SchedulerFlags::default(),
            scheduler_table: None,
            vip_local: true,
            real_servers: Vec::new(),
            laddrs: (0..32).map(|n| Ipv4Addr::new(192, 168, 2, n)).collect(),
        };
        for n in 0..SERVERS {
            let addr = Ipv4Addr::new(192, 168, 1, n as u8);
            self.command(Command::Neighbour {
                port: PortId(0),
                addr,
                mac: Some(Mac([2, 1, 0, 0, 0, n as u8])),
            });
            let id = RsId {
                index: n,
                generation: 0,
            };
            service.real_servers.insert(
                0,
                RealServerSpec {
                    id,
                    addr: IpAddr::V4(addr),
                    port: 80,
                    method,
                    weight: 1,
                    last_weight: 1,
                    upper_threshold: 0,
                    lower_threshold: 0,
                },
            );
            let edit = ServiceEdit::ServerAdded { id, revived: false };
            self.command(Command::PutService {
                service: Arc::new(service.clone()),
                edit,
            });
        }
    }

    fn command(&mut self, command: Command) {
        self.revision += 1;
        let _ = self.commands.push(Envelope {
            revision: self.revision,
            more: false,
            command,
        });
        self.worker.poll(self.now);
    }

    /// Walks so many packets.
    pub fn run(&mut self, packets: usize) {
        if let Some(port) = self.worker.port_mut(PortId(0)) {
            port.port.left = packets;
        }
        while self.worker.poll(self.now) {
            self.now = Ticks(self.now.0 + 1000);
        }
    }
}
