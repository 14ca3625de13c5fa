//! Frames in files, and a sample of what a running appliance sends, by `dpdk-dumpcap`.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapReader, PcapWriter};
use sluice_dataplane::egress::Mac;

use crate::frame::{self, Wire};
use crate::interrupt;
use crate::scenario::WIRE_MAC;
use crate::walk::Walk;

/// DPDK's program that captures from another process.
const PROGRAM: &str = "dpdk-dumpcap";

/// Bytes of a sample: about 2,000 frames, both ways.
const SAMPLE_BYTES: u64 = 160_000;

/// How long a capture may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// Fewer than so many sent ones are no sample.
const ENOUGH: usize = 100;

/// Writes frames as a capture.
pub fn write(path: &Path, frames: impl Iterator<Item = impl AsRef<[u8]>>) -> anyhow::Result<()> {
    let header = PcapHeader {
        datalink: DataLink::ETHERNET,
        ..PcapHeader::default()
    };
    let mut writer = PcapWriter::with_header(BufWriter::new(File::create(path)?), header)?;
    for frame in frames {
        let frame = frame.as_ref();
        let packet = PcapPacket::new(Duration::ZERO, frame.len() as u32, frame);
        writer.write_packet(&packet)?;
    }
    Ok(())
}

/// A running capture of what an appliance receives and sends. Drop it once the appliance has ended: DPDK 22.11 frees what a
/// capture used as soon as that ends, and a worker that was just then kept from its core would go on with it.
#[derive(Debug)]
pub struct Capture {
    child: Child,
    file: PathBuf,
}

impl Capture {
    /// Captures from the appliance with this file prefix until there is enough for a sample.
    pub fn take(file_prefix: &str, file: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(PROGRAM);
        command
            .arg(format!("--file-prefix={file_prefix}"))
            .args(["-P", "-i", "net_pcap0", "-w"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // A file of an earlier one would be taken for this one's.
        let _ = fs::remove_file(file);
        let child = interrupt::spawn(&mut command)
            .context("dpdk-dumpcap does not start; is dpdk-dev installed?")?;
        let mut capture = Self {
            child,
            file: file.to_owned(),
        };
        let start = Instant::now();
        while fs::metadata(file).map_or(0, |file| file.len()) < SAMPLE_BYTES {
            interrupt::check()?;
            if let Some(status) = capture.child.try_wait()? {
                bail!("dpdk-dumpcap ended with {status}");
            }
            ensure!(start.elapsed() < PATIENCE, "dpdk-dumpcap captures nothing");
            thread::sleep(Duration::from_millis(2));
        }
        let pid = Pid::from_raw(capture.child.id().cast_signed());
        kill(pid, Signal::SIGSTOP)?;
        Ok(capture)
    }

    /// Compares what was sent with what the walk in memory makes of the same frames of `steady`. Returns how many
    /// frames were compared.
    pub fn compare(&self, steady: &Arc<[Wire]>, walk: &mut Walk) -> anyhow::Result<usize> {
        let sent = self.sent()?;
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
    fn sent(&self) -> anyhow::Result<HashMap<u32, Vec<u8>>> {
        let mut reader = PcapReader::new(File::open(&self.file)?)?;
        let mut sent = HashMap::new();
        // The last record is cut short where the capture was stopped.
        while let Some(Ok(packet)) = reader.next_packet() {
            if is_sent(&packet.data)
                && let Some((_, _, number)) = frame::read(&packet.data)
            {
                sent.insert(number, packet.data.into_owned());
            }
        }
        Ok(sent)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What we send comes from our MAC.
fn is_sent(frame: &[u8]) -> bool {
    let source = frame.get(6..12).and_then(|mac| mac.try_into().ok());
    source.map(Mac) == Some(WIRE_MAC)
}
