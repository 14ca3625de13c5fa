//! Who had a class of hashes before it moved, and may still have connections of it.

use crate::command::WorkerId;

/// By class, the workers that had it and are asked for its connections, in order of their ids. Any number of them.
#[derive(Clone, Debug)]
pub(super) struct Formers(Box<[Box<[WorkerId]>]>);

impl Formers {
    /// After the owners of all classes changed from `before` to `now`, beside those that were asked already. `None` when there is
    /// nobody to ask.
    pub(super) fn after_move(
        known: Option<&Self>,
        before: &[WorkerId],
        now: &[WorkerId],
    ) -> Option<Self> {
        let each = before.iter().zip(now).enumerate();
        Self::some(each.map(|(class, (before, now))| {
            let known = known.map_or(&[][..], |known| known.of(class));
            let mut had: Vec<WorkerId> = known.iter().copied().chain([*before]).collect();
            had.retain(|worker| worker != now);
            had.sort_unstable();
            had.dedup();
            had.into()
        }))
    }

    /// Without `worker`, but in classes of which it has connections left. `None` when there is nobody to ask any more.
    pub(super) fn without(&self, worker: WorkerId, left: &[bool]) -> Option<Self> {
        let each = self.0.iter().enumerate();
        Self::some(each.map(|(class, had)| {
            let stays = left.get(class).copied().unwrap_or(false);
            had.iter()
                .copied()
                .filter(|one| stays || *one != worker)
                .collect()
        }))
    }

    /// Whether [`Formers::without`] would take anything away.
    pub(super) fn changes_without(&self, worker: WorkerId, left: &[bool]) -> bool {
        let mut each = self.0.iter().enumerate();
        each.any(|(class, had)| had.contains(&worker) && !left.get(class).copied().unwrap_or(false))
    }

    /// Those of a class.
    pub(super) fn of(&self, class: usize) -> &[WorkerId] {
        &self.0[class]
    }

    /// All of them, in order.
    pub(super) fn all(&self) -> Vec<WorkerId> {
        let mut all: Vec<WorkerId> = self.0.iter().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    fn some(classes: impl Iterator<Item = Box<[WorkerId]>>) -> Option<Self> {
        let classes: Box<[_]> = classes.collect();
        classes
            .iter()
            .any(|had| !had.is_empty())
            .then_some(Self(classes))
    }
}
