//! Where and of what a run was.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// A machine and what was built for it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Its processor.
    pub cpu: String,
    /// Processors.
    pub cores: usize,
    /// Megabytes.
    pub memory_mb: u64,
    /// The kernel's release.
    pub kernel: String,
    /// DPDK's release.
    pub dpdk: String,
    /// What was measured; `-dirty` with changes of its own.
    pub commit: String,
    /// UTC, as `2026-01-31T12:00:00Z`.
    pub date: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let field = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(name));
            let value = line.and_then(|line| line.split_once(':'));
            value.map_or_else(String::new, |(_, value)| value.trim().to_owned())
        };
        let memory = field("/proc/meminfo", "MemTotal");
        let kb: u64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
        Self {
            cpu: field("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
            memory_mb: kb / 1024,
            kernel: said("uname", &["-r"]),
            dpdk: said("pkg-config", &["--modversion", "libdpdk"]),
            commit: said("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
            date: said("date", &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
        }
    }
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
