//! What came of a trial, and whether that is as it should be.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::client::ClientFigures;
use super::engine::{Run, Task, Timing};
use super::fault::Faults;
use super::latency::{LatencySummary, Percentiles};
use super::plan::Role;
use super::rate::Pps;
use super::servers::ServerFigures;

/// A trial, counted. Packets of a flood are counted by themselves.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The rate asked for.
    pub rate: String,
    /// Packets a second asked for, on average; absent where the port was to decide.
    pub wanted_pps: Option<f64>,
    /// From the first packet to the last.
    pub seconds: f64,
    /// Packets that clients sent.
    pub sent: u64,
    /// Bytes of those, without frame check sequences.
    pub sent_bytes: u64,
    /// Of those, how many came to real servers; absent where they are not ours.
    pub arrived: Option<u64>,
    /// Packets to each real server, the first one first; empty where they are not ours.
    pub by_server: Vec<u64>,
    /// Packets that somebody was to answer.
    pub answers_due: u64,
    /// Answers that came to clients.
    pub answered: u64,
    /// Packets and answers without a trace.
    pub lost: u64,
    /// Connections that began.
    pub began: u64,
    /// TCP connections whose SYN was answered.
    pub opened: u64,
    /// TCP connections whose FIN was answered.
    pub closed: u64,
    /// TCP connections given up for want of an answer.
    pub gave_up: u64,
    /// Times that a packet was due and no flow could send it, each awaiting an answer.
    pub not_ready: u64,
    /// SYNs of a flood that were sent.
    pub flood_sent: u64,
    /// Of those, how many came to real servers.
    pub flood_arrived: u64,
    /// Frames received that were none of ours.
    pub foreign: u64,
    /// What was wrong with those received.
    pub faults: Faults,
    /// From clients to real servers.
    pub forward: Option<LatencySummary>,
    /// From clients to real servers and back, all of it through the appliance.
    pub round_trip: Option<LatencySummary>,
}

impl Outcome {
    pub(crate) fn new(
        task: Task,
        role: Role,
        client: ClientFigures,
        servers: Option<ServerFigures>,
        timings: &[Timing],
    ) -> Self {
        let run = match task {
            Task::Open => None,
            Task::Run(run) => Some(run),
        };
        let wanted = |run: Run| run.rate.mean();
        let mut outcome = Self {
            rate: run.map_or_else(|| "opening".to_owned(), |run| run.rate.to_string()),
            wanted_pps: run.and_then(wanted),
            seconds: timings.first().map_or(0.0, |timing| timing.sending_s),
            sent: client.sent,
            sent_bytes: client.sent_bytes,
            answers_due: client.answers_due,
            answered: client.answered,
            began: client.began,
            opened: client.opened,
            closed: client.closed,
            gave_up: client.gave_up,
            not_ready: client.not_ready,
            flood_sent: client.flood_sent,
            foreign: timings.iter().map(|timing| timing.foreign).sum(),
            faults: client.faults,
            round_trip: client.latency,
            ..Self::default()
        };
        outcome.lost = match role {
            Role::Send => 0,
            Role::Client | Role::Both => client.answers_due.saturating_sub(client.answered),
        };
        if let Some(servers) = servers {
            let back = servers.answered.saturating_sub(client.answered);
            outcome.lost = client.sent.saturating_sub(servers.arrived) + back;
            outcome.arrived = Some(servers.arrived);
            outcome.by_server = servers.by_server;
            outcome.flood_arrived = servers.flood_arrived;
            outcome.faults = outcome.faults.plus(&servers.faults);
            outcome.forward = servers.latency;
        }
        outcome
    }

    /// Packets a second that were sent.
    pub fn pps(&self) -> f64 {
        if self.seconds > 0.0 {
            self.sent as f64 / self.seconds
        } else {
            0.0
        }
    }

    /// Connections a second that began.
    pub fn connections_per_s(&self) -> f64 {
        if self.seconds > 0.0 {
            self.began as f64 / self.seconds
        } else {
            0.0
        }
    }

    /// Per cent of the packets sent.
    pub fn loss_percent(&self) -> f64 {
        self.lost as f64 * 100.0 / self.sent.max(1) as f64
    }

    /// Whether it was sent as fast as it was to be, within a per cent.
    pub fn kept_up(&self) -> bool {
        self.wanted_pps
            .is_none_or(|wanted| self.pps() >= wanted * 0.99)
    }

