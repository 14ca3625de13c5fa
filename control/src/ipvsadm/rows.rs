//! Services and real servers as listings need them, and the order in which they come.

use std::cmp::Ordering;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::command::{Forward, Mask, Persistence, SchedFlags, ServiceId};
use crate::api::{self, Counters, Rates};

/// A service with its real servers.
#[derive(Clone, Debug)]
pub(super) struct ServiceRow {
    pub(super) id: ServiceId,
    pub(super) scheduler: String,
    pub(super) sched_flags: SchedFlags,
    pub(super) persistence: Option<Persistence>,
    pub(super) one_packet: bool,
    pub(super) engine: Option<String>,
    pub(super) laddrs: Vec<Ipv4Addr>,
    pub(super) stats: Counters,
    pub(super) rates: Rates,
    /// In kernel order, unless sorted.
    pub(super) servers: Vec<ServerRow>,
}

/// A real server.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerRow {
    pub(super) address: SocketAddr,
    pub(super) forward: Forward,
    pub(super) weight: u32,
    pub(super) upper_threshold: u32,
    pub(super) lower_threshold: u32,
    pub(super) active: u64,
    pub(super) inactive: u64,
    /// Persistence templates.
    pub(super) templates: u64,
    pub(super) stats: Counters,
    pub(super) rates: Rates,
}

