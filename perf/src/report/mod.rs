//! What a run found: JSON for programs, tables for a terminal, a page for a browser.
//!
//! [`Report`] holds every sample. [`figure`] takes out of it what two reports are compared by.

mod chart;
pub mod experiment;
pub mod figure;
mod html;
mod text;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use self::experiment::Experiment;
use crate::churn::Opened;
use crate::machine::Machine;
use crate::scenario::{BURST, CACHE, DESCRIPTORS, FRAME_LEN, HEADROOM, LADDRS, SERVERS, Scenario};
use crate::single::Single;
use crate::targets::Target;
use crate::timing::{Window, median};

/// A core was another's for more than this share of the time: the figures are not to be quoted.
const DISTURBED: f64 = 0.05;

/// How both programs were run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// What frames come from.
    pub rig: String,
    /// Bytes of a frame, without the frame check sequence.
    pub frame_bytes: usize,
    /// Packets of a burst.
    pub burst: usize,
    /// Queues of the port, each way.
    pub queues: u32,
    /// Frames that wait in a queue.
    pub descriptors: u16,
    /// Bytes of a frame's buffer, headroom included.
    pub mbuf_data_room: u16,
    /// Frames that an lcore keeps.
    pub mempool_cache: u32,
    /// Whether memory was in hugepages.
    pub hugepages: bool,
    /// Real servers.
    pub servers: u8,
    /// FULLNAT's local addresses.
    pub laddrs: u8,
    /// Rounds, interleaved.
    pub rounds: usize,
    /// CPU time of a window.
    pub window_ms: u64,
    /// The boot file of each scenario, and testpmd's command line beside it.
    pub command_lines: Vec<String>,
}

impl Settings {
    /// The rig's.
    pub fn new(hugepages: bool, rounds: usize, window_ms: u64) -> Self {
        Self {
            rig: "net_pcap, infinite_rx=1, no tx_pcap".to_owned(),
            frame_bytes: size_of::<crate::frame::Wire>(),
            burst: BURST,
            queues: 1,
            descriptors: DESCRIPTORS,
            mbuf_data_room: HEADROOM + FRAME_LEN,
            mempool_cache: CACHE,
            hugepages,
            servers: SERVERS,
            laddrs: LADDRS,
            rounds,
            window_ms,
            command_lines: Vec::new(),
        }
    }

    /// Whether runs with these settings can be compared only with a warning. More rounds, or other folders and processes in the
    /// command lines, are no matter.
    pub fn differ(&self, other: &Self) -> bool {
        let same = |settings: &Self| Self {
            rounds: 0,
            command_lines: Vec::new(),
            ..settings.clone()
        };
        same(self) != same(other)
    }
}

/// One line: a scenario, and testpmd on its file. A window a round in each.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    /// Which.
    pub scenario: Scenario,
    /// The appliance.
    pub sluice: Vec<Window>,
    /// testpmd.
    pub macswap: Vec<Window>,
    /// testpmd.
    pub five_tuple_swap: Vec<Window>,
    /// Instructions a packet of the walk, without the driver; `perf/ceilings.toml` holds them.
    pub instructions: Option<f64>,
    /// Frames that were compared with what the walk in memory makes.
    pub compared: usize,
}

impl Row {
    /// Median of the rounds' ratios.
    pub fn ratio(&self, to: &[Window]) -> f64 {
        median(self.ratios(to))
    }

    /// The rounds' ratios: neighbours in time are compared.
    pub fn ratios(&self, to: &[Window]) -> Vec<f64> {
        let pairs = self.sluice.iter().zip(to);
        pairs
            .map(|(sluice, testpmd)| sluice.mpps() / testpmd.mpps())
            .collect()
    }

    fn disturbed(&self) -> f64 {
        let windows = self.sluice.iter().chain(&self.macswap);
        windows.map(Window::disturbed).fold(0.0, f64::max)
    }
}

/// New connections of one method.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NewConnections {
    /// Which, in the table's words.
    pub method: String,
    /// A window a round.
    pub windows: Vec<Opened>,
}

impl NewConnections {
    /// Median, in millions a second.
    pub fn millions_per_s(&self) -> f64 {
        median(self.windows.iter().map(Opened::millions_per_s))
    }
}

/// Which of the two runs it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Run {
    /// `make bench`: the targets.
    #[default]
    Bench,
    /// `make perf`: the whole suite.
    Perf,
}

impl Run {
    /// As in the names of its files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bench => "bench",
            Self::Perf => "perf",
        }
    }
}

/// All of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// Which run.
    #[serde(default)]
    pub run: Run,
    /// Where.
    pub machine: Machine,
    /// How.
    pub settings: Settings,
    /// Load of the machine before and after.
    pub load: (f64, f64),
    /// Established connections.
    pub rows: Vec<Row>,
    /// New connections, in memory.
    pub new_connections: Vec<NewConnections>,
    /// Bursts of one packet, in memory.
    #[serde(default)]
    pub singles: Vec<Single>,
    /// What only the whole suite looks at.
    #[serde(default)]
    pub experiments: Vec<Experiment>,
    /// Bytes that a connection takes; `None` where that was not looked at.
    pub connection_bytes: Option<f64>,
    /// What was to be reached.
    pub targets: Vec<Target>,
}

impl Report {
    /// How many targets are met and missed.
    pub fn verdict(&self) -> (usize, usize) {
        let met = self.targets.iter().filter(|target| target.met()).count();
        (met, self.targets.len() - met)
    }

    /// Writes `DATE-bench.json`, `.txt` and `.html` and returns their paths.
    pub fn store(&self, folder: &Path) -> anyhow::Result<[PathBuf; 3]> {
        fs::create_dir_all(folder)?;
        let stamp = self.machine.date.replace(':', "");
        let name = self.run.name();
        let path = |ending: &str| folder.join(format!("{stamp}-{name}.{ending}"));
        let paths = ["json", "txt", "html"].map(path);
        fs::write(&paths[0], serde_json::to_string_pretty(self)? + "\n")?;
        fs::write(&paths[1], self.text())?;
        fs::write(&paths[2], html::page(self))?;
        Ok(paths)
    }

    /// Writes the text and the page that belong to a stored JSON anew.
    pub fn render(path: &Path) -> anyhow::Result<()> {
        let report = Self::load(path)?;
        fs::write(path.with_extension("txt"), report.text())?;
        Ok(fs::write(path.with_extension("html"), html::page(&report))?)
    }

    /// Reads a stored JSON.
    pub fn load(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| {
            format!(
                "{}: not a result of make bench or make perf",
                path.display()
            )
        })
    }
}
