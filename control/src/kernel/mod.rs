//! The kernel as slow path (contract 5 of the design): its addresses, routes and neighbours, mirrored live.
//!
//! How the daemon puts it together, inside a tokio runtime and in the appliance's network namespace:
//!
//! ```text
//! // 1. A tap for each port that has an exception interface, with the port's MAC and MTU; rings for each worker.
//! let tap = Tap::open("cl0", mac, mtu)?;
//! let (worker_end, kernel_end) = punt::rings(1024);          // worker_end goes into WorkerPort::punt
//! // 2. One punt thread for all of them, with a frame pool of its own.
//! let punt = PuntThread::start(vec![PuntPort { id, tap, rings: vec![kernel_end] }], pool, PuntOptions::default())?;
//! // 3. The mirror: it brings the interfaces up, and they exist since step 1.
//! let (sender, mut updates) = tokio::sync::mpsc::channel(256);
//! let mirror = KernelMirror::start(vec![MirrorPort { port: id, interface: "cl0".into() }], sender).await?;
//! // 4. Apply updates as they come. Everything up to the first `Complete` is the state at start: wait for that before
//! //    saying that the appliance is ready. Add what the boot file has: `with_statics` for routes.
//! while let Some(update) = updates.recv().await { … }        // LocalAddresses also to punt.local_addresses(…),
//!                                                            // PortState's MTU also to punt.mtu(…)
//! // 5. Pass on what workers report: `NeighbourMissing` and `NeighbourUsed`.
//! mirror.event(&event);
//! // 6. Stop in the order mirror, workers, punt thread (its frames go back to the pool before the pool goes).
//! ```
//!
//! `netlink` talks to the kernel, `fib` and `neighbours` make sense of what it says, `mirror` is the task between
//! them, `clock` says when it reads, `told` what workers know. Routes, addresses and links are read anew, whole, a little after the kernel reports any change: a worker gets a new
//! [`Fib`] whole anyhow, and the kernel does not report every route that it removes (those of
//! a link that goes down, or whose preferred source goes). Neighbours, which change one by one and all the time, follow the
//! events. Whatever was missed is found by a full reading now and then.
//!
//! IPv4 now. Policy rules beyond the default ones and VRFs are not mirrored, and that is reported.

mod clock;
mod fib;
mod mirror;
mod neighbours;
mod netlink;
mod told;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use sluice_dataplane::command::PortId;
use sluice_dataplane::egress::{Fib, Mac};

pub use self::fib::with_statics;
pub use self::mirror::{KernelMirror, MirrorError, MirrorPort, MirrorStatus};
pub use self::neighbours::NeighbourCounts;

/// What the kernel has now, where it differs from what was said before.
#[derive(Clone, Debug)]
pub enum KernelUpdate {
    /// All addresses of this machine (IPv4 now).
    LocalAddresses(BTreeSet<IpAddr>),
    /// All routes.
    Fib(Arc<Fib>),
    /// A neighbour's MAC, or that it has none (any more).
    Neighbour {
        /// Where.
        port: PortId,
        /// Its address.
        addr: Ipv4Addr,
        /// Its MAC; `None` when it is gone or does not answer.
        mac: Option<Mac>,
    },
    /// An exception interface, which stands for its port.
    PortState {
        /// Which.
        port: PortId,
        /// Its MAC.
        mac: Mac,
        /// Its MTU: bytes of an IP packet.
        mtu: u16,
        /// Whether the administrator has it up. An interface that was deleted is down.
        up: bool,
    },
    /// Everything is said that was there when the kernel was read last: once after the start, and again after each time
    /// that events were lost.
    Complete,
}
