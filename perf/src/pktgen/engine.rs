//! One core's loop: receive, check, answer, generate, send.
//!
//! Knows no DPDK: in tests it runs on ports in memory, with a clock of their own.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use sluice_dataplane::io::{BURST, Burst, Frame, Port};
use sluice_dataplane::time::{Span, TickRate, Ticks};

use super::client::Client;
use super::plan::Role;
use super::rate::{Rate, Schedule};
use super::servers::{Servers, Then};
use super::shared::Shared;
use super::wire;

/// Answers that may be missing while flows are opened.
const OPENING_WINDOW: u64 = 256;

/// How much later than planned, in seconds, a trial may end whose packets were held up; as much again as it was to last, too.
const GRACE_S: f64 = 1.0;

/// Idle turns before the first nap, if the core is not ours alone.
const AWAKE: u32 = 64;

/// A nap.
const NAP: Duration = Duration::from_micros(100);

/// What a trial does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Task {
    /// Opens all flows, as fast as answers come.
    Open,
    /// Sends.
    Run(Run),
}

/// A trial that sends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Run {
    /// Packets a second, a flood's left out.
    pub(crate) rate: Rate,
    /// How long, if nothing else ends it.
    pub(crate) seconds: f64,
    /// How many packets at most, a flood's left out.
    pub(crate) packets: Option<u64>,
    /// SYNs of a flood for each packet.
    pub(crate) flood: u32,
    /// Connections a second that give way to others.
    pub(crate) churn: f64,
}

/// A trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trial {
    pub(crate) task: Task,
    /// How long to wait for what is missing when nothing is sent any more, in seconds.
    pub(crate) drain_s: f64,
    /// Sleep when there is nothing to do.
    pub(crate) naps: bool,
}

/// What became of a trial, as the generator's core saw it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Timing {
    /// From the first packet to the last.
    pub(crate) sending_s: f64,
    /// Frames that were none of ours.
    pub(crate) foreign: u64,
}

/// One core's ports and what they serve.
pub(crate) struct Engine<P: Port> {
    ports: Vec<Lane<P>>,
    client: Option<Client>,
    servers: Option<Servers>,
    shared: Arc<Shared>,
    role: Role,
    ticks: TickRate,
    timing: Timing,
}

/// A port, and what it could not send yet.
struct Lane<P: Port> {
    port: P,
    requests: Burst<P::Frame>,
    answers: Burst<P::Frame>,
}

impl<P: Port> Lane<P> {
    fn flush(&mut self) {
        for burst in [&mut self.answers, &mut self.requests] {
            if !burst.is_empty() {
                self.port.tx(burst);
            }
        }
    }
}

/// How far a trial is.
struct Progress {
    trial: Trial,
    schedule: Schedule,
    start: Ticks,
    /// Packets and SYNs of a flood.
    sent: u64,
    /// How many of them there will be, unless time ends it.
    all: u64,
    /// When time ends it.
    end: Ticks,
    /// When nothing was sent any more.
    silent: Option<Ticks>,
    /// When something last changed, and what it was then.
    changed: (Ticks, u64),
}

impl<P: Port> Engine<P> {
    /// With clients on the first port, or real servers on the last one, or both.
    pub(crate) fn new(
        ports: Vec<P>,
        client: Option<Client>,
        servers: Option<Servers>,
        shared: Arc<Shared>,
        role: Role,
        ticks: TickRate,
    ) -> Self {
        let lane = |port| Lane {
            port,
            requests: Burst::new(),
            answers: Burst::new(),
        };
        Self {
            ports: ports.into_iter().map(lane).collect(),
            client,
            servers,
            shared,
            role,
            ticks,
            timing: Timing::default(),
        }
    }

    pub(crate) fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    pub(crate) fn servers(&self) -> Option<&Servers> {
        self.servers.as_ref()
    }

    pub(crate) fn timing(&self) -> Timing {
        self.timing
    }

    /// Its ports, for who holds their other ends.
    #[cfg(test)]
    pub(crate) fn port_mut(&mut self, place: usize) -> &mut P {
        &mut self.ports[place].port
    }

