//! The punt thread: moves frames between workers' rings and taps, for all ports.
//!
//! It blocks in poll(2) on the taps, so what the kernel sends is noticed at once. A worker makes no system call and so
//! cannot wake it: the poll ends by itself after [`SHORTEST_WAIT`] while there is traffic, and later and later, up to
//! [`LONGEST_WAIT`], while there is none. Measured on two shared virtual cores: 2.5 % of one while idle, 16 % at a hundred
//! to a thousand pings a second; those take 60-300 us (median), and the first one after a quiet time up to a
//! millisecond more.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use crossbeam::utils::CachePadded;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;
use tracing::error;

use crate::command::PortId;
use crate::io::{Frame, FramePool};
use crate::punt::KernelPunt;
use crate::punt::cells::PuntCells;
use crate::punt::class::{Bucket, Class, Policing};
use crate::punt::tap::Tap;

/// How long a frame for the kernel may wait unnoticed while there is traffic.
pub const SHORTEST_WAIT: Duration = Duration::from_micros(50);

/// The same after a quiet time.
pub const LONGEST_WAIT: Duration = Duration::from_millis(1);

/// Waits in vain before the wait is doubled.
const PATIENCE: u32 = 32;

/// Frames moved from one ring or tap before the others have their turn.
const QUOTA: usize = 64;

/// Ethernet header and one VLAN tag: what a frame may have beyond the MTU.
const ETHERNET_AND_VLAN: usize = 18;

/// Longer than any frame that a tap gives.
const SCRATCH: usize = 1 << 16 | 64;

/// One port as the punt thread has it.
pub struct PuntPort<F> {
    /// Which.
    pub id: PortId,
    /// Its exception interface.
    pub tap: Tap,
    /// The rings to and from each worker, in order of their ids.
    pub rings: Vec<KernelPunt<F>>,
}

/// How the punt thread runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct PuntOptions {
    /// How much the kernel gets.
    pub policing: Policing,
    /// The core to run on; `None` for where the caller runs.
    pub core: Option<usize>,
}

/// Starting the punt thread failed.
#[derive(Debug, thiserror::Error)]
pub enum PuntError {
    /// No thread.
    #[error("the punt thread could not be started: {0}")]
    Spawn(#[from] io::Error),
    /// The core is not there, or not allowed to us.
    #[error(
        "the punt thread cannot run on core {core}: it does not exist or the process may not use it (see `taskset -p` and \
         the cgroup's cpuset)"
    )]
    Core {
        /// Which.
        core: usize,
    },
}

/// The running thread. Dropping it stops the thread.
pub struct PuntThread {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    cells: Vec<(PortId, Arc<CachePadded<PuntCells>>)>,
    news: Sender<News>,
}

/// What the thread is told while it runs.
enum News {
    LocalAddresses(BTreeSet<IpAddr>),
    Mtu(PortId, u16),
}

impl PuntThread {
    /// Starts the thread. Frames for what the kernel sends come from `pool`; they go to the first worker of the port.
    pub fn start<P: FramePool>(
        ports: Vec<PuntPort<P::Frame>>,
        pool: P,
        options: PuntOptions,
    ) -> Result<Self, PuntError> {
        let lines: Vec<_> = ports
            .into_iter()
            .map(|port| Line::new(port, options.policing))
            .collect();
        let cells = lines
            .iter()
            .map(|line| (line.id, Arc::clone(&line.cells)))
            .collect();
        let stop = Arc::new(AtomicBool::new(false));
        let (news, inbox) = channel();
        let (pinned, pinning) = channel();
        let mut mover = Mover {
            lines,
            pool,
            local: BTreeSet::new(),
            inbox,
            scratch: vec![0; SCRATCH].into_boxed_slice(),
        };
        let thread = Builder::new().name("sluice-punt".to_owned()).spawn({
            let stop = Arc::clone(&stop);
            move || {
                let ok = options
                    .core
                    .is_none_or(|id| core_affinity::set_for_current(CoreId { id }));
                if pinned.send(ok).is_ok() && ok {
                    mover.run(&stop);
                }
            }
        })?;
        if let (Some(core), Ok(false)) = (options.core, pinning.recv()) {
            return Err(PuntError::Core { core });
        }
        Ok(Self {
            stop,
            thread: Some(thread),
            cells,
            news,
        })
    }

