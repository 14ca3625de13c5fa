//! Which worker a packet reaches, and which worker owns its flow (contract 4 of the design).
//!
//! A NIC spreads packets over its queues by a [`toeplitz`] hash of some of their fields and a table of queues: an [`RssPlan`] says
//! the same in software. [`plan()`] makes one for each port out of what the NIC can do and of the side that it faces. What the
//! NICs really took makes a [`Steering`], which all workers share: it tells where each kind of packet arrives, and which
//! worker owns the clients of NAT and the local ports of FULLNAT, chosen so that the packets of an owner arrive at it wherever
//! hardware can do that. Where it cannot, the owner is the same, and packets are handed over to it.
//!
//! A worker looks a packet up in its own table first. On a miss [`owner`] says, from the packet and the services, which worker's
//! connection it is; if that is another one, the packet goes there over a [`ring`], at most once. After a part of the packets has moved to
//! another worker, the new owner asks those before it in turn, each once, for connections that it does not know.
//!
//! Nothing here knows DPDK: all of it holds for a NIC made of software as well.

mod bell;
pub mod check;
pub mod classes;
mod former;
pub mod note;
pub mod owner;
pub mod plan;
pub mod ring;
pub mod rss;
pub mod sample;
mod steering;
pub mod toeplitz;

pub use plan::{Obstacle, PortNeeds, PortPlan, RssCapabilities, Side, plan};
pub use rss::{Addresses, HashTypes, Packet, RssPlan, Transport};
pub use steering::{Spread, Steering};
