//! The end, watched: what is waited for is logged when it takes long, and it does not take for ever.

use std::process;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::Builder;
use std::time::{Duration, Instant};

use tracing::{debug, error, warn};

/// A step that takes longer is worth a line in the log.
const LONG: Duration = Duration::from_secs(2);

/// All steps together take no longer than this. Init systems wait for 10 s (containers) to 90 s (systemd) before they kill.
const LONGEST: Duration = Duration::from_secs(30);

/// The exit code after [`LONGEST`].
const GAVE_UP: i32 = 1;

/// Watches over the end until it is dropped.
pub(super) struct Ending(Sender<&'static str>);

impl Ending {
    /// From now on.
    pub(super) fn watch() -> Self {
        let (steps, heard) = channel();
        let watcher = Builder::new().name("sluice-ending".to_owned());
        if let Err(error) = watcher.spawn(move || watch(&heard)) {
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

fn watch(heard: &Receiver<&'static str>) {
    let begun = Instant::now();
    let (mut step, mut since) = ("the tasks", begun);
    loop {
        match heard.recv_timeout(LONG) {
            Ok(next) => {
                debug!(
                    waited_ms = since.elapsed().as_millis() as u64,
                    "{step} ended"
                );
                (step, since) = (next, Instant::now());
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) if begun.elapsed() < LONGEST => {
                let waited_s = since.elapsed().as_secs();
                warn!(waited_s, "stopping: still waiting for {step}");
            }
            Err(RecvTimeoutError::Timeout) => {
                error!(
                    "{step} did not end within {} s; sluiced ends without",
                    LONGEST.as_secs()
                );
                process::exit(GAVE_UP);
            }
        }
    }
}
