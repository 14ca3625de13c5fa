//! Places in the workers' dense arrays: who has one, and when one may go to another tenant.

use imbl::Vector;

/// The places of one kind: services or real servers. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    /// Given back, the oldest in front.
    free: Vector<Free>,
    /// Never used so far from here on.
    next: u32,
    capacity: u32,
}

#[derive(Clone, Copy, Debug)]
struct Free {
    index: u32,
    generation: u32,
    /// Workers may write the old tenant's counters until they have applied this revision.
    until: u64,
}

/// A place and which of its successive tenants has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) index: u32,
    pub(super) generation: u32,
}

impl Slots {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            free: Vector::new(),
            next: 0,
            capacity,
        }
    }

    /// A place that no worker writes any more, given that all have applied revision `applied`. `None` when there is
    /// none.
    pub(super) fn take(&mut self, applied: u64) -> Option<Slot> {
        if self.free.front().is_some_and(|free| free.until <= applied) {
            return self.free.pop_front().map(|free| Slot {
                index: free.index,
                generation: free.generation.wrapping_add(1),
            });
        }
        let index = self.next;
        (index < self.capacity).then(|| {
            self.next += 1;
            Slot {
                index,
                generation: 0,
            }
        })
    }

    /// Gives a place back; `revision` is the one that took its tenant away.
    pub(super) fn give(&mut self, slot: Slot, revision: u64) {
        self.free.push_back(Free {
            index: slot.index,
            generation: slot.generation,
            until: revision,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_reused_only_after_all_workers_left_it_and_with_a_new_generation() {
        let mut slots = Slots::new(2);
        let first = slots.take(0).unwrap();
        assert_eq!((first.index, first.generation), (0, 0));
        slots.give(first, 5);
        assert_eq!(slots.take(4).unwrap().index, 1);
        assert_eq!(slots.take(4), None);
        let again = slots.take(5).unwrap();
        assert_eq!((again.index, again.generation), (0, 1));
        assert_eq!(slots.take(5), None);
    }
}
