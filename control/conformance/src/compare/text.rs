//! What a command printed, and its exit code. All bytes count, blanks at line ends too, but for these masks:
//!
//! - Connections (`-Lnc` and its kin) may come in any order, and have one second more or less left.
//! - Rates (tables headed `CPS    InPPS …`): the five numbers of a row may be any numbers, for the recorded estimator's phase
//!   is unknown. Rows, names and the columns' places count.
//! - Services scheduled by `twos`: which server a connection has, and how the connections of a service are spread over its
//!   servers. Their sums count.

use similar::{ChangeTag, TextDiff};

use super::RandomServices;
use crate::trace::Command;

/// What a command did here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Its exit code.
    pub rc: i32,
    /// What it printed.
    pub out: String,
    /// What it complained.
    pub err: String,
}

/// Compares a command's doing with the recorded one. `Err` says readably what differs first.
pub fn compare(recorded: &Command, ours: &Output, random: &RandomServices) -> Result<(), String> {
    let (out, expected) = excuse(&recorded.out, &ours.out, random);
    let mut problems = String::new();
    if recorded.rc != ours.rc {
        problems.push_str(&format!(
            "exit code {} recorded, {} here\n",
            recorded.rc, ours.rc
        ));
    }
    for (name, recorded, ours) in [
        ("standard error", &recorded.err, &ours.err),
        ("output", &expected, &out),
    ] {
        if recorded != ours {
            problems.push_str(&format!(
                "{name} differs (- recorded, + sluice)\n{}",
                diff(recorded, ours)
            ));
        }
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

/// Whether the two differ, and in nothing but how long connections of a listing still have: by how many seconds at
/// most. A recording can have paused where no step says so.
pub fn expiry_lag(recorded: &Command, ours: &Output, random: &RandomServices) -> Option<u64> {
    if recorded.rc != ours.rc || recorded.err != ours.err {
        return None;
    }
    let mut theirs = Connections::parse(&recorded.out)?;
    let mut here = Connections::parse(&ours.out)?;
    theirs.sort(random);
    here.sort(random);
    let same = theirs.header == here.header && theirs.rows.len() == here.rows.len();
    let pairs = || theirs.rows.iter().zip(&here.rows);
    let lag = |(theirs, here): (&Row, &Row)| {
        let (theirs_left, here_left) = (theirs.expires?, here.expires?);
        let alike = theirs.key(random) == here.key(random) && theirs_left <= here_left + 1;
        alike.then(|| here_left.saturating_sub(theirs_left))
    };
    if !same {
        return None;
    }
    let lags = pairs().map(lag).collect::<Option<Vec<_>>>()?;
    lags.into_iter().max().filter(|lag| *lag > 1)
}

/// Ours and the recorded text, made equal wherever the README excuses a difference.
fn excuse(recorded: &str, ours: &str, random: &RandomServices) -> (String, String) {
    if let (Some(theirs), Some(here)) = (Connections::parse(recorded), Connections::parse(ours)) {
        return excuse_connections(theirs, here, random);
    }
    let mut here: Vec<_> = ours.lines().map(str::to_owned).collect();
    let theirs: Vec<_> = recorded.lines().collect();
    if theirs.iter().any(|line| line.contains("CPS    InPPS")) && theirs.len() == here.len() {
        for (theirs, here) in theirs.iter().zip(&mut here) {
            if same_but_numbers(theirs, here, 5) {
                *here = (*theirs).to_owned();
            }
        }
    }
    excuse_random_counts(&theirs, &mut here, random);
    let mut here = here.join("\n");
    here.push_str(&ours[ours.trim_end_matches('\n').len()..]);
    (here, recorded.to_owned())
}

/// Whether two lines of a table are alike but for the numbers in their last `columns`.
fn same_but_numbers(theirs: &str, here: &str, columns: usize) -> bool {
    match (split_numbers(theirs, columns), split_numbers(here, columns)) {
        (Some((name, numbers)), Some((other, others))) => {
            // A number that outgrew its column pushes the others to the right.
            let grown = numbers.iter().chain(&others).any(|number| number.len() > 8);
            name.trim_end() == other.trim_end() && (grown || theirs.len() == here.len())
        }
        _ => false,
    }
}

/// A line's front and its last `columns` words, if those are numbers.
fn split_numbers(line: &str, columns: usize) -> Option<(&str, Vec<&str>)> {
    let mut front = line;
    let mut numbers = Vec::with_capacity(columns);
    for _ in 0..columns {
        let trimmed = front.trim_end();
        let start = trimmed.rfind(' ')? + 1;
        let digits = trimmed[start..].trim_end_matches(['K', 'M', 'G', 'T']);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        numbers.push(&trimmed[start..]);
        front = &trimmed[..start];
    }
    Some((front, numbers))
}

/// Of a random service's servers, only the sums of connections are compared.
fn excuse_random_counts(theirs: &[&str], here: &mut [String], random: &RandomServices) {
    if theirs.len() != here.len() || random.is_empty() {
        return;
    }
    let is_server = |line: &str| line.trim_start().starts_with("->");
    let mut at = 0;
    while at < theirs.len() {
        let service = theirs[at].split_whitespace().nth(1).unwrap_or_default();
        let servers = theirs[at + 1..]
            .iter()
            .take_while(|line| is_server(line))
            .count();
        let rows = at + 1..at + 1 + servers;
        if !is_server(theirs[at]) && random.contains(service) {
            let alike = rows
                .clone()
                .all(|row| same_but_numbers(theirs[row], &here[row], 2));
            let ours: Vec<_> = here[rows.clone()].iter().map(String::as_str).collect();
            if alike && column_sums(&theirs[rows.clone()]) == column_sums(&ours) {
                for row in rows.clone() {
                    theirs[row].clone_into(&mut here[row]);
                }
            }
        }
        at = rows.end;
    }
}

/// The sums of the last two columns.
fn column_sums(rows: &[&str]) -> [u64; 2] {
    let mut sums = [0; 2];
    for row in rows {
        let numbers = split_numbers(row, 2)
            .map(|(_, numbers)| numbers)
            .unwrap_or_default();
        for (sum, number) in sums.iter_mut().zip(numbers) {
            *sum += number.parse::<u64>().unwrap_or(0);
        }
    }
    sums
}

/// A listing of connections: in no order, and with seconds that pass.
struct Connections<'a> {
    header: Vec<&'a str>,
    rows: Vec<Row<'a>>,
}

#[derive(Clone)]
struct Row<'a> {
    before: &'a str,
    expires: Option<u64>,
    shown: &'a str,
    after: &'a str,
}

