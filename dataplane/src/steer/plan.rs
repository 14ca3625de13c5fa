//! What each port is to be told, so that the packets of a flow reach the worker that owns it wherever its NIC can do that.

use std::sync::Arc;

use super::rss::{HashTypes, RssPlan};
use super::steering::Spread;
use super::toeplitz::{Key, Toeplitz};
use crate::command::WorkerId;

/// Entries of the table that owners are found by, at most: more would only be more classes of local ports than there are use for.
pub const MOST_CLASSES: u16 = 512;

/// What a port's NIC can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RssCapabilities {
    /// Receive queues that it can have.
    pub queues: u16,
    /// Entries of its redirection table; 0 if there is none.
    pub table: u16,
    /// What it can hash.
    pub hash_types: HashTypes,
    /// Bytes of its key; 0 if it does not say.
    pub key_len: u8,
}

/// Whom a port faces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    /// Only clients, and routers on the way to them.
    Clients,
    /// Only real servers.
    Servers,
    /// Both: one arm, or not known.
    #[default]
    Both,
}

/// A port to make a plan for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortNeeds {
    /// Whom it faces.
    pub side: Side,
    /// Receive queues to use; as many as there are workers if not said.
    pub queues: Option<u16>,
    /// What its NIC can do.
    pub can: RssCapabilities,
}

/// What to tell a port's NIC.
#[derive(Clone, Debug)]
pub struct PortPlan {
    /// Receive queues; worker `i` of `n` polls queues `i`, `i + n` and so on.
    pub queues: u16,
    /// How to spread packets over them; `None` with one queue, and where the NIC cannot.
    pub rss: Option<RssPlan>,
}

/// What keeps the NIC of a port from hashing one end of packets alone, as NAT wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// It has one receive queue.
    OneQueue,
    /// It spreads packets over its queues in a way that nobody knows.
    NoRss,
    /// It hashes both ends or none.
    BothEndsOnly,
    /// It could, but the port faces clients as well as real servers.
    BothSides,
}

impl PortPlan {
    /// How packets will come to the workers if the NIC does as planned.
    pub fn spread(&self) -> Spread {
        match &self.rss {
            Some(plan) => Spread::Rss(plan.clone()),
            None if self.queues == 1 => Spread::One(WorkerId(0)),
            None => Spread::Unknown,
        }
    }
}

impl RssCapabilities {
    /// Whether it can hash one end alone, as a port of this side wants it; of [`Side::Both`], either.
    fn hashes_one_end(&self, side: Side) -> bool {
        let (source, destination) = (HashTypes::SOURCE, HashTypes::DESTINATION);
        self.hash_types.contains(match side {
            Side::Clients => source,
            Side::Servers => destination,
            Side::Both => source | destination,
        })
    }

    /// Whether it can spread packets so that software knows where they go.
    pub fn can_spread(&self) -> bool {
        self.queues > 1
            && self.table.is_power_of_two()
            && self.hash_types.intersects(HashTypes::EVERY_KIND)
    }
}

impl PortNeeds {
    /// Receive queues that it gets.
    fn queues(&self, workers: u16) -> u16 {
        let wanted = self.queues.unwrap_or(workers);
        wanted.clamp(1, self.can.queues.max(1))
    }

    fn spreads(&self, workers: u16) -> bool {
        self.queues(workers) > 1 && self.can.can_spread()
    }

    /// Why its NIC is not told to hash one end of packets alone; `None` if it is, as long as the other ports allow it.
    pub fn obstacle(&self, workers: u16) -> Option<Obstacle> {
        if self.queues(workers) == 1 {
            Some(Obstacle::OneQueue)
        } else if !self.can.can_spread() {
            Some(Obstacle::NoRss)
        } else if !self.can.hashes_one_end(self.side) {
            Some(Obstacle::BothEndsOnly)
        } else {
            (self.side == Side::Both).then_some(Obstacle::BothSides)
        }
    }
}

