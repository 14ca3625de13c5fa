//! Which flow the next packet belongs to.

use anyhow::Context;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::Distribution;
use rand_distr::weighted::WeightedAliasIndex;

/// How packets spread over flows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Spread {
    /// All alike, in random order.
    Uniform,
    /// The `n`th flow gets packets in proportion to `1/n^exponent`.
    Zipf(f64),
}

/// Draws flows.
#[derive(Debug)]
pub(crate) struct Picker {
    rng: SmallRng,
    flows: u32,
    /// Drawn from in constant time by Walker's aliases; none for a uniform draw.
    weighted: Option<WeightedAliasIndex<f32>>,
}

impl Picker {
    /// Among so many flows. `Err` if the exponent makes no weights of them.
    pub(crate) fn new(spread: Spread, flows: u32, seed: u64) -> anyhow::Result<Self> {
        let weighted = match spread {
            Spread::Uniform => None,
            Spread::Zipf(exponent) => {
                let weight = |n: u32| (f64::from(n).powf(-exponent)) as f32;
                let weights = (1..=flows).map(weight).collect();
                let index = WeightedAliasIndex::new(weights);
                Some(index.with_context(|| format!("zipf with exponent {exponent}"))?)
            }
        };
        Ok(Self {
            rng: SmallRng::seed_from_u64(seed),
            flows,
            weighted,
        })
    }

    /// The next flow.
    #[inline]
    pub(crate) fn pick(&mut self) -> u32 {
        match &self.weighted {
            None => self.any(),
            Some(weighted) => weighted.sample(&mut self.rng) as u32,
        }
    }

    /// Any flow, whatever its weight.
    #[inline]
    pub(crate) fn any(&mut self) -> u32 {
        self.rng.random_range(0..self.flows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(spread: Spread, flows: u32, draws: u32) -> Vec<u32> {
        let mut picker = Picker::new(spread, flows, 7).unwrap();
        let mut counts = vec![0; flows as usize];
        for _ in 0..draws {
            counts[picker.pick() as usize] += 1;
        }
        counts
    }

    #[test]
    fn uniform_draws_are_about_as_many_for_each_flow() {
        let counts = counts(Spread::Uniform, 100, 100_000);
        assert!(
            counts.iter().all(|count| (800..1200).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn zipf_draws_fall_with_the_rank() {
        let counts = counts(Spread::Zipf(1.0), 1000, 1_000_000);
        // The 1000th harmonic number is 7.485.
        let first = f64::from(counts[0]) / 1e6;
        assert!((first * 7.485 - 1.0).abs() < 0.02, "{first}");
        let tenth = f64::from(counts[0]) / f64::from(counts[9]);
        assert!((9.0..11.0).contains(&tenth), "{tenth}");
    }

    #[test]
    fn an_exponent_that_makes_no_weights_is_refused() {
        assert!(Picker::new(Spread::Zipf(f64::NAN), 10, 1).is_err());
    }
}
