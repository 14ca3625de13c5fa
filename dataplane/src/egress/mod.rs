//! Where a packet leaves: next hop, neighbour, transmit.

mod fib;
mod hops;
mod lanes;
mod neighbours;

use std::fmt;

pub use fib::{Fib, Route};
pub use hops::HopRef;
pub(crate) use hops::{Hop, Hops, ReadyHop, Treatment};
pub(crate) use lanes::Lanes;
pub(crate) use neighbours::{NeighbourKey, Neighbours, Notice};

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