/// A plan for each of the ports of an appliance with so many workers (contract 4 of the design).
///
/// All have the same key, a symmetric one, and tables that agree, whatever their sizes. Where every NIC that faces clients can hash
/// sources alone, every one that faces servers destinations alone, and none faces both, they do that: then NAT hands nothing over, its
/// owner being found by the client. Elsewhere all fields are hashed.
pub fn plan(ports: &[PortNeeds], workers: u16) -> Vec<PortPlan> {
    let workers = workers.max(1);
    let spreading: Vec<&PortNeeds> = ports.iter().filter(|port| port.spreads(workers)).collect();
    let ends = spreading
        .iter()
        .all(|port| port.obstacle(workers).is_none());
    let smallest = spreading.iter().map(|port| port.can.table).min();
    let classes = smallest.unwrap_or(MOST_CLASSES).min(MOST_CLASSES);
    let owners: Vec<WorkerId> = default_owners(classes, workers);
    // NICs have keys of two lengths, and all of them hash alike.
    let toeplitz = |key_len: u8| Arc::new(Toeplitz::new(Key::symmetric(key_len.into())));
    let each = ports.iter().map(|port| {
        let queues = port.queues(workers);
        if !port.spreads(workers) {
            return PortPlan { queues, rss: None };
        }
        let only = match port.side {
            Side::Clients if ends => HashTypes::SOURCE,
            Side::Servers if ends => HashTypes::DESTINATION,
            _ => HashTypes::NONE,
        };
        let types = port.can.hash_types & HashTypes::EVERY_KIND | only;
        let table = fill_table(port.can.table, &owners, queues, workers);
        let polled_by = (0..queues).map(|queue| worker_of_queue(queue, workers));
        let rss = RssPlan::new(
            toeplitz(port.can.key_len),
            types,
            table,
            polled_by.collect(),
        );
        PortPlan {
            queues,
            rss: rss.ok(),
        }
    });
    each.collect()
}

/// The worker that polls a queue.
pub fn worker_of_queue(queue: u16, workers: u16) -> WorkerId {
    WorkerId(queue % workers.max(1))
}

/// Which worker owns each entry, evenly.
pub fn default_owners(entries: u16, workers: u16) -> Vec<WorkerId> {
    let entries = 0..entries;
    entries
        .map(|entry| WorkerId(entry % workers.max(1)))
        .collect()
}

