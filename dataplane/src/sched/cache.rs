//! What lblc and lblcr remember of destinations, and when they forget it (`SEMANTICS.md` section 4).
//!
//! The kernel sweeps by a timer each minute. Here the sweeps that are due are made up for at the next choice: nobody sees the
//! difference. Cost: O(1), but once a minute of a full cache, and once in half an hour, O(entries), at most 24,576.

use std::net::Ipv4Addr;

use hashbrown::HashMap;

use super::Request;
use crate::time::{Span, Ticks};

/// Entries from which on a sweep removes idle ones.
const SOFT_LIMIT: usize = 16_384;

/// Entries that there can be; further destinations are scheduled without being remembered.
pub(super) const HARD_LIMIT: usize = SOFT_LIMIT / 2 * 3;

const SWEEP_PERIOD_S: u32 = 60;

/// Seconds without a new connection that make an entry idle in a cache over its soft limit.
const IDLE_S: u32 = 360;

/// Every so many sweeps those go that were not used for the whole expiration time.
const FULL_SWEEP: u64 = 30;

/// By destination address.
#[derive(Debug)]
pub(super) struct Cache<T> {
    entries: HashMap<Ipv4Addr, Entry<T>, foldhash::fast::RandomState>,
    /// `None` before the first request.
    next_sweep: Option<Ticks>,
    sweeps: u64,
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    used: Ticks,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self {
            // Half full at most: so what was removed never makes it grow.
            entries: HashMap::with_capacity_and_hasher(2 * HARD_LIMIT, Default::default()),
            next_sweep: None,
            sweeps: 0,
        }
    }
}

impl<T> Cache<T> {
    /// What is remembered of the request's destination. It counts as used now. Entries not used for `expiration_s` may
    /// be gone; `forget` sees each before it goes.
    pub(super) fn find(
        &mut self,
        request: &Request<'_>,
        expiration_s: u32,
        forget: impl FnMut(&mut T),
    ) -> Option<&mut T> {
        self.sweep(request, expiration_s, forget);
        let entry = self.entries.get_mut(&request.flow.dst)?;
        entry.used = request.now;
        Some(&mut entry.value)
    }

    /// Remembers this of the request's destination, if there is room.
    pub(super) fn put(&mut self, request: &Request<'_>, value: T) {
        let dst = request.flow.dst;
        if self.has_room() || self.entries.contains_key(&dst) {
            let used = request.now;
            self.entries.insert(dst, Entry { value, used });
        }
    }

    /// Whether another destination can be remembered.
    pub(super) fn has_room(&self) -> bool {
        self.entries.len() < HARD_LIMIT
    }

