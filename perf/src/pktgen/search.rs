//! The highest rate at which nothing is lost (RFC 2544, section 26.1: by halving).

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;
use super::rate::Rate;

/// What a search found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The highest rate that passed, in packets a second; 0 if none did.
    pub loss_free_pps: f64,
    /// Within so much of the truth, as a share.
    pub precision: f64,
    /// Its trials, in the order in which they were made.
    pub trials: Vec<Tried>,
}

/// A trial of a search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// Packets a second asked for; absent for as many as the port took.
    pub wanted_pps: Option<f64>,
    /// Whether nothing was lost or wrong, and it was sent as fast as asked for.
    pub passed: bool,
    /// What came of it.
    pub outcome: Outcome,
}

/// Trials in one search at most.
const MOST: usize = 40;

/// Searches by trials that `run` makes. The first one is at `ceiling`, or as fast as the port takes packets; what is accepted
/// there bounds the search.
pub(crate) fn search(
    ceiling: Option<f64>,
    precision: f64,
    max_loss_percent: f64,
    mut run: impl FnMut(Rate) -> anyhow::Result<Outcome>,
) -> anyhow::Result<Found> {
    let mut found = Found {
        loss_free_pps: 0.0,
        precision,
        trials: Vec::new(),
    };
    let mut try_at = |rate: Rate, found: &mut Found| {
        let outcome = run(rate)?;
        let clean = outcome.complaints(max_loss_percent).is_empty();
        let passed = clean && outcome.kept_up();
        if passed {
            found.loss_free_pps = found.loss_free_pps.max(outcome.pps());
        }
        found.trials.push(Tried {
            wanted_pps: rate.mean(),
            passed,
            outcome,
        });
        anyhow::Ok(passed)
    };
    let passed = try_at(ceiling.map_or(Rate::Max, Rate::Fixed), &mut found)?;
    let first = found.trials[0].outcome.pps();
    let mut high = ceiling.map_or(first, |ceiling| ceiling.min(first));
    let mut low = 0.0;
    while !passed && found.trials.len() < MOST && high - low > high * precision && high >= 1.0 {
        let middle = f64::midpoint(low, high);
        if try_at(Rate::Fixed(middle), &mut found)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Something that forwards so many packets a second and loses the rest, behind a port that takes so many.
    fn rig(limit: f64, port: f64) -> impl FnMut(Rate) -> anyhow::Result<Outcome> {
        move |rate| {
            let offered = rate.mean().unwrap_or(port).min(port);
            Ok(Outcome {
                wanted_pps: rate.mean(),
                seconds: 1.0,
                sent: offered as u64,
                lost: (offered - limit).max(0.0) as u64,
                ..Outcome::default()
            })
        }
    }

    #[test]
    fn the_rate_is_found_within_the_precision() {
        for limit in [1000.0, 123_456.0, 9_000_000.0] {
            let found = search(None, 0.01, 0.0, rig(limit, 1e7)).unwrap();
            let rate = found.loss_free_pps;
            assert!(rate <= limit && rate > limit * 0.985, "{rate} for {limit}");
            assert!(!found.trials[0].passed);
        }
    }

    #[test]
    fn what_loses_nothing_at_all_needs_one_trial() {
        let found = search(None, 0.01, 0.0, rig(1e8, 5e6)).unwrap();
        assert_eq!((found.loss_free_pps, found.trials.len()), (5e6, 1));
    }

    #[test]
    fn a_generator_that_cannot_send_so_fast_does_not_pass() {
        let found = search(Some(1e7), 0.01, 0.0, rig(1e8, 5e6)).unwrap();
        assert!(!found.trials[0].passed);
        assert!(
            found.loss_free_pps > 4.9e6 && found.loss_free_pps <= 5e6,
            "{found:?}"
        );
    }

    #[test]
    fn what_loses_everything_ends() {
        let found = search(None, 0.01, 0.0, rig(0.0, 1e6)).unwrap();
        assert_eq!(found.loss_free_pps, 0.0);
        assert!(found.trials.len() <= MOST);
    }
}
