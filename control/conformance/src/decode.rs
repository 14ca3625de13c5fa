//! Packets for people: fields with names, and two packets side by side.
//!
//! Decoding never fails: what is cut short or unknown becomes a field of bare bytes. Every byte of a packet belongs to
//! exactly one field, so two packets differ if and only if a field does.

mod ip;
mod transport;

use std::fmt::Write as _;
use std::ops::Range;

pub(crate) use ip::is_icmp_error;

use crate::trace::{Emitted, Side};

/// One field of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// With the header in front: `ip.ttl`, `quoted.tcp.sport`.
    pub name: String,
    /// Its bytes in the packet. Flags that share a byte share a range.
    pub bytes: Range<usize>,
    /// As a person reads it.
    pub value: String,
}

/// The fields of `l3`, in order, the headers of inner and quoted packets included.
pub fn fields(l3: &[u8]) -> Vec<Field> {
    let mut reader = Reader {
        packet: l3,
        at: 0,
        prefix: String::new(),
        fields: Vec::new(),
    };
    ip::packet(&mut reader, l3.len());
    reader.fields
}

/// A line about a packet: `client, 02:00:…: TCP 10.0.0.1:80 > 198.51.100.7:34567 SA, 60 bytes`.
pub fn summary(packet: &Emitted) -> String {
    format!(
        "{} side to {}: {}",
        packet.side,
        mac(packet.dmac),
        line(&packet.l3)
    )
}

/// A line about a packet's layers.
pub fn line(l3: &[u8]) -> String {
    let fields = fields(l3);
    let value = |name: &str| {
        fields
            .iter()
            .find(|field| field.name == name)
            .map(|field| field.value.as_str())
    };
    let mut text = value("ip.protocol").unwrap_or("not IP").to_owned();
    let layer = ["tcp", "udp", "sctp"]
        .into_iter()
        .find(|layer| value(&format!("{layer}.sport")).is_some());
    let port = |which: &str| {
        layer
            .and_then(|layer| value(&format!("{layer}.{which}")))
            .map_or_else(String::new, |port| format!(":{port}"))
    };
    if let (Some(src), Some(dst)) = (value("ip.src"), value("ip.dst")) {
        let _ = write!(text, " {src}{} > {dst}{}", port("sport"), port("dport"));
    }
    for detail in ["tcp.flags", "icmp.type", "ip.fragment"] {
        if let Some(detail) = value(detail).filter(|detail| *detail != "whole") {
            let _ = write!(text, " {detail}");
        }
    }
    let _ = write!(text, ", {} bytes", l3.len());
    text
}

