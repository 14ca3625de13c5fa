//! Clients' addresses and ports: each connection has one that no other had before.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// The first port that clients use.
const FIRST_PORT: u16 = 1024;

/// Ports of one client.
const PORTS: u64 = 65536 - FIRST_PORT as u64;

/// An address and a port, in host order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) addr: u32,
    pub(crate) port: u16,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", Ipv4Addr::from_bits(self.addr), self.port)
    }
}

impl From<std::net::SocketAddrV4> for Endpoint {
    fn from(socket: std::net::SocketAddrV4) -> Self {
        Self {
            addr: socket.ip().to_bits(),
            port: socket.port(),
        }
    }
}

/// Clients' ends, one after the other. They repeat after as many as the network's addresses have ports.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    first: u32,
    addresses: u64,
    next: u64,
}

impl Clients {
    /// All addresses of `network`.
    pub(crate) fn new(network: Ipv4Net) -> Self {
        Self {
            first: network.network().to_bits(),
            addresses: 1 << (32 - network.prefix_len()),
            next: 0,
        }
    }

    /// How many different ends there are.
    pub(crate) fn count(&self) -> u64 {
        self.addresses * PORTS
    }

    /// The next one. Addresses follow each other in no order that anything could foresee: an odd factor permutes them.
    #[inline]
    pub(crate) fn draw(&mut self) -> Endpoint {
        let (round, place) = (self.next / self.addresses, self.next % self.addresses);
        self.next += 1;
        let place = place.wrapping_mul(0x9e37_79b9) & (self.addresses - 1);
        Endpoint {
            addr: self.first + place as u32,
            port: FIRST_PORT + (round % PORTS) as u16,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_end_comes_once_before_any_comes_again() {
        let network: Ipv4Net = "11.0.0.0/29".parse().unwrap();
        let mut clients = Clients::new(network);
        let all: Vec<Endpoint> = (0..clients.count()).map(|_| clients.draw()).collect();
        let distinct: HashSet<(u32, u16)> = all.iter().map(|end| (end.addr, end.port)).collect();
        assert_eq!(distinct.len() as u64, 8 * PORTS);
        assert!(
            all.iter()
                .all(|end| network.contains(&Ipv4Addr::from_bits(end.addr)))
        );
        assert_eq!(clients.draw(), all[0]);
    }
}
