//! The appliance that a trace is replayed through: ipvsadm's front end, the control plane, one worker, two ports in
//! memory, and a clock that only the caller moves.
//!
//! Everything is the real thing but the wires, the kernel behind the exception interfaces ([`crate::kernel`]) and the
//! threads: one hand turns the worker, control and kernel in turn.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use serde_json::{Value, json};
use sluice_control::api::MarkRule;
use sluice_control::api::PortStats;
use sluice_control::client::{Rpc, RpcError};
use sluice_control::config::Limits;
use sluice_control::controller::{Controller, Setup, Statics, WorkerInfo};
use sluice_control::ipvsadm::{self, LocalNames, ProcFile};
use sluice_control::publish;
use sluice_dataplane::command::{PortId, WorkerId};
use sluice_dataplane::drop_reason::DropReason;
use sluice_dataplane::egress::Route;
use sluice_dataplane::io::Frame;
use sluice_dataplane::io::memory::{MemoryFrame, MemoryPort};
use sluice_dataplane::punt::{self, KernelPunt};
use sluice_dataplane::stats::WorkerCells;
use sluice_dataplane::steer::ring::Peers;
use sluice_dataplane::time::{Span, TickRate, Ticks};
use sluice_dataplane::worker::{Worker, WorkerConfig, WorkerPort};

use crate::compare::text::Output;
use crate::director::Director;
use crate::kernel;
use crate::replay::Stage;
use crate::sysctl;
use crate::trace::{Emitted, Header, Side};
use crate::wire;

/// Time moves in steps of about so much, so that timers fire when they are due.
const SLICE: Duration = Duration::from_millis(10);
/// A long sleep takes that many steps at most.
const MAX_SLICES: u32 = 10_000;
/// When the worker's time begins.
const START: Ticks = Ticks(1_000_000_000);
/// Turns after which a packet counts as still going round.
const MAX_TURNS: usize = 10_000;
/// Frames that fit an exception interface.
const PUNTED: usize = 256;
/// Connections that the worker's table can hold.
const MAX_CONNECTIONS: usize = 32_768;
const LIMITS: Limits = Limits {
    max_services: 1024,
    max_real_servers: 8192,
};
/// Addresses of a local prefix that services can have.
const MAX_LOCAL: usize = 65_536;
const SIDES: [Side; 2] = [Side::Client, Side::Server];

/// One appliance.
pub struct Rig {
    director: Director,
    controller: Controller,
    worker: Worker<MemoryPort>,
    kernel: [KernelPunt<MemoryFrame>; 2],
    cells: Arc<WorkerCells>,
    now: Ticks,
    emitted: Vec<Emitted>,
    misshapen: Option<String>,
}

impl Rig {
    /// The appliance that a trace's header describes. `Err` names what sluice has no setting for.
    pub fn new(header: &Header) -> Result<Self, String> {
        let director = Director::new(header);
        let cells = Arc::new(LIMITS.cells());
        let (link, channels) = publish::link(Arc::clone(&cells));
        let info = WorkerInfo {
            core: 0,
            max_connections: MAX_CONNECTIONS,
        };
        let ports = SIDES.map(|side| PortStats {
            name: interface(side).to_owned(),
            mtu: director.mtu(side),
            ..PortStats::default()
        });
        let controller = Controller::new(Setup {
            limits: LIMITS,
            workers: vec![(info, link)],
            ports: Box::new(move || ports.to_vec()),
            dpdk: "none".to_owned(),
            statics: statics(&director),
        });
        let config = WorkerConfig {
            id: WorkerId(0),
            rate: TickRate::NANOSECONDS,
            max_connections: MAX_CONNECTIONS,
            max_held: 64,
            seed: 0x5eed,
        };
        let (ports, kernel): (Vec<_>, Vec<_>) = SIDES.map(wire).into_iter().unzip();
        let mut kernel = kernel.into_iter();
        let (Some(client), Some(server)) = (kernel.next(), kernel.next()) else {
            unreachable!("each of the two sides has its kernel's end");
        };
        let mut rig = Self {
            director,
            controller,
            worker: Worker::new(config, ports, channels, Peers::none(), START),
            kernel: [client, server],
            cells,
            now: START,
            emitted: Vec::new(),
            misshapen: None,
        };
        for side in SIDES {
            let (mac, mtu) = (rig.director.mac(side), rig.director.mtu(side));
            rig.controller.port_state(port(side), mac, mtu);
        }
        let mut settings = rig.controller.settings().clone();
        sysctl::apply(&header.sysctl, &mut settings)?;
        rig.controller.set_settings(settings);
        for prefix in &header.fwmark {
            // Of packets that sluice has no place for yet, no rule is needed.
            if let IpNet::V4(destination) = prefix.dst {
                let rule = MarkRule {
                    destination: Some(destination),
                    ..MarkRule::of(prefix.mark)
                };
                rig.call("mark_rule_add", json!({"rule": rule}))
                    .map_err(|error| error.to_string())?;
            }
        }
        rig.settle()?;
        Ok(rig)
    }

