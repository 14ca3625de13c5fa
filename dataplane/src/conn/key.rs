//! What identifies a connection in a packet.

use std::fmt;
use std::net::Ipv4Addr;

use crate::service::Protocol;

/// Protocol, addresses and ports as a packet shows them.
///
/// Laid out as two [`super::Endpoint`]s and the protocol, so that a connection's ends compare with it in a word or two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FlowKey {
    /// Source address.
    pub src: Ipv4Addr,
    /// Source port.
    pub src_port: u16,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Destination port.
    pub dst_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
}

/// Which way a packet of a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// From the client to the real server.
    ToServer = 0,
    /// From the real server to the client.
    ToClient = 1,
}

impl FlowKey {
    /// The key of a packet that answers this one.
    pub fn reversed(self) -> Self {
        Self {
            protocol: self.protocol,
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
        }
    }

    /// All of it in two words, for hashing.
    #[inline]
    pub fn words(self) -> (u64, u64) {
        let addresses = u64::from(self.src.to_bits()) << 32 | u64::from(self.dst.to_bits());
        let ports = u64::from(self.src_port) << 16 | u64::from(self.dst_port);
        (addresses, ports << 8 | u64::from(self.protocol.number()))
    }
}

impl fmt::Display for FlowKey {
    /// `TCP 198.51.100.7:34567 -> 10.0.0.1:80`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            protocol,
            src,
            dst,
            src_port,
            dst_port,
        } = self;
        write!(
            f,
            "{} {src}:{src_port} -> {dst}:{dst_port}",
            protocol.name()
        )
    }
}
