//! What each forwarding method does to a packet, as data: everything that the methods differ in is here.

use std::net::Ipv4Addr;

use crate::conn::{Conn, Delta, Direction, Ends};
use crate::egress::Treatment;
use crate::packet::ipv4::Ipv4;

/// What is to be done to a packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// New source and destination, and what they add to checksums; `None` where addresses stay.
    pub(crate) translation: Option<Translation>,
    /// What else.
    pub(crate) treatment: Treatment,
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
const TUNNEL_OVERHEAD: u16 = Ipv4::LEN as u16;

/// The smallest MTU that a tunnel may leave (RFC 791).
const SMALLEST_MTU: u16 = 68;

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
        let treatment = Treatment::of(conn.method(), direction);
        Self {
            translation: conn.translated().then(|| Translation::new(conn, direction)),
            treatment,
            direction,
            to,
        }
    }

    /// Bytes of an IP packet that a link with this MTU has room for; `None` where a tunnel leaves too few for IPv4.
    pub(crate) fn room(&self, mtu: u16) -> Option<u16> {
        match self.treatment {
            Treatment::Encapsulate => mtu.checked_sub(TUNNEL_OVERHEAD),
            Treatment::Readdress | Treatment::Translate => Some(mtu),
        }
        .filter(|room| *room >= SMALLEST_MTU)
    }
}
