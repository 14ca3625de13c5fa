//! The frames of all scenarios: 64 bytes, Ethernet, IPv4, TCP or UDP, with true checksums.

use std::net::{Ipv4Addr, SocketAddrV4};

use sluice_dataplane::egress::Mac;
use sluice_dataplane::packet::checksum::Sum;

/// A frame on the wire, without the frame check sequence.
pub type Wire = [u8; 64];

/// Bytes from the IP header on.
pub const IP_LEN: usize = 50;

/// TCP's SYN.
pub const SYN: u8 = 0x02;

/// TCP's ACK.
pub const ACK: u8 = 0x10;

const ETHERNET: usize = 14;
const L4: usize = ETHERNET + 20;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A segment from `src` to `dst`. `number` is its sequence number: nothing on the way changes it, so it tells who a
/// forwarded frame was.
pub fn tcp(macs: (Mac, Mac), src: SocketAddrV4, dst: SocketAddrV4, flags: u8, number: u32) -> Wire {
    let (from, to) = macs;
    let mut frame = [0; 64];
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&from.0);
    frame[12] = 8;
    let ip = [
        0x45,
        0,
        0,
        IP_LEN as u8,
        0,
        0,
        /* do not fragment */ 0x40,
        0,
        64,
        TCP,
    ];
    frame[ETHERNET..ETHERNET + 10].copy_from_slice(&ip);
    frame[26..30].copy_from_slice(&src.ip().octets());
    frame[30..34].copy_from_slice(&dst.ip().octets());
    frame[34..36].copy_from_slice(&src.port().to_be_bytes());
    frame[36..38].copy_from_slice(&dst.port().to_be_bytes());
    frame[38..42].copy_from_slice(&number.to_be_bytes());
    frame[46] = 5 << 4;
    frame[47] = flags;
    frame[48..50].copy_from_slice(&u16::MAX.to_be_bytes());
    fill_in_checksums(&mut frame);
    frame
}

/// A frame of [`tcp`] with zeros behind it, so that it has `bytes` in all, and with the lengths and checksums of such a one.
pub fn grown(frame: &Wire, bytes: usize) -> Vec<u8> {
    let mut grown = frame.to_vec();
    grown.resize(bytes.max(frame.len()), 0);
    let ip_len = (grown.len() - ETHERNET) as u16;
    grown[16..18].copy_from_slice(&ip_len.to_be_bytes());
    grown[24..26].fill(0);
    grown[50..52].fill(0);
    fill_in_checksums(&mut grown);
    grown
}

/// Of a TCP segment whose checksums are zero.
fn fill_in_checksums(frame: &mut [u8]) {
    let checksum = Sum::default().bytes(&frame[ETHERNET..L4]).checksum();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
    let [high, low] = ((frame.len() - L4) as u16).to_be_bytes();
    let checksum = Sum::default()
        .bytes(&frame[26..34])
        .bytes(&[0, TCP, high, low])
        .bytes(&frame[L4..])
        .checksum();
    frame[50..52].copy_from_slice(&checksum.to_be_bytes());
}

/// A datagram from `src` to `dst`, without a UDP checksum.
pub fn udp(macs: (Mac, Mac), src: SocketAddrV4, dst: SocketAddrV4) -> Wire {
    let mut frame = tcp(macs, src, dst, 0, 0);
    frame[23] = UDP;
    let length = (IP_LEN - 20) as u16;
    frame[L4 + 4..L4 + 6].copy_from_slice(&length.to_be_bytes());
    frame[L4 + 6..].fill(0);
    set_client(&mut frame, src.ip().to_bits(), src.port());
    frame
}

/// Gives a datagram of [`udp`] another source. The checksum follows.
pub fn set_client(frame: &mut [u8], address: u32, port: u16) {
    frame[26..30].copy_from_slice(&address.to_be_bytes());
    frame[34..36].copy_from_slice(&port.to_be_bytes());
    frame[24..26].fill(0);
    let checksum = Sum::default().bytes(&frame[ETHERNET..L4]).checksum();
    frame[24..26].copy_from_slice(&checksum.to_be_bytes());
}

/// Source, destination and number of a frame that [`tcp`] made, as it is after forwarding; a tunnel's outer header is passed
/// over. `None` if it is no such frame.
pub fn read(frame: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4, u32)> {
    const IP_IN_IP: u8 = 4;
    let mut ip = frame.get(ETHERNET..)?;
    if *ip.get(9)? == IP_IN_IP {
        ip = &ip[20..];
    }
    let word = |at: usize| Some(u32::from_be_bytes(ip.get(at..at + 4)?.try_into().ok()?));
    let (src, dst, ports) = (word(12)?, word(16)?, word(20)?);
    let end = |addr: u32, port: u32| SocketAddrV4::new(Ipv4Addr::from_bits(addr), port as u16);
    Some((end(src, ports >> 16), end(dst, ports), word(24)?))
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    #[test]
    fn a_frame_is_what_another_parser_takes_for_tcp_with_right_checksums() {
        let src = SocketAddrV4::new(Ipv4Addr::new(11, 0, 0, 1), 1024);
        let dst = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 80);
        let short = tcp((Mac([2; 6]), Mac([4; 6])), src, dst, ACK, 77);
        for frame in [short.to_vec(), grown(&short, 777), grown(&short, 1514)] {
            is_right(&frame, src, dst);
        }
    }

    fn is_right(frame: &[u8], src: SocketAddrV4, dst: SocketAddrV4) {
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        let Some(NetSlice::Ipv4(ip)) = &sliced.net else {
            panic!("not IPv4");
        };
        let header = ip.header().to_header();
        assert_eq!(header.calc_header_checksum(), header.header_checksum);
        let Some(TransportSlice::Tcp(segment)) = &sliced.transport else {
            panic!("not TCP");
        };
        let sum = segment.calc_checksum_ipv4(header.source, header.destination);
        assert_eq!(sum.unwrap(), segment.checksum());
        assert_eq!(usize::from(header.total_len), frame.len() - 14);
        assert_eq!(read(frame), Some((src, dst, 77)));
    }
}
