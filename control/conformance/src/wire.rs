//! IP packets as frames of the recorded director's two wires, and back.

use std::net::IpAddr;

use crate::director::Director;
use crate::trace::{Emitted, Side};

const ETHERTYPE_V4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_V6: [u8; 2] = [0x86, 0xdd];

/// `l3` as it comes off the wire of that side.
pub fn frame(director: &Director, side: Side, l3: &[u8]) -> Vec<u8> {
    let v6 = l3.first().is_some_and(|byte| byte >> 4 == 6);
    let (src, dst) = addresses(l3);
    let to = match dst {
        Some(IpAddr::V4(group)) if group.is_multicast() => {
            let [_, b, c, d] = group.octets();
            [0x01, 0, 0x5e, b & 0x7f, c, d]
        }
        _ => director.mac(side).0,
    };
    let mut frame = Vec::with_capacity(14 + l3.len());
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&director.sender(side, src).0);
    frame.extend_from_slice(if v6 { &ETHERTYPE_V6 } else { &ETHERTYPE_V4 });
    frame.extend_from_slice(l3);
    frame
}

/// A frame that was sent, without its Ethernet header, which must be right.
pub fn emission(director: &Director, side: Side, frame: &[u8]) -> Result<Emitted, String> {
    let Some((header, l3)) = frame.split_first_chunk::<14>() else {
        return Err(format!("a frame of {} bytes was emitted", frame.len()));
    };
    let [d0, d1, d2, d3, d4, d5, src @ .., t0, t1] = *header;
    let ethertype = match l3.first().map(|byte| byte >> 4) {
        Some(4) => ETHERTYPE_V4,
        Some(6) => ETHERTYPE_V6,
        _ => return Err("a frame that is no IP packet was emitted".to_owned()),
    };
    if [t0, t1] != ethertype {
        return Err(format!(
            "an IP packet was emitted with Ethernet type {t0:02x}{t1:02x}"
        ));
    }
    if src != director.mac(side).0 {
        let src = crate::decode::mac(src);
        return Err(format!(
            "a frame was emitted on the {side} side with source MAC {src}"
        ));
    }
    Ok(Emitted::new(side, [d0, d1, d2, d3, d4, d5], l3.to_vec()))
}

/// Source and destination of a packet, where it is long enough to have them.
fn addresses(l3: &[u8]) -> (Option<IpAddr>, Option<IpAddr>) {
    let v4 = |at: usize| Some(IpAddr::from(*l3.get(at..)?.first_chunk::<4>()?));
    let v6 = |at: usize| Some(IpAddr::from(*l3.get(at..)?.first_chunk::<16>()?));
    match l3.first().map(|byte| byte >> 4) {
        Some(4) => (v4(12), v4(16)),
        Some(6) => (v6(8), v6(24)),
        _ => (None, None),
    }
}
