//! When to read the kernel: soon after it reported a change, but never for more than a share of the time.

use std::time::{Duration, Instant};

/// After a change the kernel is read once it had so long to finish changing.
const SETTLE: Duration = Duration::from_millis(50);

/// Reading the kernel may take this share of the time, one in so many; reading its addresses alone, too.
const DUTY: u32 = 5;

/// Without any change the kernel is read so often, for what it does not report.
const AUDIT: Duration = Duration::from_secs(30);

/// A broken conversation is taken up again after so long.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// The times.
pub(super) struct Clock {
    pub(super) due: Instant,
    /// Reading costs, so not again before this.
    pub(super) not_before: Instant,
    /// Nothing was reported since the last reading.
    pub(super) quiet: bool,
    /// When to read the addresses alone.
    pub(super) addresses_due: Option<Instant>,
    /// That costs, too.
    pub(super) addresses_not_before: Instant,
}

impl Clock {
    /// At once.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            due: now,
            not_before: now,
            quiet: false,
            addresses_due: None,
            addresses_not_before: now,
        }
    }

    /// Soon.
    pub(super) fn changed(&mut self) {
        if self.quiet {
            self.quiet = false;
            self.due = self.not_before.max(Instant::now() + SETTLE);
        }
    }

    /// Addresses do not wait for the rest to settle: until a new one is known here, the kernel answers its clients, by
    /// resetting them.
    pub(super) fn addresses_changed(&mut self) {
        let due = self.addresses_not_before.max(Instant::now());
        self.addresses_due.get_or_insert(due);
        self.changed();
    }

    /// The addresses were read, since `start`.
    pub(super) fn addresses_read(&mut self, start: Instant) {
        let now = Instant::now();
        self.addresses_not_before = now + (now - start) * (DUTY - 1);
        self.addresses_due = None;
    }

    /// It was read, since `start`, or it failed.
    pub(super) fn read(&mut self, start: Instant, ok: bool) {
        let now = Instant::now();
        let cost = now - start;
        self.not_before = now + cost * (DUTY - 1);
        self.due = if ok {
            now + AUDIT.max(cost * DUTY * 4)
        } else {
            now + RETRY
        };
        self.quiet = ok;
        self.addresses_due = None;
    }
}
