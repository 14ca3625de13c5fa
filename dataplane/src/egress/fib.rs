//! Routes: which port and next hop an address is reached by.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use prefix_trie::PrefixMap;

use crate::command::PortId;

/// The main routing table for IPv4: longest prefix wins. Built by control, shared read-only.
#[derive(Clone, Debug, Default)]
pub struct Fib {
    routes: PrefixMap<Ipv4Net, Route>,
}

/// Where packets to a prefix go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Out of one of our ports.
    Via {
        /// Which.
        port: PortId,
        /// The next hop; `None` when the destination is on the link itself.
        gateway: Option<Ipv4Addr>,
        /// The address that packets of our own get as source.
        source: Ipv4Addr,
        /// Bytes of an IP packet that fit, when the route says; else the port's MTU holds.
        mtu: Option<u16>,
    },
    /// To an address of this machine.
    Local,
    /// Out of an interface that is none of ours: the kernel's business.
    Kernel,
    /// Nowhere (blackhole, unreachable, prohibit).
    Unreachable,
}

impl Fib {
    /// Adds or replaces a route.
    pub fn insert(&mut self, prefix: Ipv4Net, route: Route) {
        self.routes.insert(prefix.trunc(), route);
    }

    /// The most specific route to `addr`.
    pub fn lookup(&self, addr: Ipv4Addr) -> Option<Route> {
        self.routes
            .get_lpm(&Ipv4Net::from(addr))
            .map(|(_, route)| *route)
    }

    /// All routes, in order of prefix.
    pub fn iter(&self) -> impl Iterator<Item = (Ipv4Net, Route)> + '_ {
        self.routes.iter().map(|(prefix, route)| (prefix, *route))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins() {
        let mut fib = Fib::default();
        fib.insert("0.0.0.0/0".parse().unwrap(), Route::Unreachable);
        fib.insert("10.0.0.0/8".parse().unwrap(), Route::Kernel);
        fib.insert("10.1.0.1/32".parse().unwrap(), Route::Local);
        assert_eq!(fib.lookup(Ipv4Addr::new(10, 1, 0, 1)), Some(Route::Local));
        assert_eq!(fib.lookup(Ipv4Addr::new(10, 1, 0, 2)), Some(Route::Kernel));
        assert_eq!(
            fib.lookup(Ipv4Addr::new(11, 0, 0, 1)),
            Some(Route::Unreachable)
        );
    }
}
