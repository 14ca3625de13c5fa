//! Hand-off: one bounded ring for each ordered pair of workers, bursts in, bursts out.
//!
//! [`mesh`] makes the rings of all workers at once and gives each of them its [`Peers`], to be passed to
//! [`crate::worker::Worker::new`]. Packets of a flow that one worker hands to another keep their order. A full ring is the sender's
//! drop ([`DropReason::HandOffFull`]): nobody waits for anybody. Packets that were taken out of a ring and not handed on are owned by
//! the worker as if it had received them.
//!
//! Cost: three stores a packet, one of them shared with the other worker for each burst, and a fence in each turn that hands something
//! over. Rings that nobody rang for are not looked at: a turn costs the same among two workers or sixteen.

use arrayvec::ArrayVec;
use rtrb::{Consumer, Producer, PushError, RingBuffer};

use super::bell::{Door, Parcel, settle};
use super::note::Note;
use crate::command::{PortId, WorkerId};
#[expect(unused_imports, reason = "named in the text above")]
use crate::drop_reason::DropReason;
use crate::io::{BURST, Burst};
use crate::stats::HandedAs;

/// Frames that a ring holds unless somebody says otherwise: a worker's worth of receive descriptors.
pub const CAPACITY: usize = 1024;

/// Notes that a ring holds.
const NOTES: usize = 2048;

/// What is known of a frame that is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The port that it was received on, by whomever; or that it shall be sent by.
    pub port: PortId,
    /// Why it is handed over.
    pub errand: Errand,
}

/// Why a frame is handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errand {
    /// It was received, and the connection it may be of is the other's.
    Received,
    /// The kernel sent it, as a reply that may be of the other's connection.
    FromKernel,
    /// It is finished, and goes out of a port that the one who made it cannot send by.
    Send,
    /// The other had connections like the one that it may be of before the steering was changed. If it has not this one, it asks the
    /// next such worker, in order of their ids, or gives the frame back.
    Former {
        /// Who owns such connections now.
        owner: WorkerId,
    },
    /// The same for what the kernel sent. Whoever is asked last sends it as it is.
    FormerFromKernel {
        /// Who owns such connections now.
        owner: WorkerId,
    },
    /// Nobody that might have had the connection has it: it is the other's own.
    Settled,
    /// An ICMP error about a connection that nobody can tell the owner of: it goes round until somebody knows it, at most to the
    /// worker before this one, which received it.
    Sought {
        /// Who received it.
        first: WorkerId,
    },
}

/// A frame on its way to another worker.
#[derive(Debug)]
struct Handed<F> {
    frame: F,
    origin: Origin,
    /// For who counts it.
    kind: HandedAs,
}

/// One worker's ends of all its rings.
#[derive(Debug)]
pub struct Peers<F> {
    id: WorkerId,
    /// By worker; none to itself.
    out: Vec<Option<Outbox<F>>>,
    /// From each other worker.
    inboxes: Vec<Inbox<F>>,
    door: Door,
    /// Somebody has to be rung for.
    rings: bool,
}

#[derive(Debug)]
struct Outbox<F> {
    ring: Producer<Handed<F>>,
    /// Of this burst.
    waiting: ArrayVec<Handed<F>, BURST>,
    notes: Producer<Note>,
    door: Door,
    /// What was brought there and not rung for yet, by [`Parcel`].
    brought: [bool; 2],
}

#[derive(Debug)]
struct Inbox<F> {
    ring: Consumer<Handed<F>>,
    from: WorkerId,
    notes: Consumer<Note>,
}

/// The rings of so many workers, each for `capacity` frames: every worker's ends, in order of their ids.
pub fn mesh<F>(workers: u16, capacity: usize) -> Vec<Peers<F>> {
    let mut all: Vec<Peers<F>> = (0..workers)
        .map(|id| Peers {
            id: WorkerId(id),
            out: (0..workers).map(|_| None).collect(),
            inboxes: Vec::with_capacity(usize::from(workers) - 1),
            door: Door::default(),
            rings: false,
        })
        .collect();
    for from in 0..usize::from(workers) {
        for to in 0..usize::from(workers) {
            if from != to {
                let (ring, consumer) = RingBuffer::new(capacity);
                let (writer, notes) = RingBuffer::new(NOTES);
                all[from].out[to] = Some(Outbox {
                    ring,
                    waiting: ArrayVec::new(),
                    notes: writer,
                    door: all[to].door.clone(),
                    brought: [false; 2],
                });
                all[to].inboxes.push(Inbox {
                    ring: consumer,
                    from: WorkerId(from as u16),
                    notes,
                });
            }
        }
    }
    all
}

