//! How much of the index is in use: linear hashing over fine buckets.
//!
//! A hash names one of the buckets that the index has when fully grown: a *fine* one. Until then neighbours share a bucket: 2 to
//! the power of `shift` of them, or twice as many in the `whole` buckets that are still to be split at this scale. Splitting goes
//! from the highest of those to the lowest, and the halves of bucket `n` become buckets `2 n` and `2 n + 1`, which are free by
//! then. Which half an entry goes to is a bit of its fine bucket's number, so its key is not looked at.

/// Halvings between an index at its smallest and at its largest: the low bits of a fine bucket's number that entries keep.
const HALVINGS: u32 = u8::BITS;

/// An index does not begin with fewer buckets than this.
const SMALLEST: usize = 256;

/// Where fine buckets are now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// Fine buckets.
    len: u32,
    /// A split bucket holds 2 to the power of this fine ones, one still whole twice as many.
    shift: u32,
    /// Buckets below this one are still whole.
    whole: u32,
    /// Fine buckets below this one are in whole buckets.
    bound: u32,
}

impl Scale {
    /// At its smallest, for `buckets` of the size that is needed in the end.
    pub(super) fn new(buckets: usize) -> Self {
        let halvings = halvings(buckets);
        let len = len(buckets) as u32;
        let mut scale = Self {
            len,
            shift: halvings,
            whole: 0,
            bound: 0,
        };
        scale.refine();
        scale
    }

    /// Looks at the same buckets as whole ones of the next finer scale, if there is one.
    fn refine(&mut self) {
        if self.shift > 0 {
            self.whole = self.len >> self.shift;
            self.bound = self.len;
            self.shift -= 1;
        }
    }

    /// The bucket that a fine one is in.
    #[inline(always)]
    pub(super) fn at(&self, fine: u32) -> usize {
        (fine >> (self.shift + u32::from(fine < self.bound))) as usize
    }

    /// The fine bucket of an entry in this bucket that kept these low bits of its number.
    pub(super) fn fine(&self, at: usize, low: u8) -> u32 {
        let at = at as u32;
        let shift = self.shift + u32::from(at < self.whole);
        at << shift | u32::from(low) & ((1 << shift) - 1)
    }

    /// Buckets in use.
    pub(super) fn buckets(&self) -> usize {
        ((self.len >> self.shift) - self.whole) as usize
    }

    /// The first bucket in use from `at` on, or the very first.
    pub(super) fn used(&self, at: usize) -> usize {
        let (whole, end) = (self.whole as usize, (self.len >> self.shift) as usize);
        if at < whole {
            at
        } else if at < end {
            at.max(2 * whole)
        } else {
            0
        }
    }

    /// Splits the next bucket: which one; `None` when fully grown.
    pub(super) fn split(&mut self) -> Option<usize> {
        if self.whole == 0 {
            self.refine();
        }
        self.whole = self.whole.checked_sub(1)?;
        self.bound = self.whole << (self.shift + 1);
        Some(self.whole as usize)
    }
}

fn halvings(buckets: usize) -> u32 {
    (buckets / SMALLEST).max(1).ilog2().min(HALVINGS)
}

/// Buckets of an index that needs no fewer: so many that halving leaves no remainder.
pub(super) fn len(buckets: usize) -> usize {
    buckets.next_multiple_of(1 << halvings(buckets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_split_makes_two_buckets_of_one_and_moves_nothing_else() {
        for wanted in [2, 511, 512, 1000, 1536, 5000, 70_000] {
            let mut scale = Scale::new(wanted);
            let len = len(wanted) as u32;
            assert_eq!(scale.buckets(), (len >> halvings(wanted)) as usize);
            loop {
                let before = scale;
                let Some(split) = scale.split() else { break };
                for fine in 0..len {
                    let (old, new) = (before.at(fine), scale.at(fine));
                    assert_eq!(scale.fine(new, fine as u8), fine);
                    assert!(if old == split {
                        new / 2 == split
                    } else {
                        new == old
                    });
                }
                assert_eq!(scale.buckets(), before.buckets() + 1);
                if scale.buckets() > 600 {
                    break;
                }
            }
        }
    }

    #[test]
    fn fully_grown_each_fine_bucket_is_its_own() {
        for wanted in [2, 300, 512, 5000, 65_536] {
            let mut scale = Scale::new(wanted);
            while scale.split().is_some() {}
            assert_eq!(scale.buckets(), len(wanted));
            assert!(scale.split().is_none());
            assert!((0..len(wanted) as u32).all(|fine| scale.at(fine) == fine as usize));
        }
    }
}
