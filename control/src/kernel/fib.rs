//! From the kernel's routes and addresses to the workers' [`Fib`].

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use libc::RT_SCOPE_LINK;
use prefix_trie::PrefixMap;
use sluice_dataplane::command::PortId;
use sluice_dataplane::egress::{Fib, Route};

/// An IPv4 address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Of which interface.
    pub(super) interface: u32,
    /// The address.
    pub(super) local: Ipv4Addr,
    /// What is on the link with it.
    pub(super) net: Ipv4Net,
    /// Another address of the same net came first.
    pub(super) secondary: bool,
    /// `RT_SCOPE_*`; the larger, the nearer.
    pub(super) scope: u8,
}

/// A route of the table main or local.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KernelRoute {
    /// Whether it is of the table local, which comes first.
    pub(super) in_local: bool,
    /// Where to.
    pub(super) prefix: Ipv4Net,
    /// The lowest wins.
    pub(super) metric: u32,
    /// `RT_SCOPE_*`.
    pub(super) scope: u8,
    /// What is done.
    pub(super) target: Target,
    /// The source that the route asks for.
    pub(super) source: Option<Ipv4Addr>,
    /// The MTU that the route says.
    pub(super) mtu: Option<u16>,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Out of an interface.
    Via {
        /// Which.
        interface: u32,
        /// To whom there.
        gateway: Option<Ipv4Addr>,
    },
    /// In a way that workers cannot (an encapsulation, an IPv6 next hop).
    KernelOnly,
    /// To this machine.
    Local,
    /// Nowhere.
    Unreachable,
}

/// The routes of `base` with `statics` on top: where both have the same prefix, the static one holds.
pub fn with_statics(base: &Fib, statics: impl IntoIterator<Item = (Ipv4Net, Route)>) -> Fib {
    let mut fib = base.clone();
    for (prefix, route) in statics {
        fib.insert(prefix, route);
    }
    fib
}

/// The workers' table. `routes` and `addresses` in the order in which the kernel lists them; `ports` by interface index.
pub(super) fn build(
    routes: &[KernelRoute],
    addresses: &[Address],
    ports: &BTreeMap<u32, PortId>,
) -> Fib {
    let mut fib = Fib::default();
    let mut local = PrefixMap::<Ipv4Net, ()>::new();
    for route in routes.iter().filter(|route| route.in_local) {
        if route.target == Target::Local {
            local.insert(route.prefix, ());
            fib.insert(route.prefix, Route::Local);
        }
    }
    for route in best(routes).into_values() {
        // The table local is asked first: what it has hides even longer prefixes in main.
        if local.get_lpm(&route.prefix).is_none() {
            fib.insert(route.prefix, translate(route, addresses, ports));
        }
    }
    fib
}

/// Of each prefix in main the route with the lowest metric, of several such the first.
fn best(routes: &[KernelRoute]) -> BTreeMap<Ipv4Net, &KernelRoute> {
    let mut best: BTreeMap<Ipv4Net, &KernelRoute> = BTreeMap::new();
    for route in routes.iter().filter(|route| !route.in_local) {
        best.entry(route.prefix)
            .and_modify(|known| {
                if route.metric < known.metric {
                    *known = route;
                }
            })
            .or_insert(route);
    }
    best
}

fn translate(route: &KernelRoute, addresses: &[Address], ports: &BTreeMap<u32, PortId>) -> Route {
    match route.target {
        Target::Local => Route::Local,
        Target::Unreachable => Route::Unreachable,
        Target::KernelOnly => Route::Kernel,
        Target::Via { interface, gateway } => match ports.get(&interface) {
            None => Route::Kernel,
            Some(&port) => Route::Via {
                port,
                gateway,
                source: route
                    .source
                    .unwrap_or_else(|| source(addresses, interface, gateway, route.scope)),
                mtu: route.mtu,
            },
        },
    }
}

