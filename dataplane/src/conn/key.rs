//! What identifies a connection in a packet.

use std::fmt;
use std::net::Ipv4Addr;

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Endpoint;
use crate::service::Protocol;

/// Protocol, addresses and ports as a packet shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    pub fn words(self) -> (u64, u64) {
        let addresses = u64::from(self.src.to_bits()) << 32 | u64::from(self.dst.to_bits());
        let ports = u64::from(self.src_port) << 16 | u64::from(self.dst_port);
        (addresses, ports << 8 | u64::from(self.protocol.number()))
    }

    /// Where it comes from and goes to, as it lies in a packet.
    pub fn ends(&self) -> Ends {
        Ends::new(
            Endpoint::new(self.src, self.src_port),
            Endpoint::new(self.dst, self.dst_port),
        )
    }
}

/// Addresses and ports of a packet without IP options, viewed where they lie in it: the end of the IPv4 header and the
/// beginning of the TCP or UDP header. A connection stores what its packets show in this form, so that a packet is compared with it,
/// and changed by it, in a word or two.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct Ends {
    src: U32,
    dst: U32,
    src_port: U16,
    dst_port: U16,
}

impl Ends {
    /// From one endpoint to another.
    pub fn new(src: Endpoint, dst: Endpoint) -> Self {
        Self {
            src: U32::new(src.addr.to_bits()),
            dst: U32::new(dst.addr.to_bits()),
            src_port: U16::new(src.port),
            dst_port: U16::new(dst.port),
        }
    }

    /// The source.
    #[inline]
    pub fn src(&self) -> Endpoint {
        Endpoint::new(Ipv4Addr::from_bits(self.src.get()), self.src_port.get())
    }

    /// The destination.
    #[inline]
    pub fn dst(&self) -> Endpoint {
        Endpoint::new(Ipv4Addr::from_bits(self.dst.get()), self.dst_port.get())
    }

    /// Those of a packet that answers.
    #[inline]
    pub fn reversed(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            src_port: self.dst_port,
            dst_port: self.src_port,
        }
    }

    /// With a protocol, decoded.
    pub fn key(&self, protocol: Protocol) -> FlowKey {
        let (src, dst) = (self.src(), self.dst());
        FlowKey {
            src: src.addr,
            src_port: src.port,
            dst: dst.addr,
            dst_port: dst.port,
            protocol,
        }
    }

    /// All of it in two words, for hashing and comparing.
    #[inline(always)]
    pub(super) fn words(&self) -> (u64, u32) {
        let [a, b, c, d, e, f, g, h, i, j, k, l]: [u8; 12] = zerocopy::transmute!(*self);
        (
            u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
        )
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