    /// The counters of each port.
    pub fn cells(&self) -> &[(PortId, Arc<CachePadded<PuntCells>>)] {
        &self.cells
    }

    /// Tells which addresses are this machine's, to tell traffic to us from traffic through us.
    pub fn local_addresses(&self, addresses: BTreeSet<IpAddr>) {
        self.tell(News::LocalAddresses(addresses));
    }

    /// Tells that a port's MTU is another one now.
    pub fn mtu(&self, port: PortId, mtu: u16) {
        self.tell(News::Mtu(port, mtu));
    }

    /// Stops the thread and waits for it (at most about [`LONGEST_WAIT`]). The taps close, frames in the rings go back to
    /// their pool.
    pub fn stop(self) {}

    fn tell(&self, news: News) {
        // The thread keeps the other end until it is told to stop, and nobody can tell it anything after that.
        let _ = self.news.send(news);
    }
}

impl Drop for PuntThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It cannot have panicked: that ends the process.
            let _ = thread.join();
        }
    }
}

/// What runs on the thread.
struct Mover<P: FramePool> {
    lines: Vec<Line<P::Frame>>,
    pool: P,
    local: BTreeSet<IpAddr>,
    inbox: Receiver<News>,
    scratch: Box<[u8]>,
}

impl<P: FramePool> Mover<P> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the punt thread is no worker and nobody passes it the time"
    )]
    fn run(&mut self, stop: &AtomicBool) {
        let start = Instant::now();
        let mut wait = Wait::default();
        while !stop.load(Ordering::Relaxed) {
            self.await_taps(wait.span);
            self.read_news();
            let now_ns = start.elapsed().as_nanos() as u64;
            let mut moved = 0;
            for line in &mut self.lines {
                moved += line.drain_rings(&self.local, now_ns);
                moved += line.drain_tap(&mut self.pool, &mut self.scratch);
            }
            wait.after(moved != 0);
        }
    }

    /// Waits until a tap can be read or the time is over.
    fn await_taps(&mut self, time: Duration) {
        let mut fds: Vec<_> = self
            .lines
            .iter()
            .filter(|line| !line.gone)
            .map(|line| PollFd::new(line.tap.as_fd(), PollFlags::POLLIN))
            .collect();
        // An interrupted wait is just a shorter one, and then nothing is ready.
        let ready = ppoll(&mut fds, Some(TimeSpec::from_duration(time)), None).unwrap_or(0) > 0;
        let readable: Vec<_> = fds
            .iter()
            .map(|fd| ready && fd.any().unwrap_or(true))
            .collect();
        let live = self.lines.iter_mut().filter(|line| !line.gone);
        for (line, readable) in live.zip(readable) {
            line.readable = readable;
        }
    }

    fn read_news(&mut self) {
        while let Ok(news) = self.inbox.try_recv() {
            match news {
                News::LocalAddresses(addresses) => self.local = addresses,
                News::Mtu(port, mtu) => {
                    for line in self.lines.iter_mut().filter(|line| line.id == port) {
                        line.longest = usize::from(mtu) + ETHERNET_AND_VLAN;
                    }
                }
            }
        }
    }
}

/// How long to wait for something to do.
struct Wait {
    span: Duration,
    in_vain: u32,
    next: Duration,
}

impl Default for Wait {
    fn default() -> Self {
        Self {
            span: SHORTEST_WAIT,
            in_vain: 0,
            next: SHORTEST_WAIT,
        }
    }
}

impl Wait {
    /// Not at all after a turn that moved something; longer and longer after turns that did not.
    fn after(&mut self, moved: bool) {
        if moved {
            *self = Self {
                span: Duration::ZERO,
                ..Self::default()
            };
            return;
        }
        self.span = self.next;
        self.in_vain += 1;
        if self.in_vain >= PATIENCE {
            self.in_vain = 0;
            self.next = (self.next * 2).min(LONGEST_WAIT);
        }
    }
}

/// One port between its tap and its rings.
struct Line<F> {
    id: PortId,
    tap: Tap,
    rings: Vec<KernelPunt<F>>,
    cells: Arc<CachePadded<PuntCells>>,
    buckets: [Bucket; Class::COUNT],
    longest: usize,
    readable: bool,
    gone: bool,
}

