//! How much memory the machine has free, for defences that go up when it gets short.

use std::fs;

/// Bytes of a page.
const PAGE: u64 = 4096;

/// Free pages and those of buffers, as the kernel counts for `amemthresh`; more than any threshold if that cannot be told.
pub(super) fn free_pages() -> u64 {
    fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| pages(&text))
        .unwrap_or(u64::MAX)
}

fn pages(meminfo: &str) -> Option<u64> {
    let kib = |name: &str| {
        let mut lines = meminfo.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    Some((kib("MemFree")? + kib("Buffers")?) * 1024 / PAGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_and_buffers_count() {
        let text =
            "MemTotal:  16000 kB\nMemFree:    4000 kB\nMemAvailable:  9000 kB\nBuffers:  96 kB\n";
        assert_eq!(pages(text), Some(1024));
        assert_eq!(pages("MemFree: 1 kB\n"), None);
        assert!(free_pages() > 0);
    }
}
