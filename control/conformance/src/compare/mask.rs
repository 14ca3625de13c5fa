//! What of an emitted packet cannot be reproduced (README, "Mask when comparing").

use std::net::IpAddr;
use std::ops::Range;

use crate::decode::{self, Field, is_icmp_error};
use crate::director::Director;

/// Names of the fields of a packet that are not compared. A masked checksum must be right where the recorded one is.
pub(super) struct Mask {
    pub(super) fields: Vec<&'static str>,
}

/// Fields of a packet, by name.
pub(super) struct Named(pub(super) Vec<Field>);

impl Named {
    pub(super) fn of(l3: &[u8]) -> Self {
        Self(decode::fields(l3))
    }

    pub(super) fn field(&self, name: &str) -> Option<&Field> {
        self.0.iter().find(|field| field.name == name)
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.field(name).map(|field| field.value.as_str())
    }

    pub(super) fn addr(&self, name: &str) -> Option<IpAddr> {
        self.value(name)?.parse().ok()
    }

    fn is_icmp_error(&self, l3: &[u8]) -> bool {
        self.field("icmp.type")
            .is_some_and(|field| is_icmp_error(l3[0] >> 4 == 6, l3[field.bytes.start]))
    }
}

impl Mask {
    /// What to excuse of `recorded`, emitted because of `incoming` (or of no packet).
    pub(super) fn of(
        director: &Director,
        incoming: Option<&[u8]>,
        l3: &[u8],
        recorded: &Named,
    ) -> Self {
        let mut fields = Vec::new();
        if made_icmp(director, incoming, recorded) {
            fields.extend(["ip.tos", "ip.id", "ip.checksum", "ip.version, class, flow"]);
        }
        if own_unicast(director, recorded) && l3[6] & 0x40 == 0 {
            fields.extend(["ip.id", "ip.checksum"]);
        }
        if own_unicast(director, recorded) && recorded.value("ip.protocol") == Some("UDP") {
            fields.extend(["udp.sport", "udp.checksum"]);
        }
        if from_interface(director, recorded) && to_group(recorded) {
            fields.extend(["ip.id", "ip.checksum", "udp.sport", "udp.checksum"]);
        }
        Self { fields }
    }

    /// The bytes of the masked fields.
    pub(super) fn ranges(&self, packet: &Named) -> Vec<Range<usize>> {
        let masked = packet
            .0
            .iter()
            .filter(|field| self.fields.contains(&field.name.as_str()));
        masked.map(|field| field.bytes.clone()).collect()
    }
}

/// ICMP that the director made itself, rather than translated or passed on.
fn made_icmp(director: &Director, incoming: Option<&[u8]>, recorded: &Named) -> bool {
    let ours = recorded
        .addr("ip.src")
        .is_some_and(|src| director.owns(src));
    if recorded.field("icmp.type").is_none() || !ours {
        return false;
    }
    let translated = incoming.is_some_and(|l3| {
        let incoming = Named::of(l3);
        let to_us = incoming
            .addr("ip.dst")
            .is_some_and(|dst| director.owns(dst));
        incoming.is_icmp_error(l3) && !to_us
    });
    !translated
}

/// What the director sends from an interface's address to one host, other than ICMP: tunnel packets.
fn own_unicast(director: &Director, recorded: &Named) -> bool {
    const TUNNELS: [&str; 4] = ["IPIP", "IPv6", "UDP", "GRE"];
    from_interface(director, recorded)
        && !to_group(recorded)
        && recorded
            .value("ip.protocol")
            .is_some_and(|protocol| TUNNELS.contains(&protocol))
}

fn from_interface(director: &Director, recorded: &Named) -> bool {
    matches!(recorded.addr("ip.src"), Some(IpAddr::V4(src)) if director.is_interface(src))
}

fn to_group(recorded: &Named) -> bool {
    recorded
        .addr("ip.dst")
        .is_some_and(|dst| dst.is_multicast())
}
