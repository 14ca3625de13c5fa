//! Hugepages for the length of a run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

const PAGES: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB";

/// Megabytes of a page.
const PAGE_MB: u64 = 2;

/// Hugepages that were reserved, and a mount of them; both are undone when this ends.
#[derive(Debug)]
pub struct Reserved {
    before: Option<u64>,
    mount: Option<PathBuf>,
}

impl Reserved {
    /// Sees to it that `mb` are free, reserving more if they are not, and that some hugetlbfs is mounted, at `place` if
    /// there is none.
    pub fn at_least(mb: u64, place: &Path) -> anyhow::Result<Self> {
        let mut reserved = Self {
            before: None,
            mount: None,
        };
        let (total, free) = (number("nr_hugepages")?, number("free_hugepages")?);
        let held = number("resv_hugepages")?;
        let missing = (mb.div_ceil(PAGE_MB) + held).saturating_sub(free);
        if missing > 0 {
            reserved.before = Some(total);
            let file = format!("{PAGES}/nr_hugepages");
            fs::write(&file, (total + missing).to_string())
                .with_context(|| format!("{file}: only root may"))?;
            let have = number("nr_hugepages")?;
            ensure!(
                have >= total + missing,
                "the machine gives {have} hugepages of {} that are needed",
                total + missing
            );
        }
        if !fs::read_to_string("/proc/mounts")?.contains(" hugetlbfs ") {
            fs::create_dir_all(place)?;
            let status = Command::new("mount")
                .args(["-t", "hugetlbfs", "none"])
                .arg(place)
                .status()?;
            ensure!(
                status.success(),
                "a hugetlbfs cannot be mounted at {}",
                place.display()
            );
            reserved.mount = Some(place.to_owned());
        }
        Ok(reserved)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if let Some(place) = &self.mount {
            let _ = Command::new("umount").arg(place).status();
            let _ = fs::remove_dir(place);
        }
        if let Some(before) = self.before {
            let _ = fs::write(format!("{PAGES}/nr_hugepages"), before.to_string());
        }
    }
}

fn number(file: &str) -> anyhow::Result<u64> {
    let path = format!("{PAGES}/{file}");
    let text = fs::read_to_string(&path).with_context(|| format!("{path}: no hugepages here"))?;
    Ok(text.trim().parse()?)
}
