//! The signals that end the daemon: SIGTERM and SIGINT.

use std::io;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

/// How long the runtime may look whether a signal has come.
const GLANCE: Duration = Duration::from_millis(1);

/// Both signals, caught from [`StopSignals::catch`] on.
pub(super) struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// From now on the signals do not kill the process; who goes on must ask for them.
    pub(super) fn catch(runtime: &Runtime) -> io::Result<Self> {
        let _guard = runtime.enter();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Whether one has come. For the start, between its steps.
    pub(super) fn came(&mut self, runtime: &Runtime) -> bool {
        // Not of no length at all: signals are only seen while the runtime waits.
        let glance = async { tokio::time::timeout(GLANCE, self.wait()).await };
        runtime.block_on(glance).is_ok()
    }

    /// Waits for one.
    pub(super) async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => info!("SIGTERM: stopping"),
            _ = self.interrupt.recv() => info!("SIGINT: stopping"),
        }
    }
}
