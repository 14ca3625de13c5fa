//! To and from the kernel: the rings between a worker and the punt thread (contract 5).
//!
//! Taps cost system calls, so no worker touches one. A worker pushes what the kernel shall have into a bounded
//! ring for each port, and takes what the kernel sent from another. One [`thread`] for all ports moves frames between
//! those rings and each port's [`tap`], and polices by [`class`] what the kernel gets.

pub mod cells;
pub mod class;
pub mod tap;
pub mod thread;

use rtrb::{Consumer, Producer, RingBuffer};

/// A worker's ends of the rings of one port.
#[derive(Debug)]
pub struct WorkerPunt<F> {
    /// Frames for the kernel, as they came off the wire.
    pub to_kernel: Producer<F>,
    /// Frames from the kernel, complete with their Ethernet header, to go out of the port.
    pub from_kernel: Consumer<F>,
}

/// The punt thread's ends of the same rings.
#[derive(Debug)]
pub struct KernelPunt<F> {
    /// What the worker wants the kernel to have.
    pub from_worker: Consumer<F>,
    /// What the kernel sent.
    pub to_worker: Producer<F>,
}

/// Both ends of a pair of rings, `capacity` frames each way.
pub fn rings<F>(capacity: usize) -> (WorkerPunt<F>, KernelPunt<F>) {
    let (to_kernel, from_worker) = RingBuffer::new(capacity);
    let (to_worker, from_kernel) = RingBuffer::new(capacity);
    (
        WorkerPunt {
            to_kernel,
            from_kernel,
        },
        KernelPunt {
            from_worker,
            to_worker,
        },
    )
}
