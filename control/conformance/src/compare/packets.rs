//! Emitted packets: bytes, next hop, side and order.

use std::fmt::Write as _;
use std::ops::Range;

use sluice_dataplane::egress::Mac;

use super::mask::{Mask, Named};
use crate::decode;
use crate::director::Director;
use crate::trace::Emitted;

/// What a comparison depends on besides the packets.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Who emitted them.
    pub director: &'a Director,
    /// The packet that came in, if it was one.
    pub incoming: Option<&'a [u8]>,
    /// Whether the real server was chosen at random.
    pub random: bool,
}

/// Compares all that was emitted at one step. `Err` says readably what differs first.
pub fn compare(recorded: &[Emitted], ours: &[Emitted], context: Context<'_>) -> Result<(), String> {
    let recorded: Vec<_> = recorded
        .iter()
        .filter(|packet| !is_membership_report(context.director, packet))
        .collect();
    for index in 0..recorded.len().max(ours.len()) {
        let place = format!("packet {} of {}", index + 1, recorded.len());
        match (recorded.get(index), ours.get(index)) {
            (Some(recorded), Some(ours)) => {
                one(recorded, ours, context).map_err(|what| format!("{place} {what}"))?
            }
            (Some(missing), None) => {
                let recorded = decode::summary(missing);
                return Err(format!(
                    "{place} was not emitted\nrecorded  {recorded}\nsluice    nothing"
                ));
            }
            (None, Some(extra)) => return Err(unrecorded(index, recorded.len(), extra)),
            (None, None) => break,
        }
    }
    same_fragments(&recorded, ours, context)
}

/// One emitted packet against the recorded one.
fn one(recorded: &Emitted, ours: &Emitted, context: Context<'_>) -> Result<(), String> {
    let fields = Named::of(&recorded.l3);
    let ours_fields = Named::of(&ours.l3);
    let mut mask = Mask::of(context.director, context.incoming, &recorded.l3, &fields);
    let mut differing = Vec::new();
    if recorded.side != ours.side {
        differing.push("side".to_owned());
    }
    let to_server = recorded.nexthop.is_some() && recorded.side == ours.side;
    if context.random && to_server {
        mask.fields.extend([
            "ip.dst",
            "ip.checksum",
            "tcp.checksum",
            "udp.checksum",
            "sctp.crc32c",
        ]);
        differing.extend(unknown_server(ours, &ours_fields, context));
    } else {
        differing.extend(next_hop(recorded, ours, context.director));
    }
    let ranges = mask.ranges(&fields);
    if !same_bytes(&recorded.l3, &ours.l3, &ranges) {
        differing.extend(differing_fields(&fields, &ours_fields, &mask));
    }
    differing.extend(wrong_checksums(&fields, &ours_fields, &mask));
    if differing.is_empty() {
        return Ok(());
    }
    let mut text = format!("differs in {}\n", differing.join(", "));
    text.push_str(&decode::side_by_side(recorded, ours, &ranges));
    Err(text)
}

/// The next hop's MAC, and that it is the neighbour that the recording names.
fn next_hop(recorded: &Emitted, ours: &Emitted, director: &Director) -> Option<String> {
    if recorded.dmac != ours.dmac {
        return Some("next hop".to_owned());
    }
    let named = recorded.nexthop?;
    let known = director.neighbour_at(Mac(ours.dmac));
    (known != Some(named)).then(|| {
        let known = known.map_or_else(|| "nobody".to_owned(), |addr| addr.to_string());
        format!(
            "next hop (recorded {named}, and {} is {known})",
            decode::mac(ours.dmac)
        )
    })
}

/// A server chosen at random must at least be one, and the packet must be addressed to it.
fn unknown_server(ours: &Emitted, fields: &Named, context: Context<'_>) -> Option<String> {
    let Some(server) = context.director.neighbour_at(Mac(ours.dmac)) else {
        return Some("next hop (no real server's)".to_owned());
    };
    let dst = fields.addr("ip.dst");
    let kept = context.incoming.and_then(|l3| Named::of(l3).addr("ip.dst"));
    (dst != Some(server) && dst != kept).then(|| "ip.dst (not the next hop's)".to_owned())
}

fn same_bytes(recorded: &[u8], ours: &[u8], masked: &[Range<usize>]) -> bool {
    let excused = |at: usize| masked.iter().any(|range| range.contains(&at));
    recorded.len() == ours.len()
        && recorded
            .iter()
            .zip(ours)
            .enumerate()
            .all(|(at, (a, b))| a == b || excused(at))
}

fn differing_fields(recorded: &Named, ours: &Named, mask: &Mask) -> Vec<String> {
    let differs = |name: &str, value: &str, other: &Named| other.value(name) != Some(value);
    let masked = |name: &str| mask.fields.contains(&name);
    let missing = recorded
        .0
        .iter()
        .filter(|field| differs(&field.name, &field.value, ours) && !masked(&field.name));
    let extra = ours
        .0
        .iter()
        .filter(|field| recorded.field(&field.name).is_none());
    missing
        .chain(extra)
        .map(|field| field.name.clone())
        .collect()
}

/// A masked checksum may have another value, not another truth.
fn wrong_checksums(recorded: &Named, ours: &Named, mask: &Mask) -> Vec<String> {
    let verdict = |packet: &Named, name: &str| {
        let value = packet.value(name)?;
        let absent = value == "0x0000";
        Some((
            absent,
            value.split_once(' ').map(|(_, verdict)| verdict.to_owned()),
        ))
    };
    let sums = mask.fields.iter().filter(|name| name.ends_with("checksum"));
    let wrong = sums.filter(|name| {
        let ours = verdict(ours, name);
        ours.is_some() && ours != verdict(recorded, name)
    });
    wrong
        .map(|name| format!("{name} (right or wrong)"))
        .collect()
}

/// Fragments that share a masked IP id in the recording must share one here, or nobody could put them together.
fn same_fragments(
    recorded: &[&Emitted],
    ours: &[Emitted],
    context: Context<'_>,
) -> Result<(), String> {
    let id = |packet: &Emitted| packet.l3.get(4..6).map(<[u8]>::to_vec);
    let masked = |packet: &Emitted| {
        let fields = Named::of(&packet.l3);
        let mask = Mask::of(context.director, context.incoming, &packet.l3, &fields);
        mask.fields.contains(&"ip.id")
    };
    for (first, second) in (1..recorded.len()).map(|index| (index - 1, index)) {
        let together = masked(recorded[first])
            && masked(recorded[second])
            && id(recorded[first]) == id(recorded[second]);
        if together && id(&ours[first]) != id(&ours[second]) {
            let (first, second) = (first + 1, second + 1);
            return Err(format!(
                "packets {first} and {second} differ in ip.id, and are fragments of one packet"
            ));
        }
    }
    Ok(())
}

fn unrecorded(index: usize, recorded: usize, extra: &Emitted) -> String {
    let mut text = format!("packet {} was emitted, and ", index + 1);
    let _ = match recorded {
        0 => write!(text, "none was recorded"),
        n => write!(text, "only {n} recorded"),
    };
    let _ = write!(
        text,
        "\nrecorded  nothing\nsluice    {}",
        decode::summary(extra)
    );
    text
}

/// IGMP is the kernel's own affair: it joined a group for a process, and says so whenever it likes.
fn is_membership_report(director: &Director, packet: &Emitted) -> bool {
    let fields = Named::of(&packet.l3);
    fields.value("ip.protocol") == Some("IGMP")
        && fields.addr("ip.src").is_some_and(|src| director.owns(src))
}

#[cfg(test)]
mod tests;