impl<F: Frame> Line<F> {
    fn new(port: PuntPort<F>, policing: Policing) -> Self {
        Self {
            id: port.id,
            longest: usize::from(port.tap.mtu()) + ETHERNET_AND_VLAN,
            tap: port.tap,
            rings: port.rings,
            cells: Arc::default(),
            buckets: policing.rates.map(Bucket::new),
            readable: false,
            gone: false,
        }
    }

    /// Moves what the workers punted; returns how many frames.
    fn drain_rings(&mut self, local: &BTreeSet<IpAddr>, now_ns: u64) -> usize {
        let mut moved = 0;
        for ring in 0..self.rings.len() {
            for _ in 0..QUOTA {
                let Ok(frame) = self.rings[ring].from_worker.pop() else {
                    break;
                };
                moved += 1;
                self.write(frame.bytes(), local, now_ns);
            }
        }
        moved
    }

    fn write(&mut self, frame: &[u8], local: &BTreeSet<IpAddr>, now_ns: u64) {
        let cells = &self.cells;
        let Some(class) = Class::of(frame, local) else {
            return cells.short.add(1);
        };
        if frame.len() > self.longest {
            return cells.long.add(1);
        }
        if !self.buckets[class as usize].take(now_ns) {
            return cells.policed[class as usize].add(1);
        }
        if self.gone {
            return cells.tap_down.add(1);
        }
        let Err(error) = self.tap.write(frame) else {
            cells.to_kernel.add(1);
            return cells.to_kernel_bytes.add(frame.len() as u64);
        };
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EIO) => cells.tap_down.add(1),
            Some(Errno::EBADFD) => {
                cells.tap_down.add(1);
                self.lost();
            }
            _ => cells.tap_full.add(1),
        }
    }

    /// Moves what the kernel sent; returns how many frames.
    fn drain_tap<P>(&mut self, pool: &mut P, scratch: &mut [u8]) -> usize
    where
        P: FramePool<Frame = F>,
    {
        if !self.readable || self.gone {
            return 0;
        }
        for moved in 0..QUOTA {
            match self.tap.read(scratch) {
                Ok(len) => self.pass_on(&scratch[..len], pool),
                Err(error) => {
                    if error.raw_os_error() == Some(Errno::EBADFD as i32) {
                        self.lost();
                    }
                    return moved;
                }
            }
        }
        QUOTA
    }

    fn pass_on<P>(&mut self, bytes: &[u8], pool: &mut P)
    where
        P: FramePool<Frame = F>,
    {
        let cells = &self.cells;
        if bytes.len() < 14 {
            return cells.from_kernel_short.add(1);
        }
        if bytes.len() > self.longest {
            return cells.from_kernel_long.add(1);
        }
        let Some(mut frame) = pool.alloc() else {
            return cells.pool_empty.add(1);
        };
        if !frame.push_back(bytes.len()) {
            return cells.from_kernel_long.add(1);
        }
        frame.bytes_mut().copy_from_slice(bytes);
        let sent = match self.rings.first_mut() {
            Some(ring) => ring.to_worker.push(frame).is_ok(),
            None => false,
        };
        if !sent {
            return cells.ring_full.add(1);
        }
        cells.from_kernel.add(1);
        cells.from_kernel_bytes.add(bytes.len() as u64);
    }

    /// Somebody deleted the interface: nothing more can be done with this tap.
    fn lost(&mut self) {
        if !self.gone {
            self.gone = true;
            error!(
                interface = self.tap.name(),
                "the exception interface was deleted; its port has no way to the kernel until sluiced is restarted"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_while_nothing_happens_and_are_short_again_after_traffic() {
        let mut wait = Wait::default();
        wait.after(true);
        assert_eq!(wait.span, Duration::ZERO);
        for _ in 0..PATIENCE {
            wait.after(false);
            assert_eq!(wait.span, SHORTEST_WAIT);
        }
        wait.after(false);
        assert_eq!(wait.span, SHORTEST_WAIT * 2);
        for _ in 0..PATIENCE * 10 {
            wait.after(false);
        }
        assert_eq!(wait.span, LONGEST_WAIT);
    }
}