    /// Turns everything until nothing moves.
    fn run_down(&mut self) {
        for _ in 0..MAX_TURNS {
            if !self.turn() {
                return;
            }
        }
    }

    /// One turn of the worker, control and the kernel. Whether anything moved.
    fn turn(&mut self) -> bool {
        let mut busy = self.worker.poll(self.now);
        self.controller.progress();
        for side in SIDES {
            busy |= self.collect(side);
            busy |= self.play_kernel(side);
        }
        busy
    }

    /// Takes what a port has sent.
    fn collect(&mut self, side: Side) -> bool {
        let mut any = false;
        while let Some(frame) = self
            .worker
            .port_mut(port(side))
            .and_then(|port| port.port.outgoing.pop_front())
        {
            any = true;
            match wire::emission(&self.director, side, frame.bytes()) {
                Ok(emitted) => self.emitted.push(emitted),
                Err(what) => self.misshapen = Some(what),
            }
        }
        any
    }

    /// The kernel takes what it was handed, and sends what it answers.
    fn play_kernel(&mut self, side: Side) -> bool {
        let mut any = false;
        while let Ok(frame) = self.kernel[side as usize].from_worker.pop() {
            any = true;
            let Some(sent) = kernel::receive(&self.director, side, frame.bytes()) else {
                continue;
            };
            let answer = MemoryFrame::new(&sent.frame);
            if self.kernel[sent.side as usize]
                .to_worker
                .push(answer)
                .is_err()
            {
                self.misshapen = Some("the worker leaves frames from the kernel lying".to_owned());
            }
        }
        any
    }

    /// Waits until the worker has applied all that control said.
    fn settle(&mut self) -> Result<(), String> {
        let Self {
            controller,
            worker,
            now,
            ..
        } = self;
        let turn = &mut || {
            worker.poll(*now);
        };
        controller
            .settle(controller.revision(), turn)
            .map_err(|error| error.to_string())
    }
}

impl Stage for Rig {
    fn director(&self) -> &Director {
        &self.director
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos((self.now - START).0)
    }

    fn advance(&mut self, by: Duration) {
        let step = SLICE.max(by / MAX_SLICES);
        let mut left = by;
        while !left.is_zero() {
            let slice = left.min(step);
            left -= slice;
            self.now = self.now + Span(slice.as_nanos() as u64);
            self.turn();
            self.controller.tick(self.elapsed());
        }
    }

    fn deliver(&mut self, side: Side, l3: &[u8], _expected: usize) {
        let frame = wire::frame(&self.director, side, l3);
        if let Some(port) = self.worker.port_mut(port(side)) {
            port.port.deliver(&frame);
        }
        self.run_down();
    }

