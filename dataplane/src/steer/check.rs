//! The self-check of a port's RSS: what was asked of the NIC, what it says that it does, and what follows from a difference.
//!
//! A difference never loses a packet: owners are computed in software, and whoever gets a packet of another's hands it over.

use std::fmt;
use std::sync::Arc;

use super::plan::{RssCapabilities, worker_of_queue};
use super::rss::{HashTypes, PlanError, RssPlan};
use super::steering::Spread;
use super::toeplitz::{Key, Toeplitz};
use crate::command::WorkerId;

/// What a NIC says of itself after it was told what to do; `None` for what it does not tell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Why it would not spread packets at all.
    pub refused: Option<String>,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// What it hashes.
    pub hash_types: Option<HashTypes>,
    /// Its redirection table.
    pub table: Option<Vec<u16>>,
}

/// What is otherwise than it was meant to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// It does not spread packets, for this reason.
    Refused(String),
    /// It has another key, or none that hashes IPv6.
    Key(Vec<u8>),
    /// It hashes other things.
    HashTypes {
        /// Asked for.
        asked: HashTypes,
        /// In force.
        found: HashTypes,
    },
    /// So many entries of its table lead to another worker.
    Table(usize),
    /// Its table is none that can be computed with.
    OddTable(PlanError),
    /// It does not tell its key, its hash types or its table.
    NotTold(&'static str),
}

impl fmt::Display for Difference {
    /// What it is, and what is done about it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(why) => write!(
                f,
                "the NIC refused to spread packets ({why}): it runs without, and packets that reach another worker than their owner are handed over"
            ),
            Self::Key(found) => write!(
                f,
                "the NIC has a key of its own of {} bytes: sluice computes with that one; where it differs from other ports' packets are handed over",
                found.len()
            ),
            Self::HashTypes { asked, found } => write!(
                f,
                "the NIC hashes {found} instead of {asked}: sluice computes with that; packets that reach another worker than their owner are handed over"
            ),
            Self::Table(entries) => write!(
                f,
                "{entries} entries of the NIC's table lead to other workers than asked for: sluice computes with the table that is there"
            ),
            Self::OddTable(error) => write!(
                f,
                "the NIC's table cannot be computed with ({error}): where packets arrive is not known, and each is handed over to its owner"
            ),
            Self::NotTold(what) => write!(
                f,
                "the NIC does not tell its {what}: what it was told is believed, and checked against the hashes of packets if it gives those"
            ),
        }
    }
}

/// What was found when a port was brought up.
#[derive(Clone, Debug)]
pub struct RssCheck {
    /// What the NIC can do.
    pub can: RssCapabilities,
    /// Receive queues that it was given.
    pub queues: u16,
    /// How many workers poll them.
    pub workers: u16,
    /// What it was asked to do; `None` if nothing was.
    pub asked: Option<RssPlan>,
    /// What it says.
    pub told: Told,
    /// Where the two differ.
    pub differences: Vec<Difference>,
    /// What sluice computes with from now on.
    pub spread: Spread,
}

impl RssCheck {
    /// Compares what was asked with what the NIC told.
    pub fn new(
        can: RssCapabilities,
        queues: u16,
        workers: u16,
        asked: Option<RssPlan>,
        told: Told,
    ) -> Self {
        let mut check = Self {
            can,
            queues,
            workers,
            asked,
            told,
            differences: Vec::new(),
            spread: if queues == 1 {
                Spread::One(WorkerId(0))
            } else {
                Spread::Unknown
            },
        };
        if let Some(asked) = check.asked.clone() {
            check.compare(&asked);
        }
        check
    }

    fn compare(&mut self, asked: &RssPlan) {
        if let Some(why) = self.told.refused.clone() {
            self.differences.push(Difference::Refused(why));
            return;
        }
        let toeplitz = self.key(asked);
        let types = match self.told.hash_types {
            None => {
                self.differences.push(Difference::NotTold("hash types"));
                asked.types()
            }
            Some(found) => {
                if found != asked.types() {
                    self.differences.push(Difference::HashTypes {
                        asked: asked.types(),
                        found,
                    });
                }
                found
            }
        };
        let table = match &self.told.table {
            None => {
                self.differences.push(Difference::NotTold("table"));
                asked.table().to_vec()
            }
            Some(found) => found.clone(),
        };
        let polled_by = (0..self.queues).map(|queue| worker_of_queue(queue, self.workers));
        match RssPlan::new(toeplitz, types, table, polled_by.collect()) {
            Err(error) => self.differences.push(Difference::OddTable(error)),
            Ok(found) => {
                let entries = differing(asked, &found);
                if entries > 0 {
                    self.differences.push(Difference::Table(entries));
                }
                self.spread = Spread::Rss(found);
            }
        }
    }

    fn key(&mut self, asked: &RssPlan) -> Arc<Toeplitz> {
        let Some(found) = &self.told.key else {
            self.differences.push(Difference::NotTold("key"));
            return Arc::clone(asked.toeplitz());
        };
        let key = Key::new(found);
        if let Ok(key) = &key
            && key.hashes_like(asked.toeplitz().key())
        {
            return Arc::clone(asked.toeplitz());
        }
        self.differences.push(Difference::Key(found.clone()));
        key.map_or_else(
            |_| Arc::clone(asked.toeplitz()),
            |key| Arc::new(Toeplitz::new(key)),
        )
    }

