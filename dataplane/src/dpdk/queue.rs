//! One worker's queue pair on a device: the hot end of a port.

use std::fmt;
use std::sync::Arc;

use dpdk_sys as sys;

use super::device::Device;
use super::mbuf::{forget_front, free_all};
use super::{Mbuf, Mempool};
use crate::io::{Burst, Offloads, Port, Refused};

/// A worker's queue pair. There is one of it for each queue number at a time; dropping it gives the number back.
///
/// Receiving and sending are one call into DPDK each. The device goes on while this exists.
pub struct DpdkPort {
    device: Arc<Device>,
    queue: u16,
    pool: Mempool,
    offloads: Offloads,
    refused: Refused,
}

impl DpdkPort {
    /// The caller has claimed the number.
    pub(super) fn new(device: Arc<Device>, queue: u16, pool: Mempool, offloads: Offloads) -> Self {
        Self {
            device,
            queue,
            pool,
            offloads,
            refused: Refused::default(),
        }
    }

    /// Which queue of the device it is.
    pub fn queue(&self) -> u16 {
        self.queue
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
        let old = burst.len();
        let room = burst.remaining_capacity() as u16;
        // SAFETY: `Mbuf` is a transparent pointer; there is room for `room` of them behind the `old` ones. The device is
        // started while we hold it, and the queue is ours alone. What DPDK wrote is owned by the burst from here on,
        // before anyone can look at the frames' segments.
        unsafe {
            let end = burst.as_mut_ptr().add(old);
            let received = sys::sluice_rx_burst(self.device.id(), self.queue, end.cast(), room);
            burst.set_len(old + usize::from(received));
        }
        let mut odd = 0;
        for frame in &burst[old..] {
            frame.prefetch();
            odd |= frame.segments() ^ 1;
        }
        if odd != 0 {
            self.linearise(burst, old);
        }
        burst.len() - old
    }

    #[inline]
    fn tx(&mut self, burst: &mut Burst<Mbuf>) -> usize {
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
                self.queue,
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

    fn refused(&mut self) -> Refused {
        std::mem::take(&mut self.refused)
    }
}

impl Drop for DpdkPort {
    fn drop(&mut self) {
        self.device.release(self.queue);
    }
}

impl fmt::Debug for DpdkPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DpdkPort({}, queue {})", self.device.name(), self.queue)
    }
}
