use super::*;
use crate::trace::{Step, Trace};

/// A packet that was recorded, from its digits.
fn emitted(l3: &str) -> Emitted {
    let json = format!(r#"{{"side": "server", "dmac": "02:01:c0:a8:01:01", "l3": "{l3}"}}"#);
    serde_json::from_str(&json).unwrap()
}

const SYN: &str = "4510003c11114000380645b7c6336407c0a80101870700500000006400000000a002ffffd4560000020405b40402080a0000000a0000000001030307";

#[test]
fn a_syn_is_read_to_its_last_option() {
    let packet = emitted(SYN);
    let fields = fields(&packet.l3);
    let value = |name: &str| {
        fields
            .iter()
            .find(|field| field.name == name)
            .unwrap()
            .value
            .clone()
    };
    assert_eq!(value("ip.tos"), "0x10");
    assert_eq!(value("ip.fragment"), "DF");
    assert_eq!(value("ip.ttl"), "56");
    assert_eq!(value("ip.checksum"), "0x45b7 right");
    assert_eq!(value("ip.src"), "198.51.100.7");
    assert_eq!(value("tcp.sport"), "34567");
    assert_eq!(value("tcp.flags"), "S");
    assert_eq!(value("tcp.checksum"), "0xd456 right");
    assert_eq!(
        value("tcp.options"),
        "020405b40402080a0000000a0000000001030307"
    );
    assert_eq!(
        line(&packet.l3),
        "TCP 198.51.100.7:34567 > 192.168.1.1:80 S DF, 60 bytes"
    );
}

#[test]
fn a_tunnel_shows_the_inner_packet() {
    let packet = emitted(
        "4500003ca93b00003f044e33c0a801fec0a8010145000028000040003f065558ac1130660a00000122ef0050000003e8000000005002ffffa2430000",
    );
    let names: Vec<_> = fields(&packet.l3)
        .into_iter()
        .map(|field| field.name)
        .collect();
    assert!(names.contains(&"inner.ip.ttl".to_owned()), "{names:?}");
    assert!(
        names.contains(&"inner.tcp.checksum".to_owned()),
        "{names:?}"
    );
}

#[test]
fn every_byte_of_every_recorded_packet_is_in_one_field() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../../dataplane/ipvs/golden");
    for entry in std::fs::read_dir(golden).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        for step in Trace::read(&path).unwrap().steps {
            let Step::Pkt(packet) = step else { continue };
            let emitted = packet.out.iter().map(|out| &out.l3);
            for l3 in emitted.chain([&packet.l3]) {
                let mut end = 0;
                for field in fields(l3) {
                    assert_eq!(field.bytes.start, end, "{}: {}", path.display(), field.name);
                    end = field.bytes.end;
                }
                assert_eq!(end, l3.len(), "{}", path.display());
            }
        }
    }
}

#[test]
fn cut_anywhere_a_packet_is_still_all_fields() {
    for whole in [
        SYN,
        "4510005c000040003811be31c0a801fec0a80101af1e17c00048e895000400004510003c111140003806fd5fc63364070a000001870700500000006400000000a002ffff8bff0000020405b40402080a0000000a0000000001030307",
        "4510005400004000382fbe1bc0a801fec0a80101000008004510003c111140003806fd5fc63364070a000001870700500000006400000000a002ffff8bff0000020405b40402080a0000000a0000000001030307",
        "45c000446992000040018c17c0a801fec0a801010303e8fb0000000045000028000040003f064fecc0a80101c633640700508707000003e8000000005010ffff38b10000",
    ] {
        let l3 = emitted(whole).l3;
        for cut in 0..l3.len() {
            let read: usize = fields(&l3[..cut])
                .iter()
                .map(|field| field.bytes.len())
                .sum();
            assert_eq!(read, cut);
        }
    }
}

#[test]
fn two_packets_stand_side_by_side_with_marks() {
    let recorded = emitted(SYN);
    let mut ours = emitted(SYN);
    ours.l3[8] = 57;
    ours.l3[5] = 0x12;
    let masked = vec![4..6, 10..12];
    let text = side_by_side(&recorded, &ours, &masked);
    let row = |name: &str| {
        text.lines()
            .find(|line| line[1..].trim_start().starts_with(name))
            .unwrap()
    };
    let words: Vec<_> = row("ip.ttl").split_whitespace().collect();
    assert_eq!(words, ["*", "ip.ttl", "56", "57"]);
    assert!(row("ip.id").starts_with('~'));
    assert!(row("tcp.seq").starts_with(' '));
}

#[test]
fn a_field_that_only_one_packet_has_is_shown_with_a_dash() {
    let recorded = emitted(SYN);
    let mut ours = emitted(SYN);
    ours.l3.truncate(40);
    ours.l3[3] = 40;
    let text = side_by_side(&recorded, &ours, &[]);
    let row = text
        .lines()
        .find(|line| line.contains("tcp.options"))
        .unwrap();
    assert!(row.starts_with('*') && row.ends_with('-'), "{row}");
}
