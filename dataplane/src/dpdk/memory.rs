//! What memory the machine has for DPDK, and what a killed predecessor left behind.
//!
//! Looked at before EAL starts, because EAL's own complaints do not say what is missing.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// One size of hugepages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PageSize {
    /// Bytes of a page, in kB.
    pub(super) kb: u64,
    /// Pages reserved for the machine.
    pub(super) total: u64,
    /// Pages nobody holds.
    pub(super) free: u64,
}

const PAGE_SIZES: &str = "/sys/kernel/mm/hugepages";

/// All sizes that the kernel offers, smallest first.
pub(super) fn page_sizes() -> Vec<PageSize> {
    let Ok(entries) = fs::read_dir(PAGE_SIZES) else {
        return Vec::new();
    };
    let mut sizes: Vec<_> = entries
        .flatten()
        .filter_map(|entry| page_size(&entry.path()))
        .collect();
    sizes.sort_by_key(|size| size.kb);
    sizes
}

fn page_size(folder: &Path) -> Option<PageSize> {
    let name = folder.file_name()?.to_str()?;
    let kb = name
        .strip_prefix("hugepages-")?
        .strip_suffix("kB")?
        .parse()
        .ok()?;
    let reserved = number(&folder.join("resv_hugepages")).unwrap_or(0);
    Some(PageSize {
        kb,
        total: number(&folder.join("nr_hugepages"))?,
        free: number(&folder.join("free_hugepages"))?.saturating_sub(reserved),
    })
}

fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// MB of memory that programs may still take.
pub(super) fn available_mb() -> Option<u64> {
    Some(meminfo_kb("MemAvailable:")? / 1024)
}

/// The size in kB of the hugepages that are meant when none is named.
pub(super) fn default_page_kb() -> u64 {
    meminfo_kb("Hugepagesize:").unwrap_or(2048)
}

fn meminfo_kb(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// Where a hugetlbfs is mounted, and with which page size in kB (`None`: the kernel's default size).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) path: PathBuf,
    pub(super) page_kb: Option<u64>,
}

/// All mounts of hugetlbfs that this process sees.
pub(super) fn mounts() -> Vec<Mount> {
    parse_mounts(&fs::read_to_string("/proc/mounts").unwrap_or_default())
}

fn parse_mounts(text: &str) -> Vec<Mount> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let path = fields.nth(1)?;
            (fields.next()? == "hugetlbfs").then_some(())?;
            let options = fields.next()?;
            Some(Mount {
                path: path.into(),
                page_kb: options
                    .split(',')
                    .find_map(|option| kilobytes(option.strip_prefix("pagesize=")?)),
            })
        })
        .collect()
}

/// `2M`, `1024M`, `1G` in kB.
fn kilobytes(size: &str) -> Option<u64> {
    let (digits, unit) = size.split_at(size.find(|c: char| !c.is_ascii_digit())?);
    let factor = match unit {
        "K" | "k" => 1,
        "M" | "m" => 1 << 10,
        "G" | "g" => 1 << 20,
        _ => return None,
    };
    Some(digits.parse::<u64>().ok()? * factor)
}

/// Where EAL keeps the sockets and the shared configuration of the instance `prefix`.
pub(super) fn runtime_dir(prefix: &str) -> PathBuf {
    let base = std::env::var_os("RUNTIME_DIRECTORY")
        .map(PathBuf::from)
        .unwrap_or_else(|| {
            // SAFETY: takes nothing and cannot fail.
            if unsafe { libc::getuid() } == 0 {
                "/var/run".into()
            } else {
                std::env::var_os("XDG_RUNTIME_DIR").map_or("/tmp".into(), PathBuf::from)
            }
        });
    base.join("dpdk").join(prefix)
}

/// The living process that runs as `prefix`, if any: EAL holds a record lock on the shared configuration.
pub(super) fn holder(prefix: &str) -> Option<i32> {
    let config = OpenOptions::new()
        .read(true)
        .write(true)
        .open(runtime_dir(prefix).join("config"))
        .ok()?;
    let mut lock = libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open while `config` lives, and `lock` is what F_GETLK reads and writes.
    let asked = unsafe { libc::fcntl(config.as_raw_fd(), libc::F_GETLK, &mut lock) };
    (asked == 0 && lock.l_type != libc::F_UNLCK as i16).then_some(lock.l_pid)
}

/// Removes the hugepage files that a killed instance `prefix` left in `mounts`: they hold their pages. A file that a
/// living process has locked stays. Returns how many went.
pub(super) fn remove_stale_pages(prefix: &str, mounts: &[Mount]) -> usize {
    page_files(prefix, mounts)
        .filter(|path| unlocked(path) && fs::remove_file(path).is_ok())
        .count()
}

/// Removes everything that this process' instance `prefix` has in the file system. Memory stays mapped.
pub(super) fn remove_own_files(prefix: &str) {
    for path in page_files(prefix, &mounts()) {
        let _ = fs::remove_file(path);
    }
    let _ = fs::remove_dir_all(runtime_dir(prefix));
}

/// EAL's names: `<prefix>map_<n>` for a page, `<prefix>map_<list>` …: all begin alike.
fn page_files(prefix: &str, mounts: &[Mount]) -> impl Iterator<Item = PathBuf> {
    let start = format!("{prefix}map_");
    mounts
        .iter()
        .filter_map(|mount| fs::read_dir(&mount.path).ok())
        .flatten()
        .flatten()
        .filter(move |entry| {
            entry
                .file_name()
                .as_encoded_bytes()
                .starts_with(start.as_bytes())
        })
        .map(|entry| entry.path())
}

/// Whether no process holds a lock on the file: EAL keeps a shared one on each page that it uses.
fn unlocked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    // SAFETY: the descriptor is open while `file` lives; the lock goes with it.
    unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hugetlbfs_mounts_are_found_with_their_page_size() {
        let text = "proc /proc proc rw 0 0\n\
                    none /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0\n\
                    none /mnt/big hugetlbfs rw,pagesize=1024M 0 0\n\
                    none /mnt/plain hugetlbfs rw 0 0\n";
        let mount = |path: &str, page_kb| Mount {
            path: path.into(),
            page_kb,
        };
        assert_eq!(
            parse_mounts(text),
            [
                mount("/dev/hugepages", Some(2048)),
                mount("/mnt/big", Some(1_048_576)),
                mount("/mnt/plain", None),
            ]
        );
    }

    #[test]
    fn only_unlocked_page_files_of_the_prefix_are_stale() {
        let folder = std::env::temp_dir().join(format!("sluice-stale-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for name in ["onemap_0", "onemap_1", "twomap_0"] {
            fs::write(folder.join(name), "").unwrap();
        }
        let held = File::open(folder.join("onemap_1")).unwrap();
        // SAFETY: the descriptor is open while `held` lives.
        assert_eq!(unsafe { libc::flock(held.as_raw_fd(), libc::LOCK_SH) }, 0);
        let mounts = [Mount {
            path: folder.clone(),
            page_kb: None,
        }];
        assert_eq!(remove_stale_pages("one", &mounts), 1);
        assert!(!folder.join("onemap_0").exists());
        assert!(folder.join("onemap_1").exists());
        assert!(folder.join("twomap_0").exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