/// The source address that the kernel takes where a route names none: of the interface's primary addresses of sufficient
/// scope the one in the gateway's net, or else the first; without any, the first of another interface; 0.0.0.0 if there
/// is none at all.
fn source(addresses: &[Address], interface: u32, gateway: Option<Ipv4Addr>, scope: u8) -> Ipv4Addr {
    let primary = || {
        addresses
            .iter()
            .filter(|a| !a.secondary && a.scope <= scope)
    };
    let here = || primary().filter(|a| a.interface == interface);
    gateway
        .and_then(|gateway| here().find(|a| a.net.contains(&gateway)))
        .or_else(|| here().next())
        .or_else(|| primary().find(|a| a.scope != RT_SCOPE_LINK))
        .map_or(Ipv4Addr::UNSPECIFIED, |a| a.local)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIVERSE: u8 = libc::RT_SCOPE_UNIVERSE;
    const CL0: u32 = 5;
    const ETH0: u32 = 2;

    fn ports() -> BTreeMap<u32, PortId> {
        BTreeMap::from([(CL0, PortId(3))])
    }

    fn address(interface: u32, net: &str, scope: u8) -> Address {
        let net: Ipv4Net = net.parse().unwrap();
        Address {
            interface,
            local: net.addr(),
            net,
            secondary: false,
            scope,
        }
    }

    fn route(prefix: &str, target: Target) -> KernelRoute {
        KernelRoute {
            in_local: false,
            prefix: prefix.parse().unwrap(),
            metric: 0,
            scope: UNIVERSE,
            target,
            source: None,
            mtu: None,
        }
    }

    fn via(interface: u32, gateway: &str) -> Target {
        Target::Via {
            interface,
            gateway: Some(gateway.parse().unwrap()),
        }
    }

    fn lookup(fib: &Fib, addr: &str) -> Option<Route> {
        fib.lookup(addr.parse().unwrap())
    }

    #[test]
    fn each_kind_of_route_has_its_word() {
        let routes = [
            KernelRoute {
                in_local: true,
                ..route("10.0.0.1/32", Target::Local)
            },
            KernelRoute {
                mtu: Some(1400),
                ..route("0.0.0.0/0", via(CL0, "10.0.0.254"))
            },
            route("192.0.2.0/24", via(ETH0, "10.9.0.1")),
            route("198.51.100.0/24", Target::Unreachable),
            route("203.0.113.0/24", Target::KernelOnly),
        ];
        let addresses = [address(CL0, "10.0.0.1/24", UNIVERSE)];
        let fib = build(&routes, &addresses, &ports());
        assert_eq!(lookup(&fib, "10.0.0.1"), Some(Route::Local));
        assert_eq!(lookup(&fib, "192.0.2.1"), Some(Route::Kernel));
        assert_eq!(lookup(&fib, "198.51.100.1"), Some(Route::Unreachable));
        assert_eq!(lookup(&fib, "203.0.113.1"), Some(Route::Kernel));
        let default = Route::Via {
            port: PortId(3),
            gateway: Some(Ipv4Addr::new(10, 0, 0, 254)),
            source: Ipv4Addr::new(10, 0, 0, 1),
            mtu: Some(1400),
        };
        assert_eq!(lookup(&fib, "8.8.8.8"), Some(default));
    }

    #[test]
    fn the_lowest_metric_wins_and_of_equals_the_first() {
        let routes = [
            KernelRoute {
                metric: 20,
                ..route("10.1.0.0/16", via(ETH0, "10.9.0.1"))
            },
            KernelRoute {
                metric: 10,
                ..route("10.1.0.0/16", Target::Unreachable)
            },
            KernelRoute {
                metric: 10,
                ..route("10.1.0.0/16", Target::KernelOnly)
            },
        ];
        let fib = build(&routes, &[], &ports());
        assert_eq!(lookup(&fib, "10.1.2.3"), Some(Route::Unreachable));
    }

    #[test]
    fn the_table_local_hides_longer_prefixes_of_main() {
        let routes = [
            KernelRoute {
                in_local: true,
                ..route("10.7.0.0/24", Target::Local)
            },
            route("10.7.0.128/25", Target::Unreachable),
            route("10.7.0.0/16", Target::Unreachable),
        ];
        let fib = build(&routes, &[], &ports());
        assert_eq!(lookup(&fib, "10.7.0.200"), Some(Route::Local));
        assert_eq!(lookup(&fib, "10.7.1.1"), Some(Route::Unreachable));
    }

    #[test]
    fn the_source_is_chosen_as_the_kernel_does() {
        let gateway = |s: &str| Some(s.parse().unwrap());
        let mut addresses = vec![
            address(ETH0, "172.16.0.1/24", RT_SCOPE_LINK),
            address(ETH0, "172.17.0.1/24", UNIVERSE),
            address(CL0, "10.0.0.1/24", RT_SCOPE_LINK),
            address(CL0, "10.0.1.1/24", UNIVERSE),
            address(CL0, "10.0.2.1/24", UNIVERSE),
        ];
        let source = |addresses: &[Address], gateway, scope| {
            super::source(addresses, CL0, gateway, scope).to_string()
        };
        assert_eq!(source(&addresses, None, RT_SCOPE_LINK), "10.0.0.1");
        assert_eq!(source(&addresses, None, UNIVERSE), "10.0.1.1");
        assert_eq!(
            source(&addresses, gateway("10.0.2.9"), UNIVERSE),
            "10.0.2.1"
        );
        assert_eq!(
            source(&addresses, gateway("10.9.9.9"), UNIVERSE),
            "10.0.1.1"
        );
        addresses[4].secondary = true;
        assert_eq!(
            source(&addresses, gateway("10.0.2.9"), UNIVERSE),
            "10.0.1.1"
        );
        assert_eq!(source(&addresses[..2], None, RT_SCOPE_LINK), "172.17.0.1");
        assert_eq!(source(&[], None, UNIVERSE), "0.0.0.0");
    }

    #[test]
    fn static_routes_lie_on_top() {
        let base = build(&[route("10.1.0.0/16", Target::KernelOnly)], &[], &ports());
        let fib = with_statics(
            &base,
            [
                ("10.1.0.0/16".parse().unwrap(), Route::Unreachable),
                ("10.2.0.0/16".parse().unwrap(), Route::Local),
            ],
        );
        assert_eq!(lookup(&fib, "10.1.2.3"), Some(Route::Unreachable));
        assert_eq!(lookup(&fib, "10.2.2.3"), Some(Route::Local));
    }
}
