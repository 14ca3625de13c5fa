//! DPDK can be started once a process, so each test that starts it runs in a process of its own.

use std::env;
use std::process::Command;

use sluice_dataplane::dpdk::{Eal, EalConfig, Hugepages};

/// Set in the process that a test is run in.
const INSIDE: &str = "SLUICE_TEST_OWN_PROCESS";

/// Seconds after which a test has failed.
const LIMIT_S: u32 = 60;

/// Runs `body` in a process of its own: this test binary once more, with nothing but the test `name`. The test
/// fails as that process does.
pub(crate) fn in_own_process(name: &str, body: impl FnOnce()) {
    if env::var(INSIDE).as_deref() == Ok(name) {
        // SAFETY: takes a number. A test that hangs is ended by the signal.
        unsafe { libc::alarm(LIMIT_S) };
        return body();
    }
    let output = Command::new(env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, name)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{name} failed in its own process ({}):\n{said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A small environment without hugepages, for one worker that shares the control core, with these virtual devices.
pub(crate) fn small(vdevs: &[&str]) -> EalConfig {
    EalConfig {
        file_prefix: format!("sluice-test-{}", std::process::id()),
        main_core: 0,
        worker_cores: vec![0],
        allow_shared_cores: true,
        hugepages: Hugepages::Off,
        memory_mb: 64,
        vdevs: vdevs.iter().map(|vdev| vdev.to_string()).collect(),
        ..EalConfig::default()
    }
}

/// [`small`], started.
pub(crate) fn start(vdevs: &[&str]) -> Eal {
    Eal::start(&small(vdevs)).unwrap()
}
