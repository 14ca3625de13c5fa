//! Which worker owns which part of the packets, and moving it while they work.
//!
//! A move goes to the workers first. Once all know who had what, the NICs are told; until then a packet arrives where it
//! did, and is where it belongs or is handed over.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use sluice_dataplane::command::{Census, Command, PortId, WorkerId};
use sluice_dataplane::steer::plan::{default_owners, fill_table};
use sluice_dataplane::steer::{RssPlan, Spread, Steering};
use tracing::{info, warn};

use super::{Controller, Peer};
use crate::api::{ErrorKind, RssGive, RssTable, RssTableSet};
use crate::api_error::ApiError;

/// Gives a port's NIC a redirection table.
type Program = dyn FnMut(PortId, &[u16]) -> Result<(), String> + Send;

/// How long after a move nothing arrives as before any more, whatever waits in queues.
const SETTLE_AFTER: Duration = Duration::from_secs(10);

/// How often workers count what they have left.
const CENSUS_PERIOD: Duration = Duration::from_secs(10);

/// Tables on their way to the NICs.
#[derive(Default)]
pub(super) struct Tables {
    program: Option<Box<Program>>,
    /// With the revision that all workers must have applied first.
    waiting: VecDeque<(u64, PortId, Vec<u16>)>,
    /// When all knew of the last move, as far as that is known.
    moved: Duration,
    /// The revision of the last move, which also tells answers of workers apart.
    revision: u64,
    /// When workers are next asked what they have left of what moved.
    next_census: Duration,
    /// By worker, the connections that it had left when it was last asked.
    left: BTreeMap<u16, u64>,
    /// By port, why its NIC did not take its last table.
    refused: BTreeMap<PortId, String>,
}

impl Controller {
    /// How to give the ports' NICs other redirection tables while they run. Without it there are only workers to tell.
    pub fn rss_programmer(
        &mut self,
        program: impl FnMut(PortId, &[u16]) -> Result<(), String> + Send + 'static,
    ) {
        self.tables.program = Some(Box::new(program));
    }

    pub(super) fn rss_table_list(&self) -> RssTable {
        let steering = self.network.steering();
        RssTable {
            owners: steering.map_or_else(Vec::new, |steering| {
                steering.owners().iter().map(|owner| owner.0).collect()
            }),
            moving: steering.is_some_and(|steering| steering.has_moved()),
            left: (!self.tables.left.is_empty()).then(|| self.tables.left.values().sum()),
            refused: self.tables.refused.values().cloned().collect(),
        }
    }

    /// Moves entries. Returns the revision.
    pub(super) fn rss_table_set(
        &mut self,
        request: &RssTableSet,
        peer: &Peer,
    ) -> Result<u64, ApiError> {
        let steering = self.network.steering().ok_or_else(|| {
            ApiError::new(
                ErrorKind::OutOfRange,
                "it is not known yet how packets come to the workers: there is nothing to move",
            )
        })?;
        let workers = steering.workers();
        let owners = owners(request, steering.owners(), workers)?;
        let (spreads, tables) = spreads(steering, &owners);
        let Some(moved) = steering.moved(owners, spreads) else {
            unreachable!("as many entries as there are");
        };
        let revision = self.steer(Arc::new(moved));
        let waiting = tables
            .into_iter()
            .map(|(port, table)| (revision, port, table));
        self.tables.waiting.extend(waiting);
        self.tables.moved = self.now;
        self.tables.revision = revision;
        self.tables.left.clear();
        info!(revision, who = %peer, "rss_table_set: {}", wanted(request));
        Ok(revision)
    }

