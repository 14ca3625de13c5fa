//! The end, watched: what is waited for is logged when it takes long, and it does not take for ever.

use std::process;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use tracing::{debug, error, warn};

/// A step that takes longer is worth a line in the log.
const LONG: Duration = Duration::from_secs(2);

/// The exit code when it took too long.
const GAVE_UP: i32 = 1;

/// Watches over the end until it is dropped.
pub(super) struct Ending(Sender<&'static str>);

impl Ending {
    /// From now on; all steps together take no longer than `longest`, as far as we have a say.
    pub(super) fn watch(longest: Duration) -> Self {
        let (steps, heard) = channel();
        let watcher = Builder::new().name("sluice-ending".to_owned());
        if let Err(error) = watcher.spawn(move || watch(&heard, LONG, longest, give_up)) {
            warn!(%error, "no thread to watch the end");
        }
        Self(steps)
    }

    /// What is waited for next.
    pub(super) fn step(&self, what: &'static str) {
        // Nobody hears it where there was no thread to be had.
        let _ = self.0.send(what);
    }
}

fn give_up(step: &str, longest: Duration) {
    error!(
        "{step} did not end within {} s (--stop-timeout); sluiced ends without",
        longest.as_secs()
    );
    process::exit(GAVE_UP);
}

fn watch(
    heard: &Receiver<&'static str>,
    long: Duration,
    longest: Duration,
    give_up: impl FnOnce(&str, Duration),
) {
    let begun = Instant::now();
    let (mut step, mut since) = ("the tasks", begun);
    loop {
        match heard.recv_timeout(long) {
            Ok(next) => {
                debug!(
                    waited_ms = since.elapsed().as_millis() as u64,
                    "{step} ended"
                );
                (step, since) = (next, Instant::now());
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) if begun.elapsed() < longest => {
                let waited_s = since.elapsed().as_secs();
                warn!(waited_s, "stopping: still waiting for {step}");
            }
            Err(RecvTimeoutError::Timeout) => return give_up(step, longest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gave_up_on(steps: &[&'static str], ends: bool) -> Option<String> {
        let (sender, heard) = channel();
        for step in steps {
            sender.send(*step).unwrap();
        }
        let kept = (!ends).then_some(sender);
        let (ms, mut gave_up) = (Duration::from_millis, None);
        watch(&heard, ms(1), ms(5), |step, _| {
            gave_up = Some(step.to_owned())
        });
        drop(kept);
        gave_up
    }

    #[test]
    fn an_end_that_does_not_come_is_given_up_by_name() {
        assert_eq!(gave_up_on(&["one", "two"], true), None);
        assert_eq!(gave_up_on(&["one", "two"], false).as_deref(), Some("two"));
    }
}
