//! One worker's queue pair on a device: the hot end of a port.

use std::fmt;
use std::sync::Arc;

use crossbeam::utils::CachePadded;
use dpdk_sys as sys;

use super::device::Device;
use super::mbuf::{forget_front, free_all};
use super::{Mbuf, Mempool};
use crate::command::WorkerId;
use crate::io::{Burst, Frame, Offloads, Port, Refused};
use crate::steer::RssPlan;
use crate::steer::sample::{SampleCells, SampledTable, agrees};

/// Of so many bursts one has a frame whose hash is compared with ours.
const SAMPLED: u32 = 1024;

/// A worker's end: its transmit queue and its receive queues, one as a rule. There is one of it for each number at a time; dropping it
/// gives the number back.
///
/// Sending, and receiving from each queue, are one call into DPDK. The device goes on while this exists.
pub struct DpdkPort {
    device: Arc<Device>,
    receive: Receive,
    send: SendQueue,
    pool: Mempool,
    offloads: Offloads,
    refused: Refused,
}

/// What frames are sent by.
#[derive(Clone, Copy, Debug)]
pub(super) struct SendQueue {
    pub(super) number: u16,
    /// There is no queue of that number: this worker sends.
    pub(super) sent_by: Option<WorkerId>,
}

/// What frames are received from.
pub(super) struct Receive {
    queues: Box<[u16]>,
    /// Index of the queue whose turn is next.
    turn: usize,
    sampler: Option<Sampler>,
    /// Bursts until the next sample.
    until_sample: u32,
}

/// What the NIC's hashes are compared with, and where the outcome goes.
pub(super) struct Sampler {
    plan: RssPlan,
    table: Arc<SampledTable>,
    cells: Arc<CachePadded<SampleCells>>,
}

impl Sampler {
    pub(super) fn new(
        plan: RssPlan,
        table: Arc<SampledTable>,
        cells: Arc<CachePadded<SampleCells>>,
    ) -> Self {
        Self { plan, table, cells }
    }

    fn compare(&self, frame: &Mbuf, queue: u16) {
        let agrees = frame
            .rss_hash()
            .and_then(|hash| agrees(&self.plan, &self.table, frame.bytes(), hash, queue));
        if let Some(agrees) = agrees {
            self.cells.compared.add(1);
            self.cells.wrong.add(u64::from(!agrees));
        }
    }
}

impl Receive {
    pub(super) fn new(queues: Box<[u16]>, sampler: Option<Sampler>) -> Self {
        Self {
            queues,
            turn: 0,
            sampler,
            until_sample: SAMPLED,
        }
    }

    #[inline]
    fn next(&mut self) -> Option<u16> {
        let queue = self.queues.get(self.turn).copied()?;
        self.turn += 1;
        if self.turn == self.queues.len() {
            self.turn = 0;
        }
        Some(queue)
    }

    /// Called for each burst with a frame of it.
    #[inline]
    fn sample(&mut self, frame: &Mbuf, queue: u16) {
        self.until_sample -= 1;
        if self.until_sample == 0 {
            self.compare(frame, queue);
        }
    }

    #[cold]
    #[inline(never)]
    fn compare(&mut self, frame: &Mbuf, queue: u16) {
        self.until_sample = SAMPLED;
        if let Some(sampler) = &self.sampler {
            sampler.compare(frame, queue);
        }
    }
}

impl DpdkPort {
    /// The caller has claimed the number.
    pub(super) fn new(
        device: Arc<Device>,
        receive: Receive,
        send: SendQueue,
        pool: Mempool,
        offloads: Offloads,
    ) -> Self {
        Self {
            device,
            receive,
            send,
            pool,
            offloads,
            refused: Refused::default(),
        }
    }

    /// Which of the device's ends it is: the number of its transmit queue, if it has one.
    pub fn queue(&self) -> u16 {
        self.send.number
    }

    /// Appends what waits in a queue, as far as there is room.
    #[inline]
    fn receive_from(&mut self, queue: u16, burst: &mut Burst<Mbuf>) {
        let old = burst.len();
        let room = burst.remaining_capacity() as u16;
        // SAFETY: `Mbuf` is a transparent pointer; there is room for `room` of them behind the `old` ones. The device is
        // started while we hold it, and the queue is ours alone. What DPDK wrote is owned by the burst from here on,
        // before anyone can look at the frames' segments.
        unsafe {
            let end = burst.as_mut_ptr().add(old);
            let received = sys::sluice_rx_burst(self.device.id(), queue, end.cast(), room);
            burst.set_len(old + usize::from(received));
        }
        let Some(first) = burst.get(old) else {
            return;
        };
        self.receive.sample(first, queue);
        let mut odd = 0;
        for frame in &burst[old..] {
            frame.prefetch();
            odd |= frame.segments() ^ 1;
        }
        if odd != 0 {
            self.linearise(burst, old);
        }
    }

    /// Makes one segment of each frame from the `from`th on, and gives back those that are too long for it.
    #[cold]
    fn linearise(&mut self, burst: &mut Burst<Mbuf>, from: usize) {
        let mut index = from;
        while index < burst.len() {
            if burst[index].segments() == 1 || burst[index].linearise() {
                index += 1;
            } else {
                drop(burst.remove(index));
                self.refused.oversize += 1;
            }
        }
    }
}

impl Port for DpdkPort {
    type Frame = Mbuf;

    #[inline]
    fn rx(&mut self, burst: &mut Burst<Mbuf>) -> usize {
        let before = burst.len();
        for _ in 0..self.receive.queues.len() {
            let Some(queue) = self.receive.next() else {
                break;
            };
            self.receive_from(queue, burst);
            if burst.is_full() {
                break;
            }
        }
        burst.len() - before
    }

    #[inline]
    fn tx(&mut self, burst: &mut Burst<Mbuf>) -> usize {
        debug_assert!(self.send.sent_by.is_none(), "there is a queue to send by");
        // At most BURST.
        let count = burst.len() as u16;
        let send = if self.offloads == Offloads::default() {
            sys::sluice_tx_burst
        } else {
            sys::sluice_tx_prepared_burst
        };
        // SAFETY: the burst holds `count` transparent pointers to frames that it owns; the device is started while we
        // hold it, and the queue is ours alone. The frames that DPDK took are forgotten.
        unsafe {
            let sent = send(
                self.device.id(),
                self.send.number,
                burst.as_mut_ptr().cast(),
                count,
            );
            forget_front(burst, usize::from(sent));
            usize::from(sent)
        }
    }

    #[inline]
    fn alloc(&mut self) -> Option<Mbuf> {
        self.pool.take()
    }

    #[inline]
    fn free(&mut self, burst: &mut Burst<Mbuf>) {
        free_all(burst);
    }

    fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn sent_by(&self) -> Option<WorkerId> {
        self.send.sent_by
    }

    fn refused(&mut self) -> Refused {
        std::mem::take(&mut self.refused)
    }
}

impl Drop for DpdkPort {
    fn drop(&mut self) {
        self.device.release(self.send.number);
    }
}

impl fmt::Debug for DpdkPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "DpdkPort({}, queue {})",
            self.device.name(),
            self.send.number
        )
    }
}
