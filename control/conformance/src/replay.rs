//! A trace, step by step, through a rig of its own.

use std::fmt;
use std::time::Duration;

use crate::choices::{Choices, is_random};
use crate::compare::RandomServices;
use crate::compare::packets::{self, Context};
use crate::compare::proc;
use crate::compare::text::{self, Output};
use crate::director::Director;
use crate::kernel;
use crate::rig::Rig;
use crate::trace::{Command, Emitted, Packet, Repeat, Side, Step, Trace};

/// Between packets, as the traces with times show.
const PACKET_GAP: Duration = Duration::from_micros(250);
/// What starting a process took the recorded director, as the traces with times show.
const COMMAND_GAP: Duration = Duration::from_millis(45);
/// Unrecorded pauses that one trace may have.
const MAX_PAUSES: usize = 4;

/// What a replay came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything equal.
    Passed {
        /// What to know about it, if anything.
        note: Option<String>,
    },
    /// Something differs, or could not be done.
    Failed(Failure),
}

/// The first difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// At which step, from 0; `None` before the first.
    pub step: Option<usize>,
    /// The step in words.
    pub title: String,
    /// What differs, readably; several lines.
    pub what: String,
    /// If connections only had more seconds left than recorded: how many.
    lag: Option<u64>,
}

impl fmt::Display for Failure {
    /// `step 12 (ipvsadm -Ln): output differs …`, and the rest on further lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(step) = self.step {
            write!(f, "step {step} ({}): {}", self.title, self.what)
        } else {
            write!(f, "{}: {}", self.title, self.what)
        }
    }
}

/// An appliance that a trace is taken through.
pub trait Stage {
    /// Who it is.
    fn director(&self) -> &Director;
    /// Time since the start.
    fn elapsed(&self) -> Duration;
    /// Lets time pass.
    fn advance(&mut self, by: Duration);
    /// A packet arrives. All that comes of it, `expected` packets if all is well, is there afterwards.
    fn deliver(&mut self, side: Side, l3: &[u8], expected: usize);
    /// One command line of ipvsadm.
    fn ipvsadm(&mut self, args: &str, stdin: &str) -> Output;
    /// What a file of a kernel's `/proc` would have in it.
    fn proc(&mut self, path: &str) -> Result<String, String>;
    /// What was emitted since the last call. `Err` when a frame was none that a kernel would send.
    fn take_emitted(&mut self) -> Result<Vec<Emitted>, String>;
    /// The workers' books, by name: where packets came from and went to.
    fn books(&mut self) -> Vec<(&'static str, u64)>;
}

/// Takes a trace through a stage as it is, once: nothing is assumed that was not recorded.
pub fn replay_on(trace: &Trace, stage: impl Stage) -> Result<(), Failure> {
    perform(trace, stage, &[])
}

/// A stretch of time before a step that the recording does not show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pause {
    step: usize,
    seconds: u64,
}

/// Replays a trace.
///
/// Some recordings paused for seconds in the middle of a command, where no step says so: later listings show connections
/// that have fewer seconds left than all steps together account for. Where a listing differs in that alone, the trace is
/// replayed anew with such a pause before one of the commands so far. It must then agree in everything, and the note
/// says what was assumed.
pub fn replay(trace: &Trace) -> Verdict {
    let mut pauses = Vec::new();
    loop {
        let failure = match run(trace, &pauses) {
            Ok(()) => {
                return Verdict::Passed {
                    note: note(&pauses),
                };
            }
            Err(failure) => failure,
        };
        match explain(trace, &pauses, &failure) {
            Some(pause) if pauses.len() < MAX_PAUSES => pauses.push(pause),
            _ => return Verdict::Failed(failure),
        }
    }
}

/// A pause with which the replay comes past `failure`.
fn explain(trace: &Trace, pauses: &[Pause], failure: &Failure) -> Option<Pause> {
    let (at, seconds) = (failure.step?, failure.lag?);
    let commands = (0..=at)
        .rev()
        .filter(|step| matches!(trace.steps[*step], Step::Ipvsadm(_)));
    let mut candidates = commands.map(|step| Pause { step, seconds });
    candidates.find(|pause| {
        let assumed: Vec<_> = pauses.iter().chain([pause]).copied().collect();
        match run(trace, &assumed) {
            Ok(()) => true,
            Err(other) => other.step > Some(at),
        }
    })
}

fn note(pauses: &[Pause]) -> Option<String> {
    let each = pauses
        .iter()
        .map(|pause| format!("{} s before step {}", pause.seconds, pause.step));
    let each: Vec<_> = each.collect();
    (!each.is_empty()).then(|| format!("with unrecorded pauses assumed: {}", each.join(", ")))
}

fn failed(step: Option<usize>, title: String, problem: Problem) -> Failure {
    Failure {
        step,
        title,
        what: problem.what,
        lag: problem.lag,
    }
}

fn run(trace: &Trace, pauses: &[Pause]) -> Result<(), Failure> {
    let rig = Rig::new(&trace.header)
        .map_err(|what| failed(None, "setting up".to_owned(), what.into()))?;
    perform(trace, rig, pauses)
}

fn perform(trace: &Trace, rig: impl Stage, pauses: &[Pause]) -> Result<(), Failure> {
    let mut replay = Replay {
        trace,
        rig,
        random: RandomServices::of(&trace.steps),
        choices: Choices::default(),
        paused: Duration::ZERO,
    };
    for (index, step) in trace.steps.iter().enumerate() {
        for pause in pauses.iter().filter(|pause| pause.step == index) {
            replay.pause(Duration::from_secs(pause.seconds));
        }
        replay
            .step(step)
            .map_err(|problem| failed(Some(index), step.title(), problem))?;
    }
    let choices = replay.choices.compare();
    choices.map_err(|what| failed(None, "all choices".to_owned(), what.into()))
}

