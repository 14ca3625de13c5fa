//! A port that replays prepared frames for ever, one copy a frame, and throws away what is sent: what DPDK's net_pcap does with
//! `infinite_rx=1`, without DPDK.

use std::sync::Arc;

use sluice_dataplane::io::{Burst, ChecksumRequest, Frame, HEADROOM, Port};

use crate::frame::Wire;

/// Bytes behind the headroom.
const ROOM: usize = 256;

/// A buffer from the port's own store.
#[derive(Debug)]
pub struct BenchFrame {
    buffer: Box<[u8; HEADROOM + ROOM]>,
    start: u16,
    len: u16,
}

impl BenchFrame {
    fn empty() -> Self {
        Self {
            buffer: Box::new([0; HEADROOM + ROOM]),
            start: HEADROOM as u16,
            len: 0,
        }
    }
}

impl Frame for BenchFrame {
    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.buffer[usize::from(self.start)..][..usize::from(self.len)]
    }

    #[inline(always)]
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[usize::from(self.start)..][..usize::from(self.len)]
    }

    #[inline]
    fn push_front(&mut self, len: usize) -> bool {
        let enough = len <= usize::from(self.start);
        if enough {
            self.start -= len as u16;
            self.len += len as u16;
        }
        enough
    }

    fn pull_front(&mut self, len: usize) -> bool {
        let enough = len <= usize::from(self.len);
        if enough {
            self.start += len as u16;
            self.len -= len as u16;
        }
        enough
    }

    fn push_back(&mut self, len: usize) -> bool {
        let enough = usize::from(self.start + self.len) + len <= self.buffer.len();
        if enough {
            self.len += len as u16;
        }
        enough
    }

    #[inline]
    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len as u16);
    }

    fn request_checksums(&mut self, _request: ChecksumRequest) {
        unreachable!("this port offers no checksums");
    }
}

/// The port.
#[derive(Debug)]
pub struct BenchPort {
    frames: Arc<[Wire]>,
    next: usize,
    free: Vec<BenchFrame>,
    /// Frames sent.
    pub sent: u64,
    /// Frames still to be received before the port falls silent.
    pub left: usize,
    /// Frames sent, byte for byte, if wanted.
    pub kept: Option<Vec<Vec<u8>>>,
}

impl BenchPort {
    /// A port that replays these 64-byte frames.
    pub fn new(frames: Arc<[Wire]>) -> Self {
        let free = (0..256).map(|_| BenchFrame::empty()).collect();
        Self {
            frames,
            next: 0,
            free,
            sent: 0,
            left: 0,
            kept: None,
        }
    }

    /// From now on it replays these, from the first.
    pub fn load(&mut self, frames: Arc<[Wire]>) {
        self.frames = frames;
        self.next = 0;
    }
}

impl Port for BenchPort {
    type Frame = BenchFrame;

    #[inline]
    fn rx(&mut self, burst: &mut Burst<BenchFrame>) -> usize {
        let count = burst
            .remaining_capacity()
            .min(self.left)
            .min(self.free.len());
        for _ in 0..count {
            let Some(mut frame) = self.free.pop() else {
                break;
            };
            frame.start = HEADROOM as u16;
            frame.len = 64;
            frame.bytes_mut().copy_from_slice(&self.frames[self.next]);
            self.next = if self.next + 1 == self.frames.len() {
                0
            } else {
                self.next + 1
            };
            burst.push(frame);
        }
        self.left -= count;
        count
    }

    #[inline]
    fn tx(&mut self, burst: &mut Burst<BenchFrame>) -> usize {
        let count = burst.len();
        self.sent += count as u64;
        if let Some(kept) = &mut self.kept {
            kept.extend(burst.iter().map(|frame| frame.bytes().to_vec()));
        }
        self.free.extend(burst.drain(..));
        count
    }

    fn alloc(&mut self) -> Option<BenchFrame> {
        self.free.pop().map(|mut frame| {
            frame.start = HEADROOM as u16;
            frame.len = 0;
            frame
        })
    }

    fn free(&mut self, burst: &mut Burst<BenchFrame>) {
        self.free.extend(burst.drain(..));
    }
}
