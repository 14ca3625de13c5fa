//! One connection.

use std::net::Ipv4Addr;

use super::key::{Direction, FlowKey};
use super::state::TcpState;
use crate::service::{Method, Protocol, RsId, ServiceId};
use crate::time::{Span, Ticks};

/// A connection between a client and a real server by way of a virtual address.
#[derive(Clone, Copy, Debug)]
pub struct Conn {
    /// The client's packet: client to virtual address.
    pub client: FlowKey,
    /// Where the client's packets go: the real server's address, and its port after translation.
    pub server: (Ipv4Addr, u16),
    /// FULLNAT: the source that the server sees.
    pub local: Option<(Ipv4Addr, u16)>,
    /// How packets get to the server; stays when the server's method is edited.
    pub method: Method,
    /// TCP state; [`TcpState::None`] for UDP.
    pub state: TcpState,
    /// Further facts.
    pub flags: ConnFlags,
    /// The real server.
    pub rs: RsId,
    /// The service that it was scheduled for.
    pub service: ServiceId,
    /// Last packet, either direction.
    pub last_seen: Ticks,
    /// How long it lives after that.
    pub timeout: Span,
}

/// Facts about a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnFlags {
    /// No packet from the server was seen yet: client packets follow the input-only state table. Set at first
    /// for DR and TUN.
    pub no_output: bool,
    /// It counts as active (`SEMANTICS.md` section 3).
    pub active: bool,
}

impl Conn {
    /// When it expires if no packet comes.
    #[inline]
    pub fn deadline(&self) -> Ticks {
        self.last_seen + self.timeout
    }

    /// What a packet of direction `direction` shows.
    #[inline]
    pub fn key(&self, direction: Direction) -> FlowKey {
        match direction {
            Direction::ToServer => self.client,
            Direction::ToClient => self.server_key(),
        }
    }

    /// What the server's packets show: from the server for NAT and FULLNAT, from the virtual address for DR and TUN
    /// (`SEMANTICS.md` section 1).
    fn server_key(&self) -> FlowKey {
        let (src, src_port) = match self.method {
            Method::Nat | Method::FullNat => self.server,
            Method::Dr | Method::Tun => (self.client.dst, self.client.dst_port),
        };
        let (dst, dst_port) = self
            .local
            .unwrap_or((self.client.src, self.client.src_port));
        FlowKey {
            protocol: self.protocol(),
            src,
            dst,
            src_port,
            dst_port,
        }
    }

    /// Its protocol.
    #[inline]
    pub fn protocol(&self) -> Protocol {
        self.client.protocol
    }
}
