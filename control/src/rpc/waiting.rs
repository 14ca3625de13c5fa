//! Requests whose answer takes time: changes until every worker has them, listings until they are whole.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::api_error::ApiError;
use crate::controller::{Controller, ListingId, Reply};

/// How long a change may take to be applied everywhere.
pub const APPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// An answer to one request, now or later.
#[derive(Debug)]
pub enum Answer {
    /// It is there.
    Now(Result<Value, ApiError>),
    /// It will come.
    Later(oneshot::Receiver<Result<Value, ApiError>>),
}

type Sender = oneshot::Sender<Result<Value, ApiError>>;

/// Everyone who waits. One look answers all that are due, so waiting costs the same for one and for a thousand.
#[derive(Debug, Default)]
pub struct Waiting {
    /// In order of revision and of deadline.
    changes: VecDeque<Change>,
    listings: Vec<(ListingId, Sender)>,
}

#[derive(Debug)]
struct Change {
    revision: u64,
    deadline: Duration,
    value: Value,
    to: Sender,
}

impl Waiting {
    /// Takes a reply of the controller, made at `now`.
    pub fn admit(&mut self, reply: Reply, now: Duration) -> Answer {
        let (to, receiver) = oneshot::channel();
        match reply {
            Reply::Now(answer) => return Answer::Now(answer),
            Reply::WhenApplied { revision, value } => self.changes.push_back(Change {
                revision,
                deadline: now + APPLY_TIMEOUT,
                value,
                to,
            }),
            Reply::Connections(id) => self.listings.push((id, to)),
        }
        Answer::Later(receiver)
    }

    /// Answers those that are due. Whoever has gone is forgotten.
    pub fn look(&mut self, controller: &mut Controller, now: Duration) {
        let applied = controller.applied();
        while let Some(first) = self.changes.front() {
            let done = first.revision <= applied;
            if !done && now < first.deadline {
                break;
            }
            if let Some(change) = self.changes.pop_front() {
                let answer = if done {
                    Ok(change.value)
                } else {
                    Err(controller.applied_partially(change.revision))
                };
                let _ = change.to.send(answer);
            }
        }
        let listings = std::mem::take(&mut self.listings);
        for (id, to) in listings {
            match controller.take_listing(id) {
                Some(answer) => {
                    let _ = to.send(answer);
                }
                None => self.listings.push((id, to)),
            }
        }
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.listings.is_empty()
    }
}
