//! What each forwarding method does to a packet, as data: everything that the methods differ in is here.

use std::net::Ipv4Addr;

use crate::conn::{Conn, Direction};
use crate::packet::ipv4::Ipv4;
use crate::service::Method;

/// What is to be done to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The address it is routed to.
    pub(crate) to: Ipv4Addr,
    /// New source address and port.
    pub(crate) source: Option<(Ipv4Addr, u16)>,
    /// New destination address and port.
    pub(crate) destination: Option<(Ipv4Addr, u16)>,
    /// Whether it is wrapped in another IP packet.
    pub(crate) tunnel: bool,
    /// Whether it goes to the real server.
    pub(crate) to_server: bool,
    /// Who complains of it: the virtual address; for a server's packets whatever address leads to the server.
    pub(crate) complainant: Option<Ipv4Addr>,
}

impl Plan {
    /// For a packet of `conn` that goes `direction`.
    #[inline]
    pub(crate) fn new(conn: &Conn, direction: Direction) -> Self {
        let vip = (conn.client.dst, conn.client.dst_port);
        let client = (conn.client.src, conn.client.src_port);
        match direction {
            Direction::ToServer => {
                let translated = matches!(conn.method, Method::Nat | Method::FullNat);
                Self {
                    to: conn.server.0,
                    source: conn.local,
                    destination: translated.then_some(conn.server),
                    tunnel: conn.method == Method::Tun,
                    to_server: true,
                    complainant: Some(vip.0),
                }
            }
            Direction::ToClient => {
                let translated = matches!(conn.method, Method::Nat | Method::FullNat);
                Self {
                    to: client.0,
                    source: translated.then_some(vip),
                    destination: conn.local.map(|_| client),
                    tunnel: false,
                    to_server: false,
                    complainant: None,
                }
            }
        }
    }

    /// Whether addresses or ports change.
    #[inline]
    pub(crate) fn translates(&self) -> bool {
        self.source.is_some() || self.destination.is_some()
    }

    /// Bytes that it grows by.
    #[inline]
    pub(crate) fn overhead(&self) -> u16 {
        if self.tunnel { Ipv4::LEN as u16 } else { 0 }
    }
}
