//! What must hold of a trial.

use sluice_control::api::Method;

use super::cabling::Cabling;
use super::trial::{Outcome, Trial};

/// Local ports tried for a connection, in the mean, at most: ports are taken in turn, and there are many more than connections.
const MOST_TRIES: f64 = 1.05;

impl Trial {
    /// What is not as it must be; nothing if all is right.
    pub fn faults(&self, outcome: &Outcome) -> Vec<String> {
        let mut faults = outcome.faults.clone();
        let mut must = |holds: bool, otherwise: String| {
            if !holds {
                faults.push(otherwise);
            }
        };
        let Outcome {
            connections,
            least,
            packets,
            handed_off,
            moved,
            mispredicted,
            split,
            lost,
            wrong,
            ..
        } = *outcome;
        let flows = u64::from(self.flows);
        let each = if self.both_ways() { 6 } else { 3 };
        must(
            packets == flows * each,
            format!("{packets} packets instead of {}", flows * each),
        );
        must(
            connections == flows,
            format!("{connections} connections instead of {flows}"),
        );
        let tries = self.tries(outcome).unwrap_or_default();
        must(
            tries <= MOST_TRIES,
            format!("{tries:.3} local ports tried for a connection, where {MOST_TRIES} are enough"),
        );
        let fair = flows / self.workers as u64;
        must(
            least >= fair / 2 || !self.spread(),
            format!("a worker has {least} connections where {fair} would be fair"),
        );
        must(lost == 0, format!("{lost} packets lost"));
        must(wrong == 0, format!("{wrong} packets wrong"));
        must(
            split == 0,
            format!("{split} connections had a second worker"),
        );
        must(
            mispredicted == 0,
            format!("{mispredicted} packets reached another worker than software says"),
        );
        // One that is handed on again counts twice, and moves once or comes back.
        must(
            handed_off == moved,
            format!("{moved} packets changed workers, by {handed_off} hand-offs"),
        );
        must(
            handed_off == 0 || !self.aligned(),
            format!("{handed_off} packets handed off"),
        );
        faults
    }

    /// How many local ports were tried for a connection, in the mean; `None` where none are taken.
    pub fn tries(&self, outcome: &Outcome) -> Option<f64> {
        let flows = f64::from(self.flows);
        (self.method == Method::FullNat).then(|| 1.0 + outcome.passed_over as f64 / flows)
    }

    /// Whether every worker must get its share.
    fn spread(&self) -> bool {
        self.model.entries() > 0 || self.method == Method::Nat
    }

    /// Whether packets must come in where they belong (contract 4 of the design).
    pub fn aligned(&self) -> bool {
        let hashed = self.model.entries() > 0;
        let each_side_its_own = self.model.hashes_one_end() && self.cabling != Cabling::OneArm;
        match self.method {
            _ if self.workers == 1 => true,
            Method::Nat => each_side_its_own,
            Method::FullNat | Method::Dr | Method::Tun => hashed,
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_dataplane::io::rss_nic::Model;

    use super::*;

    const TRIAL: Trial = Trial {
        model: Model::Common,
        cabling: Cabling::TwoArms,
        method: Method::FullNat,
        workers: 4,
        flows: 100,
    };

    fn good() -> Outcome {
        Outcome {
            connections: 100,
            least: 20,
            packets: 600,
            ..Outcome::default()
        }
    }

    #[test]
    fn every_single_thing_that_is_wrong_is_found() {
        assert_eq!(TRIAL.faults(&good()), [""; 0]);
        let spoilers: [fn(&mut Outcome); 10] = [
            |outcome| outcome.connections = 99,
            |outcome| outcome.least = 11,
            |outcome| outcome.packets = 599,
            |outcome| outcome.split = 1,
            |outcome| outcome.passed_over = 6,
            |outcome| outcome.mispredicted = 1,
            |outcome| outcome.lost = 1,
            |outcome| outcome.wrong = 1,
            |outcome| outcome.faults.push("drops".to_owned()),
            |outcome| (outcome.handed_off, outcome.moved) = (1, 1),
        ];
        for (n, spoil) in spoilers.iter().enumerate() {
            let mut outcome = good();
            spoil(&mut outcome);
            assert_eq!(TRIAL.faults(&outcome).len(), 1, "spoiler {n}");
        }
    }

    #[test]
    fn a_packet_may_be_handed_off_once_where_nothing_aligns() {
        let nat = Trial {
            method: Method::Nat,
            ..TRIAL
        };
        let mut outcome = good();
        (outcome.handed_off, outcome.moved) = (10, 10);
        assert_eq!(nat.faults(&outcome), [""; 0]);
        (outcome.handed_off, outcome.moved) = (11, 10);
        assert_eq!(nat.faults(&outcome).len(), 1, "one went a second time");
    }

    #[test]
    fn nat_is_aligned_only_where_each_side_has_a_nic_that_hashes_one_end() {
        let nat = |model, cabling| Trial {
            method: Method::Nat,
            model,
            cabling,
            ..TRIAL
        };
        assert!(nat(Model::Full, Cabling::TwoArms).aligned());
        assert!(nat(Model::Full, Cabling::ThirdPort).aligned());
        assert!(!nat(Model::Full, Cabling::OneArm).aligned());
        assert!(!nat(Model::Common, Cabling::TwoArms).aligned());
    }
}