    /// Makes up for the sweeps that are due.
    fn sweep(&mut self, request: &Request<'_>, expiration_s: u32, mut forget: impl FnMut(&mut T)) {
        let seconds = |seconds| request.rate.seconds(seconds);
        let period = seconds(SWEEP_PERIOD_S);
        let next = *self.next_sweep.get_or_insert(request.now + period);
        if request.now < next {
            return;
        }
        let due = 1 + (request.now - next).0 / period.0;
        let latest = next + Span((due - 1) * period.0);
        self.next_sweep = Some(latest + period);
        let full_ones = self.sweeps / FULL_SWEEP;
        self.sweeps += due;
        if self.sweeps / FULL_SWEEP > full_ones {
            let since = Span(self.sweeps % FULL_SWEEP * period.0);
            let full = Ticks(latest.0.saturating_sub(since.0));
            let expiration = seconds(expiration_s);
            // Those used since are not asked how long they were idle then.
            self.entries.retain(|_, entry| {
                let stays = entry.used >= full || full - entry.used < expiration;
                if !stays {
                    forget(&mut entry.value);
                }
                stays
            });
        } else if self.entries.len() > SOFT_LIMIT {
            let mut goal = ((self.entries.len() - SOFT_LIMIT) * 4 / 3).min(SOFT_LIMIT / 2);
            let idle = seconds(IDLE_S);
            self.entries.retain(|_, entry| {
                let goes = goal > 0 && latest - entry.used > idle;
                goal -= usize::from(goes);
                if goes {
                    forget(&mut entry.value);
                }
                !goes
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Settings;
    use crate::conn::FlowKey;
    use crate::service::Protocol;
    use crate::time::TickRate;

    struct Rig {
        cache: Cache<u32>,
        settings: Settings,
        /// A tick is a second.
        now: u64,
    }

    impl Rig {
        fn new() -> Self {
            Self {
                cache: Cache::default(),
                settings: Settings::default(),
                now: 1000,
            }
        }

        fn with<R>(&mut self, dst: u32, act: impl FnOnce(&mut Cache<u32>, &Request<'_>) -> R) -> R {
            let flow = FlowKey {
                protocol: Protocol::Udp,
                src: Ipv4Addr::UNSPECIFIED,
                dst: dst.into(),
                src_port: 1,
                dst_port: 2,
            };
            let request = Request {
                flow: &flow,
                now: Ticks(self.now),
                rate: TickRate::new(1),
                settings: &self.settings,
            };
            act(&mut self.cache, &request)
        }

        fn find(&mut self, dst: u32) -> Option<u32> {
            self.with(dst, |cache, request| {
                cache.find(request, 3600, |_| ()).copied()
            })
        }

        fn put(&mut self, dst: u32) {
            self.with(dst, |cache, request| cache.put(request, dst));
        }
    }

    #[test]
    fn what_was_put_is_found_and_what_was_not_is_not() {
        let mut rig = Rig::new();
        rig.put(7);
        assert_eq!((rig.find(7), rig.find(8)), (Some(7), None));
    }

    #[test]
    fn unused_entries_go_at_the_full_sweep_after_their_expiration() {
        // Full sweeps are 1800, 3600, 5400 … seconds after the first request.
        let mut rig = Rig::new();
        rig.find(0);
        rig.put(1);
        rig.now += 2000;
        rig.put(2);
        rig.now = 1000 + 3599;
        rig.put(3);
        rig.now += 1;
        // 3600 s are over for 1 just now, and 2 and 3 are younger.
        assert_eq!([1, 2, 3].map(|dst| rig.find(dst)), [None, Some(2), Some(3)]);
        // Used at 3600: due again at 7200, which a late request makes up for.
        rig.now = 1000 + 7199;
        assert_eq!(rig.find(2), Some(2));
        rig.now = 1000 + 9000 + 1000;
        assert_eq!([2, 3].map(|dst| rig.find(dst)), [Some(2), None]);
    }

    #[test]
    fn over_the_soft_limit_idle_entries_go_up_to_a_goal() {
        let mut rig = Rig::new();
        rig.find(0);
        let over = 300;
        for dst in 0..(SOFT_LIMIT + over) as u32 {
            rig.put(dst);
        }
        rig.now += 360;
        rig.find(0);
        assert_eq!(rig.cache.entries.len(), SOFT_LIMIT + over, "none idle yet");
        rig.now += 60;
        rig.find(0);
        assert_eq!(rig.cache.entries.len(), SOFT_LIMIT + over - over * 4 / 3);
        rig.now += 60;
        rig.find(0);
        assert_eq!(rig.cache.entries.len(), SOFT_LIMIT - over / 3);
    }

    #[test]
    fn over_the_hard_limit_nothing_new_is_remembered() {
        let mut rig = Rig::new();
        for dst in 0..=HARD_LIMIT as u32 {
            rig.put(dst);
        }
        assert_eq!(rig.cache.entries.len(), HARD_LIMIT);
        assert_eq!(rig.find(HARD_LIMIT as u32), None);
        rig.put(5);
        assert_eq!(rig.find(5), Some(5));
    }
}
