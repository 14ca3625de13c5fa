//! What the kernel knows of the neighbours behind our ports, what it was asked, and what the workers were told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use sluice_dataplane::command::PortId;
use sluice_dataplane::egress::Mac;

/// The kernel is not asked again for the same neighbour within this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// A neighbour is in use for so long after a worker has said so; workers say so every 5 s.
const IN_USE: Duration = Duration::from_secs(15);

/// How the kernel stands with a neighbour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Standing {
    /// It knows nothing.
    #[default]
    Unknown,
    /// It is asking.
    Resolving,
    /// It asked in vain.
    Failed,
    /// It knows the MAC and keeps checking it (REACHABLE, STALE, DELAY, PROBE).
    Known(Mac),
    /// An administrator said so (PERMANENT, NOARP).
    Fixed(Mac),
}

impl Standing {
    fn mac(self) -> Option<Mac> {
        match self {
            Self::Known(mac) | Self::Fixed(mac) => Some(mac),
            Self::Unknown | Self::Resolving | Self::Failed => None,
        }
    }
}

/// A neighbour: a port and an address.
pub(super) type Neighbour = (PortId, Ipv4Addr);

/// Neighbours, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighbourCounts {
    /// With a MAC now.
    pub usable: u64,
    /// Being asked for now.
    pub resolving: u64,
    /// That do not answer now.
    pub failed: u64,
    /// Times that one stopped answering or never did, since start.
    pub failures: u64,
    /// Times that the kernel was made to ask for one that was missing, since start.
    pub asked: u64,
    /// Times that the kernel was told that one is in use, since start.
    pub probed: u64,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    entries: BTreeMap<Neighbour, Entry>,
    /// To be told to the workers.
    changed: BTreeSet<Neighbour>,
    failed: BTreeSet<Neighbour>,
    /// Forgotten by the kernel, and to be asked for.
    forgotten: BTreeSet<Neighbour>,
    counts: NeighbourCounts,
}

#[derive(Debug, Default)]
struct Entry {
    standing: Standing,
    told: Option<Mac>,
    /// Tell, whether or not it differs from what was told.
    tell_again: bool,
    asked_at: Option<Instant>,
    /// The kernel has forgotten it while it was in use: what was told holds until the kernel knows better.
    kept: bool,
}

impl Neighbours {
    /// The kernel says how it stands with a neighbour.
    pub(super) fn set(&mut self, neighbour: Neighbour, standing: Standing) {
        let entry = self.entries.entry(neighbour).or_default();
        let before = std::mem::replace(&mut entry.standing, standing);
        if standing == before {
            if standing == Standing::Unknown {
                self.forget(neighbour);
            }
            return;
        }
        let flushed = standing == Standing::Unknown
            && matches!(before, Standing::Known(_))
            && entry.asked_at.is_some_and(|at| at.elapsed() < IN_USE);
        entry.kept = flushed || entry.kept && standing == Standing::Resolving;
        if flushed {
            self.forgotten.insert(neighbour);
        }
        if entry.mac() != entry.told {
            self.changed.insert(neighbour);
        }
        if let Some(count) = self.gauge(before) {
            *count -= 1;
        }
        if let Some(count) = self.gauge(standing) {
            *count += 1;
        }
        if standing == Standing::Failed {
            self.counts.failures += 1;
            self.failed.insert(neighbour);
        } else {
            self.failed.remove(&neighbour);
        }
        if standing == Standing::Unknown {
            self.forget(neighbour);
        }
    }

    /// The kernel was read whole: what is not in `standings` is gone.
    pub(super) fn replace(&mut self, standings: &BTreeMap<Neighbour, Standing>) {
        let gone: Vec<_> = self
            .entries
            .keys()
            .filter(|neighbour| !standings.contains_key(neighbour))
            .copied()
            .collect();
        for neighbour in gone {
            self.set(neighbour, Standing::Unknown);
        }
        for (&neighbour, &standing) in standings {
            self.set(neighbour, standing);
        }
    }

    /// A worker misses the neighbour: whether to make the kernel ask for it.
    pub(super) fn missing(&mut self, neighbour: Neighbour, now: Instant) -> bool {
        let entry = self.entries.entry(neighbour).or_default();
        if entry.standing.mac().is_some() {
            // It is known here, so the worker has lost it, or has not got it yet: tell again.
            entry.tell_again = true;
            self.changed.insert(neighbour);
        }
        let ask = entry.ask(now);
        self.counts.asked += u64::from(ask);
        ask
    }

    /// A worker uses the neighbour: whether to tell the kernel, so that it goes on checking it.
    pub(super) fn used(&mut self, neighbour: Neighbour, now: Instant) -> bool {
        let probe = self.entries.entry(neighbour).or_default().ask(now);
        self.counts.probed += u64::from(probe);
        probe
    }

    /// The next neighbour that the kernel has forgotten (`ip neigh flush`) and that is in use: the kernel should ask for it at once.
    /// Until it answers, or does not, workers go on with the MAC that they have.
    pub(super) fn next_forgotten(&mut self) -> Option<Neighbour> {
        self.forgotten.pop_first()
    }

    /// Whether there may be something to tell.
    pub(super) fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The next neighbour to tell the workers about, and its MAC.
    pub(super) fn next_change(&mut self) -> Option<(Neighbour, Option<Mac>)> {
        while let Some(neighbour) = self.changed.pop_first() {
            let Some(entry) = self.entries.get_mut(&neighbour) else {
                continue;
            };
            let mac = entry.mac();
            let news = mac != entry.told || entry.tell_again;
            entry.told = mac;
            entry.tell_again = false;
            self.forget(neighbour);
            if news {
                return Some((neighbour, mac));
            }
        }
        None
    }

