//! What is logged where, and what happens at a panic.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// The log level will not do.
#[derive(Debug, thiserror::Error)]
#[error("--log-level {given:?}: {error}; use error, warn, info, debug or trace")]
pub(super) struct LogError {
    given: String,
    error: ParseError,
}

/// Logs to stderr, and makes panics loud: the profile aborts after the hook has run.
pub(super) fn start(level: Option<&str>) -> Result<(), LogError> {
    let filter = match level {
        Some(given) => EnvFilter::try_new(given).map_err(|error| LogError {
            given: given.to_owned(),
            error,
        })?,
        None => EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")),
    };
    // Fails only when a log is there already, as in tests: then that one holds.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!("sluiced has a bug and ends here, packets and all: {panic}");
        default(panic);
    }));
    Ok(())
}
