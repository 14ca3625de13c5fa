//! Where frames come from and go to.
//!
//! A [`Port`] is one worker's end of one interface: its receive queue and its transmit queue. The worker owns
//! it alone. Four kinds exist: [`memory`] (tests, replay), [`rss_nic`] (many workers without hardware), [`pcap`] (files) and
//! [`crate::dpdk`] (NICs and vdevs).
//! A [`Frame`] is an owned buffer: whoever holds it must pass it on or drop it, and dropping gives the
//! buffer back.

pub mod memory;
pub mod pcap;
pub mod rss_nic;

use arrayvec::ArrayVec;

use crate::command::WorkerId;

/// Frames a worker moves at a time.
pub const BURST: usize = 32;

/// Up to [`BURST`] owned frames, in order.
pub type Burst<F> = ArrayVec<F, BURST>;

/// Bytes free in front of every received frame, at least: room for an outer IPv6, UDP and GUE header.
pub const HEADROOM: usize = 64;

/// One Ethernet frame, contiguous in memory, from the destination MAC to the end of the payload (no FCS).
pub trait Frame: Send + Sized + 'static {
    /// The frame's bytes.
    fn bytes(&self) -> &[u8];

    /// The frame's bytes, to change in place.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// Grows the frame by `len` bytes at the front, contents unspecified. `false` when the headroom is
    /// smaller: then nothing changed.
    #[must_use]
    fn push_front(&mut self, len: usize) -> bool;

    /// Cuts `len` bytes off the front. `false` when the frame is shorter: then nothing changed.
    #[must_use]
    fn pull_front(&mut self, len: usize) -> bool;

    /// Grows the frame by `len` bytes at the end, contents unspecified. `false` when the buffer has no such
    /// room: then nothing changed.
    #[must_use]
    fn push_back(&mut self, len: usize) -> bool;

    /// Cuts the frame down to its first `len` bytes; longer than the frame changes nothing.
    fn truncate(&mut self, len: usize);

    /// [`Frame::push_front`] by `front` bytes and then [`Frame::truncate`] to `len`, in one.
    #[must_use]
    #[inline]
    fn reshape(&mut self, front: usize, len: usize) -> bool {
        let grown = self.push_front(front);
        if grown {
            self.truncate(len);
        }
        grown
    }

    /// Asks the port to fill in checksums on transmit. Only for what the port's [`Offloads`] offer.
    fn request_checksums(&mut self, request: ChecksumRequest);
}

/// What the NIC shall compute when it sends a frame (contract 2 of the design: the IPv4 header, and whole
/// L4 checksums only of packets that had none).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumRequest {
    /// Bytes in front of the IP header.
    pub l2_len: u8,
    /// Bytes of the IP header, options included.
    pub l3_len: u8,
    /// Fill in the IPv4 header checksum (the field must hold zero).
    pub ipv4: bool,
    /// Fill in the UDP checksum (the field must hold the pseudo-header's sum, RFC 768, not inverted).
    pub udp: bool,
}

/// What a port can do when it sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offloads {
    /// It fills in IPv4 header checksums.
    pub ipv4_checksum: bool,
    /// It fills in UDP checksums.
    pub udp_checksum: bool,
}

/// Frames that a port took off the wire and could not hand on. They count as received and dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Longer than one buffer, or in several segments that do not fit one.
    pub oversize: u64,
}

/// One worker's queue pair on one interface, or what it has of one.
pub trait Port: Send {
    /// The frames it moves.
    type Frame: Frame;

    /// Appends received frames to `burst` until it is full or nothing waits; returns how many. A port that knows of caches has
    /// what [`Frame::bytes`] shows fetched when it returns, or on its way.
    fn rx(&mut self, burst: &mut Burst<Self::Frame>) -> usize;

    /// Sends from the front of `burst`. Accepted frames leave it, the others stay, in order; returns how
    /// many were accepted.
    fn tx(&mut self, burst: &mut Burst<Self::Frame>) -> usize;

    /// An empty frame with [`HEADROOM`] in front, for a packet that sluice itself makes. `None` when the
    /// pool is empty.
    fn alloc(&mut self) -> Option<Self::Frame>;

    /// Gives the buffers of all frames back, faster than dropping one by one where the port can.
    fn free(&mut self, burst: &mut Burst<Self::Frame>) {
        burst.clear();
    }

    /// What it can do when it sends.
    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    /// The worker that sends in place of this port's, which has no transmit queue here: [`Port::tx`] is never called. Asked once.
    fn sent_by(&self) -> Option<WorkerId> {
        None
    }

    /// What was refused since the last call.
    fn refused(&mut self) -> Refused {
        Refused::default()
    }
}

/// Makes empty frames away from any worker: the punt thread fills them with what the kernel sends.
pub trait FramePool: Send + 'static {
    /// The frames it makes.
    type Frame: Frame;

    /// An empty frame with [`HEADROOM`] in front, or `None` when the pool is empty.
    fn alloc(&mut self) -> Option<Self::Frame>;
}