/// `02:01:c0:a8:01:01`.
pub fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// Two packets field by field. Fields that differ are marked `*`, those that `masked` (byte ranges of both) excuses `~`.
pub fn side_by_side(recorded: &Emitted, ours: &Emitted, masked: &[Range<usize>]) -> String {
    let mut rows = vec![
        Row::new("side", side(recorded.side), side(ours.side)),
        Row::new("next hop", mac(recorded.dmac), mac(ours.dmac)),
    ];
    rows.extend(paired(&fields(&recorded.l3), &fields(&ours.l3), masked));
    let width = |of: fn(&Row) -> &str, title: &str| {
        let widest = rows.iter().map(|row| of(row).chars().count()).max();
        widest.unwrap_or(0).max(title.len())
    };
    let name = width(|row| &row.name, "");
    let left = width(|row| &row.recorded, "recorded");
    let mut text = format!("  {:name$}  {:left$}  sluice\n", "", "recorded");
    for row in &rows {
        let line = format!(
            "{} {:name$}  {:left$}  {}",
            row.mark, row.name, row.recorded, row.ours
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn side(side: Side) -> String {
    side.to_string()
}

struct Row {
    mark: char,
    name: String,
    recorded: String,
    ours: String,
}

impl Row {
    fn new(name: &str, recorded: String, ours: String) -> Self {
        let mark = if recorded == ours { ' ' } else { '*' };
        let name = name.to_owned();
        Self {
            mark,
            name,
            recorded,
            ours,
        }
    }
}

/// Rows in the order of both packets; a field that only one has stands where that one has it.
fn paired(recorded: &[Field], ours: &[Field], masked: &[Range<usize>]) -> Vec<Row> {
    let excused = |field: &Field| masked.contains(&field.bytes);
    let mut rows = Vec::new();
    let mut rest = ours;
    for field in recorded {
        let Some(found) = rest.iter().position(|other| other.name == field.name) else {
            rows.push(Row::new(&field.name, field.value.clone(), "-".to_owned()));
            continue;
        };
        let (only_ours, from) = rest.split_at(found);
        rows.extend(only_ours.iter().map(unrecorded));
        let mut row = Row::new(&field.name, field.value.clone(), from[0].value.clone());
        if row.mark == '*' && excused(field) {
            row.mark = '~';
        }
        rows.push(row);
        rest = &from[1..];
    }
    rows.extend(rest.iter().map(unrecorded));
    rows
}

fn unrecorded(field: &Field) -> Row {
    Row::new(&field.name, "-".to_owned(), field.value.clone())
}

/// Cuts a packet into fields from the front.
struct Reader<'a> {
    packet: &'a [u8],
    at: usize,
    prefix: String,
    fields: Vec<Field>,
}

impl Reader<'_> {
    /// How many bytes are left before `end`.
    fn left(&self, end: usize) -> usize {
        end.min(self.packet.len()).saturating_sub(self.at)
    }

    /// The next `n` bytes as a field, shown by `show`. The caller has made sure of `n`.
    fn take(&mut self, n: usize, name: &str, show: impl FnOnce(&[u8]) -> String) {
        let bytes = self.at..(self.at + n).min(self.packet.len());
        let value = show(&self.packet[bytes.clone()]);
        self.at = bytes.end;
        self.push(name, bytes, value);
    }

    /// The next `n` bytes as a number.
    fn number(&mut self, n: usize, name: &str) -> u64 {
        let bytes = &self.packet[self.at..(self.at + n).min(self.packet.len())];
        let value = bytes
            .iter()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        self.take(n, name, |_| value.to_string());
        value
    }

    /// The next two bytes as a checksum; `right` is what it should be, where that can be told.
    fn checksum(&mut self, name: &str, right: Option<bool>) {
        self.take(2, name, |bytes| {
            let verdict = match right {
                Some(true) => " right",
                Some(false) => " WRONG",
                None => "",
            };
            format!("0x{}{verdict}", digits(bytes))
        });
    }

    /// All up to `end` as bare bytes.
    fn rest(&mut self, end: usize, name: &str) {
        let n = self.left(end);
        if n > 0 {
            self.take(n, name, bare);
        }
    }

    fn push(&mut self, name: &str, bytes: Range<usize>, value: String) {
        let name = format!("{}{name}", self.prefix);
        self.fields.push(Field { name, bytes, value });
    }

    /// What `decode` reads is inside `name`.
    fn inside(&mut self, name: &str, decode: impl FnOnce(&mut Self)) {
        let outer = self.prefix.len();
        self.prefix.push_str(name);
        self.prefix.push('.');
        decode(self);
        self.prefix.truncate(outer);
    }
}

/// Bytes as digits; of many, the first and how many, with a sum that tells two such apart.
fn bare(bytes: &[u8]) -> String {
    const SHOWN: usize = 24;
    if bytes.len() <= SHOWN {
        return digits(bytes);
    }
    let mark = bytes.iter().fold(0xcbf2_9ce4u32, |mark, byte| {
        (mark ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    format!(
        "{}… {} bytes, fnv {mark:08x}",
        digits(&bytes[..SHOWN]),
        bytes.len()
    )
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