    /// What is wrong with it, if so many per cent may be lost. Empty if nothing is.
    pub fn complaints(&self, max_loss_percent: f64) -> Vec<String> {
        let mut all = Vec::new();
        if self.sent == 0 {
            all.push("nothing was sent".to_owned());
        }
        if self.loss_percent() > max_loss_percent {
            all.push(format!(
                "{} of {} packets and their answers were lost ({:.4} %)",
                self.lost,
                self.sent,
                self.loss_percent()
            ));
        }
        if self.faults.total() > 0 {
            all.push(format!("faults: {}", self.faults));
        }
        all
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gbps = self.sent_bytes as f64 * 8.0 / self.seconds.max(1e-9) / 1e9;
        writeln!(
            f,
            "sent       {} packets in {:.3} s: {}pps, {gbps:.3} Gbit/s (asked for: {})",
            self.sent,
            self.seconds,
            Pps(self.pps()),
            self.rate
        )?;
        if let Some(arrived) = self.arrived {
            writeln!(f, "arrived    {arrived} at {}", Servers(&self.by_server))?;
        }
        if self.answers_due > 0 {
            writeln!(f, "answered   {} of {}", self.answered, self.answers_due)?;
        }
        if self.began > 0 {
            writeln!(
                f,
                "connected  {} began ({}/s), {} opened, {} closed, {} given up",
                self.began,
                Pps(self.connections_per_s()),
                self.opened,
                self.closed,
                self.gave_up
            )?;
        }
        if self.flood_sent > 0 {
            writeln!(
                f,
                "flood      {} SYNs, {} arrived",
                self.flood_sent, self.flood_arrived
            )?;
        }
        writeln!(f, "lost       {} ({:.4} %)", self.lost, self.loss_percent())?;
        writeln!(
            f,
            "faults     {}; {} frames of others",
            self.faults, self.foreign
        )?;
        for (name, latency) in [("forward", self.forward), ("round trip", self.round_trip)] {
            if let Some(latency) = latency {
                writeln!(f, "{name:<10} corrected {}", Line(&latency.corrected))?;
                writeln!(f, "{:<10} raw       {}", "", Line(&latency.raw))?;
            }
        }
        if !self.kept_up() {
            writeln!(f, "note       it could not be sent as fast as asked for")?;
        }
        Ok(())
    }
}

struct Line<'a>(&'a Percentiles);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Percentiles {
            p50_us,
            p90_us,
            p99_us,
            p99_9_us,
            p99_99_us,
            max_us,
            ..
        } = self.0;
        write!(
            f,
            "p50 {p50_us:.1}  p90 {p90_us:.1}  p99 {p99_us:.1}  p99.9 {p99_9_us:.1}  p99.99 {p99_99_us:.1}  max {max_us:.1} µs"
        )
    }
}

/// Real servers and the least and the most that came to one.
struct Servers<'a>(&'a [u64]);

impl fmt::Display for Servers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (self.0.iter().min(), self.0.iter().max());
        match (self.0.len(), least, most) {
            (1, ..) => f.write_str("1 real server"),
            (count, Some(least), Some(most)) => {
                write!(f, "{count} real servers, {least} to {most} at each")
            }
            _ => f.write_str("no real server"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pktgen::fault::Fault;

    fn sent(sent: u64) -> ClientFigures {
        ClientFigures {
            sent,
            answers_due: sent,
            answered: sent,
            ..ClientFigures::default()
        }
    }

    fn outcome(client: ClientFigures, servers: ServerFigures) -> Outcome {
        Outcome::new(Task::Open, Role::Both, client, Some(servers), &[])
    }

    #[test]
    fn what_is_lost_on_either_way_is_counted_once() {
        let servers = ServerFigures {
            arrived: 90,
            answered: 90,
            by_server: vec![90],
            ..ServerFigures::default()
        };
        let client = ClientFigures {
            answered: 85,
            ..sent(100)
        };
        let outcome = outcome(client, servers);
        assert_eq!(outcome.lost, 15);
        assert_eq!(outcome.complaints(0.0).len(), 1);
        assert!(outcome.complaints(15.0).is_empty());
        let alone = Outcome::new(
            Task::Open,
            Role::Client,
            ClientFigures {
                answered: 99,
                ..sent(100)
            },
            None,
            &[],
        );
        assert_eq!(alone.lost, 1);
    }

    #[test]
    fn a_fault_is_a_complaint_and_a_report_survives_json() {
        let mut client = sent(1);
        client.faults.count(Fault::Reordered);
        let servers = ServerFigures {
            arrived: 1,
            answered: 1,
            by_server: vec![1],
            ..ServerFigures::default()
        };
        let outcome = outcome(client, servers);
        assert_eq!(outcome.complaints(100.0), ["faults: reordered 1"]);
        let json = serde_json::to_string(&outcome).unwrap();
        assert_eq!(serde_json::from_str::<Outcome>(&json).unwrap(), outcome);
        assert!(serde_json::from_str::<Faults>(r#"{"x":1}"#).is_err());
        assert!(
            !Outcome::default().complaints(100.0).is_empty(),
            "nothing was sent"
        );
    }
}
