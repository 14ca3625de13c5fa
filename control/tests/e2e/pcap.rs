//! `configs/pcap.toml`: packets from a file, through the daemon, into files.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use etherparse::{LaxPacketHeaders, NetHeaders, PacketBuilder, TransportHeader};
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use serde_json::json;
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::netns::Netns;
use crate::rig::{cores, eventually};

/// DPDK's first net_pcap.
pub(crate) const PORT: [u8; 6] = [0x02, 0x70, 0x63, 0x61, 0x70, 0x00];
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVER: [u8; 6] = [2, 0, 0, 0, 1, 1];
const VIP: [u8; 4] = [10, 0, 0, 1];

#[test]
fn a_capture_is_balanced_into_a_capture() {
    let home = TempDir::with_prefix("sluice-e2e-").expect("a temporary directory");
    let mut frames: Vec<_> = (1..=5).map(|client| syn(PORT, client, 80)).collect();
    // To no service, and to somebody else.
    frames.push(syn(PORT, 6, 81));
    frames.push(syn([2, 0, 0, 0, 0, 9], 7, 80));
    write(&home.path().join("in.pcap"), &frames);

    let boot = boot(home.path(), 1);
    let netns = Netns::new("pcap");
    let output = home.path().join("lan.pcap.out");
    let daemon = Daemon::spawn_at(&netns, &boot, home).ready();
    let mut rpc = daemon.rpc();
    eventually("all frames are read", || {
        rpc.call("stats", json!({}))["workers"][0]["rx"] == frames.len()
    });
    let drops = rpc.call("drops", json!({}));
    drop(rpc);
    let home = daemon.stop();

    let sent = read(&output);
    assert_eq!(sent.len(), 5, "{drops}");
    for (client, frame) in (1..).zip(&sent) {
        let headers = LaxPacketHeaders::from_ethernet(frame).expect("an Ethernet frame");
        let Some(NetHeaders::Ipv4(ip, _)) = headers.net else {
            panic!("not IPv4: {frame:x?}");
        };
        assert_eq!(frame[..6], SERVER);
        assert_eq!(ip.source, [198, 51, 100, client]);
        assert_eq!(ip.destination, [192, 168, 1, 1]);
        assert_eq!(ip.time_to_live, 63);
        assert_eq!(ip.header_checksum, ip.calc_header_checksum());
        let Some(TransportHeader::Tcp(tcp)) = headers.transport else {
            panic!("not TCP: {frame:x?}");
        };
        assert_eq!(tcp.destination_port, 80);
        let sum = tcp.calc_checksum_ipv4(&ip, &[]).expect("short enough");
        assert_eq!(tcp.checksum, sum);
    }
    drop(home);
}

/// `configs/pcap.toml` for so many workers, its files in `home`.
pub(crate) fn boot(home: &Path, workers: usize) -> String {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/pcap.toml");
    let inside = |name: &str| home.join(name).to_string_lossy().into_owned();
    std::fs::read_to_string(example)
        .expect("the example is there")
        .replace("in.pcap,", &format!("{},", inside("in.pcap")))
        .replace("=wan.pcap.out", &format!("={}", inside("wan.pcap.out")))
        .replace("=lan.pcap.out", &format!("={}", inside("lan.pcap.out")))
        .replace("\"pcap.sock\"", "\"SOCKET\"")
        .replace("\"sluice-pcap\"", "\"PREFIX\"")
        .replace("cores = [1]", &cores(workers))
}

/// The first packet of a connection to the VIP.
pub(crate) fn syn(to: [u8; 6], client: u8, port: u16) -> Vec<u8> {
    let packet = PacketBuilder::ethernet2(ROUTER, to)
        .ipv4([198, 51, 100, client], VIP, 64)
        // Not in step with the address: a symmetric key makes the two cancel out.
        .tcp(40000 + 7 * u16::from(client), port, 1, 65535)
        .syn();
    let mut frame = Vec::new();
    packet.write(&mut frame, &[]).expect("into memory");
    frame
}

pub(crate) fn write(path: &Path, frames: &[Vec<u8>]) {
    let header = PcapHeader {
        datalink: DataLink::ETHERNET,
        ..PcapHeader::default()
    };
    let file = File::create(path).expect("a place for it");
    let mut writer = PcapWriter::with_header(file, header).expect("a header");
    for frame in frames {
        let packet = PcapPacket::new(Duration::ZERO, frame.len() as u32, frame);
        writer.write_packet(&packet).expect("a packet");
    }
}

pub(crate) fn read(path: &Path) -> Vec<Vec<u8>> {
    let file = File::open(path).expect("sluiced has written it");
    let mut reader = PcapReader::new(file).expect("a capture");
    let mut frames = Vec::new();
    while let Some(packet) = reader.next_packet() {
        frames.push(packet.expect("a packet").data.into_owned());
    }
    frames
}
