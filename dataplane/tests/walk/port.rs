//! A port in memory whose own frames come from the heap, as no real port's do: what it takes there is not counted. All other
//! allocations are the worker's.

use std::collections::VecDeque;

use allocation_counter::opt_out;
use sluice_dataplane::command::WorkerId;
use sluice_dataplane::io::memory::MemoryFrame;
use sluice_dataplane::io::{Burst, ChecksumRequest, Frame, Port};

#[derive(Clone, Debug)]
pub(crate) struct TestFrame(MemoryFrame);

impl TestFrame {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        Self(MemoryFrame::new(bytes))
    }
}

impl Frame for TestFrame {
    fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.0.bytes_mut()
    }

    fn push_front(&mut self, len: usize) -> bool {
        self.0.push_front(len)
    }

    fn pull_front(&mut self, len: usize) -> bool {
        self.0.pull_front(len)
    }

    fn push_back(&mut self, len: usize) -> bool {
        uncounted(|| self.0.push_back(len))
    }

    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }

    fn request_checksums(&mut self, request: ChecksumRequest) {
        self.0.request_checksums(request);
    }
}

#[derive(Debug, Default)]
pub(crate) struct TestPort {
    pub(crate) outgoing: VecDeque<TestFrame>,
    /// How many frames `outgoing` may hold before transmit refuses; `None` for no bound.
    pub(crate) tx_room: Option<usize>,
    incoming: VecDeque<TestFrame>,
    sent_by: Option<WorkerId>,
}

impl TestPort {
    /// One by which another worker sends, if any is given.
    pub(crate) fn sent_by(sent_by: Option<WorkerId>) -> Self {
        Self {
            sent_by,
            ..Self::default()
        }
    }

    pub(crate) fn deliver(&mut self, bytes: &[u8]) {
        self.incoming.push_back(TestFrame::new(bytes));
    }
}

impl Port for TestPort {
    type Frame = TestFrame;

    fn rx(&mut self, burst: &mut Burst<TestFrame>) -> usize {
        let count = burst.remaining_capacity().min(self.incoming.len());
        burst.extend(self.incoming.drain(..count));
        count
    }

    fn tx(&mut self, burst: &mut Burst<TestFrame>) -> usize {
        let room = self.tx_room.unwrap_or(usize::MAX);
        let count = burst.len().min(room.saturating_sub(self.outgoing.len()));
        uncounted(|| self.outgoing.extend(burst.drain(..count)));
        count
    }

    fn sent_by(&self) -> Option<WorkerId> {
        self.sent_by
    }

    fn alloc(&mut self) -> Option<TestFrame> {
        Some(uncounted(|| TestFrame::new(&[])))
    }
}

fn uncounted<T>(act: impl FnOnce() -> T) -> T {
    let mut result = None;
    opt_out(|| result = Some(act()));
    result.unwrap()
}
