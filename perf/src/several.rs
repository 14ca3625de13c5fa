//! Several real workers, each a thread on a core of its own, against one: in memory, every packet at the worker that owns it.

use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use sluice_control::api::Method;
use sluice_dataplane::command::WorkerId;
use sluice_dataplane::conn::{Endpoint, Ends};
use sluice_dataplane::egress::Mac;
use sluice_dataplane::service::Protocol;
use sluice_dataplane::stats::WorkerCells;
use sluice_dataplane::steer::{
    HashTypes, Packet, PortNeeds, RssCapabilities, Side, Spread, Steering, plan,
};
use sluice_dataplane::time::Ticks;
use sluice_dataplane::worker::Worker;

use crate::bench_port::BenchPort;
use crate::frame::{self, ACK, SYN, Wire};
use crate::interrupt;
use crate::report::experiment::{Better, Experiment};
use crate::scenario::{METHODS, ROUTER_MAC, STEADY, Scenario, VIP, WIRE_MAC, name, server_mac};
use crate::timing::own_cpu_ns;
use crate::traffic::{client, shuffle};
use crate::walk::{START, WIRE, assemble_team};

/// Connections, of one worker or of all together: the same traffic.
const CONNECTIONS: u32 = 100_000;

/// Packets between two looks at the clock.
const STRIDE: usize = 100_000;

/// One worker and what it replays: on cache lines of its own, as a worker on its lcore's stack is.
#[repr(align(128))]
struct Member {
    worker: Worker<BenchPort>,
    cells: Arc<WorkerCells>,
    frames: Arc<[Wire]>,
    now: Ticks,
}

/// What this is about.
pub const TITLE: &str = "one worker and two";

/// Measures one worker and two in turns, in every method: the first on this core, the second on another.
pub fn run(core: usize, rounds: usize, cpu: Duration) -> anyhow::Result<Experiment> {
    let cores = [core, usize::from(core == 0)];
    let mut experiment = Experiment {
        title: TITLE.to_owned(),
        how: format!(
            "Threads on cores of their own, in memory, without a driver; {} k connections in all, 64-byte frames at the worker that owns them. The sum over the workers, by the CPU time of each.",
            CONNECTIONS / 1000
        ),
        axis: "workers".to_owned(),
        unit: "Mpps".to_owned(),
        better: Better::Higher,
        lines: Vec::new(),
    };
    for method in METHODS {
        eprintln!("one worker and two, {}", name(method));
        let mut one = team(method, 1)?;
        let mut two = team(method, 2)?;
        for _ in 0..rounds {
            for members in [&mut one, &mut two] {
                let workers = members.len().to_string();
                let mpps = measure(members, &cores, cpu)?;
                experiment.push(name(method), &workers, mpps);
            }
        }
    }
    Ok(experiment)
}

/// How many times what one worker does two do: in the method where it is least, of the medians.
pub fn gain(experiment: &Experiment) -> f64 {
    let gains = experiment.lines.iter().filter_map(|line| {
        let [one, two] = ["1", "2"].map(|workers| line.at(workers));
        Some(two?.median() / one?.median())
    });
    gains.reduce(f64::min).unwrap_or(f64::NAN)
}

/// Workers with their connections established, and what each of them replays.
fn team(method: Method, workers: u16) -> anyhow::Result<Vec<Member>> {
    let connections = CONNECTIONS;
    let scenario = Scenario::of_connections(method, connections);
    let steering = Arc::new(steering(workers));
    let port = || BenchPort::new(Arc::new([]));
    let members = assemble_team(&scenario, &STEADY, &steering, port)?;
    let mut members: Vec<Member> = members
        .into_iter()
        .map(|(worker, cells)| Member {
            worker,
            cells,
            frames: Arc::new([]),
            now: START,
        })
        .collect();
    let mut order: Vec<u32> = (0..connections).collect();
    shuffle(&mut order, 1);
    for (id, member) in (0..).zip(&mut members) {
        let own = |n: &u32| owner(&steering, method, client(*n)) == Some(WorkerId(id));
        let own: Vec<u32> = order.iter().copied().filter(own).collect();
        member.establish(&scenario, &own)?;
    }
    Ok(members)
}

/// One arm on NICs that hash both ends.
fn steering(workers: u16) -> Steering {
    let can = RssCapabilities {
        queues: workers,
        table: 128,
        hash_types: HashTypes::EVERY_KIND,
        key_len: 40,
    };
    let needs = PortNeeds {
        side: Side::Both,
        queues: None,
        can,
    };
    let spread = plan(&[needs; 2], workers)
        .into_iter()
        .map(|plan| match plan.rss {
            Some(rss) => Spread::Rss(rss),
            None => Spread::One(WorkerId(0)),
        });
    Steering::new(workers, spread.collect())
}

/// Whose connections a client's are.
fn owner(steering: &Steering, method: Method, client: SocketAddrV4) -> Option<WorkerId> {
    let [src, dst] = [client, VIP].map(|end| Endpoint::new(*end.ip(), end.port()));
    if method == Method::Nat {
        return Some(steering.owner_of_client(src));
    }
    let packet = Packet::flow(Protocol::Tcp, &Ends::new(src, dst));
    steering.reaches(WIRE, &packet)
}

