//! The director's kernel, played: what it does with a packet that the worker hands it (contract 5 of the design).
//!
//! Where the recorded director's own stack answered or routed, sluice hands the packet to the kernel, and the answer
//! comes back through the worker. So the answer is made here, sent through the worker, and compared like any other
//! packet; nobody has to guess whether a recorded packet came from IPVS or from the stack beside it.
//!
//! One thing cannot be told apart from outside: for UDP, the stack's port unreachable and that of IPVS without a usable
//! real server are the same packet.
//!
//! Only what a kernel without any listener does: TCP resets, ICMP echo replies, ICMP unreachable, routing. A
//! fragment to an own address waits in vain for the others, and none is made: recordings have no such case.

use std::net::Ipv4Addr;

use crate::checksum;
use crate::director::Director;
use crate::trace::Side;

/// A frame from the kernel, out of the interface of `side`.
#[derive(Debug, PartialEq, Eq)]
pub struct Sent {
    /// Which interface.
    pub side: Side,
    /// From the destination MAC on.
    pub frame: Vec<u8>,
}

/// Bytes of a packet that an ICMP error of ours carries at most, so that it fits 576 with its headers (RFC 1812).
const QUOTED: usize = 576 - 28;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// What the kernel does with `frame`, received on `side`.
pub fn receive(director: &Director, side: Side, frame: &[u8]) -> Option<Sent> {
    let packet = frame.get(14..).and_then(Packet::parse)?;
    if packet.dst.is_multicast() || packet.dst.is_broadcast() {
        return None;
    }
    if director.owns(packet.dst.into()) {
        answer(director, &packet)
    } else {
        forward(director, side, &packet)
    }
}

/// An IPv4 packet that the kernel would not throw away at once.
struct Packet<'a> {
    bytes: &'a [u8],
    header: usize,
    protocol: u8,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    l4: &'a [u8],
}

impl<'a> Packet<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (fixed, _) = bytes.split_first_chunk::<20>()?;
        let header = usize::from(fixed[0] & 0x0f) * 4;
        let length = usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
        let bytes = bytes.get(..length)?;
        let (ip, l4) = bytes.split_at_checked(header)?;
        let good = fixed[0] >> 4 == 4 && header >= 20 && checksum::internet(&[ip]) == 0;
        let addr =
            |at: usize| Ipv4Addr::new(fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]);
        good.then(|| Self {
            bytes,
            header,
            protocol: fixed[9],
            src: addr(12),
            dst: addr(16),
            l4,
        })
    }

    fn tos(&self) -> u8 {
        self.bytes[1]
    }

    fn ttl(&self) -> u8 {
        self.bytes[8]
    }

    fn dont_fragment(&self) -> bool {
        self.bytes[6] & 0x40 != 0
    }

    fn is_fragment(&self) -> bool {
        u16::from_be_bytes([self.bytes[6], self.bytes[7]]) & 0x3fff != 0
    }

    fn sum_is_right(&self) -> bool {
        match self.protocol {
            ICMP => checksum::internet(&[self.l4]) == 0,
            UDP if self.l4.get(6..8) == Some(&[0, 0]) => true,
            _ => checksum::transport(self.src.into(), self.dst.into(), self.protocol, self.l4) == 0,
        }
    }
}

/// The local stack's answer, if it gives one.
fn answer(director: &Director, packet: &Packet<'_>) -> Option<Sent> {
    if packet.is_fragment() {
        return None;
    }
    let reply = match packet.protocol {
        TCP => packet.sum_is_right().then(|| reset(packet)).flatten(),
        UDP => (packet.sum_is_right() && packet.l4.len() >= 8)
            .then(|| error(packet, packet.dst, 3, 3, 0)),
        ICMP => packet.sum_is_right().then(|| echo_reply(packet)).flatten(),
        _ => Some(error(packet, packet.dst, 3, 2, 0)),
    }?;
    send(director, packet.src, reply)
}

/// Ordinary forwarding, back through the interface that leads to the destination.
fn forward(director: &Director, side: Side, packet: &Packet<'_>) -> Option<Sent> {
    let (out, _) = director.route(packet.dst)?;
    let mtu = director.mtu(out);
    let quotes_error =
        packet.protocol == ICMP && packet.l4.first().is_some_and(|kind| ![0, 8].contains(kind));
    let problem = if packet.ttl() <= 1 {
        Some((11, 0, 0))
    } else if packet.bytes.len() > usize::from(mtu) {
        Some((3, 4, mtu)).filter(|_| packet.dont_fragment())
    } else {
        let mut bytes = packet.bytes.to_vec();
        bytes[8] -= 1;
        seal(&mut bytes, packet.header);
        return send(director, packet.dst, bytes);
    };
    let (kind, code, mtu) = problem.filter(|_| !quotes_error)?;
    let source = director.link(side).0;
    send(director, packet.src, error(packet, source, kind, code, mtu))
}

