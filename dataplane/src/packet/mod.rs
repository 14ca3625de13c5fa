//! Header views, one file a protocol. A view lies over the bytes of a frame: nothing is copied, and network byte
//! order stays inside.

pub mod checksum;
pub mod ethernet;
pub mod icmp;
pub mod ipv4;
pub mod sctp;
pub mod tcp;
pub mod udp;
pub(crate) mod usual;
