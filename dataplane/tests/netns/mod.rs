//! Network namespaces for tests, without names: each lives as long as the threads in it, so nothing is left behind
//! even by a test that was killed.

use std::process::Command;
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, unshare};

/// Runs `body` on a thread in a network namespace of its own, with `lo` up. Threads and processes that it starts are in
/// the same namespace. Needs root.
pub(crate) fn isolated<T: Send + 'static>(
    body: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: this test runs as root");
        ip("link set lo up");
        body()
    })
}

/// Runs `ip` with `arguments` (split at spaces) in the namespace of the calling thread.
pub(crate) fn ip(arguments: &str) {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .expect("iproute2 is installed");
    assert!(
        output.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
