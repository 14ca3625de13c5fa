//! What the punt thread publishes of one port: it alone writes, by plain stores; anybody may read.

use crate::punt::class::Class;
use crate::stats::Cell;

/// Counters of one exception interface.
///
/// Every frame that workers punt ends in exactly one of `to_kernel`, `short`, `long`, `policed`, `tap_full`, `tap_down`;
/// every frame that the kernel sends in one of `from_kernel`, `from_kernel_short`, `from_kernel_long`, `pool_empty`,
/// `ring_full`.
#[derive(Debug, Default)]
pub struct PuntCells {
    /// Frames that the kernel got.
    pub to_kernel: Cell,
    /// Bytes of those.
    pub to_kernel_bytes: Cell,
    /// Frames that a worker got from the kernel.
    pub from_kernel: Cell,
    /// Bytes of those.
    pub from_kernel_bytes: Cell,
    /// For the kernel, but shorter than an Ethernet header.
    pub short: Cell,
    /// For the kernel, but longer than its MTU allows.
    pub long: Cell,
    /// For the kernel, but over the rate of their class; by [`Class`].
    pub policed: [Cell; Class::COUNT],
    /// For the kernel, but it had no memory for more.
    pub tap_full: Cell,
    /// For the kernel, but the interface is down or gone.
    pub tap_down: Cell,
    /// From the kernel, but shorter than an Ethernet header.
    pub from_kernel_short: Cell,
    /// From the kernel, but longer than the MTU or than a frame of the pool can be.
    pub from_kernel_long: Cell,
    /// From the kernel, but the pool had no frame.
    pub pool_empty: Cell,
    /// From the kernel, but the worker's ring was full.
    pub ring_full: Cell,
}

impl PuntCells {
    /// Frames that workers punted and that the kernel did not get.
    pub fn dropped_to_kernel(&self) -> u64 {
        [&self.short, &self.long, &self.tap_full, &self.tap_down]
            .into_iter()
            .chain(&self.policed)
            .map(Cell::read)
            .sum()
    }

    /// Frames that the kernel sent and that no worker got.
    pub fn dropped_from_kernel(&self) -> u64 {
        [
            &self.from_kernel_short,
            &self.from_kernel_long,
            &self.pool_empty,
            &self.ring_full,
        ]
        .into_iter()
        .map(Cell::read)
        .sum()
    }
}