/// What is wrong at a step.
struct Problem {
    what: String,
    lag: Option<u64>,
}

impl From<String> for Problem {
    fn from(what: String) -> Self {
        Self { what, lag: None }
    }
}

struct Replay<'a, S> {
    trace: &'a Trace,
    rig: S,
    random: RandomServices,
    choices: Choices,
    /// Time that recorded times do not know of.
    paused: Duration,
}

impl<S: Stage> Replay<'_, S> {
    fn step(&mut self, step: &Step) -> Result<(), Problem> {
        self.move_clock(step);
        match step {
            Step::Ipvsadm(command) => self.ipvsadm(command),
            Step::Pkt(packet) => self.packet(packet).map_err(Problem::from),
            Step::Sleep(_) => Ok(()),
            Step::Recv(recv) => {
                let emitted = self.rig.take_emitted()?;
                Ok(packets::compare(&recv.out, &emitted, self.context(None))?)
            }
            Step::Repeat(repeat) => self.repeat(repeat).map_err(Problem::from),
            Step::Read(read) => {
                let ours = self.rig.proc(&read.arg)?;
                Ok(proc::compare(&read.result, &ours)?)
            }
            Step::Cmd(command) => {
                let tree = proc::listed_tree(&command.args)
                    .ok_or_else(|| format!("sluice is no kernel to run `{}` on", command.args))?;
                let ours = self.rig.proc(tree)?;
                Ok(proc::compare_tree(&command.out, &ours)?)
            }
        }
    }

    /// To the time at which the step was recorded, or a little further.
    fn move_clock(&mut self, step: &Step) {
        let gap = match step {
            Step::Sleep(sleep) => sleep.arg,
            Step::Recv(recv) => recv.wait,
            Step::Pkt(_) | Step::Repeat(_) => PACKET_GAP,
            Step::Ipvsadm(_) | Step::Read(_) | Step::Cmd(_) => COMMAND_GAP,
        };
        let by = match step.time() {
            Some(t) => (t + self.paused).saturating_sub(self.rig.elapsed()),
            None => gap,
        };
        self.rig.advance(by);
    }

    fn pause(&mut self, by: Duration) {
        self.paused += by;
        self.rig.advance(by);
    }

    fn context<'a>(&'a self, incoming: Option<&'a [u8]>) -> Context<'a> {
        Context {
            director: self.rig.director(),
            incoming,
            random: false,
        }
    }

    fn ipvsadm(&mut self, command: &Command) -> Result<(), Problem> {
        let ours = self.rig.ipvsadm(&command.args, &command.stdin);
        text::compare(command, &ours, &self.random).map_err(|what| Problem {
            what,
            lag: text::expiry_lag(command, &ours, &self.random),
        })
    }

    /// What was emitted since the last packet without being asked for belongs to this one: so it was recorded.
    fn packet(&mut self, packet: &Packet) -> Result<(), String> {
        let before = self.rig.books();
        self.rig.deliver(packet.side, &packet.l3, packet.out.len());
        let emitted = self.rig.take_emitted()?;
        let random = is_random(packet, &self.trace.header, &self.random);
        if random {
            self.choices.count(&packet.out, &emitted);
        }
        let mut context = self.context(Some(&packet.l3));
        context.random = random;
        packets::compare(&packet.out, &emitted, context)
            .map_err(|what| self.with_cause(&what, packet, &emitted, &before))
    }

    /// A difference with what came in, and where sluice's books say that it went.
    fn with_cause(
        &mut self,
        what: &str,
        packet: &Packet,
        emitted: &[Emitted],
        before: &[(&'static str, u64)],
    ) -> String {
        let mut text = format!("{}\n", what.trim_end());
        text.push_str(&format!("came in   {}\n", crate::decode::line(&packet.l3)));
        for other in emitted.iter().skip(1) {
            text.push_str(&format!("sluice    {}\n", crate::decode::summary(other)));
        }
        let moved = self.rig.books().into_iter().zip(before);
        let moved: Vec<_> = moved
            .filter(|((_, now), (_, then))| now != then)
            .map(|((name, now), (_, then))| format!("{name} {:+}", now as i64 - *then as i64))
            .collect();
        text.push_str(&format!("books     {}\n", moved.join(", ")));
        text
    }

    fn repeat(&mut self, repeat: &Repeat) -> Result<(), String> {
        let pkt = &repeat.arg.pkt;
        let l3 = kernel::datagram(pkt.src, pkt.sport, pkt.dst, pkt.dport, &pkt.payload_hex)
            .ok_or("the datagram is longer than IP allows")?;
        let mut emitted = self.rig.take_emitted()?.len();
        for _ in 0..repeat.arg.n {
            self.rig.advance(PACKET_GAP);
            let expected = usize::from(repeat.result >= repeat.arg.n);
            self.rig.deliver(Side::Client, &l3, expected);
            emitted += self.rig.take_emitted()?.len();
        }
        if emitted == repeat.result {
            Ok(())
        } else {
            Err(format!(
                "{} packets emitted were recorded, {emitted} here",
                repeat.result
            ))
        }
    }
}

#[cfg(test)]
mod tests;
