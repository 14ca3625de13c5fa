//! Random and broken frames: never a panic, and the books balance.

use std::net::Ipv4Addr;

use proptest::prelude::*;
use sluice_dataplane::service::{Method, Protocol};

use crate::rig::*;

fn rig() -> Rig {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.set_laddrs(&[LADDR]);
    for (number, method) in [
        (1, Method::Nat),
        (2, Method::FullNat),
        (3, Method::Dr),
        (4, Method::Tun),
    ] {
        rig.add_server(number, 80, method);
    }
    rig
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn random_bytes_do_no_harm(frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..50)) {
        let mut rig = rig();
        for frame in &frames {
            rig.frame(CLIENT_SIDE, frame);
            let mut ours = frame.clone();
            if ours.len() >= 15 {
                ours[..6].copy_from_slice(&mac(SERVER_SIDE).0);
                ours[12..15].copy_from_slice(&[8, 0, 0x45]);
            }
            rig.frame(SERVER_SIDE, &ours);
            rig.punted(CLIENT_SIDE);
            rig.punted(SERVER_SIDE);
        }
    }

    #[test]
    fn damaged_packets_of_real_connections_do_no_harm(
        packets in prop::collection::vec((0u16..8, 0usize..5, any::<prop::sample::Index>(), any::<u8>(), 0usize..1600), 1..60),
        cut in any::<bool>(),
    ) {
        let mut rig = rig();
        for (port, flags, place, value, len) in packets {
            let flags = ["S", "A", "SA", "F", "R"][flags];
            let mut packet = tcp((CLIENT, 1000 + port), (VIP, 80), flags, &vec![value; len]);
            let at = place.index(packet.len());
            if cut {
                packet.truncate(at);
            } else if at > 20 {
                packet[at] = value;
            } else {
                packet = with_header(packet, u16::from(value) << 8, value);
            }
            rig.packet(CLIENT_SIDE, &packet);
            let reply = tcp((server(1), 80), (Ipv4Addr::from_bits(CLIENT.to_bits()), 1000 + port), flags, b"x");
            rig.packet(SERVER_SIDE, &reply);
            rig.punted(CLIENT_SIDE);
            rig.punted(SERVER_SIDE);
        }
    }
}