/// A redirection table of `size` entries that agrees with `owners`, whose number divides `size`: the worker of an entry gets it by its queues
/// in turn, and for a worker without a queue on this port another one does.
pub fn fill_table(size: u16, owners: &[WorkerId], queues: u16, workers: u16) -> Vec<u16> {
    let mut turns = vec![0; usize::from(workers)];
    let entries = (0..usize::from(size)).map(|entry| {
        let worker = owners[entry % owners.len()].0;
        if worker >= queues {
            return worker % queues;
        }
        let own = (queues - worker).div_ceil(workers);
        let turn = &mut turns[usize::from(worker)];
        let queue = worker + *turn % own * workers;
        *turn += 1;
        queue
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: RssCapabilities = RssCapabilities {
        queues: 64,
        table: 512,
        hash_types: HashTypes::EVERY_KIND,
        key_len: 52,
    };

    fn full() -> RssCapabilities {
        let hash_types = HashTypes::EVERY_KIND | HashTypes::SOURCE | HashTypes::DESTINATION;
        RssCapabilities { hash_types, ..FULL }
    }

    fn needs(side: Side, can: RssCapabilities) -> PortNeeds {
        PortNeeds {
            side,
            queues: None,
            can,
        }
    }

    fn types(plans: &[PortPlan]) -> Vec<HashTypes> {
        let of = |plan: &PortPlan| plan.rss.as_ref().unwrap().types();
        plans.iter().map(of).collect()
    }

    #[test]
    fn sides_are_hashed_by_one_end_where_all_nics_can() {
        let two = [needs(Side::Clients, full()), needs(Side::Servers, full())];
        let [source, destination] =
            [HashTypes::SOURCE, HashTypes::DESTINATION].map(|only| HashTypes::EVERY_KIND | only);
        assert_eq!(types(&plan(&two, 3)), [source, destination]);
        let all = HashTypes::EVERY_KIND;
        let one_cannot = [needs(Side::Clients, full()), needs(Side::Servers, FULL)];
        assert_eq!(types(&plan(&one_cannot, 3)), [all; 2]);
        assert_eq!(types(&plan(&[needs(Side::Both, full())], 3)), [all]);
        // One without RSS does not keep the others from it.
        let tap = needs(Side::Servers, RssCapabilities::default());
        let with_tap = plan(&[two[0], two[1], tap], 3);
        assert_eq!(types(&with_tap[..2]), [source, destination]);
        assert!(with_tap[2].rss.is_none());
    }

    #[test]
    fn what_keeps_a_nic_from_hashing_one_end_is_told_apart() {
        let of = |side, can| needs(side, can).obstacle(3);
        assert_eq!(of(Side::Clients, full()), None);
        assert_eq!(of(Side::Servers, full()), None);
        assert_eq!(of(Side::Both, full()), Some(Obstacle::BothSides));
        assert_eq!(of(Side::Both, FULL), Some(Obstacle::BothEndsOnly));
        let source = FULL.hash_types | HashTypes::SOURCE;
        let half = RssCapabilities {
            hash_types: source,
            ..FULL
        };
        assert_eq!(of(Side::Clients, half), None);
        assert_eq!(of(Side::Servers, half), Some(Obstacle::BothEndsOnly));
        let none = RssCapabilities {
            queues: 8,
            ..RssCapabilities::default()
        };
        assert_eq!(of(Side::Clients, none), Some(Obstacle::NoRss));
        let one = RssCapabilities {
            queues: 1,
            ..full()
        };
        assert_eq!(of(Side::Clients, one), Some(Obstacle::OneQueue));
    }

    #[test]
    fn one_queue_is_not_spread_over() {
        let one = plan(&[needs(Side::Both, full())], 1);
        assert!(one[0].queues == 1 && one[0].rss.is_none());
        let none = plan(&[needs(Side::Both, RssCapabilities::default())], 4);
        assert!(none[0].queues == 1 && none[0].rss.is_none());
    }

    #[test]
    fn keys_are_as_long_as_the_nic_says() {
        let plans = plan(&[needs(Side::Both, FULL)], 2);
        let key = plans[0].rss.as_ref().unwrap().toeplitz().key().clone();
        assert!(key.is_symmetric() && key.bytes().len() == 52);
    }

    proptest! {
        #[test]
        fn tables_of_any_size_agree_and_use_all_queues(
            workers in 1u16..=16,
            sizes in prop::collection::vec((1u32..=11, 2u16..=40), 1..4),
        ) {
            let ports: Vec<PortNeeds> = sizes.iter().map(|(bits, queues)| PortNeeds {
                queues: Some(*queues),
                ..needs(Side::Both, RssCapabilities { table: 1 << bits, ..FULL })
            }).collect();
            let plans = plan(&ports, workers);
            let smallest = ports.iter().map(|port| port.can.table).min().unwrap();
            for (port, plan) in ports.iter().zip(&plans) {
                prop_assert_eq!(plan.queues, port.queues.unwrap());
                let rss = plan.rss.as_ref().unwrap();
                prop_assert_eq!(rss.table().len(), usize::from(port.can.table));
                for (entry, worker) in rss.owners().enumerate() {
                    let owner = (entry % usize::from(smallest.min(MOST_CLASSES))) as u16 % workers;
                    if owner < plan.queues {
                        prop_assert_eq!(worker, WorkerId(owner));
                    }
                }
                // Every queue of a worker that has entries gets some, if there are enough.
                let used = |queue: u16| rss.table().contains(&queue);
                if smallest >= workers && port.can.table >= 8 * plan.queues.max(workers) {
                    prop_assert!((0..plan.queues).all(used));
                }
            }
        }
    }
}
