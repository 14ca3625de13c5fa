//! What must be reached and what is aimed at (of one worker where nothing else is said; ratios to testpmd macswap on the same rig).

use serde::{Deserialize, Serialize};
use sluice_control::api::Method;

use crate::scenario::{Scenario, name};

/// 100,000 connections whose both directions come through us: shown beside as many flows, which are half as many connections.
pub const TWO_WAY_FLOWS: u32 = 200_000;

/// The bound of one figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Target {
    /// What is measured, with its unit.
    pub what: String,
    /// What was measured.
    pub value: f64,
    /// What it must be.
    pub must: f64,
    /// What it should be.
    pub aim: f64,
    /// Whether less is better.
    pub at_most: bool,
}

impl Target {
    /// Established connections, as a share of macswap's packets. None is set for 100,000 connections of two flows.
    pub fn ratio(scenario: &Scenario, value: f64) -> Option<Self> {
        let (must, aim) = match (scenario.flows, scenario.method) {
            (TWO_WAY_FLOWS, Method::Nat | Method::FullNat) => return None,
            (2_000_000.., _) => (0.25, 0.40),
            (_, Method::Dr | Method::Tun) => (0.40, 0.55),
            (_, Method::Nat | Method::FullNat) => (0.35, 0.50),
        };
        Some(Self {
            what: format!("{scenario}: ratio to macswap"),
            value,
            must,
            aim,
            at_most: false,
        })
    }

    /// New connections, in millions a second.
    pub fn new_connections(value: f64) -> Self {
        Self {
            what: "new connections, 1 M live: M/s".to_owned(),
            value,
            must: 3.0,
            aim: 6.0,
            at_most: false,
        }
    }

    /// A burst of one packet, in nanoseconds.
    pub fn single(method: Method, value: f64) -> Self {
        Self {
            what: format!("burst of one packet, {}: ns", name(method)),
            value,
            must: 1000.0,
            aim: 1000.0,
            at_most: true,
        }
    }

    /// Two workers, as a multiple of one.
    pub fn two_workers(value: f64) -> Self {
        Self {
            what: "two workers: times what one does".to_owned(),
            value,
            must: 1.8,
            aim: 1.9,
            at_most: false,
        }
    }

    /// Memory of a connection, in bytes.
    pub fn memory(value: f64) -> Self {
        Self {
            what: "memory of an IPv4 connection: bytes".to_owned(),
            value,
            must: 192.0,
            aim: 192.0,
            at_most: true,
        }
    }

    /// Whether it is what it must be.
    pub fn met(&self) -> bool {
        self.reaches(self.must)
    }

    /// Whether it is what it should be.
    pub fn aim_met(&self) -> bool {
        self.reaches(self.aim)
    }

    fn reaches(&self, bound: f64) -> bool {
        if self.at_most {
            self.value <= bound
        } else {
            self.value >= bound
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_measured_meets_no_target() {
        let scenario = Scenario {
            method: Method::Dr,
            flows: 1000,
        };
        assert!(!Target::ratio(&scenario, f64::NAN).unwrap().met());
        assert!(!Target::memory(f64::NAN).met());
        let good = Target::ratio(&scenario, 0.41).unwrap();
        assert!(good.met() && !good.aim_met());
        assert!(Target::memory(191.0).met() && !Target::memory(193.0).met());
    }
}
