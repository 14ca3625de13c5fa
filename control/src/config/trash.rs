//! Deleted real servers that are not forgotten yet (`SEMANTICS.md` section 1, "trash").
//!
//! A deleted server's id stays its own while connections refer to it, and then for two minutes more; who adds the
//! same address and port to the same service meanwhile gets the same server back.

use std::time::Duration;

use sluice_dataplane::service::{RealServerSpec, RsId, ServiceKey};

use super::slots::Slot;
use super::words::server_address;
use super::{At, Config};

/// How long a server must have been seen idle before it is forgotten.
const IDLE: Duration = Duration::from_secs(120);

/// How often to look.
pub const TRASH_PERIOD: Duration = Duration::from_secs(60);

/// A deleted real server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trashed {
    pub(super) id: RsId,
    /// Which service object it belonged to.
    pub(super) birth: u64,
    /// Workers may still schedule to it until they have applied this revision.
    deleted_in: u64,
    idle_since: Option<Duration>,
}

impl Config {
    pub(super) fn bury(&mut self, key: ServiceKey, birth: u64, server: &RealServerSpec, at: At) {
        self.server_count -= 1;
        self.trash.insert(
            (key, server_address(server)),
            Trashed {
                id: server.id,
                birth,
                deleted_in: at.revision,
                idle_since: None,
            },
        );
    }

    /// How many deleted servers are remembered.
    pub fn trash_len(&self) -> usize {
        self.trash.len()
    }

    /// One look at the trash, at time `now`; to be called every [`TRASH_PERIOD`] while there is any. `in_use` says
    /// whether connections refer to a server. Returns how many were forgotten.
    pub fn collect_trash(
        &mut self,
        now: Duration,
        applied: u64,
        in_use: impl Fn(RsId) -> bool,
    ) -> usize {
        let before = self.trash.len();
        let all: Vec<_> = self
            .trash
            .iter()
            .map(|(key, trashed)| (*key, *trashed))
            .collect();
        for (key, mut trashed) in all {
            let busy = trashed.deleted_in > applied || in_use(trashed.id);
            match trashed.idle_since {
                Some(since) if !busy && now >= since + IDLE => {
                    self.trash.remove(&key);
                    let RsId { index, generation } = trashed.id;
                    self.server_slots
                        .give(Slot { index, generation }, trashed.deleted_in);
                    continue;
                }
                Some(_) if busy => trashed.idle_since = None,
                None if !busy => trashed.idle_since = Some(now),
                _ => continue,
            }
            self.trash.insert(key, trashed);
        }
        before - self.trash.len()
    }
}