impl Member {
    /// Opens these connections and makes the frames of both their ends, in another order.
    fn establish(&mut self, scenario: &Scenario, connections: &[u32]) -> anyhow::Result<()> {
        let macs = (ROUTER_MAC, WIRE_MAC);
        let syn = |n: &u32| frame::tcp(macs, client(*n), VIP, SYN, *n);
        self.load(connections.iter().map(syn).collect())?;
        self.port()?.kept = Some(Vec::with_capacity(connections.len()));
        self.walk(connections.len())?;
        let opened = self.port()?.kept.take().unwrap_or_default();
        ensure!(
            opened.len() == connections.len(),
            "{} of {} connections were opened: {:?}",
            opened.len(),
            connections.len(),
            self.cells.books
        );
        type Ends = ((Mac, Mac), SocketAddrV4, SocketAddrV4);
        let mut ends: Vec<Ends> = connections
            .iter()
            .map(|n| (macs, client(*n), VIP))
            .collect();
        if scenario.both_directions() {
            for forwarded in &opened {
                let (local, server, _) = frame::read(forwarded).context("no TCP came out")?;
                ends.push(((server_mac(*server.ip()), WIRE_MAC), server, local));
            }
        }
        shuffle(&mut ends, 2);
        let ack = |(number, (macs, src, dst))| frame::tcp(macs, src, dst, ACK, number);
        self.load((0..).zip(ends).map(ack).collect())?;
        self.walk(self.frames.len())
    }

    fn load(&mut self, frames: Arc<[Wire]>) -> anyhow::Result<()> {
        self.frames = Arc::clone(&frames);
        self.port()?.load(frames);
        Ok(())
    }

    /// Receives so many packets and does all there is to do.
    fn walk(&mut self, packets: usize) -> anyhow::Result<()> {
        self.port()?.left = packets;
        while self.worker.poll(self.now) {
            self.now = Ticks(self.now.0 + 1000);
        }
        Ok(())
    }

    fn port(&mut self) -> anyhow::Result<&mut BenchPort> {
        let port = self.worker.port_mut(WIRE).context("no port")?;
        Ok(&mut port.port)
    }

    /// Million packets a second of CPU time. Goes on until `all` have `finished`, so that none has the machine for itself.
    fn measure(
        &mut self,
        cpu: Duration,
        finished: &AtomicUsize,
        all: usize,
    ) -> anyhow::Result<f64> {
        self.walk(self.frames.len())?;
        let sent = self.cells.books.tx.read();
        let (start, mut packets) = (own_cpu_ns(), 0);
        let enough = start + cpu.as_nanos() as u64;
        let mut end = start;
        while end < enough {
            self.walk(STRIDE)?;
            packets += STRIDE as u64;
            end = own_cpu_ns();
        }
        let books = &self.cells.books;
        let (forwarded, handed) = (books.tx.read() - sent, books.handed_out.read());
        finished.fetch_add(1, Ordering::Relaxed);
        while finished.load(Ordering::Relaxed) < all {
            self.walk(STRIDE)?;
        }
        ensure!(
            forwarded == packets && handed == 0,
            "{forwarded} of {packets} packets forwarded, {handed} handed to others"
        );
        Ok(packets as f64 * 1000.0 / (end - start) as f64)
    }
}

/// The sum of what the members do at the same time, in million packets a second.
fn measure(members: &mut [Member], cores: &[usize], cpu: Duration) -> anyhow::Result<f64> {
    interrupt::check()?;
    let all = members.len();
    let (finished, barrier) = (AtomicUsize::new(0), Barrier::new(all));
    thread::scope(|scope| {
        let threads: Vec<_> = members
            .iter_mut()
            .zip(cores)
            .map(|(member, core)| {
                let (finished, barrier) = (&finished, &barrier);
                scope.spawn(move || {
                    let pinned =
                        core_affinity::set_for_current(core_affinity::CoreId { id: *core });
                    barrier.wait();
                    let measured = member.measure(cpu, finished, all);
                    if measured.is_err() {
                        // Nobody waits for this one.
                        finished.fetch_add(all, Ordering::Relaxed);
                    }
                    ensure!(pinned, "there is no core {core}");
                    measured
                })
            })
            .collect();
        let mut sum = 0.0;
        for thread in threads {
            match thread.join() {
                Ok(mpps) => sum += mpps?,
                Err(_) => anyhow::bail!("a worker's thread ended"),
            }
        }
        Ok(sum)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_workers_at_once_forward_all_that_is_theirs_and_hand_nothing_off() {
        let core = core_affinity::get_core_ids().unwrap()[0].id;
        for method in METHODS {
            let mut members = team(method, 2).unwrap();
            let each = members.iter().map(|member| member.cells.connections.read());
            let each: Vec<u64> = each.collect();
            assert_eq!(each.iter().sum::<u64>(), u64::from(CONNECTIONS));
            assert!(
                each.iter()
                    .all(|n| n.abs_diff(u64::from(CONNECTIONS) / 2) < 5000),
                "{each:?}"
            );
            let mpps = measure(&mut members, &[core; 2], Duration::from_millis(1)).unwrap();
            assert!(mpps > 0.0, "{method:?}");
        }
    }

    #[test]
    fn the_gain_is_that_of_the_method_that_gains_least() {
        let mut experiment = Experiment {
            title: String::new(),
            how: String::new(),
            axis: String::new(),
            unit: String::new(),
            better: Better::Higher,
            lines: Vec::new(),
        };
        assert!(gain(&experiment).is_nan());
        for (line, two) in [("DR", 19.0), ("NAT", 17.0)] {
            experiment.push(line, "1", 10.0);
            experiment.push(line, "2", two);
        }
        assert_eq!(gain(&experiment), 1.7);
    }
}