impl From<api::Service> for ServiceRow {
    fn from(service: api::Service) -> Self {
        Self {
            id: service.service.into(),
            scheduler: service.scheduler,
            sched_flags: SchedFlags::listed(&service.scheduler_flags),
            persistence: (service.persistence_s > 0).then(|| Persistence {
                timeout_s: service.persistence_s,
                mask: service
                    .persistence_mask
                    .as_deref()
                    .and_then(|mask| match mask.parse() {
                        Ok(netmask) => Some(Mask::V4(netmask)),
                        Err(_) => mask.parse().ok().map(Mask::V6),
                    }),
            }),
            one_packet: service.one_packet,
            engine: service.persistence_engine,
            laddrs: service.laddrs,
            stats: service.stats,
            rates: service.rates,
            servers: service.real_servers.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<api::RealServer> for ServerRow {
    fn from(server: api::RealServer) -> Self {
        Self {
            address: server.address,
            forward: match server.method {
                api::Method::Nat => Forward::Masq,
                api::Method::Dr => Forward::Route,
                api::Method::Tun => Forward::Tunnel(server.tunnel),
                api::Method::FullNat => Forward::FullNat,
            },
            weight: server.weight,
            upper_threshold: server.upper_threshold,
            lower_threshold: server.lower_threshold,
            active: server.active,
            inactive: server.inactive,
            templates: server.templates,
            stats: server.stats,
            rates: server.rates,
        }
    }
}

impl From<api::ServiceRef> for ServiceId {
    fn from(service: api::ServiceRef) -> Self {
        match service {
            api::ServiceRef::Address { protocol, address } => Self::Address { protocol, address },
            api::ServiceRef::Mark { mark, ipv6 } => Self::Mark { mark, ipv6 },
        }
    }
}

/// Sorts as `ipvsadm -L` does unless told `--nosort`: services by mark, family, protocol, address, port, and each one's real
/// servers by address and port.
pub(super) fn sort(services: &mut Vec<ServiceRow>) {
    for service in services.iter_mut() {
        let servers = std::mem::take(&mut service.servers);
        service.servers = merge_sort(servers, &|a, b| by_address(a.address, b.address));
    }
    *services = merge_sort(std::mem::take(services), &|a, b| by_service(a.id, b.id));
}

fn by_service(a: ServiceId, b: ServiceId) -> Ordering {
    let mark = |id| match id {
        ServiceId::Mark { mark, .. } => mark,
        ServiceId::Address { .. } => 0,
    };
    signed_difference(mark(a), mark(b))
        .then_with(|| a.is_ipv6().cmp(&b.is_ipv6()))
        .then_with(|| match (a, b) {
            (
                ServiceId::Address {
                    protocol: a_protocol,
                    address: a,
                },
                ServiceId::Address {
                    protocol: b_protocol,
                    address: b,
                },
            ) => a_protocol
                .number()
                .cmp(&b_protocol.number())
                .then_with(|| by_address(a, b)),
            _ => Ordering::Equal,
        })
}

fn by_address(a: SocketAddr, b: SocketAddr) -> Ordering {
    match (a.ip(), b.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => signed_difference(a.to_bits(), b.to_bits()),
        (a, b) => a.cmp(&b),
    }
    .then_with(|| a.port().cmp(&b.port()))
}

/// ipvsadm subtracts and looks at the sign, in 32 bits: 10.0.0.1 comes after 192.168.1.3, and three addresses can be in a circle.
fn signed_difference(a: u32, b: u32) -> Ordering {
    a.wrapping_sub(b).cast_signed().cmp(&0)
}

/// The merge sort of glibc's qsort: halves, the first the smaller, taking the left one of equals. Where the comparison is no order
/// the result depends on just this. (The standard library's sort may panic then.)
fn merge_sort<T>(mut items: Vec<T>, compare: &dyn Fn(&T, &T) -> Ordering) -> Vec<T> {
    if items.len() < 2 {
        return items;
    }
    let right = items.split_off(items.len() / 2);
    let mut left = merge_sort(items, compare).into_iter().peekable();
    let mut right = merge_sort(right, compare).into_iter().peekable();
    let mut merged = Vec::with_capacity(left.len() + right.len());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let next = if compare(a, b) == Ordering::Greater {
            right.next()
        } else {
            left.next()
        };
        merged.extend(next);
    }
    merged.extend(left);
    merged.extend(right);
    merged
}

#[cfg(test)]
mod tests {
    use super::super::command::Protocol;
    use super::*;

    fn sorted(addresses: &[&str]) -> Vec<String> {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        let sorted = merge_sort(addresses, &|a: &SocketAddr, b: &SocketAddr| {
            by_address(*a, *b)
        });
        sorted.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_compare_by_signed_difference() {
        assert_eq!(
            sorted(&[
                "10.0.0.1:80",
                "192.168.1.3:80",
                "192.168.1.2:81",
                "192.168.1.2:80"
            ]),
            [
                "192.168.1.2:80",
                "192.168.1.2:81",
                "192.168.1.3:80",
                "10.0.0.1:80"
            ]
        );
    }

    #[test]
    fn addresses_in_a_circle_are_sorted_somehow_without_panic() {
        let circle = ["10.0.0.1:1", "100.0.0.1:1", "200.0.0.1:1"];
        let many: Vec<&str> = circle.iter().copied().cycle().take(100).collect();
        assert_eq!(sorted(&many).len(), 100);
    }

    #[test]
    fn services_come_by_mark_family_protocol_address_and_port() {
        let address = |protocol, text: &str| ServiceId::Address {
            protocol,
            address: text.parse().unwrap(),
        };
        let mark = |mark, ipv6| ServiceId::Mark { mark, ipv6 };
        let order = [
            mark(u32::MAX, false),
            address(Protocol::Tcp, "10.0.0.1:80"),
            address(Protocol::Tcp, "10.0.0.1:443"),
            address(Protocol::Tcp, "10.0.0.2:0"),
            address(Protocol::Udp, "10.0.0.1:53"),
            address(Protocol::Sctp, "10.0.0.1:9899"),
            address(Protocol::Tcp, "[2001:db8::1]:80"),
            mark(5, false),
            mark(6, false),
            mark(6, true),
        ];
        let reversed = order.iter().rev().copied().collect();
        assert_eq!(merge_sort(reversed, &|a, b| by_service(*a, *b)), order);
    }
}
