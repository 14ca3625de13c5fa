//! A port on capture files: it receives what one file holds and writes what is sent to another.
//!
//! For replays and for trying a configuration without a NIC. Both pcap and pcapng are read; pcap is written.
//! The input is read into memory at once, so that nothing can fail later and the packet path reads no file.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pcap_file::pcap::{PcapPacket, PcapReader, PcapWriter};
use pcap_file::pcapng::{Block, PcapNgReader};
use pcap_file::{DataLink, PcapError};

use super::memory::{MemoryFrame, ROOM};
use super::{Burst, Frame, Port, Refused};

/// The files of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PcapConfig {
    /// What is received, if anything.
    pub input: Option<PathBuf>,
    /// Where sent frames are written, if anywhere. A file that is there is replaced.
    pub output: Option<PathBuf>,
    /// Receive the input again and again.
    pub repeat: bool,
}

/// Opening a capture file failed. Control thread only.
#[derive(Debug, thiserror::Error)]
pub enum PcapPortError {
    /// The input cannot be read, or the output not be written.
    #[error("capture file {}: {error}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The input is no capture, or a damaged one.
    #[error("capture file {}: it is damaged, or neither pcap nor pcapng, from frame {frame} on: {error}", .path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// The first frame that cannot be read, from 1.
        frame: usize,
        /// Why.
        error: PcapError,
    },
    /// The input holds frames of something else than Ethernet.
    #[error("capture file {}: it holds {link:?} frames; capture on an Ethernet interface (not `any`)", .path.display())]
    NotEthernet {
        /// Which.
        path: PathBuf,
        /// What it holds.
        link: DataLink,
    },
}

/// A port on capture files. One queue; several workers need several ports.
///
/// Frames that were captured cut short are received as they are. Those longer than a jumbo frame are refused.
#[derive(Debug)]
pub struct PcapPort {
    capture: Capture,
    next: usize,
    repeat: bool,
    output: Option<Output>,
    refused: Refused,
}

impl PcapPort {
    /// Reads the input and creates the output.
    pub fn open(config: &PcapConfig) -> Result<Self, PcapPortError> {
        Ok(Self {
            capture: match &config.input {
                Some(path) => Capture::read(path)?,
                None => Capture::default(),
            },
            next: 0,
            repeat: config.repeat,
            output: config.output.as_deref().map(Output::create).transpose()?,
            refused: Refused::default(),
        })
    }

    /// Whether everything was received. Never, when it is received again and again.
    pub fn is_exhausted(&self) -> bool {
        self.next == self.capture.frames.len()
    }

    /// The next frame of the input, without its turn being over.
    fn peek(&mut self) -> Option<&[u8]> {
        if self.is_exhausted() && self.repeat {
            self.next = 0;
        }
        let range = self.capture.frames.get(self.next)?;
        Some(&self.capture.bytes[range.clone()])
    }
}

impl Port for PcapPort {
    type Frame = MemoryFrame;

    fn rx(&mut self, burst: &mut Burst<MemoryFrame>) -> usize {
        let mut received = 0;
        // Bounded even if the input is repeated and every frame of it is refused.
        for _ in 0..burst.remaining_capacity() {
            let Some(bytes) = self.peek() else {
                break;
            };
            if bytes.len() <= ROOM {
                burst.push(MemoryFrame::new(bytes));
                received += 1;
            } else {
                self.refused.oversize += 1;
            }
            self.next += 1;
        }
        received
    }

    fn tx(&mut self, burst: &mut Burst<MemoryFrame>) -> usize {
        let sent = match &mut self.output {
            Some(output) => output.write(burst),
            None => burst.len(),
        };
        burst.drain(..sent);
        sent
    }

    fn alloc(&mut self) -> Option<MemoryFrame> {
        Some(MemoryFrame::new(&[]))
    }

    fn refused(&mut self) -> Refused {
        std::mem::take(&mut self.refused)
    }
}

/// A capture in memory.
#[derive(Debug, Default)]
struct Capture {
    bytes: Vec<u8>,
    frames: Vec<Range<usize>>,
}

/// How a pcapng file begins, in any byte order.
const PCAPNG: [u8; 4] = [0x0a, 0x0d, 0x0d, 0x0a];

impl Capture {
    fn read(path: &Path) -> Result<Self, PcapPortError> {
        let file = fs::read(path).map_err(|error| PcapPortError::File {
            path: path.to_owned(),
            error,
        })?;
        let mut capture = Self::default();
        let outcome = if file.starts_with(&PCAPNG) {
            capture.read_pcapng(&file)
        } else {
            capture.read_pcap(&file)
        };
        outcome.map_err(|stop| match stop {
            Stop::Damaged(error) => PcapPortError::Damaged {
                path: path.to_owned(),
                frame: capture.frames.len() + 1,
                error,
            },
            Stop::NotEthernet(link) => PcapPortError::NotEthernet {
                path: path.to_owned(),
                link,
            },
        })?;
        Ok(capture)
    }

