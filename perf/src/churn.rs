//! New connections for ever: every packet is the first of a connection never seen before, and as many connections end as
//! begin. In memory: no file holds so many.

use std::sync::Arc;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use sluice_control::api::Method;
use sluice_dataplane::io::{Burst, Frame, Port};
use sluice_dataplane::stats::WorkerCells;
use sluice_dataplane::time::Ticks;
use sluice_dataplane::worker::Worker;

use crate::bench_port::{BenchFrame, BenchPort};
use crate::frame::{self, Wire};
use crate::scenario::{BURST, Balanced, ROUTER_MAC, SERVERS, Scenario, VIP, WIRE_MAC};
use crate::timing::own_cpu_ns;
use crate::walk::{WIRE, assemble};

/// Connections that are there at any time.
pub const LIVE: u64 = 1_000_000;

/// What UDP connections live after their last packet (`SEMANTICS.md` section 6).
const UDP_TIMEOUT_NS: u64 = 300_000_000_000;

/// Connections made in a timed window.
const MADE: u64 = 3_000_000;

/// Time between two bursts such that [`LIVE`] connections are there.
const STEP_NS: u64 = UDP_TIMEOUT_NS * BURST as u64 / LIVE;

const SERVICE: Balanced = Balanced {
    protocol: "udp",
    scheduler: "wrr",
    weight: |n| 1 + n as u32 % 5,
};

/// A timed window.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Opened {
    /// Connections made.
    pub connections: u64,
    /// Connections that ended meanwhile.
    pub expired: u64,
    /// CPU time of the thread, making the packets included.
    pub cpu_ns: u64,
}

impl Opened {
    /// Million connections a second of CPU time.
    pub fn millions_per_s(&self) -> f64 {
        self.connections as f64 * 1000.0 / self.cpu_ns as f64
    }
}

/// A worker whose every packet opens a connection.
pub struct Churn {
    worker: Worker<ChurnPort>,
    cells: Arc<WorkerCells>,
    now: Ticks,
    made: u64,
}

impl Churn {
    /// One with [`LIVE`] connections, all of which came the same way.
    pub fn new(method: Method) -> anyhow::Result<Self> {
        let scenario = Scenario::of_connections(method, LIVE as u32);
        let (worker, cells, now) = assemble(&scenario, &SERVICE, ChurnPort::new)?;
        let mut churn = Self {
            worker,
            cells,
            now,
            made: 0,
        };
        churn.open(LIVE + LIVE / 4)?;
        Ok(churn)
    }

    /// Opens connections and times it. `Err` if any packet was lost, the scheduler's choices are not by the weights, or
    /// connections did not end as others began.
    pub fn measure(&mut self) -> anyhow::Result<Opened> {
        let live = self.cells.connections.read();
        let start = own_cpu_ns();
        self.open(MADE)?;
        let cpu_ns = own_cpu_ns() - start;
        let still = self.cells.connections.read();
        ensure!(
            still.abs_diff(LIVE) < LIVE / 50,
            "{still} connections are there instead of {LIVE}"
        );
        self.check_choices()?;
        Ok(Opened {
            connections: MADE,
            expired: MADE + live - still,
            cpu_ns,
        })
    }

    fn open(&mut self, count: u64) -> anyhow::Result<()> {
        let port = self.worker.port_mut(WIRE).context("no port")?;
        port.port.left = count;
        let bursts = count.div_ceil(BURST as u64);
        for _ in 0..bursts {
            self.worker.poll(self.now);
            self.now = Ticks(self.now.0 + STEP_NS);
        }
        self.made += count;
        let conns = self.cells.services[0].conns.read();
        let sent = self.cells.books.tx.read();
        ensure!(
            conns == self.made && sent == self.made,
            "{conns} connections made and {sent} packets sent of {}: {:?}",
            self.made,
            self.cells.books
        );
        Ok(())
    }

    fn check_choices(&self) -> anyhow::Result<()> {
        let sum: u64 = (0..SERVERS).map(|n| u64::from((SERVICE.weight)(n))).sum();
        for n in 0..SERVERS {
            let weight = u64::from((SERVICE.weight)(n));
            let conns = self.cells.servers[usize::from(n)].conns.read();
            let wanted = self.made * weight / sum;
            ensure!(
                conns.abs_diff(wanted) <= weight,
                "server {n} of weight {weight} got {conns} connections instead of {wanted}"
            );
        }
        Ok(())
    }
}

/// A port that receives a datagram of another client each time.
struct ChurnPort {
    inner: BenchPort,
    template: Wire,
    next: u32,
    left: u64,
}

impl ChurnPort {
    fn new() -> Self {
        let client = std::net::SocketAddrV4::new([0, 0, 0, 0].into(), 0);
        Self {
            inner: BenchPort::new(Arc::new([])),
            template: frame::udp((ROUTER_MAC, WIRE_MAC), client, VIP),
            next: 0,
            left: 0,
        }
    }

    /// Another client each time, 2^32 times, in an order that nobody foresees: an odd factor permutes 32 bits.
    fn fill(&mut self, bytes: &mut [u8]) {
        bytes.copy_from_slice(&self.template);
        let client = self.next.wrapping_mul(0x9e37_79b1);
        self.next = self.next.wrapping_add(1);
        frame::set_client(
            bytes,
            0x0b00_0000 | client >> 8,
            1024 | client as u16 & 0xff,
        );
    }
}

impl Port for ChurnPort {
    type Frame = BenchFrame;

    fn rx(&mut self, burst: &mut Burst<BenchFrame>) -> usize {
        let count = self.left.min(burst.remaining_capacity() as u64);
        for _ in 0..count {
            let Some(mut frame) = self.inner.alloc() else {
                unreachable!("what is sent comes back");
            };
            let long_enough = frame.push_back(self.template.len());
            assert!(long_enough, "a frame fits its buffer");
            self.fill(frame.bytes_mut());
            burst.push(frame);
        }
        self.left -= count;
        count as usize
    }

    fn tx(&mut self, burst: &mut Burst<BenchFrame>) -> usize {
        self.inner.tx(burst)
    }

    fn alloc(&mut self) -> Option<BenchFrame> {
        self.inner.alloc()
    }

    fn free(&mut self, burst: &mut Burst<BenchFrame>) {
        self.inner.free(burst);
    }
}