/// The reset for a segment that no connection wants (RFC 9293, section 3.5.2, group 1).
fn reset(packet: &Packet<'_>) -> Option<Vec<u8>> {
    const FIN: u8 = 1;
    const SYN: u8 = 2;
    const RST: u8 = 4;
    const ACK: u8 = 16;
    let (tcp, _) = packet.l4.split_first_chunk::<20>()?;
    let flags = tcp[13];
    if flags & RST != 0 {
        return None;
    }
    let number = |at: usize| u32::from_be_bytes([tcp[at], tcp[at + 1], tcp[at + 2], tcp[at + 3]]);
    let (seq, ack, flags) = if flags & ACK != 0 {
        (number(8), 0, RST)
    } else {
        let payload = packet
            .l4
            .len()
            .saturating_sub(usize::from(tcp[12] >> 4) * 4);
        let length = payload as u32 + u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        (0, number(4).wrapping_add(length), RST | ACK)
    };
    let mut l4 = Vec::with_capacity(20);
    l4.extend_from_slice(&tcp[2..4]);
    l4.extend_from_slice(&tcp[0..2]);
    l4.extend_from_slice(&seq.to_be_bytes());
    l4.extend_from_slice(&ack.to_be_bytes());
    l4.extend_from_slice(&[5 << 4, flags, 0, 0, 0, 0, 0, 0]);
    let sum = checksum::transport(packet.dst.into(), packet.src.into(), TCP, &l4);
    l4[16..18].copy_from_slice(&sum.to_be_bytes());
    const DF: u8 = 0x40;
    Some(ip(packet.tos(), DF, TCP, packet.dst, packet.src, &l4))
}

fn echo_reply(packet: &Packet<'_>) -> Option<Vec<u8>> {
    const ECHO: u8 = 8;
    (packet.l4.first() == Some(&ECHO)).then(|| {
        let mut l4 = packet.l4.to_vec();
        l4[0] = 0;
        icmp_sum(&mut l4);
        ip(packet.tos(), 0, ICMP, packet.dst, packet.src, &l4)
    })
}

/// An ICMP error about `packet`.
fn error(packet: &Packet<'_>, source: Ipv4Addr, kind: u8, code: u8, mtu: u16) -> Vec<u8> {
    const NETWORK_CONTROL: u8 = 0xc0;
    let mut l4 = vec![kind, code, 0, 0, 0, 0];
    l4.extend_from_slice(&mtu.to_be_bytes());
    l4.extend_from_slice(&packet.bytes[..packet.bytes.len().min(QUOTED)]);
    icmp_sum(&mut l4);
    let tos = packet.tos() & 0x1e | NETWORK_CONTROL;
    ip(tos, 0, ICMP, source, packet.src, &l4)
}