    /// Tells the NICs what all workers know by now.
    pub(super) fn program_tables(&mut self) {
        let applied = self.publisher.applied();
        let Tables {
            program,
            waiting,
            refused,
            ..
        } = &mut self.tables;
        while waiting
            .front()
            .is_some_and(|(revision, ..)| *revision <= applied)
        {
            let (Some((_, port, table)), Some(program)) = (waiting.pop_front(), program.as_mut())
            else {
                continue;
            };
            if let Err(error) = program(port, &table) {
                warn!(
                    "{error}: packets arrive where they did, and are handed over to their owners"
                );
                refused.insert(port, error);
            } else {
                refused.remove(&port);
            }
        }
    }

    /// Has workers count what they have left of what moved away from them. Not at once after a move: packets may still arrive, and
    /// connections begin, as before it.
    pub(super) fn settle_moves(&mut self) {
        if self.publisher.applied() < self.tables.revision || !self.tables.waiting.is_empty() {
            self.tables.moved = self.now;
        }
        if self.now < (self.tables.moved + SETTLE_AFTER).max(self.tables.next_census) {
            return;
        }
        let moving = self.network.steering();
        let Some(steering) = moving.filter(|steering| steering.has_moved()) else {
            return;
        };
        self.tables.next_census = self.now + CENSUS_PERIOD;
        for worker in steering.formers() {
            let census = Census::new(self.tables.revision, steering.owners().len());
            self.publisher
                .ask(worker, Command::CountMoved(Box::new(census)));
        }
    }

    /// A worker has counted: it is asked no more for classes of which it has nothing left.
    pub(super) fn counted(&mut self, worker: WorkerId, census: &Census) {
        if census.round != self.tables.revision {
            // Of before another move.
            return;
        }
        match census.connections {
            0 => self.tables.left.remove(&worker.0),
            left => self.tables.left.insert(worker.0, left),
        };
        let steering = self.network.steering();
        let settled = steering.and_then(|steering| steering.settled(worker, &census.classes));
        if let Some(settled) = settled {
            self.steer(Arc::new(settled));
        }
    }
}

/// In a few words, for the log: however many entries there are.
fn wanted(request: &RssTableSet) -> String {
    match (&request.give, request.drain) {
        (Some(RssGive { entries, worker }), _) => {
            format!("{} entries for worker {worker}", entries.len())
        }
        (None, Some(worker)) => format!("none for worker {worker}"),
        (None, None) => "as many for each worker".to_owned(),
    }
}

/// The owners that are asked for.
fn owners(
    request: &RssTableSet,
    now: &[WorkerId],
    workers: u16,
) -> Result<Vec<WorkerId>, ApiError> {
    let known = |worker: u16| {
        if worker < workers {
            return Ok(WorkerId(worker));
        }
        let text = format!(
            "there is no worker {worker}; there are 0 to {}",
            workers - 1
        );
        Err(ApiError::new(ErrorKind::OutOfRange, text))
    };
    match request {
        RssTableSet {
            give: Some(RssGive { entries, worker }),
            drain: None,
            reset: false,
        } => {
            let worker = known(*worker)?;
            if entries.is_empty() {
                let text = "give.entries is empty: say which entries, by number from 0";
                return Err(ApiError::new(ErrorKind::InvalidParams, text));
            }
            let mut owners = now.to_vec();
            for entry in entries {
                let owner = owners.get_mut(usize::from(*entry)).ok_or_else(|| {
                    let text = format!(
                        "there is no entry {entry}; there are 0 to {}",
                        now.len() - 1
                    );
                    ApiError::new(ErrorKind::OutOfRange, text)
                })?;
                *owner = worker;
            }
            Ok(owners)
        }
        RssTableSet {
            give: None,
            drain: Some(worker),
            reset: false,
        } => {
            let out = known(*worker)?;
            let others: Vec<WorkerId> = (0..workers)
                .map(WorkerId)
                .filter(|worker| *worker != out)
                .collect();
            if others.is_empty() {
                let text = "there is no other worker to take over";
                return Err(ApiError::new(ErrorKind::OutOfRange, text));
            }
            // One that was taken out stays out, while there is another.
            let in_use: Vec<WorkerId> = others
                .iter()
                .copied()
                .filter(|worker| now.contains(worker))
                .collect();
            let takers = if in_use.is_empty() { others } else { in_use };
            let mut turns = takers.iter().cycle();
            let each = now.iter().map(|owner| match *owner {
                owner if owner == out => turns.next().copied().unwrap_or(out),
                owner => owner,
            });
            Ok(each.collect())
        }
        RssTableSet {
            give: None,
            drain: None,
            reset: true,
        } => Ok(default_owners(now.len() as u16, workers)),
        _ => Err(ApiError::new(
            ErrorKind::InvalidParams,
            "say one of give, drain and reset",
        )),
    }
}

