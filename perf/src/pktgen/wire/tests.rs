use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use sluice_dataplane::io::memory::MemoryFrame;
use sluice_dataplane::packet::tcp::SYN;

use super::*;

const MACS: (Mac, Mac) = (Mac([2; 6]), Mac([4; 6]));

fn header() -> Header {
    Header {
        src: Endpoint {
            addr: 0x0b00_0001,
            port: 1024,
        },
        dst: Endpoint {
            addr: 0x0a00_0001,
            port: 80,
        },
        number: 0xdead_beef,
        seq: 0xffff_fff0,
        ack: 0x1234_5678,
        flags: DATA,
    }
}

fn made(template: &Template, header: &Header) -> Vec<u8> {
    let mut frame = MemoryFrame::new(&[]);
    assert!(template.stamp(&mut frame, header));
    frame.bytes().to_vec()
}

fn templates() -> Vec<Template> {
    let mut all = vec![Template::bare(Protocol::Tcp, MACS)];
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        all.extend([60, 61, 590, 1514].map(|len| Template::full(protocol, MACS, len)));
    }
    all
}

/// What another parser thinks of it.
fn assert_right(frame: &[u8]) {
    let sliced = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv4(ip)) = &sliced.net else {
        panic!("not IPv4");
    };
    let ip = ip.header().to_header();
    assert_eq!(ip.calc_header_checksum(), ip.header_checksum);
    match &sliced.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let sum = tcp.calc_checksum_ipv4(ip.source, ip.destination);
            assert_eq!(sum.unwrap(), tcp.checksum());
        }
        Some(TransportSlice::Udp(udp)) => {
            let sum = udp.to_header().calc_checksum_ipv4(&ip, udp.payload());
            assert_eq!(sum.unwrap(), udp.checksum());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_written_is_what_another_parser_reads_with_right_checksums() {
    for template in templates() {
        let frame = made(&template, &header());
        assert_eq!(frame.len(), template.len());
        assert_right(&frame);
        let seen = read(&frame).unwrap().unwrap();
        assert_eq!(seen.header.src, header().src);
        assert_eq!(seen.header.dst, header().dst);
        assert_eq!(seen.header.number, header().number);
        assert_eq!(seen.payload, template.payload());
        assert_eq!((seen.server, seen.tunnel), (None, None));
        if seen.protocol == Protocol::Tcp {
            assert_eq!(
                (seen.header.seq, seen.header.ack),
                (0xffff_fff0, 0x1234_5678)
            );
        }
    }
}

#[test]
fn an_answer_goes_back_with_right_checksums_and_the_servers_number() {
    for template in templates() {
        let mut frame = made(&template, &header());
        // As it is after a director.
        frame[ETHERNET + 8] -= 1;
        frame[24..26].fill(0);
        let sum = Sum::default().bytes(&frame[ETHERNET..L4]).checksum();
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
        let seen = read(&frame).unwrap().unwrap();
        answer(&mut frame, &seen, 7, (5, 6, SYN | ACK));
        assert_right(&frame);
        let back = read(&frame).unwrap().unwrap();
        assert_eq!(
            (back.header.src, back.header.dst),
            (header().dst, header().src)
        );
        assert_eq!(back.header.number, header().number);
        assert_eq!(back.dst_mac, MACS.0);
        let tagged = template.payload() >= TAG;
        assert_eq!(back.server, tagged.then_some(7));
        if back.protocol == Protocol::Tcp {
            let Header {
                seq, ack, flags, ..
            } = back.header;
            assert_eq!((seq, ack, flags), (5, 6, SYN | ACK));
        }
    }
}

#[test]
fn a_changed_bit_anywhere_in_a_packet_is_noticed() {
    for template in templates() {
        let frame = made(&template, &header());
        let packet = ETHERNET..L4 + template.protocol.header() + template.payload();
        for place in packet.clone() {
            for bit in 0..8 {
                let mut changed = frame.clone();
                changed[place] ^= 1 << bit;
                let read = read(&changed);
                // Another version or header length is none of ours.
                let fine = place == ETHERNET && matches!(read, Ok(None));
                assert!(read.is_err() || fine, "byte {place}, bit {bit}: {read:?}");
            }
        }
        for len in 0..packet.end {
            let read = read(&frame[..len]);
            assert!(!matches!(read, Ok(Some(_))), "cut to {len}");
        }
    }
}

#[test]
fn a_changed_payload_is_noticed_though_its_checksum_was_made_anew() {
    let template = Template::full(Protocol::Tcp, MACS, 590);
    let mut frame = made(&template, &header());
    let last = frame.len() - 1;
    frame[last] ^= 0x40;
    frame[L4 + 16..L4 + 18].fill(0);
    let l4_len = (frame.len() - L4) as u16;
    let sum = Sum::default().bytes(&frame[26..34]).word(6).word(l4_len);
    let sum = sum.bytes(&frame[L4..]).checksum();
    frame[L4 + 16..L4 + 18].copy_from_slice(&sum.to_be_bytes());
    assert_right(&frame);
    assert_eq!(read(&frame).unwrap_err(), Fault::BadPayload);
}

#[test]
fn a_tunnel_is_opened_and_its_end_told() {
    let inner = made(&Template::bare(Protocol::Tcp, MACS), &header());
    let mut frame = inner[..ETHERNET].to_vec();
    let mut outer = [0; IP];
    outer[0] = 0x45;
    // Without the padding.
    outer[2..4].copy_from_slice(&60u16.to_be_bytes());
    outer[8] = 64;
    outer[9] = IP_IN_IP;
    outer[16..20].copy_from_slice(&[192, 168, 1, 1]);
    let sum = Sum::default().bytes(&outer).checksum();
    outer[10..12].copy_from_slice(&sum.to_be_bytes());
    frame.extend(outer);
    frame.extend(&inner[ETHERNET..ETHERNET + 40]);
    let seen = read(&frame).unwrap().unwrap();
    assert_eq!(seen.tunnel, Some(0xc0a8_0101));
    assert_eq!(seen.header.number, header().number);
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let mut arp = [0; 60];
    arp[12..14].copy_from_slice(&[8, 6]);
    let mut to_all = made(&Template::bare(Protocol::Tcp, MACS), &header());
    to_all[..6].fill(0xff);
    let mut icmp = [0; 60];
    icmp[12..34].copy_from_slice(&[
        8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2,
    ]);
    let sum = Sum::default().bytes(&icmp[14..34]).checksum();
    icmp[24..26].copy_from_slice(&sum.to_be_bytes());
    for frame in [&arp[..], &to_all, &icmp, &[]] {
        assert!(matches!(read(frame), Ok(None)), "{frame:x?}");
    }
}