impl<'a> Connections<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut lines = text.lines();
        let header: Vec<_> = lines.by_ref().take(2).collect();
        (header.first() == Some(&"IPVS connection entries") && text.ends_with('\n')).then(|| Self {
            header,
            rows: lines.map(Row::parse).collect(),
        })
    }

    fn sort(&mut self, random: &RandomServices) {
        self.rows.sort_by(|a, b| {
            (a.key(random), a.expires, a.after).cmp(&(b.key(random), b.expires, b.after))
        });
    }

    fn text(&self) -> String {
        let rows = self
            .rows
            .iter()
            .map(|row| format!("{}{}{}", row.before, row.shown, row.after));
        let header = self.header.iter().map(|line| (*line).to_owned());
        header.chain(rows).map(|line| line + "\n").collect()
    }
}

impl<'a> Row<'a> {
    fn parse(line: &'a str) -> Self {
        let start = line.find(' ').map_or(line.len(), |at| {
            at + line[at..].len() - line[at..].trim_start().len()
        });
        let length = line[start..].find(' ').unwrap_or(line.len() - start);
        let shown = &line[start..start + length];
        let seconds = |sum: Option<u64>, part: &str| Some(sum? * 60 + part.parse::<u64>().ok()?);
        Self {
            before: &line[..start],
            expires: shown.split(':').fold(Some(0), seconds),
            shown,
            after: &line[start + length..],
        }
    }

    /// All that must be the same. A random service's choice is not in it.
    fn key(&self, random: &RandomServices) -> (&'a str, &'a str) {
        let words: Vec<_> = self.after.split_whitespace().collect();
        let chosen_at_random = words.len() == 4 && random.contains(words[2]);
        let after = match self.after.rfind(' ') {
            Some(end) if chosen_at_random => &self.after[..end],
            _ => self.after,
        };
        (self.before, after)
    }
}

fn excuse_connections<'a>(
    mut theirs: Connections<'a>,
    mut here: Connections<'a>,
    random: &RandomServices,
) -> (String, String) {
    theirs.sort(random);
    here.sort(random);
    let mut at = 0;
    for row in &mut here.rows {
        let key = row.key(random);
        at += theirs.rows[at..]
            .iter()
            .take_while(|other| other.key(random) < key)
            .count();
        let Some(other) = theirs.rows.get(at).filter(|other| other.key(random) == key) else {
            continue;
        };
        at += 1;
        let near = match (row.expires, other.expires) {
            (Some(ours), Some(theirs)) => ours.abs_diff(theirs) <= 1,
            _ => row.shown == other.shown,
        };
        if near {
            *row = other.clone();
        }
    }
    (here.text(), theirs.text())
}

/// A line diff with two lines of context, and trailing blanks made visible.
pub(super) fn diff(recorded: &str, ours: &str) -> String {
    let diff = TextDiff::from_lines(recorded, ours);
    let mut text = String::new();
    for group in diff.grouped_ops(2) {
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let mark = match change.tag() {
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
                ChangeTag::Equal => ' ',
            };
            text.push(mark);
            text.push(' ');
            text.push_str(&visible(change.value(), change.tag()));
            text.push('\n');
        }
    }
    text
}

fn visible(line: &str, tag: ChangeTag) -> String {
    let (body, end) = match line.strip_suffix('\n') {
        Some(body) => (body, ""),
        None => (line, " (no end of line)"),
    };
    let trimmed = body.trim_end_matches(' ');
    let blanks = if tag == ChangeTag::Equal { " " } else { "·" };
    format!(
        "{trimmed}{}{end}",
        blanks.repeat(body.len() - trimmed.len())
    )
}

#[cfg(test)]
mod tests;
