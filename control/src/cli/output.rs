//! How the client prints: aligned columns, or JSON.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

/// A table without lines, its columns two blanks apart.
pub(super) struct Columns {
    table: Table,
}

impl Columns {
    /// A table with these titles; those that begin with `>` are of columns of numbers, set right.
    pub(super) fn new(titles: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(titles.iter().map(|title| title.trim_start_matches('>')));
        for (column, title) in table.column_iter_mut().zip(titles) {
            column.set_padding((0, 2));
            if title.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { table }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.table.add_row(cells);
    }

    /// Prints it, each line after `indent`.
    pub(super) fn print(&self, out: &mut dyn Write, indent: &str) -> io::Result<()> {
        self.table.lines().try_for_each(|line| {
            let line = format!("{indent}{line}");
            writeln!(out, "{}", line.trim_end())
        })
    }
}

/// Prints an answer as the daemon gave it, indented.
pub(super) fn json(out: &mut dyn Write, answer: &Value) -> io::Result<()> {
    writeln!(out, "{answer:#}")
}

/// A number in a few characters, with a power of 1000.
pub(super) fn short(number: u64) -> String {
    const UNITS: [(u64, &str); 4] = [
        (1_000_000_000_000, "T"),
        (1_000_000_000, "G"),
        (1_000_000, "M"),
        (1000, "k"),
    ];
    match UNITS.iter().find(|(unit, _)| number >= *unit) {
        None => number.to_string(),
        Some((unit, letter)) => {
            let hundredths = u128::from(number) * 100 / u128::from(*unit);
            match hundredths {
                ..1000 => format!("{}.{:02}{letter}", hundredths / 100, hundredths % 100),
                1000..10_000 => format!("{}.{}{letter}", hundredths / 100, hundredths % 100 / 10),
                _ => format!("{}{letter}", hundredths / 100),
            }
        }
    }
}

/// A time span in its two largest units.
pub(super) fn duration(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3600 => format!("{minutes} min {} s", seconds % 60),
        3600..86400 => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// A share in percent.
pub(super) fn percent(part: u64, whole: u64) -> String {
    let share = (u128::from(part) * 100).checked_div(u128::from(whole));
    share.map_or_else(|| "-".to_owned(), |share| format!("{share}%"))
}

/// `yes` or `no`.
pub(super) fn yes_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_numbers_have_three_digits_and_a_unit() {
        let numbers = [
            0,
            999,
            1000,
            1999,
            12_345,
            999_999,
            1_000_000,
            40_000_000_000,
            u64::MAX,
        ];
        let shown = numbers.map(short);
        let expected = [
            "0",
            "999",
            "1.00k",
            "1.99k",
            "12.3k",
            "999k",
            "1.00M",
            "40.0G",
            "18446744T",
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn time_spans_have_their_two_largest_units() {
        let shown = [59, 61, 3725, 90_000].map(duration);
        assert_eq!(shown, ["59 s", "1 min 1 s", "1 h 2 min", "1 d 1 h"]);
    }

    #[test]
    fn columns_are_aligned_and_end_without_blanks() {
        let mut columns = Columns::new(&["name", ">n", "more"]);
        columns.row(vec!["a".to_owned(), "1".to_owned(), String::new()]);
        columns.row(vec!["long".to_owned(), "100".to_owned(), "x".to_owned()]);
        let mut out = Vec::new();
        columns.print(&mut out, "  ").unwrap();
        let out = String::from_utf8(out).unwrap();
        assert_eq!(out, "  name    n  more\n  a       1\n  long  100  x\n");
    }

    #[test]
    fn a_share_of_nothing_is_no_number() {
        assert_eq!(percent(1, 4), "25%");
        assert_eq!(percent(0, 0), "-");
    }
}