impl<F> Peers<F> {
    /// Of a worker that is alone.
    pub fn none() -> Self {
        Self {
            id: WorkerId(0),
            out: Vec::from([None]),
            inboxes: Vec::new(),
            door: Door::default(),
            rings: false,
        }
    }

    /// Whose ends these are.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// How many workers there are, this one included.
    pub fn workers(&self) -> u16 {
        self.out.len() as u16
    }

    /// How many rings there are to receive from.
    pub(crate) fn inboxes(&self) -> usize {
        self.inboxes.len()
    }

    /// Whether others may have brought frames since this was last asked.
    #[inline]
    pub(crate) fn frames_came(&self) -> bool {
        self.door.heard(Parcel::Frames)
    }

    /// Whether others may have written notes since this was last asked.
    #[inline]
    pub(crate) fn notes_came(&self) -> bool {
        self.door.heard(Parcel::Notes)
    }

    /// Tells others of what was brought to them: they do not look before. At the end of each turn, when most of it has arrived.
    #[inline]
    pub(crate) fn ring(&mut self) {
        if std::mem::take(&mut self.rings) {
            self.ring_at_doors();
        }
    }

    #[cold]
    #[inline(never)]
    fn ring_at_doors(&mut self) {
        settle();
        for outbox in self.out.iter_mut().flatten() {
            for parcel in [Parcel::Frames, Parcel::Notes] {
                if std::mem::take(&mut outbox.brought[parcel as usize]) {
                    outbox.door.ring(parcel);
                }
            }
        }
    }

    /// Writes to another worker. `Err` gives the note back: there is no room now, or no such worker.
    pub(crate) fn note(&mut self, to: WorkerId, note: Note) -> Result<(), Note> {
        let Some(Some(outbox)) = self.out.get_mut(usize::from(to.0)) else {
            return Err(note);
        };
        outbox.brought[Parcel::Notes as usize] = true;
        self.rings = true;
        outbox
            .notes
            .push(note)
            .map_err(|PushError::Full(note)| note)
    }

    /// The next note from a worker, and who that is.
    pub(crate) fn next_note(&mut self, inbox: usize) -> Option<(WorkerId, Note)> {
        let inbox = self.inboxes.get_mut(inbox)?;
        Some((inbox.from, inbox.notes.pop().ok()?))
    }

    /// Frames that other workers have not taken yet, for who asks while nobody moves any.
    pub fn waiting_in(&self) -> usize {
        self.inboxes.iter().map(|inbox| inbox.ring.slots()).sum()
    }

    /// Puts a frame to those that go to another worker at the end of the burst. `Err` gives it back: as many wait already as
    /// [`Peers::flush_to`] takes at a time, or there is no such worker.
    pub(crate) fn hand(
        &mut self,
        to: WorkerId,
        frame: F,
        origin: Origin,
        kind: HandedAs,
    ) -> Result<(), F> {
        let Some(Some(outbox)) = self.out.get_mut(usize::from(to.0)) else {
            return Err(frame);
        };
        outbox
            .waiting
            .try_push(Handed {
                frame,
                origin,
                kind,
            })
            .map_err(|full| full.element().frame)
    }

    /// Puts what waits for a worker into its ring, as far as there is room. Returns how many went; [`Peers::refused`] gives the
    /// others back.
    pub(crate) fn flush_to(&mut self, to: WorkerId) -> usize {
        let Some(Some(outbox)) = self.out.get_mut(usize::from(to.0)) else {
            return 0;
        };
        outbox.brought[Parcel::Frames as usize] = true;
        self.rings = true;
        let Outbox { ring, waiting, .. } = outbox;
        let mut room = waiting.len();
        if ring.cached_slots() < room {
            room = room.min(ring.slots());
        }
        match ring.write_chunk_uninit(room) {
            Ok(chunk) if room > 0 => chunk.fill_from_iter(waiting.drain(..room)),
            _ => 0,
        }
    }

    /// The next frame that [`Peers::flush_to`] found no room for, its port, and what it was given as.
    pub(crate) fn refused(&mut self, to: WorkerId) -> Option<(F, PortId, HandedAs)> {
        let outbox = self.out.get_mut(usize::from(to.0))?.as_mut()?;
        let handed = outbox.waiting.pop_at(0)?;
        Some((handed.frame, handed.origin.port, handed.kind))
    }

