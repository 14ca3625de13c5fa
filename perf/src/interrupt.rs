//! Ctrl-C and SIGTERM end a run as an error does: with everything put back.

use std::io;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::ensure;
use nix::sys::signal::{SigSet, Signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on signals are noted. Call it before any thread is started.
pub fn watch() -> anyhow::Result<()> {
    signals().thread_block()?;
    thread::spawn(|| {
        while signals().wait().is_ok() {
            INTERRUPTED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// Starts a program that hears signals itself: it would inherit that we do not.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let signals = signals();
    signals.thread_unblock()?;
    let child = command.spawn();
    signals.thread_block()?;
    child
}

fn signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM].into_iter().collect()
}

/// `Err` once a signal came.
pub fn check() -> anyhow::Result<()> {
    ensure!(!INTERRUPTED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}
