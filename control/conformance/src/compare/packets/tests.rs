use std::path::Path;

use super::*;
use crate::trace::{Packet, Step, Trace};

/// A recorded trace, its director, and its packet steps.
fn golden(name: &str) -> (Director, Vec<Packet>) {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dataplane/ipvs/golden");
    let trace = Trace::read(&golden.join(name).with_extension("json")).unwrap();
    let steps = trace.steps.into_iter().filter_map(|step| match step {
        Step::Pkt(packet) => Some(packet),
        _ => None,
    });
    (Director::new(&trace.header), steps.collect())
}

/// The packet steps of a trace that emit something, each compared with what `alter` makes of it.
fn altered(name: &str, mut alter: impl FnMut(&mut Vec<Emitted>)) -> Vec<Result<(), String>> {
    let (director, steps) = golden(name);
    let steps = steps.iter().filter(|step| !step.out.is_empty());
    steps
        .map(|step| {
            let mut ours = step.out.clone();
            alter(&mut ours);
            let incoming = Some(step.l3.as_slice());
            compare(
                &step.out,
                &ours,
                Context {
                    director: &director,
                    incoming,
                    random: false,
                },
            )
        })
        .collect()
}

/// What the comparison says of the first step that emits something, altered.
fn complaint(name: &str, alter: impl FnMut(&mut Vec<Emitted>)) -> String {
    altered(name, alter).remove(0).unwrap_err()
}