    /// The workers that something waits for.
    pub(crate) fn awaited(&self, from: u16) -> Option<WorkerId> {
        let mut rest = self.out.iter().zip(0..).skip(usize::from(from));
        rest.find_map(|(outbox, id)| {
            let waits = outbox.as_ref().is_some_and(|out| !out.waiting.is_empty());
            waits.then_some(WorkerId(id))
        })
    }

    /// Takes frames of one origin out of a ring, at most `most` and as many as `burst` has room for.
    pub(crate) fn receive(
        &mut self,
        inbox: usize,
        burst: &mut Burst<F>,
        most: usize,
    ) -> Option<Origin> {
        let ring = &mut self.inboxes[inbox].ring;
        let most = most.min(burst.remaining_capacity()).min(ring.slots());
        let chunk = ring.read_chunk(most).ok()?;
        let (front, back) = chunk.as_slices();
        let origin = front.first()?.origin;
        let same = |handed: &&Handed<F>| handed.origin == origin;
        let run = front.iter().chain(back).take_while(same).count();
        burst.extend(chunk.into_iter().take(run).map(|handed| handed.frame));
        Some(origin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIRE: Origin = Origin {
        port: PortId(0),
        errand: Errand::Received,
    };
    const KIND: HandedAs = HandedAs::Unknown;

    fn all(peers: &mut Peers<u32>) -> Vec<(Origin, Vec<u32>)> {
        let mut got = Vec::new();
        for inbox in 0..peers.inboxes() {
            loop {
                let mut burst = Burst::new();
                match peers.receive(inbox, &mut burst, BURST) {
                    Some(origin) => got.push((origin, burst.to_vec())),
                    None => break,
                }
            }
        }
        got
    }

    #[test]
    fn frames_arrive_in_order_and_in_runs_of_one_origin() {
        let mut workers = mesh::<u32>(3, 64);
        let other = Origin {
            port: PortId(1),
            ..WIRE
        };
        for (frame, origin) in [(1, WIRE), (2, WIRE), (3, other), (4, WIRE)] {
            workers[0].hand(WorkerId(2), frame, origin, KIND).unwrap();
        }
        workers[1].hand(WorkerId(2), 9, WIRE, KIND).unwrap();
        assert_eq!(workers[0].awaited(0), Some(WorkerId(2)));
        assert_eq!(workers[0].flush_to(WorkerId(2)), 4);
        assert_eq!(workers[0].awaited(0), None);
        assert_eq!(workers[1].flush_to(WorkerId(2)), 1);
        assert_eq!(workers[2].waiting_in(), 5);
        assert_eq!(
            all(&mut workers[2]),
            [
                (WIRE, vec![1, 2]),
                (other, vec![3]),
                (WIRE, vec![4]),
                (WIRE, vec![9])
            ]
        );
        assert!(all(&mut workers[0]).is_empty() && all(&mut workers[1]).is_empty());
    }

    #[test]
    fn what_a_full_ring_does_not_take_comes_back_in_order() {
        let mut workers = mesh::<u32>(2, 2);
        for frame in 1..=4 {
            workers[0].hand(WorkerId(1), frame, WIRE, KIND).unwrap();
        }
        assert_eq!(workers[0].flush_to(WorkerId(1)), 2);
        assert_eq!(workers[0].refused(WorkerId(1)), Some((3, PortId(0), KIND)));
        assert_eq!(workers[0].refused(WorkerId(1)), Some((4, PortId(0), KIND)));
        assert_eq!(workers[0].refused(WorkerId(1)), None);
        assert_eq!(all(&mut workers[1]), [(WIRE, vec![1, 2])]);
        workers[0].hand(WorkerId(1), 5, WIRE, KIND).unwrap();
        assert_eq!(workers[0].flush_to(WorkerId(1)), 1);
        assert_eq!(all(&mut workers[1]), [(WIRE, vec![5])]);
    }

    #[test]
    fn a_burst_that_waits_whole_and_the_worker_itself_take_nothing() {
        let mut workers = mesh::<u32>(2, 64);
        for frame in 0..BURST as u32 {
            workers[0].hand(WorkerId(1), frame, WIRE, KIND).unwrap();
        }
        assert_eq!(workers[0].hand(WorkerId(1), 99, WIRE, KIND), Err(99));
        assert_eq!(workers[0].hand(WorkerId(0), 7, WIRE, KIND), Err(7));
        assert_eq!(workers[0].hand(WorkerId(2), 7, WIRE, KIND), Err(7));
        assert_eq!(Peers::<u32>::none().workers(), 1);
    }
}
