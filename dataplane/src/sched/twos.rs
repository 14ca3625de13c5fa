//! `twos`: of two servers drawn by weight the less loaded one (Mitzenmacher's power of two choices; `SEMANTICS.md` section
//! 4). Random numbers need only be even, not secret.
//!
//! Cost: O(log n) a choice, and for each server whose connections changed since the last one.

use super::shares::Shares;
use super::{Pool, Request, Scheduler, Standing};
use crate::command::ServiceEdit;
use crate::service::RealServerSpec;

#[derive(Debug, Default)]
pub(super) struct Twos {
    /// The state of its generator (SplitMix64, Steele et al., 2014), seeded by its first request.
    random: Option<u64>,
    /// The weights of those that may be drawn.
    usable: Shares,
}

impl Twos {
    pub(super) fn new(pool: &Pool<'_>) -> Self {
        let mut twos = Self::default();
        twos.replace(pool);
        twos
    }

    fn replace(&mut self, pool: &Pool<'_>) {
        let weights = (0..pool.list().len()).map(|place| weight_of(pool, place));
        self.usable.replace(weights);
    }

    fn next(&mut self) -> u64 {
        let state = self.random.get_or_insert(0);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// An even choice among 0 to `most`, itself included.
    fn up_to(&mut self, most: u64) -> u64 {
        ((u128::from(self.next()) * (u128::from(most) + 1)) >> 64) as u64
    }
}

impl Scheduler for Twos {
    fn choose(&mut self, pool: &Pool<'_>, request: &Request<'_>) -> Option<usize> {
        if self.random.is_none() {
            let (addresses, ports) = request.flow.words();
            self.random = Some(request.now.0 ^ addresses ^ ports);
        }
        // A draw of 0 is the first one's too, which makes it a little likelier.
        let whole = self.usable.whole();
        let [first, second] = [self.up_to(whole), self.up_to(whole)];
        let [first, second] = [self.usable.place(first)?, self.usable.place(second)?];
        if lighter(pool.standing(second), pool.standing(first)) {
            Some(second)
        } else {
            Some(first)
        }
    }

    fn edited(&mut self, _before: &[RealServerSpec], pool: &Pool<'_>, _edit: ServiceEdit) {
        self.replace(pool);
    }

    fn counted(&mut self, pool: &Pool<'_>, place: usize) {
        self.usable.set(place, weight_of(pool, place));
    }
}

/// The weight that a server is drawn by.
fn weight_of(pool: &Pool<'_>, place: usize) -> u32 {
    if pool.usable(place) {
        pool.list()[place].weight
    } else {
        0
    }
}

/// Whether `a` has less load for its weight, in the kernel's 32 bits.
fn lighter(a: Standing, b: Standing) -> bool {
    let product = |load: u64, weight: u32| (load as i32).wrapping_mul(weight.cast_signed());
    product(b.overhead(), a.weight) > product(a.overhead(), b.weight)
}

#[cfg(test)]
mod tests {
    use super::super::tests::Bench;
    use crate::service::SchedulerKind::Twos;

    fn shares(bench: &mut Bench, servers: u32) -> Vec<usize> {
        let chosen = bench.run(12_000);
        let of = |number| chosen.iter().filter(|at| **at == number).count();
        (1..=servers).map(of).collect()
    }

    #[test]
    fn idle_servers_are_drawn_by_weight() {
        // 0 to 6 evenly: 0, 1, 2, 3 are the head's, 4 and 5 the next one's, 6 the last one's.
        let mut bench = Bench::new(Twos, &[(1, 1), (2, 2), (3, 3)]);
        let shares = shares(&mut bench, 3);
        for (share, sevenths) in shares.iter().zip([1, 2, 4]) {
            let expected = 12_000 * sevenths / 7;
            assert!(share.abs_diff(expected) < 250, "{share} and {expected}");
        }
    }

    #[test]
    fn the_more_loaded_of_two_is_taken_only_if_drawn_twice() {
        let mut bench = Bench::new(Twos, &[(1, 1), (2, 1)]);
        bench.load(2, 5, 0);
        // Drawn with two thirds, so twice with four ninths.
        let shares = shares(&mut bench, 2);
        assert!(shares[1].abs_diff(12_000 * 4 / 9) < 250, "{shares:?}");
    }

    #[test]
    fn unusable_servers_are_never_drawn() {
        let mut bench = Bench::new(Twos, &[(1, 1), (2, 0), (3, 9)]);
        bench.set_overloaded(3, true);
        assert_eq!(shares(&mut bench, 3), [12_000, 0, 0]);
        bench.set_weight(1, 0);
        assert_eq!(bench.choose(), None);
    }
}
