//! A client in the same thread: for tests and replays, where the caller turns the workers itself.

use serde_json::Value;

use super::{Controller, Peer, Reply};
use crate::api::ErrorKind;
use crate::api_error::ApiError;

/// Turns of the workers after which a request counts as unanswered.
const MAX_TURNS: usize = 100_000;

impl Controller {
    /// Performs one request to its end. `drive` turns every worker once; it is called until the change is applied,
    /// or the listing whole. Time stands still meanwhile.
    pub fn call(
        &mut self,
        method: &str,
        params: Value,
        drive: &mut dyn FnMut(),
    ) -> Result<Value, ApiError> {
        match self.handle(method, params, &Peer::Inside("caller")) {
            Reply::Now(answer) => answer,
            Reply::WhenApplied { revision, value } => self.settle(revision, drive).map(|()| value),
            Reply::Connections(id) => {
                for _ in 0..MAX_TURNS {
                    if let Some(answer) = self.take_listing(id) {
                        return answer;
                    }
                    drive();
                    self.progress();
                }
                Err(ApiError::new(
                    ErrorKind::Timeout,
                    "no worker lists its connections",
                ))
            }
        }
    }

    /// Turns the workers until all have applied `revision`. With [`Controller::revision`] that is everything so far, what
    /// the kernel mirror said included.
    pub fn settle(&mut self, revision: u64, drive: &mut dyn FnMut()) -> Result<(), ApiError> {
        for _ in 0..MAX_TURNS {
            if self.applied() >= revision {
                return Ok(());
            }
            drive();
            self.progress();
        }
        Err(self.applied_partially(revision))
    }
}
