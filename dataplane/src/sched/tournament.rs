//! A tournament over the ranks of a service's servers: what lc, wlc, sed, nq, fo and ovf choose by.
//!
//! Every pair of neighbours in the list plays, the winners play, and so on; a tie goes to the earlier one, which makes the
//! overall winner the one that the kernel's scan of the list finds. Cost: O(1) a choice, O(log n) for each server whose
//! connections changed since the last choice, O(n) an edit. Memory: 20 bytes a server.

use super::{Pool, Request, Scheduler, Standing};
use crate::command::ServiceEdit;
use crate::service::RealServerSpec;

/// How good a choice a server is: the less load for its weight, the better.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rank {
    pub(super) load: u64,
    pub(super) weight: u32,
}

impl Rank {
    /// Of those that are not to be chosen: everybody else is better.
    const OUT: Self = Self {
        load: u64::MAX,
        weight: 1,
    };

    /// Whether it is better, and not just as good.
    pub(super) fn beats(self, other: Self) -> bool {
        let product = |load: u64, weight: u32| u128::from(load) * u128::from(weight);
        product(self.load, other.weight) < product(other.load, self.weight)
    }

    fn is_out(self) -> bool {
        self.load == u64::MAX
    }
}

/// Ranks a server that is not overloaded; `None` when it is not to be chosen.
pub(super) type Rule = fn(Standing) -> Option<Rank>;

#[derive(Debug)]
pub(super) struct Tournament {
    rule: Rule,
    /// By place, filled up to a power of two.
    ranks: Vec<Rank>,
    /// A binary tree of places: the final at 1, the games below game `n` at `2n` and `2n + 1`. Below the lowest games are
    /// the places themselves.
    winners: Vec<u32>,
}

impl Tournament {
    pub(super) fn new(rule: Rule, pool: &Pool<'_>) -> Self {
        let mut tournament = Self {
            rule,
            ranks: Vec::new(),
            winners: Vec::new(),
        };
        tournament.replay(pool);
        tournament
    }

    /// The first of the best.
    pub(super) fn best(&self) -> Option<usize> {
        let place = self.winner(1);
        (!self.ranks[place as usize].is_out()).then_some(place as usize)
    }

    /// The server at `place` stands otherwise than before.
    pub(super) fn update(&mut self, pool: &Pool<'_>, place: usize) {
        self.ranks[place] = self.rank(pool, place);
        let mut game = (self.ranks.len() + place) / 2;
        while game > 0 {
            let winner = self.play(game);
            if winner == self.winners[game] && winner as usize != place {
                return;
            }
            self.winners[game] = winner;
            game /= 2;
        }
    }

    /// Plays all games.
    pub(super) fn replay(&mut self, pool: &Pool<'_>) {
        let servers = pool.list().len();
        self.ranks.clear();
        self.ranks.resize(servers.next_power_of_two(), Rank::OUT);
        for place in 0..servers {
            self.ranks[place] = self.rank(pool, place);
        }
        self.winners.clear();
        self.winners.resize(self.ranks.len(), 0);
        for game in (1..self.winners.len()).rev() {
            self.winners[game] = self.play(game);
        }
    }

    fn rank(&self, pool: &Pool<'_>, place: usize) -> Rank {
        if pool.overloaded(place) {
            return Rank::OUT;
        }
        (self.rule)(pool.standing(place)).unwrap_or(Rank::OUT)
    }

    fn play(&self, game: usize) -> u32 {
        let (left, right) = (self.winner(2 * game), self.winner(2 * game + 1));
        if self.ranks[right as usize].beats(self.ranks[left as usize]) {
            right
        } else {
            left
        }
    }

    fn winner(&self, game: usize) -> u32 {
        match game.checked_sub(self.ranks.len()) {
            Some(place) => place as u32,
            None => self.winners[game],
        }
    }
}

impl Scheduler for Tournament {
    fn choose(&mut self, _pool: &Pool<'_>, _request: &Request<'_>) -> Option<usize> {
        self.best()
    }

    fn edited(&mut self, _before: &[RealServerSpec], pool: &Pool<'_>, _edit: ServiceEdit) {
        self.replay(pool);
    }

    fn counted(&mut self, pool: &Pool<'_>, place: usize) {
        self.update(pool, place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_compare_load_per_weight_without_overflow() {
        let rank = |load, weight| Rank { load, weight };
        assert!(rank(3, 2).beats(rank(2, 1)));
        assert!(!rank(4, 2).beats(rank(2, 1)));
        assert!(rank(1 << 40, i32::MAX as u32).beats(rank(1 << 41, i32::MAX as u32)));
        assert!(rank(1 << 40, 1).beats(Rank::OUT) && !Rank::OUT.beats(rank(1 << 40, 1)));
    }
}
