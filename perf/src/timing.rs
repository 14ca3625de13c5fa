//! CPU time of one thread of another process: on a shared machine the only honest clock.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::interrupt;

/// A reading is good when the count was read in so short a time.
const SHARP: Duration = Duration::from_micros(500);

/// Tries to get a good one.
const TRIES: usize = 50;

/// How DPDK names its worker threads.
pub const WORKER: &str = "rte-worker";

/// A thread's clock.
#[derive(Clone, Debug)]
pub struct ThreadClock(PathBuf);

/// A moment in a thread's life.
#[derive(Clone, Copy, Debug)]
struct Moment {
    cpu_ns: u64,
    /// Ready to run, and another thread ran.
    waited_ns: u64,
    wall: Instant,
}

/// What a thread did meanwhile.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Window {
    /// Packets.
    pub packets: u64,
    /// The thread's CPU time.
    pub cpu_ns: u64,
    /// Time that it wanted to run and did not: others used its core.
    pub waited_ns: u64,
    /// Time that passed.
    pub wall_ns: u64,
}

impl Window {
    /// Nanoseconds of CPU time a packet.
    pub fn ns_per_packet(&self) -> f64 {
        self.cpu_ns as f64 / self.packets.max(1) as f64
    }

    /// Million packets a second of CPU time.
    pub fn mpps(&self) -> f64 {
        1000.0 / self.ns_per_packet()
    }

    /// Share of the time that the thread did not get the core that it wanted.
    pub fn disturbed(&self) -> f64 {
        self.waited_ns as f64 / self.wall_ns.max(1) as f64
    }
}

impl ThreadClock {
    /// Of the thread of process `pid` whose name begins so.
    pub fn find(pid: u32, name: &str) -> anyhow::Result<Self> {
        let tasks = PathBuf::from(format!("/proc/{pid}/task"));
        for task in fs::read_dir(&tasks)?.flatten() {
            let comm = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if comm.starts_with(name) {
                return Ok(Self(task.path().join("schedstat")));
            }
        }
        bail!("process {pid} has no thread {name}*");
    }

    fn read(&self) -> anyhow::Result<Moment> {
        let text = fs::read_to_string(&self.0).context("the process has ended")?;
        let mut numbers = text.split(' ').map(str::parse);
        let (Some(Ok(cpu_ns)), Some(Ok(waited_ns))) = (numbers.next(), numbers.next()) else {
            bail!("{}: {text:?} is not what it should be", self.0.display());
        };
        Ok(Moment {
            cpu_ns,
            waited_ns,
            wall: Instant::now(),
        })
    }

    /// The time, and what `count` gives within half a millisecond of it.
    fn with<T>(&self, count: &mut dyn FnMut() -> anyhow::Result<T>) -> anyhow::Result<(Moment, T)> {
        let mut best: Option<(Duration, Moment, T)> = None;
        for _ in 0..TRIES {
            let before = self.read()?;
            let counted = count()?;
            let after = self.read()?;
            let took = after.wall - before.wall;
            if best.as_ref().is_none_or(|(best, ..)| took < *best) {
                let middle = Moment {
                    cpu_ns: u64::midpoint(before.cpu_ns, after.cpu_ns),
                    waited_ns: u64::midpoint(before.waited_ns, after.waited_ns),
                    wall: before.wall + took / 2,
                };
                best = Some((took, middle, counted));
            }
            if took < SHARP {
                break;
            }
        }
        let (_, moment, counted) = best.context("no reading")?;
        Ok((moment, counted))
    }

    /// Waits until the thread has run for `cpu` and says what it did. `count` reads whatever counts, `packets` takes the
    /// packets out of that.
    pub fn window<T>(
        &self,
        cpu: Duration,
        count: &mut dyn FnMut() -> anyhow::Result<T>,
        packets: impl Fn(&T) -> u64,
    ) -> anyhow::Result<(Window, T, T)> {
        let (start, first) = self.with(count)?;
        let enough = start.cpu_ns + cpu.as_nanos() as u64;
        while self.read()?.cpu_ns < enough {
            interrupt::check()?;
            thread::sleep(Duration::from_millis(10));
        }
        let (end, last) = self.with(count)?;
        let window = Window {
            packets: packets(&last) - packets(&first),
            cpu_ns: end.cpu_ns - start.cpu_ns,
            waited_ns: end.waited_ns - start.waited_ns,
            wall_ns: (end.wall - start.wall).as_nanos() as u64,
        };
        Ok((window, first, last))
    }
}

/// CPU time of the calling thread, in nanoseconds.
pub fn own_cpu_ns() -> u64 {
    let clock = nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID;
    match clock.now() {
        Ok(now) => now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64,
        Err(_) => unreachable!("Linux has this clock"),
    }
}

/// Processes that wanted to run in the last minute, on average.
pub fn load() -> f64 {
    let text = fs::read_to_string(Path::new("/proc/loadavg")).unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|load| load.parse().ok())
        .unwrap_or_default()
}

/// The middle one; the mean of two.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => values[len / 2],
        len => f64::midpoint(values[len / 2 - 1], values[len / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_whatever_the_order() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }

    #[test]
    fn a_thread_that_works_is_seen_to_use_its_time() {
        let name = "sluice-busy";
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stopped = std::sync::Arc::clone(&stop);
        let busy = thread::Builder::new().name(name.to_owned()).spawn(move || {
            while !stopped.load(std::sync::atomic::Ordering::Relaxed) {}
        });
        thread::sleep(Duration::from_millis(20));
        let clock = ThreadClock::find(std::process::id(), name).unwrap();
        let mut calls = 0;
        let mut count = || {
            calls += 1;
            Ok(calls)
        };
        let cpu = Duration::from_millis(30);
        let (window, first, last) = clock.window(cpu, &mut count, |n| *n).unwrap();
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        busy.unwrap().join().unwrap();
        assert!(window.cpu_ns >= 30_000_000, "{window:?}");
        assert!(last > first && window.packets == last - first);
    }
}
