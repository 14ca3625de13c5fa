//! What a run found: JSON for programs, a table for people.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::churn::Opened;
use crate::machine::Machine;
use crate::scenario::{BURST, CACHE, DESCRIPTORS, FRAME_LEN, HEADROOM, LADDRS, SERVERS, Scenario};
use crate::single::{Single, Turns};
use crate::targets::Target;
use crate::timing::{Window, median};

/// A core was another's for more than this share of the time: the figures are not to be quoted.
const DISTURBED: f64 = 0.05;

/// How both programs were run.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// What frames come from.
    pub rig: &'static str,
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
            rig: "net_pcap, infinite_rx=1, no tx_pcap",
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
}

/// One line: a scenario, and testpmd on its file. A window a round in each.
#[derive(Clone, Debug, Serialize)]
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
    /// Median of the rounds' ratios: neighbours in time are compared.
    pub fn ratio(&self, to: &[Window]) -> f64 {
        let pairs = self.sluice.iter().zip(to);
        median(pairs.map(|(sluice, testpmd)| sluice.mpps() / testpmd.mpps()))
    }

    fn disturbed(&self) -> f64 {
        let windows = self.sluice.iter().chain(&self.macswap);
        windows.map(Window::disturbed).fold(0.0, f64::max)
    }
}

/// New connections of one method.
#[derive(Clone, Debug, Serialize)]
pub struct NewConnections {
    /// Which, in the table's words.
    pub method: &'static str,
    /// A window a round.
    pub windows: Vec<Opened>,
}

impl NewConnections {
    /// Median, in millions a second.
    pub fn millions_per_s(&self) -> f64 {
        median(self.windows.iter().map(Opened::millions_per_s))
    }
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
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
    pub singles: Vec<Single>,
    /// Bytes that a connection takes.
    pub connection_bytes: f64,
    /// What was to be reached.
    pub targets: Vec<Target>,
}

impl Report {
    /// How many targets are met and missed.
    pub fn verdict(&self) -> (usize, usize) {
        let met = self.targets.iter().filter(|target| target.met()).count();
        (met, self.targets.len() - met)
    }

    /// Writes `DATE-bench.json` and `DATE-bench.txt` and returns their paths.
    pub fn store(&self, folder: &Path) -> anyhow::Result<[PathBuf; 2]> {
        fs::create_dir_all(folder)?;
        let stamp = self.machine.date.replace(':', "");
        let path = |ending: &str| folder.join(format!("{stamp}-bench.{ending}"));
        let paths = [path("json"), path("txt")];
        fs::write(&paths[0], serde_json::to_string_pretty(self)? + "\n")?;
        fs::write(&paths[1], self.text())?;
        Ok(paths)
    }

    /// The tables, and the verdict in the last line.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        let (machine, settings) = (&self.machine, &self.settings);
        writeln!(text, "sluice {} on {}", machine.commit, machine.date)?;
        writeln!(
            text,
            "{} x {}, {} MB, Linux {}, DPDK {}",
            machine.cores, machine.cpu, machine.memory_mb, machine.kernel, machine.dpdk
        )?;
        writeln!(
            text,
            "rig: {}; {}-byte frames; for both programs: one queue, {} descriptors, bursts of {}, data room {}, mempool cache {}, {}",
            settings.rig,
            settings.frame_bytes,
            settings.descriptors,
            settings.burst,
            settings.mbuf_data_room,
            settings.mempool_cache,
            if settings.hugepages {
                "hugepages of 2 MB"
            } else {
                "no hugepages"
            }
        )?;
        writeln!(
            text,
            "{} rounds, interleaved, of {} ms of the worker's CPU time; medians; {} servers; load {:.1} before, {:.1} after",
            settings.rounds, settings.window_ms, settings.servers, self.load.0, self.load.1
        )?;
        self.write_rows(text)?;
        self.write_new_connections(text)?;
        self.write_singles(text)?;
        self.write_targets(text)?;
        for line in &settings.command_lines {
            writeln!(text, "{line}")?;
        }
        let (met, missed) = self.verdict();
        writeln!(text, "\n{met} targets met, {missed} missed")
    }

    fn write_rows(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "\n                 sluice                   macswap        5tswap         ratio to           instructions  frames\n\
             \x20                 Mpps     ns  (range)      Mpps    ns     Mpps    ns    macswap  5tswap    a packet      compared"
        )?;
        for row in &self.rows {
            let ns = |windows: &[Window]| median(windows.iter().map(Window::ns_per_packet));
            let (sluice, macswap, five) =
                (ns(&row.sluice), ns(&row.macswap), ns(&row.five_tuple_swap));
            let each = || row.sluice.iter().map(Window::ns_per_packet);
            let (low, high) = (each().fold(f64::MAX, f64::min), each().fold(0.0, f64::max));
            let instructions = row
                .instructions
                .map_or_else(|| "-".to_owned(), |count| format!("{count:.0}"));
            writeln!(
                text,
                "{:<14} {:7.2} {sluice:6.1}  {low:.0}-{high:<6.0} {:7.2} {macswap:5.1}  {:7.2} {five:5.1}    {:5.3}    {:5.3}    {instructions:>8}      {:>8}{}",
                row.scenario.to_string(),
                1000.0 / sluice,
                1000.0 / macswap,
                1000.0 / five,
                row.ratio(&row.macswap),
                row.ratio(&row.five_tuple_swap),
                row.compared,
                if row.disturbed() > DISTURBED {
                    "  disturbed"
                } else {
                    ""
                }
            )?;
        }
        writeln!(
            text,
            "instructions: of the walk in memory, without a driver (callgrind); disturbed: others took the core for more than {:.0} % of a window",
            DISTURBED * 100.0
        )
    }

    fn write_new_connections(&self, text: &mut String) -> std::fmt::Result {
        if self.new_connections.is_empty() {
            return Ok(());
        }
        writeln!(
            text,
            "\nnew connections, in memory: every packet of another client, wrr over {} servers, as many end as begin, 1 M live",
            self.settings.servers
        )?;
        for new in &self.new_connections {
            let rate = new.millions_per_s();
            writeln!(
                text,
                "{:<14} {rate:6.2} M/s {:6.1} ns",
                new.method,
                1000.0 / rate
            )?;
        }
        Ok(())
    }

    fn write_singles(&self, text: &mut String) -> std::fmt::Result {
        if self.singles.is_empty() {
            return Ok(());
        }
        writeln!(
            text,
            "\na burst of one packet, in memory: the worker's whole turn, from before receive until after transmit\n\
             \x20              median ns   p99 ns   CPU ns"
        )?;
        for single in &self.singles {
            let of = |value: fn(&Turns) -> f64| median(single.windows.iter().map(value));
            writeln!(
                text,
                "{:<14} {:9.0} {:8.0} {:8.0}",
                single.scenario.to_string(),
                of(|turns| turns.median_ns),
                of(|turns| turns.p99_ns),
                of(|turns| turns.cpu_ns as f64 / turns.packets as f64)
            )?;
        }
        Ok(())
    }

    fn write_targets(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "\n{:<42} {:>8} {:>8}          {:>8}",
            "target", "value", "must", "aim"
        )?;
        for target in &self.targets {
            writeln!(
                text,
                "{:<42} {:8.3} {:8.2}  {:<6}  {:8.2}  {}",
                target.what,
                target.value,
                target.must,
                if target.met() { "met" } else { "MISSED" },
                target.aim,
                if target.aim_met() {
                    "reached"
                } else {
                    "not reached"
                }
            )?;
        }
        Ok(())
    }
}
