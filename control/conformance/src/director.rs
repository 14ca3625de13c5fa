//! The director as the README describes it: two interfaces, addresses, neighbours, routes. What a trace's header says,
//! in one place for all who need it.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use sluice_dataplane::egress::Mac;

use crate::trace::{Header, Side};

/// MTU of an interface that the header says nothing of.
const DEFAULT_MTU: u16 = 1500;
/// Where everything lies that is on no link: the next hop on the client side.
const GATEWAY_MAC: Mac = Mac([0x02, 0, 0, 0, 0xfe, 0x01]);
/// Senders on the server side that are no neighbours (routers there).
const STRANGER_MAC: Mac = Mac([0x02, 0, 0, 0, 0xfe, 0x02]);

/// Who the director is and whom it knows.
#[derive(Clone, Debug)]
pub struct Director {
    vips: Vec<IpAddr>,
    marked: Vec<IpNet>,
    gateway: Ipv4Addr,
    mtu: [u16; 2],
    servers: Vec<(IpAddr, Mac)>,
}

impl Director {
    /// The director of a trace.
    pub fn new(header: &Header) -> Self {
        let is_vip = |addr: &Ipv4Addr| header.vips.contains(&IpAddr::V4(*addr));
        let gateway = (1..254)
            .rev()
            .map(|last| Ipv4Addr::new(10, 0, 0, last))
            .find(|addr| !is_vip(addr));
        Self {
            vips: header.vips.clone(),
            marked: header.fwmark.iter().map(|prefix| prefix.dst).collect(),
            gateway: gateway.unwrap_or(Ipv4Addr::new(10, 0, 0, 253)),
            mtu: [header.cl_mtu.unwrap_or(DEFAULT_MTU), header.mtu],
            servers: header
                .rs
                .iter()
                .map(|addr| (*addr, server_mac(*addr)))
                .collect(),
        }
    }

    /// Our MAC on that side.
    pub fn mac(&self, side: Side) -> Mac {
        match side {
            Side::Client => Mac([0x02, 0, 0, 0, 0, 0xc1]),
            Side::Server => Mac([0x02, 0, 0, 0, 0, 0x51]),
        }
    }

    /// Our address and the prefix of the link on that side.
    pub fn link(&self, side: Side) -> (Ipv4Addr, Ipv4Net) {
        let (addr, network) = match side {
            Side::Client => (Ipv4Addr::new(10, 0, 0, 254), Ipv4Addr::new(10, 0, 0, 0)),
            Side::Server => (
                Ipv4Addr::new(192, 168, 1, 254),
                Ipv4Addr::new(192, 168, 1, 0),
            ),
        };
        (addr, Ipv4Net::new_assert(network, 24))
    }

    /// Bytes of an IP packet that fit on that side.
    pub fn mtu(&self, side: Side) -> u16 {
        self.mtu[side as usize]
    }

    /// The next hop for all that is on no link.
    pub fn gateway(&self) -> Ipv4Addr {
        self.gateway
    }

    /// All IPv4 prefixes whose addresses are the director's own.
    pub fn local(&self) -> impl Iterator<Item = Ipv4Net> + '_ {
        let links = [Side::Client, Side::Server].map(|side| IpAddr::from(self.link(side).0));
        let addresses = links.into_iter().chain(self.vips.iter().copied());
        addresses
            .map(IpNet::from)
            .chain(self.marked.iter().copied())
            .filter_map(|prefix| match prefix {
                IpNet::V4(v4) => Some(v4),
                IpNet::V6(_) => None,
            })
    }

    /// Whether packets to `addr` have arrived.
    pub fn owns(&self, addr: IpAddr) -> bool {
        self.vips.contains(&addr)
            || self.marked.iter().any(|prefix| prefix.contains(&addr))
            || match addr {
                IpAddr::V4(v4) => self.is_interface(v4),
                IpAddr::V6(v6) => INTERFACES6.contains(&v6.to_string().as_str()),
            }
    }

    /// Whether `addr` is one of an interface rather than a VIP: the source of what the director itself sends.
    pub fn is_interface(&self, addr: Ipv4Addr) -> bool {
        [Side::Client, Side::Server]
            .iter()
            .any(|side| self.link(*side).0 == addr)
    }

    /// Everybody whose MAC is known.
    pub fn neighbours(&self) -> impl Iterator<Item = (Side, IpAddr, Mac)> + '_ {
        let gateway = (Side::Client, IpAddr::from(self.gateway), GATEWAY_MAC);
        let servers = self.servers.iter();
        std::iter::once(gateway).chain(servers.map(|(addr, mac)| (Side::Server, *addr, *mac)))
    }

    /// Who answers to that MAC.
    pub fn neighbour_at(&self, mac: Mac) -> Option<IpAddr> {
        self.neighbours()
            .find(|(_, _, known)| *known == mac)
            .map(|(_, addr, _)| addr)
    }

    /// Who put a packet from `src` on the wire of `side`.
    pub fn sender(&self, side: Side, src: Option<IpAddr>) -> Mac {
        match side {
            Side::Client => GATEWAY_MAC,
            Side::Server => {
                let known = self.servers.iter().find(|(addr, _)| Some(*addr) == src);
                known.map_or(STRANGER_MAC, |(_, mac)| *mac)
            }
        }
    }

    /// Where a packet to `addr` goes out, and to which MAC; `None` where nobody is known to answer.
    pub fn route(&self, addr: Ipv4Addr) -> Option<(Side, Mac)> {
        let on_link = [Side::Client, Side::Server]
            .into_iter()
            .find(|side| self.link(*side).1.contains(&addr));
        let (side, next_hop) = match on_link {
            Some(side) => (side, addr),
            None => (Side::Client, self.gateway),
        };
        let mut on_side = self.neighbours().filter(|(where_, _, _)| *where_ == side);
        on_side
            .find(|(_, neighbour, _)| *neighbour == IpAddr::V4(next_hop))
            .map(|(_, _, mac)| (side, mac))
    }
}

/// The director's IPv6 addresses on its links.
const INTERFACES6: [&str; 2] = ["2001:db8:c::fe", "2001:db8:5::fe"];

/// 02:01 and the IPv4 address, 02:06 and the end of the IPv6 address.
fn server_mac(addr: IpAddr) -> Mac {
    match addr {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            Mac([0x02, 0x01, a, b, c, d])
        }
        IpAddr::V6(v6) => {
            let [.., a, b, c, d] = v6.octets();
            Mac([0x02, 0x06, a, b, c, d])
        }
    }
}