/// How the ports will spread packets, and the tables for it.
fn spreads(steering: &Steering, owners: &[WorkerId]) -> (Vec<Spread>, Vec<(PortId, Vec<u16>)>) {
    let mut tables = Vec::new();
    let each = steering.ports().map(|port| {
        let Spread::Rss(plan) = steering.spread(port) else {
            return steering.spread(port).clone();
        };
        let queues = plan.workers().len() as u16;
        let table = fill_table(
            plan.table().len() as u16,
            owners,
            queues,
            steering.workers(),
        );
        let polled_by = plan.workers().to_vec();
        let toeplitz = Arc::clone(plan.toeplitz());
        match RssPlan::new(toeplitz, plan.types(), table.clone(), polled_by) {
            Ok(plan) => {
                tables.push((port, table));
                Spread::Rss(plan)
            }
            Err(_) => Spread::Rss(plan.clone()),
        }
    });
    let each = each.collect();
    (each, tables)
}

#[cfg(test)]
mod tests {
    use sluice_dataplane::steer::toeplitz::{KEY_LEN, Key, Toeplitz};
    use sluice_dataplane::steer::{
        HashTypes, PortNeeds, PortPlan, RssCapabilities, RssPlan, Side, plan,
    };

    use super::*;

    fn ids(owners: &[u16]) -> Vec<WorkerId> {
        owners.iter().copied().map(WorkerId).collect()
    }

    fn set(request: RssTableSet) -> Result<Vec<u16>, ErrorKind> {
        let owners = owners(&request, &ids(&[0, 1, 2, 0, 1, 2, 0, 1]), 3);
        let owners = owners.map_err(|error| error.kind())?;
        Ok(owners.into_iter().map(|owner| owner.0).collect())
    }

    fn give(entries: &[u16], worker: u16) -> RssTableSet {
        RssTableSet {
            give: Some(RssGive {
                entries: entries.to_vec(),
                worker,
            }),
            ..RssTableSet::default()
        }
    }

    fn drain(worker: u16) -> RssTableSet {
        RssTableSet {
            drain: Some(worker),
            ..RssTableSet::default()
        }
    }

    #[test]
    fn entries_are_given_drained_and_shared_out_anew() {
        assert_eq!(set(give(&[0, 7], 2)), Ok(vec![2, 1, 2, 0, 1, 2, 0, 2]));
        assert_eq!(set(drain(0)), Ok(vec![1, 1, 2, 2, 1, 2, 1, 1]));
        let reset = RssTableSet {
            reset: true,
            ..RssTableSet::default()
        };
        assert_eq!(set(reset), Ok(vec![0, 1, 2, 0, 1, 2, 0, 1]));
    }

    #[test]
    fn a_worker_that_was_drained_gets_nothing_back_when_another_is() {
        let after = |now: &[u16], out| {
            let owners = owners(&drain(out), &ids(now), 3).unwrap();
            owners.iter().map(|owner| owner.0).collect::<Vec<_>>()
        };
        let without_1 = after(&[0, 1, 2, 0, 1, 2, 0, 1], 1);
        assert_eq!(without_1, [0, 0, 2, 0, 2, 2, 0, 0]);
        assert_eq!(after(&without_1, 2), [0; 8]);
        assert_eq!(
            after(&[0; 8], 0),
            [1, 2, 1, 2, 1, 2, 1, 2],
            "somebody has to"
        );
    }