    /// A trial, from the first packet to the last answer. `now` reads the clock; `between` is called between turns.
    pub(crate) fn run(
        &mut self,
        trial: Trial,
        now: impl Fn() -> Ticks,
        mut between: impl FnMut(&mut Self),
    ) {
        if let Some(client) = &mut self.client {
            client.begin();
        }
        if let Some(servers) = &mut self.servers {
            servers.begin();
        }
        self.timing = Timing::default();
        self.await_servers(&now);
        let mut progress = Progress::new(trial, self.ticks, now());
        let mut idle = 0;
        loop {
            let busy = self.turn(&mut progress, &now);
            if self.is_over(&mut progress, now()) {
                break;
            }
            between(self);
            idle = if busy { 0 } else { idle + 1 };
            if trial.naps && idle > AWAKE {
                thread::sleep(NAP);
            }
        }
        if self.client.is_some() {
            self.shared.end();
        }
        let end = progress.silent.unwrap_or(progress.start);
        self.timing.sending_s = (end - progress.start).0 as f64 / self.ticks.hz() as f64;
    }

    /// Real servers on another core may begin later. Nobody can send to a memif client before it has asked for frames once: then
    /// its ring has room.
    fn await_servers(&mut self, now: &impl Fn() -> Ticks) {
        loop {
            for lane in 0..self.ports.len() {
                self.receive(lane, now);
            }
            if self.servers.is_some() || self.role != Role::Both {
                self.shared.open();
            }
            if self.shared.is_open() || self.shared.stopped() {
                return;
            }
            thread::yield_now();
        }
    }

    fn turn(&mut self, progress: &mut Progress, now: &impl Fn() -> Ticks) -> bool {
        let mut busy = false;
        for lane in 0..self.ports.len() {
            busy |= self.receive(lane, now);
            // Before more is generated: what has come goes before what is new.
            self.ports[lane].flush();
        }
        if let Some(client) = &mut self.client {
            busy |= client.receive_direct();
            if progress.silent.is_none() {
                busy |= generate(client, &mut self.ports[0], progress, now());
            }
            client.publish();
        }
        if let Some(servers) = &mut self.servers {
            servers.publish();
        }
        busy
    }

    fn receive(&mut self, lane: usize, now: &impl Fn() -> Ticks) -> bool {
        let lane = &mut self.ports[lane];
        let room = self.servers.as_ref().is_none_or(Servers::may_receive);
        if !lane.answers.is_empty() || !room {
            return false;
        }
        let mut burst = Burst::new();
        lane.port.rx(&mut burst);
        if burst.is_empty() {
            return false;
        }
        let now = now();
        let mut done = Burst::new();
        for mut frame in burst {
            match take(&mut self.client, &mut self.servers, &mut frame, now) {
                Some(Then::SendBack) => lane.answers.push(frame),
                Some(Then::Free) => done.push(frame),
                None => {
                    self.timing.foreign += 1;
                    done.push(frame);
                }
            }
        }
        lane.port.free(&mut done);
        true
    }

    /// Whether there is nothing more to wait for.
    fn is_over(&self, progress: &mut Progress, now: Ticks) -> bool {
        let Some(client) = &self.client else {
            return self.shared.ended();
        };
        let drained = match progress.silent {
            None => return self.has_stalled(client, progress, now),
            Some(silent) => now - silent >= progress.drain(self.ticks),
        };
        let waiting = self.ports.iter().any(|lane| !lane.requests.is_empty());
        drained || client.is_settled() && !waiting || self.shared.stopped()
    }

    /// While flows are opened: whether answers have stopped coming.
    fn has_stalled(&self, client: &Client, progress: &mut Progress, now: Ticks) -> bool {
        if progress.trial.task != Task::Open || self.role == Role::Send {
            return false;
        }
        let sign = client.sent() + client.answered();
        if sign != progress.changed.1 {
            progress.changed = (now, sign);
        }
        now - progress.changed.0 >= progress.drain(self.ticks)
    }
}

