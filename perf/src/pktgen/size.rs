//! How long frames are: one size, or a mix.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// Shortest frame of Ethernet, frame check sequence included.
pub(crate) const MIN_SIZE: u16 = 64;

/// Longest frame of Ethernet without a VLAN tag, frame check sequence included.
pub(crate) const MAX_SIZE: u16 = 1518;

/// What the wire adds to a frame in memory: the frame check sequence.
const FCS: u16 = 4;

/// The usual mix: 7 parts of 64 bytes, 4 of 594, 1 of 1518.
const IMIX: [(u16, u16); 3] = [(64, 7), (594, 4), (1518, 1)];

/// Parts of a mix, all together.
const MOST_PARTS: u32 = 1000;

/// A size that cannot be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SizeError {
    /// Not a number, or none that Ethernet knows.
    #[error(
        "{0:?} is no size of a frame: give {MIN_SIZE} to {MAX_SIZE}, imix, or a mix such as 64:7,594:4,1518:1"
    )]
    NoSize(String),
    /// Zero parts, or too many.
    #[error(
        "{0:?} is no mix: each size has 1 or more parts, and there are at most {MOST_PARTS} of them"
    )]
    NoMix(String),
}

/// Sizes of the frames with data, frame check sequence included, in the order in which they come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    name: String,
    /// Each size that occurs, once.
    sizes: Vec<u16>,
    /// Places in `sizes`, one a part, evenly spread.
    cycle: Vec<u8>,
}

impl Sizes {
    /// Bytes in memory of each size that occurs: without the frame check sequence.
    pub(crate) fn lengths(&self) -> impl Iterator<Item = u16> + '_ {
        self.sizes.iter().map(|size| size - FCS)
    }

    /// Which of [`Sizes::lengths`] the packet with this number has.
    pub(crate) fn of(&self, number: u64) -> usize {
        match self.cycle.as_slice() {
            [only] => usize::from(*only),
            cycle => usize::from(cycle[(number % cycle.len() as u64) as usize]),
        }
    }

    fn mix(name: &str, parts: &[(u16, u16)]) -> Self {
        let total: i64 = parts.iter().map(|(_, part)| i64::from(*part)).sum();
        let mut credits = vec![0; parts.len()];
        let mut cycle = Vec::new();
        for _ in 0..total {
            for (credit, (_, part)) in credits.iter_mut().zip(parts) {
                *credit += i64::from(*part);
            }
            let most = (0..parts.len())
                .max_by_key(|at| credits[*at])
                .unwrap_or_default();
            credits[most] -= total;
            cycle.push(most as u8);
        }
        Self {
            name: name.to_owned(),
            sizes: parts.iter().map(|(size, _)| *size).collect(),
            cycle,
        }
    }
}

impl FromStr for Sizes {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        if text.eq_ignore_ascii_case("imix") {
            return Ok(Self::mix("imix", &IMIX));
        }
        let part = |item: &str| {
            let (size, part) = item.split_once(':').unwrap_or((item, "1"));
            let size = size
                .parse()
                .ok()
                .filter(|size| (MIN_SIZE..=MAX_SIZE).contains(size));
            let size = size.ok_or_else(|| SizeError::NoSize(item.to_owned()))?;
            let part = part
                .parse()
                .map_err(|_| SizeError::NoMix(text.to_owned()))?;
            Ok((size, part))
        };
        let parts = text
            .split(',')
            .map(part)
            .collect::<Result<Vec<(u16, u16)>, _>>()?;
        let total: u32 = parts.iter().map(|(_, part)| u32::from(*part)).sum();
        if total > MOST_PARTS || parts.iter().any(|(_, part)| *part == 0) {
            return Err(SizeError::NoMix(text.to_owned()));
        }
        Ok(Self::mix(text, &parts))
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Serialize for Sizes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_has_each_size_as_often_as_it_should_and_spreads_them() {
        let imix: Sizes = "imix".parse().unwrap();
        let lengths: Vec<u16> = imix.lengths().collect();
        assert_eq!(lengths, [60, 590, 1514]);
        let mut counts = [0; 3];
        for number in 0..1200 {
            counts[imix.of(number)] += 1;
        }
        assert_eq!(counts, [700, 400, 100]);
        assert!((0..12).any(|n| imix.of(n) != imix.of(n + 1)));
    }

    #[test]
    fn what_is_no_size_is_refused_with_what_would_be_one() {
        for bad in [
            "", "63", "1519", "x", "64,", "64:x", "64:0", "64:1001", "-64",
        ] {
            let error = bad.parse::<Sizes>().unwrap_err().to_string();
            assert!(error.contains("size"), "{bad}: {error}");
        }
    }
}
