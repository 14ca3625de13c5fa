//! Next hops as connections remember them: one small table, so that a packet of a known connection looks up neither
//! route nor neighbour.
//!
//! A reference names an entry and the epoch that it was given out in. A new routing table begins a new epoch, and all
//! references of the one before lead nowhere. A neighbour that moves changes its entries in place. What is done to a packet
//! on its way is part of the entry, and so is the longest packet that it may be done to.

use std::net::Ipv4Addr;

use hashbrown::HashMap;

use super::Mac;
use super::neighbours::NeighbourKey;
use crate::command::PortId;
use crate::conn::Direction;
use crate::service::Method;

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

/// What is done to a packet on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Treatment {
    /// The frame gets other addresses: DR, and replies of a TUN server.
    Readdress,
    /// The packet gets other addresses and ports: NAT, FULLNAT.
    Translate,
    /// The packet goes inside another: TUN.
    Encapsulate,
}

impl Treatment {
    /// Of packets that go `direction` of a connection with this method.
    #[inline]
    pub(crate) fn of(method: Method, direction: Direction) -> Self {
        match (method, direction) {
            (Method::Nat | Method::FullNat, _) => Self::Translate,
            (Method::Tun, Direction::ToServer) => Self::Encapsulate,
            (Method::Tun, Direction::ToClient) | (Method::Dr, _) => Self::Readdress,
        }
    }
}

/// A hop whose MAC is known, for one treatment: half a cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(crate) struct ReadyHop {
    /// Destination and source address of the frame.
    pub(crate) macs: [u8; 12],
    /// The port it is reached by.
    pub(crate) port: PortId,
    /// Bytes of an IP packet, before it is treated, that fit without a question.
    pub(crate) fits: u16,
    /// The address that packets of our own get as source.
    pub(crate) source: Ipv4Addr,
    /// What is done to packets.
    pub(crate) treatment: Treatment,
    /// A packet went since [`Hops::report`] asked.
    pub(crate) used: bool,
}

/// All next hops in use by one worker.
#[derive(Debug)]
pub(crate) struct Hops {
    /// As many as a reference can name, so that none is out of bounds; the first ones are in use.
    entries: Box<[ReadyHop; Hops::MAX]>,
    /// By entry, of those in use.
    hops: Vec<Hop>,
    by_hop: HashMap<(Hop, Treatment), u16, foldhash::fast::RandomState>,
    epoch: u16,
    /// Where [`Hops::report`] goes on.
    next: usize,
}

impl Hops {
    /// Entries at most: a reference is 16 bits.
    const MAX: usize = u16::MAX as usize + 1;

    /// None yet, and room for all that there can be.
    pub(crate) fn new() -> Self {
        Self {
            entries: vacant(),
            hops: Vec::with_capacity(Self::MAX),
            by_hop: HashMap::with_capacity_and_hasher(Self::MAX, Default::default()),
            epoch: 1,
            next: 0,
        }
    }

    /// The hop that a connection remembers, unless routes changed since.
    #[inline(always)]
    pub(crate) fn ready(&mut self, reference: HopRef) -> Option<&mut ReadyHop> {
        if reference.epoch != self.epoch {
            return None;
        }
        Some(&mut self.entries[usize::from(reference.entry)])
    }

    /// Remembers a hop whose MAC is known, for packets that are treated so and of no more than `fits` bytes.
    /// [`HopRef::NONE`] when there are too many.
    pub(crate) fn remember(
        &mut self,
        hop: Hop,
        (dst, src): (Mac, Mac),
        treatment: Treatment,
        fits: u16,
    ) -> HopRef {
        let entry = match self.by_hop.get(&(hop, treatment)) {
            Some(entry) => *entry,
            None if self.hops.len() < Self::MAX => {
                let entry = self.hops.len() as u16;
                self.entries[usize::from(entry)] = ReadyHop {
                    macs: macs(dst, src),
                    port: hop.port,
                    fits,
                    source: hop.source,
                    treatment,
                    used: false,
                };
                self.hops.push(hop);
                self.by_hop.insert((hop, treatment), entry);
                entry
            }
            None => return HopRef::NONE,
        };
        HopRef {
            entry,
            epoch: self.epoch,
        }
    }

    /// Looks at the next of all entries: `None` at their end, else the neighbour, if packets went to it since this last came by.
    pub(crate) fn report(&mut self) -> Option<Option<NeighbourKey>> {
        let Some(hop) = self.hops.get(self.next) else {
            self.next = 0;
            return None;
        };
        let used = std::mem::take(&mut self.entries[self.next].used);
        self.next += 1;
        Some(used.then_some((hop.port, hop.neighbour)))
    }

    /// Routes, ports or a neighbour changed: nothing that was remembered holds any more. Returns whether
    /// references of long ago could be mistaken for new ones: then the caller must clear them all.
    #[must_use]
    pub(crate) fn forget_all(&mut self) -> bool {
        self.hops.clear();
        self.by_hop.clear();
        self.epoch = self.epoch.wrapping_add(1).max(1);
        self.epoch == 1
    }

    /// A neighbour is at another MAC.
    pub(crate) fn moved(&mut self, port: PortId, neighbour: Ipv4Addr, dst: Mac) {
        for (entry, hop) in self.entries.iter_mut().zip(&self.hops) {
            if (hop.port, hop.neighbour) == (port, neighbour) {
                entry.macs[..6].copy_from_slice(&dst.0);
            }
        }
    }
}

fn vacant() -> Box<[ReadyHop; Hops::MAX]> {
    let nowhere = ReadyHop {
        macs: [0; 12],
        port: PortId(0),
        fits: 0,
        source: Ipv4Addr::UNSPECIFIED,
        treatment: Treatment::Readdress,
        used: false,
    };
    match vec![nowhere; Hops::MAX].into_boxed_slice().try_into() {
        Ok(entries) => entries,
        Err(_) => unreachable!("just made as long as it must be"),
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

    fn remember(hops: &mut Hops, treatment: Treatment) -> HopRef {
        hops.remember(HOP, (Mac([1; 6]), Mac([2; 6])), treatment, 1500)
    }

    #[test]
    fn a_reference_holds_until_routes_change() {
        let mut hops = Hops::new();
        assert!(hops.ready(HopRef::NONE).is_none());
        let reference = remember(&mut hops, Treatment::Readdress);
        assert_eq!(remember(&mut hops, Treatment::Readdress), reference);
        assert_ne!(remember(&mut hops, Treatment::Encapsulate), reference);
        hops.moved(PortId(1), HOP.neighbour, Mac([9; 6]));
        assert_eq!(
            hops.ready(reference).unwrap().macs,
            [9, 9, 9, 9, 9, 9, 2, 2, 2, 2, 2, 2]
        );
        assert!(!hops.forget_all());
        assert!(hops.ready(reference).is_none());
    }

    #[test]
    fn a_hop_is_reported_once_for_each_time_that_it_was_used() {
        let mut hops = Hops::new();
        let reference = remember(&mut hops, Treatment::Translate);
        let neighbour = Some((HOP.port, HOP.neighbour));
        for used in [false, true, false] {
            if used {
                hops.ready(reference).unwrap().used = true;
            }
            assert_eq!(hops.report(), Some(neighbour.filter(|_| used)));
            assert_eq!(hops.report(), None);
        }
    }

    #[test]
    fn the_epoch_that_comes_round_says_so() {
        let mut hops = Hops::new();
        let wraps = (0..2 * 65535).filter(|_| hops.forget_all()).count();
        assert_eq!(wraps, 2);
        assert!(hops.ready(HopRef::NONE).is_none());
    }
}