/// Gives a frame to whom it is for. `None` if that is nobody.
#[inline]
fn take<F: Frame>(
    client: &mut Option<Client>,
    servers: &mut Option<Servers>,
    frame: &mut F,
    now: Ticks,
) -> Option<Then> {
    let seen = match wire::read(frame.bytes()) {
        Ok(seen) => seen?,
        Err(fault) => {
            // Whoever has this core counts it.
            match (client, servers) {
                (Some(client), _) => client.fault(fault),
                (None, Some(servers)) => servers.fault(fault),
                (None, None) => {}
            }
            return Some(Then::Free);
        }
    };
    match (client, servers) {
        (Some(client), _) if client.is_for_us(&seen) => {
            client.receive(&seen, now);
            Some(Then::Free)
        }
        (_, Some(servers)) => Some(servers.receive(frame, &seen, now)),
        _ => None,
    }
}

/// Makes and sends what is due. Returns whether there was anything.
#[inline]
fn generate<P: Port>(
    client: &mut Client,
    lane: &mut Lane<P>,
    progress: &mut Progress,
    now: Ticks,
) -> bool {
    if !lane.requests.is_empty() {
        lane.port.tx(&mut lane.requests);
        if !lane.requests.is_empty() {
            return false;
        }
    }
    let due = progress.due(client, now);
    for _ in 0..due.min(BURST as u64) {
        let Some(mut frame) = lane.port.alloc() else {
            break;
        };
        if !progress.emit(client, &mut frame, now) {
            break;
        }
        lane.requests.push(frame);
    }
    let made = !lane.requests.is_empty();
    if made {
        lane.port.tx(&mut lane.requests);
    }
    progress.look_at_end(client, now);
    made
}

impl Progress {
    fn new(trial: Trial, ticks: TickRate, start: Ticks) -> Self {
        let mut progress = Self {
            trial,
            schedule: Schedule::new(Rate::Max, start, ticks, 0.0),
            start,
            sent: 0,
            all: u64::MAX,
            end: Ticks(u64::MAX),
            silent: None,
            changed: (start, 0),
        };
        if let Task::Run(run) = trial.task {
            // A flood's packets are due between the others.
            let times = u64::from(run.flood) + 1;
            let rate = run.rate.times(times as f64);
            let after = |seconds: f64| start + Span((seconds * ticks.hz() as f64) as u64);
            progress.schedule = Schedule::new(rate, start, ticks, run.seconds);
            let wanted = run.packets.unwrap_or(u64::MAX);
            progress.all = wanted.saturating_mul(times);
            progress.end = after(run.seconds);
            if rate != Rate::Max {
                // What was held up is sent later, but not for ever.
                let due = progress
                    .schedule
                    .due(progress.end)
                    .saturating_sub(1)
                    .max(times);
                progress.all = progress.all.min(due);
                progress.end = after(run.seconds * 2.0 + GRACE_S);
            }
        }
        progress
    }

    fn drain(&self, ticks: TickRate) -> Span {
        Span((self.trial.drain_s * ticks.hz() as f64) as u64)
    }

    /// How many packets may be sent now.
    fn due(&self, client: &Client, now: Ticks) -> u64 {
        match self.trial.task {
            Task::Open => OPENING_WINDOW.saturating_sub(client.outstanding()),
            Task::Run(_) => self
                .schedule
                .due(now)
                .min(self.all)
                .saturating_sub(self.sent),
        }
    }

    fn emit<F: Frame>(&mut self, client: &mut Client, frame: &mut F, now: Ticks) -> bool {
        let sent = match self.trial.task {
            Task::Open => client.emit_opening(frame, now),
            Task::Run(run) => {
                let times = (self.schedule.when(self.sent, now), now);
                let flood = !self.sent.is_multiple_of(u64::from(run.flood) + 1);
                if flood {
                    client.emit_flood(frame, times)
                } else {
                    client.emit(frame, self.ended(&run, now), times)
                }
            }
        };
        self.sent += u64::from(sent);
        sent
    }

    /// Connections that should have ended by now to make room for others.
    fn ended(&self, run: &Run, now: Ticks) -> u64 {
        if run.churn == 0.0 {
            return 0;
        }
        let seconds = (now - self.start).0 as f64 / self.schedule.hz();
        (seconds * run.churn) as u64
    }

    fn look_at_end(&mut self, client: &Client, now: Ticks) {
        let over = match self.trial.task {
            Task::Open => client.all_open(),
            Task::Run(_) => now >= self.end || self.sent >= self.all,
        };
        if over || client.is_stopped() {
            self.silent = Some(now);
        }
    }
}