fn icmp_sum(l4: &mut [u8]) {
    l4[2..4].fill(0);
    let sum = checksum::internet(&[l4]);
    l4[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// A packet of the kernel's own: TTL 64, id 0.
fn ip(tos: u8, flags: u8, protocol: u8, src: Ipv4Addr, dst: Ipv4Addr, l4: &[u8]) -> Vec<u8> {
    let length = (20 + l4.len()) as u16;
    let mut bytes = vec![0x45, tos];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&[0, 0, flags, 0, 64, protocol, 0, 0]);
    bytes.extend_from_slice(&src.octets());
    bytes.extend_from_slice(&dst.octets());
    seal(&mut bytes, 20);
    bytes.extend_from_slice(l4);
    bytes
}

/// Fills in the header's checksum.
fn seal(bytes: &mut [u8], header: usize) {
    bytes[10..12].fill(0);
    let sum = checksum::internet(&[&bytes[..header]]);
    bytes[10..12].copy_from_slice(&sum.to_be_bytes());
}

fn send(director: &Director, dst: Ipv4Addr, packet: Vec<u8>) -> Option<Sent> {
    let (side, mac) = director.route(dst)?;
    let mut frame = Vec::with_capacity(14 + packet.len());
    frame.extend_from_slice(&mac.0);
    frame.extend_from_slice(&director.mac(side).0);
    frame.extend_from_slice(&[0x08, 0x00]);
    frame.extend_from_slice(&packet);
    Some(Sent { side, frame })
}

/// A UDP datagram from scratch, from the IP header on: TTL 64, DF, id 0, right checksums.
pub fn datagram(
    src: Ipv4Addr,
    sport: u16,
    dst: Ipv4Addr,
    dport: u16,
    payload: &[u8],
) -> Option<Vec<u8>> {
    let length = u16::try_from(8 + payload.len())
        .ok()
        .filter(|length| *length <= u16::MAX - 20)?;
    let mut l4 = Vec::with_capacity(usize::from(length));
    l4.extend_from_slice(&sport.to_be_bytes());
    l4.extend_from_slice(&dport.to_be_bytes());
    l4.extend_from_slice(&length.to_be_bytes());
    l4.extend_from_slice(&[0, 0]);
    l4.extend_from_slice(payload);
    let sum = match checksum::transport(src.into(), dst.into(), UDP, &l4) {
        0 => 0xffff,
        sum => sum,
    };
    l4[6..8].copy_from_slice(&sum.to_be_bytes());
    const DF: u8 = 0x40;
    Some(ip(0, DF, UDP, src, dst, &l4))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::compare::packets::{Context, compare};
    use crate::trace::{Emitted, Packet as PacketStep, Step, Trace};

    /// Every packet step of every recorded trace, with its director.
    fn recorded() -> Vec<(Director, PacketStep)> {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dataplane/ipvs/golden");
        let mut steps = Vec::new();
        for entry in std::fs::read_dir(golden).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let trace = Trace::read(&path).unwrap();
            let director = Director::new(&trace.header);
            let packets = trace.steps.into_iter().filter_map(|step| match step {
                Step::Pkt(packet) if packet.l3[0] >> 4 == 4 => Some(packet),
                _ => None,
            });
            steps.extend(packets.map(|packet| (director.clone(), packet)));
        }
        steps
    }

    fn played(director: &Director, step: &PacketStep) -> Vec<Emitted> {
        let mut frame = vec![0; 14];
        frame.extend_from_slice(&step.l3);
        let sent = receive(director, step.side, &frame);
        let emitted = sent.map(|sent| {
            let mut dmac = [0; 6];
            dmac.copy_from_slice(&sent.frame[..6]);
            Emitted::new(sent.side, dmac, sent.frame[14..].to_vec())
        });
        emitted.into_iter().collect()
    }

    #[test]
    fn resets_echo_replies_and_protocol_unreachable_are_as_the_recorded_kernel_made_them() {
        let mut answers = [0; 3];
        for (director, step) in recorded() {
            let [out] = step.out.as_slice() else { continue };
            // No IPVS ever resets, replies to an echo, or knows of protocols that are unreachable.
            let kind = match (out.l3[9], out.l3[20], out.l3[21]) {
                (TCP, ..) if out.side == step.side && out.l3[33] & 4 != 0 => 0,
                (ICMP, 0, 0) => 1,
                (ICMP, 3, 2) => 2,
                _ => continue,
            };
            answers[kind] += 1;
            let context = Context {
                director: &director,
                incoming: Some(&step.l3),
                random: false,
            };
            let verdict = compare(&step.out, &played(&director, &step), context);
            verdict.unwrap_or_else(|what| panic!("{:?}: {what}", step.label));
        }
        assert!(answers.iter().all(|count| *count > 0), "{answers:?}");
    }

    #[test]
    fn packets_that_nobody_translated_are_routed_as_the_recorded_kernel_did() {
        let mut routed = 0;
        for (director, step) in recorded() {
            let untouched = |out: &Emitted| out.l3[12..] == step.l3[12..] && out.side != step.side;
            let owned =
                |l3: &[u8]| director.owns(Ipv4Addr::new(l3[16], l3[17], l3[18], l3[19]).into());
            if owned(&step.l3) || !step.out.first().is_some_and(untouched) {
                continue;
            }
            routed += 1;
            let context = Context {
                director: &director,
                incoming: Some(&step.l3),
                random: false,
            };
            compare(&step.out, &played(&director, &step), context).unwrap();
        }
        assert!(routed > 5, "{routed}");
    }

    #[test]
    fn what_cannot_be_a_packet_is_thrown_away() {
        let (director, step) = recorded().remove(0);
        let mut frame = vec![0; 14];
        frame.extend_from_slice(&step.l3);
        for cut in 0..frame.len() {
            assert_eq!(receive(&director, step.side, &frame[..cut]), None);
        }
        frame[14 + 10] ^= 1;
        assert_eq!(receive(&director, step.side, &frame), None);
    }

    #[test]
    fn a_repeated_datagram_is_a_right_one() {
        let (src, dst) = (Ipv4Addr::new(198, 51, 100, 7), Ipv4Addr::new(10, 0, 0, 1));
        let bytes = datagram(src, 9000, dst, 53, b"odd").unwrap();
        let packet = Packet::parse(&bytes).unwrap();
        assert!(packet.sum_is_right() && packet.dont_fragment());
        assert_eq!(datagram(src, 9000, dst, 53, &[0; 65_530]), None);
    }
}