    /// How many of each kind.
    pub(super) fn counts(&self) -> NeighbourCounts {
        self.counts
    }

    /// Those that do not answer.
    pub(super) fn failed(&self) -> &BTreeSet<Neighbour> {
        &self.failed
    }

    /// Drops the entry if nothing has to be remembered of it.
    fn forget(&mut self, neighbour: Neighbour) {
        let idle = self
            .entries
            .get(&neighbour)
            .is_some_and(|e| e.standing == Standing::Unknown && e.told.is_none());
        if idle {
            self.entries.remove(&neighbour);
            self.changed.remove(&neighbour);
        }
    }

    fn gauge(&mut self, standing: Standing) -> Option<&mut u64> {
        match standing {
            Standing::Unknown => None,
            Standing::Resolving => Some(&mut self.counts.resolving),
            Standing::Failed => Some(&mut self.counts.failed),
            Standing::Known(_) | Standing::Fixed(_) => Some(&mut self.counts.usable),
        }
    }
}

impl Entry {
    /// What workers should use.
    fn mac(&self) -> Option<Mac> {
        let kept = self.told.filter(|_| self.kept);
        self.standing.mac().or(kept)
    }

    /// Whether the kernel is to be bothered, not too often, and never for what an administrator fixed: saying "in use" would
    /// make that an ordinary entry.
    fn ask(&mut self, now: Instant) -> bool {
        let fixed = matches!(self.standing, Standing::Fixed(_));
        let recent = self.asked_at.is_some_and(|at| now - at < ASK_AGAIN);
        let ask = !fixed && !recent;
        if ask {
            self.asked_at = Some(now);
        }
        ask
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);
    const WHO: Neighbour = (PortId(0), Ipv4Addr::new(10, 0, 0, 7));

    fn changes(neighbours: &mut Neighbours) -> Vec<Option<Mac>> {
        std::iter::from_fn(|| neighbours.next_change().map(|(_, mac)| mac)).collect()
    }

    #[test]
    fn only_changes_of_the_mac_are_told() {
        let mut table = Neighbours::default();
        table.set(WHO, Standing::Resolving);
        assert_eq!(changes(&mut table), []);
        table.set(WHO, Standing::Known(MAC));
        assert_eq!(changes(&mut table), [Some(MAC)]);
        table.set(WHO, Standing::Fixed(MAC));
        table.set(WHO, Standing::Known(MAC));
        assert_eq!(changes(&mut table), []);
        table.set(WHO, Standing::Known(Mac([2, 0, 0, 0, 0, 8])));
        table.set(WHO, Standing::Failed);
        assert_eq!(changes(&mut table), [None]);
    }

    #[test]
    fn a_neighbour_that_is_gone_is_told_and_then_forgotten() {
        let mut table = Neighbours::default();
        table.set(WHO, Standing::Known(MAC));
        assert_eq!(changes(&mut table), [Some(MAC)]);
        table.replace(&BTreeMap::new());
        assert_eq!(changes(&mut table), [None]);
        assert!(table.entries.is_empty());
        assert_eq!(table.counts(), NeighbourCounts::default());
    }

    #[test]
    fn one_in_use_that_the_kernel_forgets_is_kept_until_it_does_not_answer() {
        let mut table = Neighbours::default();
        table.set(WHO, Standing::Known(MAC));
        table.used(WHO, Instant::now());
        assert_eq!(changes(&mut table), [Some(MAC)]);
        table.set(WHO, Standing::Unknown);
        assert_eq!(table.next_forgotten(), Some(WHO));
        assert_eq!(table.next_forgotten(), None);
        table.set(WHO, Standing::Resolving);
        table.set(WHO, Standing::Known(MAC));
        assert_eq!(changes(&mut table), []);

        table.set(WHO, Standing::Unknown);
        table.set(WHO, Standing::Resolving);
        assert_eq!(changes(&mut table), []);
        table.set(WHO, Standing::Failed);
        assert_eq!(changes(&mut table), [None]);
    }

    #[test]
    fn standings_are_counted() {
        let mut table = Neighbours::default();
        table.set(WHO, Standing::Resolving);
        assert_eq!(table.counts().resolving, 1);
        table.set(WHO, Standing::Failed);
        assert_eq!(table.failed().len(), 1);
        table.set(WHO, Standing::Known(MAC));
        let expected = NeighbourCounts {
            usable: 1,
            failures: 1,
            ..NeighbourCounts::default()
        };
        assert_eq!(table.counts(), expected);
        assert!(table.failed().is_empty());
    }

    #[test]
    fn the_kernel_is_asked_at_most_once_a_second_and_never_about_a_fixed_one() {
        let mut table = Neighbours::default();
        let start = Instant::now();
        assert!(table.missing(WHO, start));
        assert!(!table.missing(WHO, start + ASK_AGAIN / 2));
        assert!(table.missing(WHO, start + ASK_AGAIN));
        table.set(WHO, Standing::Known(MAC));
        assert!(!table.used(WHO, start + ASK_AGAIN));
        assert!(table.used(WHO, start + ASK_AGAIN * 2));
        table.set(WHO, Standing::Fixed(MAC));
        assert!(!table.used(WHO, start + ASK_AGAIN * 9));
        assert_eq!((table.counts().asked, table.counts().probed), (2, 1));
    }

    #[test]
    fn a_worker_that_misses_a_known_neighbour_is_told_again() {
        let mut table = Neighbours::default();
        table.set(WHO, Standing::Fixed(MAC));
        assert_eq!(changes(&mut table), [Some(MAC)]);
        table.missing(WHO, Instant::now());
        assert_eq!(changes(&mut table), [Some(MAC)]);
    }
}
