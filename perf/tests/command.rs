//! `sluice-pktgen` as it is typed: frames into a file, and what it refuses.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output};

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use pcap_file::pcap::PcapReader;
use sluice_perf::pktgen::Report;
use tempfile::TempDir;

fn pktgen(arguments: &str) -> Output {
    let core = core_affinity::get_core_ids().unwrap()[0].id;
    let place =
        format!("--cores={core} --control-core={core} --shared-cores --hugepages=off --quiet");
    Command::new(env!("CARGO_BIN_EXE_sluice-pktgen"))
        .args(place.split(' '))
        .args(arguments.split(' '))
        .output()
        .unwrap()
}

fn frames(file: &Path) -> Vec<Vec<u8>> {
    let mut reader = PcapReader::new(File::open(file).unwrap()).unwrap();
    std::iter::from_fn(|| Some(reader.next_packet()?.unwrap().data.into_owned())).collect()
}

#[test]
fn frames_go_into_a_file_as_they_would_go_onto_a_wire() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("out.pcap");
    let output = pktgen(&format!(
        "--port=net_pcap0,tx_pcap={} --role=send --traffic=syn --packets=100 --rate=max --json=- --vip=10.9.8.7:443",
        file.display()
    ));
    assert!(output.status.success(), "{output:?}");
    let report: Report = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report.trial.sent, report.trial.began), (100, 100));
    let frames = frames(&file);
    assert_eq!(frames.len(), 100);
    let mut clients = Vec::new();
    for frame in &frames {
        assert_eq!(frame.len(), 60);
        let sliced = SlicedPacket::from_ethernet(frame).unwrap();
        let (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Tcp(tcp))) =
            (sliced.net, sliced.transport)
        else {
            panic!("not TCP: {frame:x?}");
        };
        let ip = ip.header().to_header();
        assert_eq!(ip.destination, [10, 9, 8, 7]);
        assert!(tcp.syn() && !tcp.ack() && tcp.destination_port() == 443);
        let sum = tcp.calc_checksum_ipv4(ip.source, ip.destination);
        assert_eq!(sum.unwrap(), tcp.checksum());
        clients.push((ip.source, tcp.source_port()));
    }
    clients.sort_unstable();
    clients.dedup();
    assert_eq!(clients.len(), 100, "each SYN is of a connection of its own");
}

#[test]
fn what_cannot_be_is_refused_with_status_2_and_a_sentence() {
    for (arguments, hint) in [
        ("--port=net_null0 --role=send --traffic=tcp", "role send"),
        ("--port=net_null0 --clients=11.0.0.0/32 --flows=1M", "wider"),
        ("--port=net_null0 --size=1519", "1518"),
        ("--port=net_nonsense0 --role=send", "net_nonsense0"),
        (
            "--port=net_memif0,socket=/nowhere/x,socket-abstract=no --start-timeout=0",
            "role=server",
        ),
    ] {
        let output = pktgen(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {said}");
        assert!(said.contains(hint), "{arguments}: {said}");
    }
}

#[test]
fn silence_is_an_error_and_not_a_success() {
    // net_ring gives back what it is given, but that is to the VIP, which is nobody here.
    let output = pktgen("--port=net_ring0 --role=both --packets=10 --start-timeout=1");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("0 answers came"), "{said}");
}
