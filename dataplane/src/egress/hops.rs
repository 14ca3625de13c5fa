//! Next hops as connections remember them: one small table, so that a packet of a known connection looks up neither
//! route nor neighbour.
//!
//! A reference names an entry and the epoch that it was given out in. A new routing table begins a new epoch, and all
//! references of the one before lead nowhere. A neighbour that moves changes its entries in place.

use std::net::Ipv4Addr;

use hashbrown::HashMap;

use super::Mac;
use crate::command::PortId;
use crate::time::{Span, Ticks};

/// A remembered next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HopRef {
    entry: u16,
    epoch: u16,
}

impl HopRef {
    /// Leads nowhere: epochs begin at 1.
    pub const NONE: Self = Self { entry: 0, epoch: 0 };
}

/// The way to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Hop {
    /// The port it is reached by.
    pub(crate) port: PortId,
    /// The address whose MAC the frame goes to.
    pub(crate) neighbour: Ipv4Addr,
    /// The address that packets of our own get as source.
    pub(crate) source: Ipv4Addr,
    /// Bytes of an IP packet that fit.
    pub(crate) mtu: u16,
}

/// A hop whose MAC is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadyHop {
    pub(crate) hop: Hop,
    /// Destination and source address of the frame.
    pub(crate) macs: [u8; 12],
    /// When control shall be told again that it is in use.
    pub(crate) report_at: Ticks,
}

/// All next hops in use by one worker.
#[derive(Debug)]
pub(crate) struct Hops {
    entries: Vec<ReadyHop>,
    by_hop: HashMap<Hop, u16, foldhash::fast::RandomState>,
    epoch: u16,
}

impl Hops {
    /// Entries at most: a reference is 16 bits.
    const MAX: usize = u16::MAX as usize;

    /// None yet, and room for all that there can be.
    pub(crate) fn new() -> Self {
        Self {
            entries: Vec::with_capacity(Self::MAX),
            by_hop: HashMap::with_capacity_and_hasher(Self::MAX, Default::default()),
            epoch: 1,
        }
    }

    /// The hop that a connection remembers, unless routes changed since.
    #[inline]
    pub(crate) fn ready(&self, reference: HopRef) -> Option<&ReadyHop> {
        if reference.epoch != self.epoch {
            return None;
        }
        self.entries.get(usize::from(reference.entry))
    }

    /// Remembers a hop whose MAC is known, and which control has just been told of if it wants to hear every `again`.
    /// [`HopRef::NONE`] when there are too many.
    pub(crate) fn remember(
        &mut self,
        hop: Hop,
        dst: Mac,
        src: Mac,
        now: Ticks,
        again: Span,
    ) -> HopRef {
        let entry = match self.by_hop.get(&hop) {
            Some(entry) => *entry,
            None if self.entries.len() < Self::MAX => {
                let entry = self.entries.len() as u16;
                self.entries.push(ReadyHop {
                    hop,
                    macs: macs(dst, src),
                    report_at: now,
                });
                self.by_hop.insert(hop, entry);
                entry
            }
            None => return HopRef::NONE,
        };
        let ready = &mut self.entries[usize::from(entry)];
        if now >= ready.report_at {
            ready.report_at = now + again;
        }
        HopRef {
            entry,
            epoch: self.epoch,
        }
    }

    /// Routes, ports or a neighbour changed: nothing that was remembered holds any more. Returns whether
    /// references of long ago could be mistaken for new ones: then the caller must clear them all.
    #[must_use]
    pub(crate) fn forget_all(&mut self) -> bool {
        self.entries.clear();
        self.by_hop.clear();
        self.epoch = self.epoch.wrapping_add(1).max(1);
        self.epoch == 1
    }

    /// A neighbour is at another MAC.
    pub(crate) fn moved(&mut self, port: PortId, neighbour: Ipv4Addr, dst: Mac) {
        for entry in &mut self.entries {
            if (entry.hop.port, entry.hop.neighbour) == (port, neighbour) {
                entry.macs[..6].copy_from_slice(&dst.0);
            }
        }
    }
}

fn macs(dst: Mac, src: Mac) -> [u8; 12] {
    let mut macs = [0; 12];
    macs[..6].copy_from_slice(&dst.0);
    macs[6..].copy_from_slice(&src.0);
    macs
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOP: Hop = Hop {
        port: PortId(1),
        neighbour: Ipv4Addr::new(192, 168, 1, 1),
        source: Ipv4Addr::new(192, 168, 1, 254),
        mtu: 1500,
    };

    #[test]
    fn a_reference_holds_until_routes_change() {
        let mut hops = Hops::new();
        assert!(hops.ready(HopRef::NONE).is_none());
        let reference = hops.remember(HOP, Mac([1; 6]), Mac([2; 6]), Ticks(0), Span(5));
        assert_eq!(
            hops.remember(HOP, Mac([1; 6]), Mac([2; 6]), Ticks(0), Span(5)),
            reference
        );
        hops.moved(PortId(1), HOP.neighbour, Mac([9; 6]));
        assert_eq!(
            hops.ready(reference).unwrap().macs,
            [9, 9, 9, 9, 9, 9, 2, 2, 2, 2, 2, 2]
        );
        assert!(!hops.forget_all());
        assert!(hops.ready(reference).is_none());
    }

    #[test]
    fn the_epoch_that_comes_round_says_so() {
        let mut hops = Hops::new();
        let wraps = (0..2 * 65535).filter(|_| hops.forget_all()).count();
        assert_eq!(wraps, 2);
        assert!(hops.ready(HopRef::NONE).is_none());
    }
}
