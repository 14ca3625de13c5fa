//! The report for a terminal.

use std::fmt::Write as _;

use super::{DISTURBED, Report};
use crate::single::Turns;
use crate::timing::{Window, median};

impl Report {
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
        self.write_experiments(text)?;
        self.write_targets(text)?;
        for line in &settings.command_lines {
            writeln!(text, "{line}")?;
        }
        let (met, missed) = self.verdict();
        writeln!(text, "\n{met} targets met, {missed} missed")
    }

    fn write_rows(&self, text: &mut String) -> std::fmt::Result {
        if self.rows.is_empty() {
            return Ok(());
        }
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
            "flows are packets that differ in their ends; a connection is one, with NAT and FULLNAT two, one in each direction\n\
             instructions: of the walk in memory, without a driver (callgrind); disturbed: others took the core for more than {:.0} % of a window",
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

    fn write_experiments(&self, text: &mut String) -> std::fmt::Result {
        for experiment in &self.experiments {
            let places = experiment.places();
            writeln!(
                text,
                "\n{}: {}\n{}",
                experiment.title, experiment.unit, experiment.how
            )?;
            write!(text, "{:<24}", experiment.axis)?;
            for place in &places {
                write!(text, " {place:>16}")?;
            }
            for line in &experiment.lines {
                write!(text, "\n{:<24}", line.name)?;
                for place in &places {
                    match line.at(place) {
                        Some(point) => write!(text, " {:16.3}", point.median())?,
                        None => write!(text, " {:>16}", "-")?,
                    }
                }
            }
            writeln!(text)?;
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