    fn ipvsadm(&mut self, args: &str, stdin: &str) -> Output {
        let args: Vec<_> = args.split_whitespace().map(str::to_owned).collect();
        let outcome = ipvsadm::run_with_names(&args, &mut stdin.as_bytes(), self, &LocalNames);
        self.run_down();
        Output {
            rc: outcome.rc,
            out: outcome.out,
            err: outcome.err,
        }
    }

    fn proc(&mut self, path: &str) -> Result<String, String> {
        let file = ProcFile::of_path(path).ok_or_else(|| format!("sluice has no {path}"))?;
        let outcome = ipvsadm::proc(file, self);
        match outcome.rc {
            0 => Ok(outcome.out),
            _ => Err(outcome.err),
        }
    }

    fn take_emitted(&mut self) -> Result<Vec<Emitted>, String> {
        let emitted = std::mem::take(&mut self.emitted);
        match self.misshapen.take() {
            Some(what) => Err(what),
            None => Ok(emitted),
        }
    }

    fn books(&mut self) -> Vec<(&'static str, u64)> {
        let books = &self.cells.books;
        let mut entries = vec![
            ("received", books.rx.read()),
            ("from the kernel", books.from_kernel.read()),
            ("generated", books.generated.read()),
            ("further fragments", books.extra_fragments.read()),
            ("sent", books.tx.read()),
            ("to the kernel", books.punted.read()),
            ("merged", books.merged.read()),
            ("waiting for a next hop", books.held.read()),
        ];
        let drops = DropReason::ALL.iter().zip(&books.drops);
        entries.extend(drops.map(|(reason, count)| (reason.name(), count.read())));
        entries
    }
}

impl Rpc for Rig {
    fn call(&mut self, method: &str, params: Value) -> Result<Value, RpcError> {
        let params = if params.is_null() { json!({}) } else { params };
        let Self {
            controller,
            worker,
            now,
            ..
        } = self;
        let turn = &mut || {
            worker.poll(*now);
        };
        controller
            .call(method, params, turn)
            .map_err(|error| RpcError::Refused {
                code: error.kind().code(),
                message: error.message,
                data: Some(error.data),
            })
    }
}

/// What the recorded director calls its interface on that side.
fn interface(side: Side) -> &'static str {
    match side {
        Side::Client => "cl0",
        Side::Server => "sv0",
    }
}

fn port(side: Side) -> PortId {
    PortId(side as u16)
}

/// A side's port, and its kernel's end.
fn wire(side: Side) -> (WorkerPort<MemoryPort>, KernelPunt<MemoryFrame>) {
    let (punt, kernel) = punt::rings(PUNTED);
    let port = WorkerPort {
        id: port(side),
        port: MemoryPort::default(),
        punt: Some(punt),
    };
    (port, kernel)
}

/// The director's addresses, routes and neighbours, as a boot file would give them. Only IPv4: sluice has no place for
/// others yet, and the steps that need them fail by themselves.
fn statics(director: &Director) -> Statics {
    let local: HashSet<IpAddr> = director
        .local()
        .flat_map(|prefix| (prefix.network()..=prefix.broadcast()).take(MAX_LOCAL))
        .map(IpAddr::V4)
        .collect();
    let links = SIDES.map(|side| {
        let (source, link) = director.link(side);
        (link, via(side, None, source))
    });
    let (source, _) = director.link(Side::Client);
    let default = (
        Ipv4Net::default(),
        via(Side::Client, Some(director.gateway()), source),
    );
    let own = director.local().map(|prefix| (prefix, Route::Local));
    let neighbours = director
        .neighbours()
        .filter_map(|(side, addr, mac)| match addr {
            IpAddr::V4(addr) => Some((port(side), addr, mac)),
            IpAddr::V6(_) => None,
        });
    Statics {
        local,
        routes: links.into_iter().chain([default]).chain(own).collect(),
        neighbours: neighbours.collect(),
    }
}

fn via(side: Side, gateway: Option<std::net::Ipv4Addr>, source: std::net::Ipv4Addr) -> Route {
    Route::Via {
        port: port(side),
        gateway,
        source,
        mtu: None,
    }
}