    fn read_pcap(&mut self, file: &[u8]) -> Result<(), Stop> {
        let mut reader = PcapReader::new(file)?;
        check(reader.header().datalink)?;
        // Raw, because captures with a snap length hold packets that were longer than it.
        while let Some(packet) = reader.next_raw_packet() {
            self.push(&packet?.data);
        }
        Ok(())
    }

    fn read_pcapng(&mut self, file: &[u8]) -> Result<(), Stop> {
        let mut reader = PcapNgReader::new(file)?;
        while let Some(block) = reader.next_block() {
            match block? {
                Block::InterfaceDescription(interface) => check(interface.linktype)?,
                Block::EnhancedPacket(packet) => self.push(&packet.data),
                Block::SimplePacket(packet) => self.push(&packet.data),
                _ => {}
            }
        }
        Ok(())
    }

    fn push(&mut self, frame: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(frame);
        self.frames.push(start..self.bytes.len());
    }
}

fn check(link: DataLink) -> Result<(), Stop> {
    match link {
        DataLink::ETHERNET => Ok(()),
        other => Err(Stop::NotEthernet(other)),
    }
}

/// Why reading a capture stopped.
enum Stop {
    Damaged(PcapError),
    NotEthernet(DataLink),
}

impl From<PcapError> for Stop {
    fn from(error: PcapError) -> Self {
        Self::Damaged(error)
    }
}

/// A capture being written.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    /// `None` once writing has failed: then nothing is accepted any more.
    writer: Option<PcapWriter<BufWriter<File>>>,
}

impl Output {
    fn create(path: &Path) -> Result<Self, PcapPortError> {
        let failed = |error| PcapPortError::File {
            path: path.to_owned(),
            error,
        };
        let file = File::create(path).map_err(failed)?;
        let writer = PcapWriter::new(BufWriter::new(file)).map_err(|e| failed(io_error(e)))?;
        Ok(Self {
            path: path.to_owned(),
            writer: Some(writer),
        })
    }

    /// Writes frames from the front of `burst`; returns how many.
    fn write(&mut self, burst: &Burst<MemoryFrame>) -> usize {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        for (written, frame) in burst.iter().enumerate() {
            let Some(writer) = &mut self.writer else {
                return written;
            };
            // Frames are never longer than ROOM and HEADROOM together.
            let packet = PcapPacket::new(now, frame.bytes().len() as u32, frame.bytes());
            if let Err(error) = writer.write_packet(&packet) {
                self.fail(&io_error(error));
                return written;
            }
        }
        burst.len()
    }

    fn fail(&mut self, error: &io::Error) {
        let path = self.path.display();
        tracing::error!("capture file {path}: {error}; nothing more is sent there");
        self.writer = None;
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take()
            && let Err(error) = writer.into_writer().flush()
        {
            self.fail(&error);
        }
    }
}

