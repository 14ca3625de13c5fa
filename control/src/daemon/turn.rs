//! A worker's thread: the loop around [`Worker::poll`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use sluice_dataplane::io::Port;
use sluice_dataplane::time::Ticks;
use sluice_dataplane::worker::Worker;

use crate::boot::Polling;

/// Idle turns before the first nap: traffic comes in bunches.
const AWAKE: u32 = 256;

/// Idle naps, and how long each of them is: about 20 ms of short ones, then longer ones.
const NAPS: [(u32, Duration); 3] = [
    (AWAKE + 200, Duration::from_micros(50)),
    (AWAKE + 400, Duration::from_micros(200)),
    (u32::MAX, Duration::from_millis(1)),
];

/// Turns the worker until told to stop. `now` reads the clock.
pub(super) fn turn<P: Port>(
    mut worker: Worker<P>,
    polling: Polling,
    stop: &Arc<AtomicBool>,
    now: impl Fn() -> Ticks,
) {
    let mut idle = 0;
    while !stop.load(Ordering::Relaxed) {
        if worker.poll(now()) {
            idle = 0;
        } else if polling == Polling::Adaptive {
            idle = (idle + 1).min(u32::MAX - 1);
            if let Some(nap) = nap(idle) {
                thread::sleep(nap);
            }
        }
    }
}

/// How long to sleep after so many idle turns in a row.
fn nap(idle: u32) -> Option<Duration> {
    let mut naps = NAPS.iter();
    (idle > AWAKE)
        .then(|| naps.find(|(until, _)| idle < *until))
        .flatten()
        .map(|(_, nap)| *nap)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn naps_begin_late_and_grow_to_a_millisecond() {
        assert_eq!(nap(AWAKE), None);
        assert_eq!(nap(AWAKE + 1), Some(Duration::from_micros(50)));
        assert_eq!(nap(AWAKE + 300), Some(Duration::from_micros(200)));
        assert_eq!(nap(u32::MAX - 1), Some(Duration::from_millis(1)));
    }
}
