//! Next hops' MAC addresses, and the packets that wait for one (contract 5 b).

use std::collections::VecDeque;
use std::net::Ipv4Addr;

use hashbrown::HashMap;

use super::Mac;
use crate::command::PortId;
use crate::time::{Span, TickRate, Ticks};

/// Missing neighbours remembered as asked for.
const MAX_ASKED: usize = 1024;

/// A neighbour: on which link, and its address there.
pub(crate) type NeighbourKey = (PortId, Ipv4Addr);

/// What control should be told after a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    /// Nobody knows its MAC: ask.
    Missing,
    /// It is in use, so it is worth probing.
    Used,
}

#[derive(Debug)]
struct Known {
    mac: Mac,
    reported: Ticks,
}

#[derive(Debug)]
struct Held<F> {
    key: NeighbourKey,
    until: Ticks,
    frame: F,
}

/// The neighbours of one worker.
#[derive(Debug)]
pub(crate) struct Neighbours<F> {
    known: HashMap<NeighbourKey, Known, foldhash::fast::RandomState>,
    asked: HashMap<NeighbourKey, Ticks, foldhash::fast::RandomState>,
    held: VecDeque<Held<F>>,
    max_held: usize,
    ask_again: Span,
    report_again: Span,
    patience: Span,
}

impl<F> Neighbours<F> {
    /// No neighbours; up to `max_held` packets may wait, a quarter of them for the same one.
    pub(crate) fn new(max_held: usize, rate: TickRate) -> Self {
        Self {
            known: HashMap::default(),
            // Half full at most: so what was removed never makes it grow.
            asked: HashMap::with_capacity_and_hasher(2 * MAX_ASKED, Default::default()),
            held: VecDeque::with_capacity(max_held),
            max_held,
            ask_again: rate.seconds(1),
            report_again: rate.seconds(5),
            patience: rate.seconds(3),
        }
    }

    /// Its MAC, if known, and what to tell control.
    #[inline]
    pub(crate) fn resolve(
        &mut self,
        key: NeighbourKey,
        now: Ticks,
    ) -> (Option<Mac>, Option<Notice>) {
        if let Some(known) = self.known.get_mut(&key) {
            let due = now - known.reported >= self.report_again;
            if due {
                known.reported = now;
            }
            return (Some(known.mac), due.then_some(Notice::Used));
        }
        let due = self
            .asked
            .get(&key)
            .is_none_or(|asked| now - *asked >= self.ask_again);
        if due {
            if self.asked.len() >= MAX_ASKED {
                // Somebody makes neighbours up. Forgetting whom we asked costs asking again.
                self.asked.clear();
            }
            self.asked.insert(key, now);
        }
        (None, due.then_some(Notice::Missing))
    }

    /// Its MAC, if known.
    pub(crate) fn mac(&self, key: NeighbourKey) -> Option<Mac> {
        self.known.get(&key).map(|known| known.mac)
    }

    /// Keeps a packet until its next hop is known. Gives it back when too many wait.
    pub(crate) fn hold(&mut self, key: NeighbourKey, frame: F, now: Ticks) -> Result<(), F> {
        let same = self.held.iter().filter(|held| held.key == key).count();
        if self.held.len() >= self.max_held || same >= (self.max_held / 4).max(1) {
            return Err(frame);
        }
        self.held.push_back(Held {
            key,
            until: now + self.patience,
            frame,
        });
        Ok(())
    }

    /// How many packets wait.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Learns or forgets a neighbour.
    pub(crate) fn set(&mut self, key: NeighbourKey, mac: Option<Mac>) {
        match mac {
            Some(mac) => {
                let reported = self
                    .known
                    .get(&key)
                    .map_or(Ticks(0), |known| known.reported);
                self.known.insert(key, Known { mac, reported });
                self.asked.remove(&key);
            }
            None => {
                self.known.remove(&key);
            }
        }
    }

    /// Takes one packet that waited for this neighbour, oldest first.
    pub(crate) fn release(&mut self, key: NeighbourKey) -> Option<F> {
        let at = self.held.iter().position(|held| held.key == key)?;
        self.held.remove(at).map(|held| held.frame)
    }

    /// Takes one packet that has waited too long.
    pub(crate) fn give_up(&mut self, now: Ticks) -> Option<F> {
        if self.held.front()?.until > now {
            return None;
        }
        let held = self.held.pop_front()?;
        self.asked.remove(&held.key);
        Some(held.frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: NeighbourKey = (PortId(0), Ipv4Addr::new(192, 168, 1, 1));
    const OTHER: NeighbourKey = (PortId(1), Ipv4Addr::new(192, 168, 1, 1));
    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    fn neighbours() -> Neighbours<u8> {
        Neighbours::new(8, TickRate::new(1))
    }

    #[test]
    fn an_unknown_neighbour_is_asked_for_once_a_second() {
        let mut table = neighbours();
        assert_eq!(table.resolve(KEY, Ticks(10)), (None, Some(Notice::Missing)));
        assert_eq!(table.resolve(KEY, Ticks(10)), (None, None));
        assert_eq!(table.resolve(KEY, Ticks(11)), (None, Some(Notice::Missing)));
    }

    #[test]
    fn a_known_neighbour_in_use_is_reported_now_and_then() {
        let mut table = neighbours();
        table.set(KEY, Some(MAC));
        assert_eq!(
            table.resolve(KEY, Ticks(10)),
            (Some(MAC), Some(Notice::Used))
        );
        assert_eq!(table.resolve(KEY, Ticks(14)), (Some(MAC), None));
        assert_eq!(
            table.resolve(KEY, Ticks(15)),
            (Some(MAC), Some(Notice::Used))
        );
        table.set(KEY, None);
        assert_eq!(table.resolve(KEY, Ticks(15)).0, None);
    }

    #[test]
    fn packets_wait_in_order_bounded_and_not_for_ever() {
        let mut table = neighbours();
        assert_eq!(table.hold(KEY, 1, Ticks(0)), Ok(()));
        assert_eq!(table.hold(KEY, 2, Ticks(1)), Ok(()));
        assert_eq!(table.hold(KEY, 3, Ticks(1)), Err(3));
        assert_eq!(table.hold(OTHER, 4, Ticks(1)), Ok(()));
        assert_eq!(
            (table.release(OTHER), table.release(OTHER)),
            (Some(4), None)
        );
        assert_eq!(table.give_up(Ticks(2)), None);
        assert_eq!(table.give_up(Ticks(3)), Some(1));
        assert_eq!((table.release(KEY), table.held()), (Some(2), 0));
    }
}