    /// In a sentence, what the port does.
    pub fn summary(&self) -> String {
        let Self {
            queues, workers, ..
        } = self;
        match &self.spread {
            Spread::Rss(plan) => format!(
                "RSS over {queues} queues by {} entries, key {}, hashing {}",
                plan.table().len(),
                abridged(plan.toeplitz().key()),
                plan.types()
            ),
            Spread::One(_) if *workers == 1 => "one queue for one worker: nothing to spread".into(),
            Spread::One(_) if self.can.queues > 1 => {
                "one queue: all packets reach worker 0, which hands over what is others'".into()
            }
            Spread::One(_) => {
                "the device has one receive queue: all packets reach worker 0, which hands over what is others'"
                    .into()
            }
            Spread::Unknown => format!(
                "{queues} queues and no RSS: the device spreads packets as it likes, and those that reach another worker than their owner are handed over"
            ),
        }
    }
}

/// How many entries of the bigger table lead elsewhere than the same hash does by the other.
fn differing(asked: &RssPlan, found: &RssPlan) -> usize {
    let most = asked.table().len().max(found.table().len()) as u32;
    let elsewhere = |hash: &u32| asked.worker_of_hash(*hash) != found.worker_of_hash(*hash);
    (0..most).filter(elsewhere).count()
}

fn abridged(key: &Key) -> String {
    let text = key.to_string();
    let front: String = text.chars().take(12).collect();
    format!("{front}… of {} bytes", key.bytes().len())
}

#[cfg(test)]
mod tests {
    use super::super::plan::{PortNeeds, plan};
    use super::*;

    const CAN: RssCapabilities = RssCapabilities {
        queues: 8,
        table: 128,
        hash_types: HashTypes::EVERY_KIND,
        key_len: 40,
    };

    fn asked() -> RssPlan {
        let needs = PortNeeds {
            can: CAN,
            ..PortNeeds::default()
        };
        plan(&[needs], 3)[0].rss.clone().unwrap()
    }

    fn obedient() -> Told {
        let asked = asked();
        Told {
            refused: None,
            key: Some(asked.toeplitz().key().bytes().to_vec()),
            hash_types: Some(asked.types()),
            table: Some(asked.table().to_vec()),
        }
    }

    fn check(told: Told) -> RssCheck {
        RssCheck::new(CAN, 3, 3, Some(asked()), told)
    }

    #[test]
    fn a_nic_that_does_as_told_differs_in_nothing() {
        let check = check(obedient());
        assert_eq!(check.differences, []);
        assert!(matches!(&check.spread, Spread::Rss(plan) if plan.table() == asked().table()));
        let said = check.summary();
        assert!(
            said.starts_with("RSS over 3 queues by 128 entries, key 6d:5a:6d:5a:… of 40 bytes"),
            "{said}"
        );
    }

    #[test]
    fn each_difference_is_found_and_computed_with() {
        let key = Key::microsoft().bytes().to_vec();
        let other_key = check(Told {
            key: Some(key.clone()),
            ..obedient()
        });
        assert_eq!(other_key.differences, [Difference::Key(key.clone())]);
        let Spread::Rss(plan) = other_key.spread else {
            panic!("it spreads")
        };
        assert_eq!(plan.toeplitz().key().bytes(), key);

        let found = HashTypes::IPV4;
        let other_types = check(Told {
            hash_types: Some(found),
            ..obedient()
        });
        let asked = HashTypes::EVERY_KIND;
        let expected = Difference::HashTypes { asked, found };
        assert_eq!(other_types.differences, [expected]);
        assert!(matches!(&other_types.spread, Spread::Rss(plan) if plan.types() == found));

        let other_table = check(Told {
            table: Some(vec![0; 128]),
            ..obedient()
        });
        assert_eq!(other_table.differences, [Difference::Table(85)]);
        assert!(matches!(&other_table.spread, Spread::Rss(plan) if plan.table() == [0; 128]));
    }

    #[test]
    fn a_smaller_table_that_leads_to_the_same_workers_is_no_difference() {
        let needs = PortNeeds {
            can: CAN,
            ..PortNeeds::default()
        };
        let asked = plan(&[needs], 4)[0].rss.clone();
        let told = Told {
            table: Some((0..4).collect()),
            ..obedient()
        };
        assert_eq!(RssCheck::new(CAN, 4, 4, asked, told).differences, []);
    }

    #[test]
    fn a_nic_that_tells_nothing_is_believed_and_one_that_refuses_is_not() {
        let silent = check(Told::default());
        let silences = ["key", "hash types", "table"].map(Difference::NotTold);
        assert_eq!(silent.differences, silences);
        assert!(matches!(silent.spread, Spread::Rss(_)));

        let refused = Some("Operation not supported".to_owned());
        let refusing = check(Told {
            refused,
            ..Told::default()
        });
        assert!(matches!(refusing.spread, Spread::Unknown));
        let said = refusing.differences[0].to_string();
        assert!(said.contains("(Operation not supported)"), "{said}");
        assert!(refusing.summary().contains("as it likes"));
    }

    #[test]
    fn a_table_that_names_other_queues_is_not_computed_with() {
        let odd = check(Told {
            table: Some(vec![7; 128]),
            ..obedient()
        });
        let error = PlanError::NoSuchQueue {
            queue: 7,
            queues: 3,
        };
        assert_eq!(odd.differences, [Difference::OddTable(error)]);
        assert!(matches!(odd.spread, Spread::Unknown));
    }

    #[test]
    fn a_device_without_rss_is_said_so_plainly() {
        let none = RssCapabilities::default();
        let of = |queues, workers| RssCheck::new(none, queues, workers, None, Told::default());
        assert!(of(1, 1).summary().contains("nothing to spread"));
        assert!(of(1, 3).summary().contains("hands over"));
        assert!(of(3, 3).summary().contains("no RSS"));
        assert!(matches!(of(3, 3).spread, Spread::Unknown));
    }
}
