//! Frames in files, and a sample of what a running appliance sends, by `dpdk-dumpcap`.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use sluice_dataplane::egress::Mac;

use crate::frame::{self, Wire};
use crate::interrupt;
use crate::scenario::WIRE_MAC;
use crate::walk::Walk;

/// DPDK's program that captures from another process.
const PROGRAM: &str = "dpdk-dumpcap";

/// Frames of a sample, both ways.
const SAMPLE: usize = 2000;

/// Fewer than so many sent ones are no sample.
const ENOUGH: usize = 100;

/// Writes frames as a capture.
pub fn write(path: &Path, frames: impl Iterator<Item = Wire>) -> anyhow::Result<()> {
    let header = PcapHeader {
        datalink: DataLink::ETHERNET,
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(BufWriter::new(File::create(path)?), header)?;
    for frame in frames {
        let packet = PcapPacket::new(Duration::ZERO, frame.len() as u32, &frame);
        writer.write_packet(&packet)?;
    }
    Ok(())
}

/// Compares a sample of what the appliance sends with what the walk in memory makes of the same frames. Returns how many were
/// compared.
pub fn compare(
    file_prefix: &str,
    file: &Path,
    steady: &Arc<[Wire]>,
    walk: &mut Walk,
) -> anyhow::Result<usize> {
    let sent = sample(file_prefix, file)?;
    ensure!(
        sent.len() >= ENOUGH,
        "only {} sent frames were captured",
        sent.len()
    );
    let mut received = Vec::new();
    for number in sent.keys() {
        let frame = steady.get(*number as usize);
        received.push(*frame.with_context(|| format!("nobody sent frame {number}"))?);
    }
    let expected = walk.forward(&received.into())?;
    for ((number, sent), expected) in sent.iter().zip(&expected) {
        ensure!(
            sent == expected,
            "frame {number} left as {sent:02x?}; the walk in memory makes {expected:02x?} of it"
        );
    }
    Ok(sent.len())
}

/// Sent frames by their numbers.
fn sample(file_prefix: &str, file: &Path) -> anyhow::Result<HashMap<u32, Vec<u8>>> {
    let mut command = Command::new(PROGRAM);
    command
        .arg(format!("--file-prefix={file_prefix}"))
        .args(["-P", "-i", "net_pcap0", "-c", &SAMPLE.to_string(), "-w"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let output = interrupt::spawn(&mut command)
        .and_then(Child::wait_with_output)
        .context("dpdk-dumpcap does not start; is dpdk-dev installed?")?;
    ensure!(
        output.status.success(),
        "dpdk-dumpcap: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut reader = PcapReader::new(File::open(file)?)?;
    let mut sent = HashMap::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet?;
        if is_sent(&packet.data)
            && let Some((_, _, number)) = frame::read(&packet.data)
        {
            sent.insert(number, packet.data.into_owned());
        }
    }
    Ok(sent)
}

/// What we send comes from our MAC.
fn is_sent(frame: &[u8]) -> bool {
    let source = frame.get(6..12).and_then(|mac| mac.try_into().ok());
    source.map(Mac) == Some(WIRE_MAC)
}
