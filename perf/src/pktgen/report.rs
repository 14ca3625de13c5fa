//! A run's report.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::options::{Course, Options};
use super::outcome::Outcome;
use super::rate::Pps;
use super::search::{Found, search};
use super::session::Session;
use super::{Run, Task};

/// All of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The command line.
    pub command: Vec<String>,
    /// Opening the flows, where they stay.
    pub opening: Option<Outcome>,
    /// The measured trial; of a search, one that passed at the highest rate, or else its last.
    pub trial: Outcome,
    /// The search, if there was one.
    pub search: Option<Found>,
    /// Frames that the ports say to have dropped or received broken.
    pub port_errors: u64,
    /// What is wrong. Empty if nothing is.
    pub complaints: Vec<String>,
}

impl Report {
    /// Runs what the options say on `session`. `Err` if it could not run; what was wrong with packets is in the report.
    pub fn of(session: &mut Session, options: &Options) -> anyhow::Result<Self> {
        let course = options.course()?;
        let opening = session.open_flows()?;
        if course.warm_up_s > 0.0 {
            let run = Run {
                seconds: course.warm_up_s,
                packets: None,
                ..course.run
            };
            session.trial(Task::Run(run), course.drain_s)?;
        }
        let (trial, search) = measure(session, &course)?;
        let mut complaints = trial.complaints(course.max_loss_percent);
        if let Some(opening) = &opening {
            let all = opening.complaints(0.0).into_iter();
            complaints.extend(all.map(|complaint| format!("while flows were opened: {complaint}")));
        }
        if search
            .as_ref()
            .is_some_and(|found| found.loss_free_pps == 0.0)
        {
            complaints.push("packets are lost at every rate".to_owned());
        }
        Ok(Self {
            command: std::env::args().collect(),
            opening,
            trial,
            search,
            port_errors: session.port_errors()?,
            complaints,
        })
    }

    /// Packets that were sent in the opening and in all trials shown, answers of real servers left out.
    pub fn emitted(&self) -> u64 {
        let searched = self.search.iter().flat_map(|found| &found.trials);
        let searched: u64 = searched.map(|tried| tried.outcome.sent).sum();
        let trial = if self.search.is_some() {
            0
        } else {
            self.trial.sent
        };
        self.opening.as_ref().map_or(0, |opening| opening.sent) + searched + trial
    }

    /// Whether all is as it should be.
    pub fn passed(&self) -> bool {
        self.complaints.is_empty()
    }
}

fn measure(session: &mut Session, course: &Course) -> anyhow::Result<(Outcome, Option<Found>)> {
    let Some((ceiling, precision)) = course.search else {
        let trial = session.trial(Task::Run(course.run), course.drain_s)?;
        return Ok((trial, None));
    };
    let found = search(ceiling, precision, course.max_loss_percent, |rate| {
        session.trial(Task::Run(Run { rate, ..course.run }), course.drain_s)
    })?;
    let passed = found.trials.iter().filter(|tried| tried.passed);
    let best = passed.max_by(|a, b| a.outcome.pps().total_cmp(&b.outcome.pps()));
    let shown = best.or(found.trials.last());
    Ok((
        shown.map(|tried| tried.outcome.clone()).unwrap_or_default(),
        Some(found),
    ))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(opening) = &self.opening {
            writeln!(
                f,
                "opened     {} flows in {:.3} s",
                opening.began, opening.seconds
            )?;
        }
        if let Some(found) = &self.search {
            for tried in &found.trials {
                let outcome = &tried.outcome;
                writeln!(
                    f,
                    "tried      {}: sent {}pps, {} lost, faults: {}: {}",
                    outcome.rate,
                    Pps(outcome.pps()),
                    outcome.lost,
                    outcome.faults,
                    if tried.passed { "passed" } else { "failed" }
                )?;
            }
            writeln!(f, "loss-free  {}pps", Pps(found.loss_free_pps))?;
        }
        write!(f, "{}", self.trial)?;
        if self.port_errors > 0 {
            writeln!(
                f,
                "note       the ports dropped {} frames that came",
                self.port_errors
            )?;
        }
        match self.complaints.as_slice() {
            [] => writeln!(f, "PASSED"),
            complaints => writeln!(f, "FAILED     {}", complaints.join("; ")),
        }
    }
}
