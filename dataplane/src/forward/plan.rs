//! What each forwarding method does to a packet, as data: everything that the methods differ in is here.

use std::net::Ipv4Addr;

use crate::conn::{Conn, Delta, Direction, Ends};
use crate::packet::ipv4::Ipv4;
use crate::service::Method;

/// What is to be done to a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// New source and destination, and what they add to checksums; `None` where addresses stay.
    pub(crate) translation: Option<Translation>,
    /// Whether it is wrapped in another IP packet.
    pub(crate) tunnel: bool,
    /// Which way it goes.
    pub(crate) direction: Direction,
    /// The address it is routed to.
    pub(crate) to: Ipv4Addr,
}

/// A packet's ends after translation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Translation {
    pub(crate) ends: Ends,
    pub(crate) delta: Delta,
}

/// Bytes that a tunnel adds.
pub(crate) const TUNNEL_OVERHEAD: u16 = Ipv4::LEN as u16;

impl Translation {
    /// For a packet of `conn`, a translated connection, that goes `direction`.
    #[inline(always)]
    pub(super) fn new(conn: &Conn, direction: Direction) -> Self {
        Self {
            ends: conn.leaves_as(direction),
            delta: conn.delta(direction),
        }
    }
}

impl Plan {
    /// For a packet of `conn` that goes `direction`.
    pub(crate) fn new(conn: &Conn, direction: Direction) -> Self {
        let to = match direction {
            Direction::ToServer => conn.server().addr,
            Direction::ToClient => conn.client().addr,
        };
        Self {
            translation: conn.translated().then(|| Translation::new(conn, direction)),
            tunnel: conn.method() == Method::Tun && direction == Direction::ToServer,
            direction,
            to,
        }
    }

    /// Bytes that it grows by.
    pub(crate) fn overhead(&self) -> u16 {
        if self.tunnel { TUNNEL_OVERHEAD } else { 0 }
    }
}
