//! Shares of a whole, by place: which place a number falls to, in O(log n) (Fenwick, 1994).

/// Shares, the sum of all of which is the whole.
#[derive(Debug, Default)]
pub(super) struct Shares {
    shares: Vec<u32>,
    /// At `n`, counted from 1: the sum of as many shares up to there as the lowest bit of `n` says.
    sums: Vec<u64>,
    whole: u64,
}

impl Shares {
    /// Replaces all of them. O(n).
    pub(super) fn replace(&mut self, shares: impl Iterator<Item = u32>) {
        self.shares.clear();
        self.shares.extend(shares);
        self.whole = self.shares.iter().map(|share| u64::from(*share)).sum();
        self.sums.clear();
        self.sums.push(0);
        self.sums
            .extend(self.shares.iter().map(|share| u64::from(*share)));
        for n in 1..self.sums.len() {
            let above = n + lowest_bit(n);
            if above < self.sums.len() {
                self.sums[above] += self.sums[n];
            }
        }
    }

    /// The share of one place is another from now on. O(log n).
    pub(super) fn set(&mut self, place: usize, share: u32) {
        let was = std::mem::replace(&mut self.shares[place], share);
        let change = |sum: u64| sum + u64::from(share) - u64::from(was);
        self.whole = change(self.whole);
        let mut n = place + 1;
        while n < self.sums.len() {
            self.sums[n] = change(self.sums[n]);
            n += lowest_bit(n);
        }
    }

    pub(super) fn whole(&self) -> u64 {
        self.whole
    }

    /// The first place up to which the shares come to `number` or more, but none without a share; `None` beyond the whole. O(log n).
    pub(super) fn place(&self, number: u64) -> Option<usize> {
        let mut left = number.max(1);
        if left > self.whole {
            return None;
        }
        let mut before = 0;
        let mut step = (self.sums.len() / 2 + 1).next_power_of_two();
        while step > 0 {
            if let Some(sum) = self.sums.get(before + step)
                && *sum < left
            {
                before += step;
                left -= sum;
            }
            step /= 2;
        }
        Some(before)
    }
}

fn lowest_bit(n: usize) -> usize {
    n & n.wrapping_neg()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by_scan(shares: &[u32], number: u64) -> Option<usize> {
        let mut sum = 0;
        shares.iter().position(|share| {
            sum += u64::from(*share);
            *share > 0 && sum >= number
        })
    }

    proptest! {
        #[test]
        fn a_number_falls_where_a_scan_finds_it(
            mut plain in prop::collection::vec(0..5_u32, 0..40),
            edits in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![0..5_u32, Just(u32::MAX)]), 0..20),
        ) {
            let mut shares = Shares::default();
            shares.replace(plain.iter().copied());
            for (place, share) in edits {
                if !plain.is_empty() {
                    let place = place.index(plain.len());
                    plain[place] = share;
                    shares.set(place, share);
                }
                let whole = plain.iter().map(|share| u64::from(*share)).sum();
                prop_assert_eq!(shares.whole(), whole);
                for number in (0..40).chain([whole - whole.min(1), whole, whole + 1]) {
                    prop_assert_eq!(shares.place(number), by_scan(&plain, number), "{} of {:?}", number, plain);
                }
            }
        }
    }
}