    #[test]
    fn the_log_has_a_few_words_for_any_number_of_entries() {
        assert_eq!(wanted(&give(&[3; 50_000], 1)), "50000 entries for worker 1");
        assert_eq!(wanted(&drain(2)), "none for worker 2");
        let reset = RssTableSet {
            reset: true,
            ..RssTableSet::default()
        };
        assert_eq!(wanted(&reset), "as many for each worker");
    }

    #[test]
    fn what_is_not_there_or_contradicts_itself_is_refused() {
        assert_eq!(set(give(&[], 0)), Err(ErrorKind::InvalidParams));
        assert_eq!(set(give(&[8], 0)), Err(ErrorKind::OutOfRange));
        assert_eq!(set(give(&[0], 3)), Err(ErrorKind::OutOfRange));
        assert_eq!(set(drain(3)), Err(ErrorKind::OutOfRange));
        assert_eq!(set(RssTableSet::default()), Err(ErrorKind::InvalidParams));
        let two = RssTableSet {
            reset: true,
            ..drain(1)
        };
        assert_eq!(set(two), Err(ErrorKind::InvalidParams));
        let alone = owners(&drain(0), &ids(&[0, 0]), 1);
        assert_eq!(alone.unwrap_err().kind(), ErrorKind::OutOfRange);
    }

    #[test]
    fn a_move_leaves_tables_of_different_sizes_aligned() {
        let can = RssCapabilities {
            queues: 16,
            table: 512,
            hash_types: HashTypes::EVERY_KIND | HashTypes::SOURCE | HashTypes::DESTINATION,
            key_len: 40,
        };
        let needs = |side, table| PortNeeds {
            side,
            queues: None,
            can: RssCapabilities { table, ..can },
        };
        let sides = [Side::Clients, Side::Servers];
        for sizes in [[512, 2048], [2048, 512], [2048, 2048], [128, 64], [64, 128]] {
            let needs = [0, 1].map(|at| needs(sides[at], sizes[at]));
            let ports = plan(&needs, 3).iter().map(PortPlan::spread).collect();
            let steering = Steering::new(3, ports);
            let owners = owners(&drain(1), steering.owners(), 3).unwrap();
            let (spreads, _) = spreads(&steering, &owners);
            let moved = steering.moved(owners, spreads).unwrap();
            for (port, side) in (0..).map(PortId).zip(sides) {
                assert!(steering.brings_nat_home(port, side), "{sizes:?}");
                assert!(moved.brings_nat_home(port, side), "{sizes:?} moved");
            }
        }
    }

    #[test]
    fn tables_of_all_nics_follow_whatever_their_sizes() {
        let port = |entries: u16| {
            let toeplitz = Arc::new(Toeplitz::new(Key::symmetric(KEY_LEN)));
            let table = (0..entries).map(|entry| entry % 2).collect();
            let plan = RssPlan::new(toeplitz, HashTypes::EVERY_KIND, table, ids(&[0, 1]));
            Spread::Rss(plan.unwrap())
        };
        let ports = vec![port(4), Spread::One(WorkerId(0)), port(8)];
        let steering = Steering::new(2, ports);
        let (spreads, tables) = spreads(&steering, &ids(&[1, 1, 0, 1]));
        assert_eq!(
            tables,
            [
                (PortId(0), vec![1, 1, 0, 1]),
                (PortId(2), vec![1, 1, 0, 1, 1, 1, 0, 1])
            ]
        );
        assert!(matches!(&spreads[0], Spread::Rss(plan) if plan.table() == [1, 1, 0, 1]));
        assert!(matches!(&spreads[1], Spread::One(WorkerId(0))));
    }
}