fn io_error(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of the test's own, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("sluice-pcap-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }

        /// A capture with these frames.
        fn capture(&self, frames: &[&[u8]]) -> PathBuf {
            let path = self.file("in.pcap");
            let mut writer = PcapWriter::new(File::create(&path).unwrap()).unwrap();
            for frame in frames {
                let packet = PcapPacket::new(Duration::ZERO, frame.len() as u32, frame);
                writer.write_packet(&packet).unwrap();
            }
            path
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn input(path: PathBuf, repeat: bool) -> PcapConfig {
        PcapConfig {
            input: Some(path),
            output: None,
            repeat,
        }
    }

    fn frames(burst: &Burst<MemoryFrame>) -> Vec<&[u8]> {
        burst.iter().map(Frame::bytes).collect()
    }

    #[test]
    fn what_is_received_and_sent_again_is_the_same_capture() {
        let folder = Folder::new("same");
        let sent: Vec<Vec<u8>> = (0..70_u8)
            .map(|n| vec![n; usize::from(n) * 20 + 1])
            .collect();
        let sent: Vec<&[u8]> = sent.iter().map(Vec::as_slice).collect();
        let copy = folder.file("out.pcap");
        let mut port = PcapPort::open(&PcapConfig {
            input: Some(folder.capture(&sent)),
            output: Some(copy.clone()),
            repeat: false,
        })
        .unwrap();
        let mut burst = Burst::new();
        for expected in [32, 32, 6, 0] {
            assert_eq!(port.is_exhausted(), expected == 0);
            assert_eq!(port.rx(&mut burst), expected);
            assert_eq!(port.tx(&mut burst), expected);
            assert!(burst.is_empty());
        }
        drop(port);
        let capture = Capture::read(&copy).unwrap();
        let written: Vec<_> = capture
            .frames
            .into_iter()
            .map(|range| &capture.bytes[range])
            .collect();
        assert_eq!(written, sent);
    }

    #[test]
    fn a_repeated_capture_never_ends_and_a_burst_goes_round() {
        let folder = Folder::new("repeat");
        let mut port = PcapPort::open(&input(folder.capture(&[&[1], &[2], &[3]]), true)).unwrap();
        let mut burst = Burst::new();
        assert_eq!(port.rx(&mut burst), 32);
        burst.clear();
        assert_eq!(port.rx(&mut burst), 32);
        assert_eq!(frames(&burst)[..3], [[3], [1], [2]]);
        assert!(!port.is_exhausted());
        assert_eq!(port.tx(&mut burst), 32, "without an output frames vanish");
    }

    #[test]
    fn frames_longer_than_a_jumbo_frame_are_refused_and_counted() {
        let folder = Folder::new("long");
        let long = vec![0; ROOM + 1];
        let mut port = PcapPort::open(&input(folder.capture(&[&[1], &long, &[2]]), false)).unwrap();
        let mut burst = Burst::new();
        assert_eq!(port.rx(&mut burst), 2);
        assert_eq!(frames(&burst), [[1], [2]]);
        assert_eq!(port.refused().oversize, 1);
        assert_eq!(port.refused().oversize, 0);

        let mut port = PcapPort::open(&input(folder.capture(&[&long]), true)).unwrap();
        assert_eq!(port.rx(&mut burst), 0, "and it returns");
    }

    #[test]
    fn pcapng_is_read_too() {
        let folder = Folder::new("ng");
        let path = folder.file("in.pcapng");
        #[rustfmt::skip]
        let bytes = [
            0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0,          // section header
            0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0,           // little-endian, version 1.0
            255, 255, 255, 255, 255, 255, 255, 255,       // length not given
            28, 0, 0, 0,
            1, 0, 0, 0, 20, 0, 0, 0,                      // interface
            1, 0, 0, 0, 0, 0, 4, 0,                       // Ethernet
            20, 0, 0, 0,
            6, 0, 0, 0, 36, 0, 0, 0,                      // enhanced packet
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,           // interface 0, time 0
            3, 0, 0, 0, 3, 0, 0, 0,                       // 3 bytes of 3
            7, 8, 9, 0,
            36, 0, 0, 0,
        ];
        fs::write(&path, bytes).unwrap();
        let mut port = PcapPort::open(&input(path, false)).unwrap();
        let mut burst = Burst::new();
        assert_eq!(port.rx(&mut burst), 1);
        assert_eq!(frames(&burst), [[7, 8, 9]]);
    }

    #[test]
    fn files_that_cannot_be_used_are_refused_with_a_reason() {
        let folder = Folder::new("bad");
        let open = |path: &Path| PcapPort::open(&input(path.to_owned(), false)).unwrap_err();

        let error = open(&folder.file("none.pcap"));
        assert!(matches!(error, PcapPortError::File { .. }), "{error}");

        let path = folder.capture(&[&[1; 60], &[2; 60]]);
        let mut bytes = fs::read(&path).unwrap();
        bytes.pop();
        fs::write(&path, &bytes).unwrap();
        let error = open(&path);
        assert!(
            matches!(error, PcapPortError::Damaged { frame: 2, .. }),
            "{error}"
        );

        // The link type is the last word of the header of 24 bytes.
        bytes[20..24].copy_from_slice(&113_u32.to_ne_bytes());
        fs::write(&path, &bytes).unwrap();
        let error = open(&path);
        assert!(
            matches!(error, PcapPortError::NotEthernet { .. }),
            "{error}"
        );

        fs::write(&path, b"not a capture at all, by any means").unwrap();
        let error = open(&path);
        assert!(
            matches!(error, PcapPortError::Damaged { frame: 1, .. }),
            "{error}"
        );

        let output = PcapConfig {
            output: Some(folder.file("no/such/folder.pcap")),
            ..PcapConfig::default()
        };
        let error = PcapPort::open(&output).unwrap_err();
        assert!(matches!(error, PcapPortError::File { .. }), "{error}");
    }

    #[test]
    fn a_full_disk_stops_transmit_and_keeps_the_frames() {
        let mut port = PcapPort::open(&PcapConfig {
            output: Some("/dev/full".into()),
            ..PcapConfig::default()
        })
        .unwrap();
        let mut burst: Burst<_> = (0..4).map(|n| MemoryFrame::new(&[n; 9000])).collect();
        let sent = port.tx(&mut burst);
        assert!(sent < 4);
        assert_eq!(burst[0].bytes()[0], sent as u8);
        assert_eq!(port.tx(&mut burst), 0);
    }
}
