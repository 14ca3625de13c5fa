//! A port without hardware: tests and replays put frames in and take frames out.

use std::collections::VecDeque;

use super::{Burst, ChecksumRequest, Frame, FramePool, HEADROOM, Offloads, Port};

/// Bytes behind the headroom: a jumbo frame fits.
pub(super) const ROOM: usize = 9216;

/// A frame on the heap.
#[derive(Clone, Debug)]
pub struct MemoryFrame {
    buffer: Vec<u8>,
    start: usize,
}

impl MemoryFrame {
    /// A copy of `bytes`, with [`HEADROOM`] in front.
    pub fn new(bytes: &[u8]) -> Self {
        let mut buffer = vec![0; HEADROOM];
        buffer.extend_from_slice(bytes);
        Self {
            buffer,
            start: HEADROOM,
        }
    }
}

impl Frame for MemoryFrame {
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..]
    }

    fn push_front(&mut self, len: usize) -> bool {
        match self.start.checked_sub(len) {
            Some(start) => {
                self.start = start;
                true
            }
            None => false,
        }
    }

    fn pull_front(&mut self, len: usize) -> bool {
        let enough = len <= self.bytes().len();
        if enough {
            self.start += len;
        }
        enough
    }

    fn push_back(&mut self, len: usize) -> bool {
        let room = self.buffer.len() + len <= HEADROOM + ROOM;
        if room {
            self.buffer.resize(self.buffer.len() + len, 0);
        }
        room
    }

    fn truncate(&mut self, len: usize) {
        self.buffer.truncate(self.start.saturating_add(len));
    }

    fn request_checksums(&mut self, _request: ChecksumRequest) {
        unreachable!("memory ports offer no checksums, so nobody may ask for them");
    }
}

/// A port between two queues that a test holds the other side of.
#[derive(Debug, Default)]
pub struct MemoryPort {
    /// What the worker will receive next, first in front.
    pub incoming: VecDeque<MemoryFrame>,
    /// What the worker has sent, oldest in front.
    pub outgoing: VecDeque<MemoryFrame>,
    /// How many frames `outgoing` may hold before transmit refuses; `None` for no bound.
    pub tx_room: Option<usize>,
}

impl MemoryPort {
    /// Queues a frame for the worker to receive.
    pub fn deliver(&mut self, bytes: &[u8]) {
        self.incoming.push_back(MemoryFrame::new(bytes));
    }
}

impl Port for MemoryPort {
    type Frame = MemoryFrame;

    fn rx(&mut self, burst: &mut Burst<MemoryFrame>) -> usize {
        let n = burst.remaining_capacity().min(self.incoming.len());
        burst.extend(self.incoming.drain(..n));
        n
    }

    fn tx(&mut self, burst: &mut Burst<MemoryFrame>) -> usize {
        let room = self
            .tx_room
            .map_or(usize::MAX, |room| room.saturating_sub(self.outgoing.len()));
        let n = burst.len().min(room);
        self.outgoing.extend(burst.drain(..n));
        n
    }

    fn alloc(&mut self) -> Option<MemoryFrame> {
        Some(MemoryFrame::new(&[]))
    }

    fn offloads(&self) -> Offloads {
        Offloads::default()
    }
}

/// Heap frames for whoever needs one away from a worker.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryPool;

impl FramePool for MemoryPool {
    type Frame = MemoryFrame;

    fn alloc(&mut self) -> Option<MemoryFrame> {
        Some(MemoryFrame::new(&[]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_grows_and_shrinks_at_both_ends() {
        let mut frame = MemoryFrame::new(&[1, 2, 3]);
        assert!(frame.push_front(HEADROOM));
        assert!(!frame.push_front(1));
        assert!(frame.pull_front(HEADROOM));
        assert_eq!(frame.bytes(), [1, 2, 3]);
        assert!(frame.push_back(1));
        assert!(!frame.push_back(ROOM));
        assert!(!frame.pull_front(5));
        frame.truncate(2);
        assert_eq!(frame.bytes(), [1, 2]);
    }

    #[test]
    fn a_full_transmit_queue_keeps_the_rest_in_order() {
        let mut port = MemoryPort {
            tx_room: Some(1),
            ..MemoryPort::default()
        };
        let mut burst: Burst<_> = [1u8, 2].iter().map(|b| MemoryFrame::new(&[*b])).collect();
        assert_eq!(port.tx(&mut burst), 1);
        assert_eq!(burst[0].bytes(), [2]);
    }
}
