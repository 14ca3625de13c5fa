//! From the configuration to the workers: one queue a worker, revisions, acknowledgements, what may be freed when.
//!
//! Neither locks nor waits. A full queue's commands wait here, in order, until there is room; so a worker that does
//! not turn delays nobody else.

use std::any::Any;
use std::collections::VecDeque;
use std::sync::Arc;

use rtrb::{Consumer, Producer, PushError, RingBuffer};
use sluice_dataplane::command::{Command, Envelope, Event, WorkerId};
use sluice_dataplane::stats::WorkerCells;
use sluice_dataplane::worker::WorkerChannels;

/// Commands that fit a worker's queue.
const QUEUE: usize = 4096;

/// Events that a worker may report before control looks.
const EVENTS: usize = 1024;

/// Commands that may wait behind a full queue before changes are refused.
const BACKLOG: usize = 65_536;

/// Something that workers may still use.
pub type Retired = Arc<dyn Any + Send + Sync>;

/// Control's end of one worker.
#[derive(Debug)]
pub struct WorkerLink {
    commands: Producer<Envelope>,
    events: Consumer<Event>,
    cells: Arc<WorkerCells>,
    backlog: VecDeque<Envelope>,
}

/// Both ends between control and one worker.
pub fn link(cells: Arc<WorkerCells>) -> (WorkerLink, WorkerChannels) {
    link_with(cells, QUEUE)
}

fn link_with(cells: Arc<WorkerCells>, queue: usize) -> (WorkerLink, WorkerChannels) {
    let (commands, for_worker) = RingBuffer::new(queue);
    let (from_worker, events) = RingBuffer::new(EVENTS);
    let link = WorkerLink {
        commands,
        events,
        cells: Arc::clone(&cells),
        backlog: VecDeque::new(),
    };
    let channels = WorkerChannels {
        commands: for_worker,
        events: from_worker,
        cells,
    };
    (link, channels)
}

/// Tells all workers the same, in the same order.
#[derive(Debug)]
pub struct Publisher {
    workers: Vec<WorkerLink>,
    revision: u64,
    /// What workers stop using when they have applied a revision; the oldest in front.
    retired: VecDeque<(u64, Retired)>,
}

impl Publisher {
    /// For these workers, by their ids from 0.
    pub fn new(workers: Vec<WorkerLink>) -> Self {
        Self {
            workers,
            revision: 0,
            retired: VecDeque::new(),
        }
    }

    /// Sends the commands of one change to every worker and returns its revision. `retired` is kept until all workers
    /// have applied it, so that none of them frees a big object. Without commands nothing happens, and the revision
    /// stays.
    pub fn publish(
        &mut self,
        commands: &[Command],
        retired: impl IntoIterator<Item = Retired>,
    ) -> u64 {
        if commands.is_empty() {
            return self.revision;
        }
        self.revision += 1;
        for worker in &mut self.workers {
            for (i, command) in commands.iter().enumerate() {
                worker.send(Envelope {
                    revision: self.revision,
                    more: i + 1 < commands.len(),
                    command: command.clone(),
                });
            }
        }
        let revision = self.revision;
        self.retired
            .extend(retired.into_iter().map(|object| (revision, object)));
        revision
    }

    /// Asks one worker something. Not a change: no revision. `false` when there is no such worker.
    pub fn ask(&mut self, worker: WorkerId, command: Command) -> bool {
        let revision = self.revision;
        let Some(link) = self.workers.get_mut(usize::from(worker.0)) else {
            return false;
        };
        link.send(Envelope {
            revision,
            more: false,
            command,
        });
        true
    }

    /// Moves what waits into the queues as far as there is room, and frees what no worker uses any more. Call it often.
    pub fn turn(&mut self) {
        for worker in &mut self.workers {
            worker.flush();
        }
        let applied = self.applied();
        while self
            .retired
            .front()
            .is_some_and(|(revision, _)| *revision <= applied)
        {
            self.retired.pop_front();
        }
    }

    /// The next thing that a worker reports.
    pub fn event(&mut self) -> Option<(WorkerId, Event)> {
        let mut workers = self.workers.iter_mut().zip(0..);
        workers.find_map(|(worker, id)| Some((WorkerId(id), worker.events.pop().ok()?)))
    }

    /// The latest revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The revision that all workers have applied.
    pub fn applied(&self) -> u64 {
        let each = self.workers.iter().map(|worker| worker.cells.applied());
        each.min().unwrap_or(self.revision)
    }

    /// The workers that have not applied `revision`.
    pub fn behind(&self, revision: u64) -> Vec<u16> {
        let behind = self.workers.iter().zip(0..);
        behind
            .filter(|(worker, _)| worker.cells.applied() < revision)
            .map(|(_, id)| id)
            .collect()
    }

