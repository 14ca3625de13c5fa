//! Who is connected: bounded, and the one that was silent longest makes room for a new one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

/// All connections.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    most: usize,
    seated: Arc<Mutex<Seated>>,
}

#[derive(Debug, Default)]
struct Seated {
    next: u64,
    by_id: BTreeMap<u64, Seat>,
}

#[derive(Debug)]
struct Seat {
    heard: Instant,
    leave: Arc<Notify>,
}

/// A connection's place, free again when dropped.
#[derive(Debug)]
pub(super) struct Place {
    id: u64,
    leave: Arc<Notify>,
    clients: Clients,
}

impl Clients {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            seated: Arc::default(),
        }
    }

    /// A place for a new one. Where there was none left, one must leave.
    pub(super) fn admit(&self) -> Place {
        let mut seated = self.lock();
        if seated.by_id.len() >= self.most {
            let silent = seated.by_id.iter().min_by_key(|(_, seat)| seat.heard);
            if let Some(seat) = silent
                .map(|(&id, _)| id)
                .and_then(|id| seated.by_id.remove(&id))
            {
                seat.leave.notify_one();
            }
        }
        let id = seated.next;
        seated.next += 1;
        let leave = Arc::new(Notify::new());
        let seat = Seat {
            heard: Instant::now(),
            leave: Arc::clone(&leave),
        };
        seated.by_id.insert(id, seat);
        Place {
            id,
            leave,
            clients: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seated> {
        // A panic ends the process, so nobody sees a half-done change.
        self.seated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// It has just said something.
    pub(super) fn heard(&self) {
        if let Some(seat) = self.clients.lock().by_id.get_mut(&self.id) {
            seat.heard = Instant::now();
        }
    }

    /// Waits until it must leave.
    pub(super) async fn must_leave(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.clients.lock().by_id.remove(&self.id);
    }
}
