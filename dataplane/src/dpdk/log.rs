//! DPDK's log becomes ours: every message is a `tracing` event with the target `dpdk`.

use std::ffi::{c_char, c_int};
use std::slice;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam::queue::ArrayQueue;
use dpdk_sys as sys;

/// How many of the latest complaints are kept, to be quoted when the start fails.
const KEPT: usize = 4;

/// The latest complaints (errors and worse).
fn complaints() -> &'static ArrayQueue<String> {
    static COMPLAINTS: OnceLock<ArrayQueue<String>> = OnceLock::new();
    COMPLAINTS.get_or_init(|| ArrayQueue::new(KEPT))
}

/// Whether complaints wait for somebody to quote them.
static HELD: AtomicBool = AtomicBool::new(false);

/// Keeps DPDK's complaints out of the log, for errors to quote them: a start that fails shall say why in one sentence. Those that no
/// error has quoted are logged when this is dropped.
#[derive(Debug)]
#[must_use = "complaints are held back while it lives"]
pub struct HeldComplaints(());

impl HeldComplaints {
    /// From now on. One at a time.
    pub fn hold() -> Self {
        HELD.store(true, Ordering::Release);
        Self(())
    }
}

impl Drop for HeldComplaints {
    fn drop(&mut self) {
        HELD.store(false, Ordering::Release);
        while let Some(line) = complaints().pop() {
            tracing::error!(target: "dpdk", "{line}");
        }
    }
}

/// Takes the log over. Before `rte_eal_init`, so that it covers the start too.
pub(super) fn redirect() {
    // SAFETY: `write` is a function, so it lives as long as the process, and it takes any text from any thread.
    if unsafe { sys::sluice_log_to(Some(write)) } != 0 {
        tracing::warn!("DPDK's log cannot be redirected; it stays on stderr");
    }
}

/// The latest complaints, oldest first, joined to one line. They are forgotten.
pub(super) fn take_complaints() -> String {
    let mut all = Vec::new();
    while let Some(line) = complaints().pop() {
        all.push(line.trim_end_matches('.').to_owned());
    }
    all.join("; ")
}

/// Called by DPDK's log stream, on whatever thread logs, with one message.
unsafe extern "C" fn write(text: *const c_char, len: usize) {
    // SAFETY: the stream passes `len` readable bytes at `text`, which stay until this returns.
    let bytes = unsafe { slice::from_raw_parts(text.cast::<u8>(), len) };
    // SAFETY: reads a thread-local of the calling thread, which is in the middle of logging.
    let level = unsafe { sys::rte_log_cur_msg_loglevel() };
    for line in String::from_utf8_lossy(bytes).lines() {
        record(level, line.trim());
    }
}

fn record(level: c_int, line: &str) {
    if line.is_empty() {
        return;
    }
    if level <= sys::SLUICE_LOG_WARNING && is_no_news(line) {
        tracing::debug!(target: "dpdk", "{line}");
    } else if level <= sys::SLUICE_LOG_ERR {
        complain(line);
    } else if level <= sys::SLUICE_LOG_WARNING {
        tracing::warn!(target: "dpdk", "{line}");
    } else if level <= sys::SLUICE_LOG_NOTICE {
        tracing::info!(target: "dpdk", "{line}");
    } else if level <= sys::SLUICE_LOG_INFO {
        tracing::debug!(target: "dpdk", "{line}");
    } else {
        tracing::trace!(target: "dpdk", "{line}");
    }
}

fn complain(line: &str) {
    let oldest = complaints().force_push(line.to_owned());
    if !HELD.load(Ordering::Acquire) {
        tracing::error!(target: "dpdk", "{line}");
    } else if let Some(oldest) = oldest {
        tracing::error!(target: "dpdk", "{oldest}");
    }
}

/// Whether it is a complaint with which every healthy start would begin. The tap driver reports, as errors, that the kernel has no
/// `multiq` queueing discipline: it then does without rte_flow, which we do not use. Telemetry warns that nobody asked for its
/// socket of before 2020. EAL warns of sizes of hugepages that nobody reserved: what is missing we say ourselves.
fn is_no_news(line: &str) -> bool {
    [
        "qdisc",
        "Disabling rte flow support",
        "No legacy callbacks",
        "hugepages reported on node",
    ]
    .iter()
    .any(|part| line.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_errors_are_kept_to_be_quoted_and_milder_messages_are_not() {
        let held = HeldComplaints::hold();
        for n in 0..=KEPT {
            record(sys::SLUICE_LOG_ERR, &format!("no {n}."));
        }
        record(sys::SLUICE_LOG_WARNING, "mild");
        record(
            sys::SLUICE_LOG_ERR,
            "qdisc_create_multiq(): Could not add multiq qdisc (2): No such file or directory",
        );
        assert_eq!(take_complaints(), "no 1; no 2; no 3; no 4");
        assert_eq!(take_complaints(), "");
        record(sys::SLUICE_LOG_ERR, "not quoted");
        drop(held);
        assert_eq!(take_complaints(), "");
    }
}