    /// A worker behind whose queue so much waits that no more changes should be made.
    pub fn stuck(&self) -> Option<WorkerId> {
        let mut workers = self.workers.iter().zip(0..);
        workers.find_map(|(worker, id)| (worker.backlog.len() >= BACKLOG).then_some(WorkerId(id)))
    }

    /// What the workers publish, by their ids.
    pub fn cells(&self) -> impl Iterator<Item = &WorkerCells> {
        self.workers.iter().map(|worker| &*worker.cells)
    }

    /// The same, to be shared.
    pub fn shared_cells(&self) -> Vec<Arc<WorkerCells>> {
        let workers = self.workers.iter();
        workers.map(|worker| Arc::clone(&worker.cells)).collect()
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }
}

impl WorkerLink {
    fn send(&mut self, envelope: Envelope) {
        self.flush();
        if !self.backlog.is_empty() {
            self.backlog.push_back(envelope);
        } else if let Err(PushError::Full(envelope)) = self.commands.push(envelope) {
            self.backlog.push_back(envelope);
        }
    }

    fn flush(&mut self) {
        while let Some(envelope) = self.backlog.pop_front() {
            if let Err(PushError::Full(envelope)) = self.commands.push(envelope) {
                self.backlog.push_front(envelope);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_dataplane::command::{PortId, Settings};
    use sluice_dataplane::service::ServiceId;

    use super::*;

    fn rig(workers: usize, queue: usize) -> (Publisher, Vec<WorkerChannels>) {
        let (links, channels) = (0..workers)
            .map(|_| link_with(Arc::new(WorkerCells::new(1, 1)), queue))
            .unzip();
        (Publisher::new(links), channels)
    }

    /// What a worker does with its queue: returns the services that it was told to delete.
    fn drain(worker: &mut WorkerChannels, at_most: usize) -> Vec<u32> {
        let mut seen = Vec::new();
        for _ in 0..at_most {
            let Ok(envelope) = worker.commands.pop() else {
                break;
            };
            if let Command::DeleteService(ServiceId(id)) = envelope.command {
                seen.push(id);
            }
            if !envelope.more {
                worker.cells.set_applied(envelope.revision);
            }
        }
        seen
    }

    fn delete(id: u32) -> Command {
        Command::DeleteService(ServiceId(id))
    }

    #[test]
    fn a_change_counts_as_applied_when_the_slowest_worker_has_its_last_command() {
        let (mut publisher, mut workers) = rig(2, 8);
        assert_eq!(publisher.publish(&[delete(0), delete(1)], []), 1);
        assert_eq!(drain(&mut workers[0], 9), [0, 1]);
        assert_eq!(drain(&mut workers[1], 1), [0]);
        assert_eq!(publisher.applied(), 0);
        assert_eq!(publisher.behind(1), [1]);
        drain(&mut workers[1], 1);
        assert_eq!(publisher.applied(), 1);
        assert_eq!(publisher.behind(1), [0; 0]);
    }

    #[test]
    fn a_full_queue_keeps_later_changes_in_order() {
        let (mut publisher, mut workers) = rig(1, 2);
        for id in 0..7 {
            publisher.publish(&[delete(id)], []);
        }
        let mut seen = Vec::new();
        for _ in 0..7 {
            seen.extend(drain(&mut workers[0], 1));
            publisher.turn();
        }
        assert_eq!(seen, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(publisher.applied(), 7);
    }

    #[test]
    fn a_worker_that_never_turns_is_named_before_memory_runs_out() {
        let (mut publisher, _workers) = rig(1, 2);
        for _ in 0..BACKLOG + 1 {
            assert_eq!(publisher.stuck(), None);
            publisher.publish(&[delete(0)], []);
        }
        publisher.publish(&[delete(0)], []);
        assert_eq!(publisher.stuck(), Some(WorkerId(0)));
    }

    #[test]
    fn what_a_change_replaces_is_freed_here_once_all_workers_left_it() {
        let (mut publisher, mut workers) = rig(1, 8);
        let old = Arc::new(Settings::default());
        let watch = Arc::downgrade(&old);
        publisher.publish(&[delete(0)], [old as Retired]);
        publisher.turn();
        assert!(watch.upgrade().is_some());
        drain(&mut workers[0], 1);
        publisher.turn();
        assert!(watch.upgrade().is_none());
    }

    #[test]
    fn events_say_who_reports() {
        let (mut publisher, mut workers) = rig(2, 8);
        let missing = Event::NeighbourMissing {
            port: PortId(0),
            addr: [10, 0, 0, 1].into(),
        };
        workers[1].events.push(missing).unwrap();
        assert!(matches!(
            publisher.event(),
            Some((WorkerId(1), Event::NeighbourMissing { .. }))
        ));
        assert!(publisher.event().is_none());
    }

    #[test]
    fn a_change_without_commands_is_none() {
        let (mut publisher, _workers) = rig(1, 8);
        assert_eq!(publisher.publish(&[], []), 0);
        assert_eq!(publisher.revision(), publisher.applied());
    }
}