/// Recomputes the outer IPv4 header's checksum, as one who changed a field of it would.
fn reseal(l3: &mut [u8]) {
    l3[10..12].fill(0);
    let sum = crate::checksum::internet(&[&l3[..20]]);
    l3[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn what_was_recorded_equals_itself() {
    for name in [
        "nat-flow",
        "tun-gue-csum",
        "mtu-tun",
        "sync-master",
        "ipv6-nat",
        "icmp-nat",
    ] {
        for verdict in altered(name, |_| ()) {
            verdict.unwrap();
        }
    }
}

#[test]
fn any_one_altered_byte_of_a_translated_packet_is_found_and_named() {
    let (_, steps) = golden("nat-flow");
    for at in 0..steps[0].out[0].l3.len() {
        let flip = |byte: &mut u8| *byte ^= 0x10;
        complaint("nat-flow", |ours| ours[0].l3.get_mut(at).map_or((), flip));
    }
    let said = complaint("nat-flow", |ours| ours[0].l3[8] += 1);
    assert!(
        said.starts_with("packet 1 of 1 differs in ip.ttl"),
        "{said}"
    );
    let said = complaint("nat-flow", |ours| ours[0].l3[22] ^= 1);
    assert!(said.contains("differs in tcp.dport"), "{said}");
}

#[test]
fn another_next_hop_is_found_and_named() {
    let said = complaint("dr-flow", |ours| ours[0].dmac[5] = 2);
    assert!(said.contains("differs in next hop"), "{said}");
    assert!(said.contains("02:01:c0:a8:01:02"), "{said}");
}

#[test]
fn a_recorded_next_hop_that_is_not_who_has_the_mac_is_found() {
    let (director, mut steps) = golden("dr-flow");
    let ours = steps[0].out.clone();
    steps[0].out[0].nexthop = Some("192.168.1.7".parse().unwrap());
    let context = Context {
        director: &director,
        incoming: None,
        random: false,
    };
    let said = compare(&steps[0].out, &ours, context).unwrap_err();
    assert!(said.contains("192.168.1.7"), "{said}");
}

#[test]
fn the_other_side_is_found_and_named() {
    let said = complaint("dr-flow", |ours| ours[0].side = crate::trace::Side::Client);
    assert!(said.contains("differs in side"), "{said}");
}

#[test]
fn a_missing_packet_is_found_and_shown() {
    let said = complaint("nat-flow", Vec::clear);
    assert!(said.starts_with("packet 1 of 1 was not emitted"), "{said}");
    assert!(
        said.contains("198.51.100.7:34567 > 192.168.1.1:80"),
        "{said}"
    );
}

#[test]
fn an_extra_packet_is_found_and_shown() {
    let said = complaint("nat-flow", |ours| ours.push(ours[0].clone()));
    assert!(
        said.starts_with("packet 2 was emitted, and only 1 recorded"),
        "{said}"
    );
}

#[test]
fn packets_in_another_order_differ() {
    let said = altered("mtu-dr", |ours| ours.reverse());
    assert!(said.iter().any(Result::is_err));
}

#[test]
fn the_id_of_a_tunnel_packet_is_masked_only_without_df() {
    let renumber = |ours: &mut Vec<Emitted>| {
        for packet in ours {
            packet.l3[4..6].copy_from_slice(&[0x12, 0x34]);
            reseal(&mut packet.l3);
        }
    };
    let (_, steps) = golden("tun-pmtudisc0");
    assert!(steps.iter().all(|step| step.out[0].l3[6] & 0x40 == 0));
    for verdict in altered("tun-pmtudisc0", renumber) {
        verdict.unwrap();
    }
    let said = complaint("tun-flow", renumber);
    assert!(said.contains("differs in ip.id"), "{said}");
}

#[test]
fn under_a_masked_id_the_header_checksum_must_be_right() {
    let said = complaint("tun-pmtudisc0", |ours| ours[0].l3[4] ^= 1);
    assert!(said.contains("ip.checksum (right or wrong)"), "{said}");
}

#[test]
fn fragments_under_a_masked_id_must_belong_together() {
    let mut next = 0;
    let said = altered("tun-pmtudisc0", |ours| {
        for packet in ours {
            next += 1;
            packet.l3[5] = next;
            reseal(&mut packet.l3);
        }
    });
    let said: Vec<_> = said.into_iter().filter_map(Result::err).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("fragments of one packet"), "{said:?}");
}

#[test]
fn id_and_tos_of_icmp_of_our_own_are_masked_and_nothing_else() {
    let verdicts = altered("rr-empty", |ours| {
        ours[0].l3[1] = 0;
        ours[0].l3[4] ^= 0xff;
        reseal(&mut ours[0].l3);
    });
    for verdict in verdicts {
        verdict.unwrap();
    }
    let said = complaint("rr-empty", |ours| ours[0].l3[21] = 1);
    assert!(said.contains("icmp.type"), "{said}");
}

#[test]
fn id_and_tos_of_translated_icmp_are_compared() {
    let (director, steps) = golden("icmp-nat");
    let translated = steps
        .iter()
        .find(|step| step.label.as_deref() == Some("RS port unreachable"));
    let translated = translated.unwrap();
    let mut ours = translated.out.clone();
    ours[0].l3[5] ^= 1;
    reseal(&mut ours[0].l3);
    let incoming = Some(translated.l3.as_slice());
    let context = Context {
        director: &director,
        incoming,
        random: false,
    };
    assert!(
        compare(&translated.out, &ours, context)
            .unwrap_err()
            .contains("ip.id")
    );
}

#[test]
fn the_source_port_of_gue_is_masked_and_its_checksum_still_checked() {
    let move_port = |ours: &mut Vec<Emitted>, by: u8| {
        let l3 = &mut ours[0].l3;
        l3[21] = l3[21].wrapping_sub(1);
        // One less in one word, one more in the sum (RFC 1624): recorded sums are far from wrapping.
        l3[27] = l3[27].wrapping_add(by);
    };
    let (_, steps) = golden("tun-gue-csum");
    let safe = |l3: &[u8]| l3[21] > 0 && l3[27] < 255;
    assert!(safe(&steps[0].out[0].l3));
    assert_eq!(
        altered("tun-gue-csum", |ours| move_port(ours, 1))[0],
        Ok(())
    );
    let said = complaint("tun-gue-csum", |ours| move_port(ours, 0));
    assert!(said.contains("udp.checksum (right or wrong)"), "{said}");
}

#[test]
fn of_a_random_choice_only_that_it_is_a_server_counts() {
    let (director, steps) = golden("twos-111");
    let twin = |server: u8| {
        steps
            .iter()
            .find(|step| step.out[0].dmac[5] == server)
            .unwrap()
    };
    let (one, other) = (twin(1), twin(2));
    let context = Context {
        director: &director,
        incoming: Some(&one.l3),
        random: true,
    };
    let mut ours = one.out.clone();
    ours[0].dmac = other.out[0].dmac;
    assert!(
        compare(&one.out, &ours, context)
            .unwrap_err()
            .contains("ip.dst")
    );
    ours[0].l3[19] = 2;
    reseal(&mut ours[0].l3);
    let said = compare(&one.out, &ours, context).unwrap_err();
    assert!(said.contains("tcp.checksum (right or wrong)"), "{said}");
    ours[0].l3[37] -= 1;
    compare(&one.out, &ours, context).unwrap();
    ours[0].dmac = [9; 6];
    assert!(
        compare(&one.out, &ours, context)
            .unwrap_err()
            .contains("no real server")
    );
}

#[test]
fn membership_reports_of_the_recorded_kernel_are_not_expected() {
    let (director, steps) = golden("sync-backup-sid7");
    let reported = steps.iter().find(|step| !step.out.is_empty()).unwrap();
    let context = Context {
        director: &director,
        incoming: Some(&reported.l3),
        random: false,
    };
    compare(&reported.out, &[], context).unwrap();
}
