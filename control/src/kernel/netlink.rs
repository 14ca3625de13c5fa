//! The conversation with the kernel: one socket for requests and one for notifications, so that a burst of these
//! never costs an answer.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use futures::channel::mpsc::UnboundedReceiver;
use futures::{Stream, StreamExt, TryStreamExt};
use ipnet::Ipv4Net;
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHopFlags,
    RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleFlags, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::proto::Connection;
use rtnetlink::sys::{AsyncSocket, SocketAddr};
use rtnetlink::{Handle, IpVersion, LinkUnspec, MulticastGroup};
use sluice_dataplane::egress::Mac;
use tokio::task::JoinSet;

use super::fib::{Address, KernelRoute, Target};
use super::neighbours::Standing;

/// What is mirrored now.
const FAMILY: AddressFamily = AddressFamily::Inet;

/// Priorities and tables of the rules that every namespace has.
const DEFAULT_RULES: [(u32, u8); 3] = [
    (0, libc::RT_TABLE_LOCAL),
    (32766, libc::RT_TABLE_MAIN),
    (32767, libc::RT_TABLE_DEFAULT),
];

/// Asked for the notification socket; the kernel grants what `net.core.rmem_max` allows.
const RECEIVE_BUFFER: libc::c_int = 4 << 20;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) mac: Option<Mac>,
    pub(super) mtu: u32,
    pub(super) up: bool,
    pub(super) is_vrf: bool,
}

/// Everything but neighbours, as read at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Picture {
    pub(super) links: Vec<Link>,
    pub(super) addresses: Vec<Address>,
    pub(super) routes: Vec<KernelRoute>,
    /// Rules beyond the default ones, described.
    pub(super) rules: Vec<String>,
}

/// A neighbour of an interface.
pub(super) type LinkNeighbour = (u32, Ipv4Addr);

/// What the kernel reports.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// Links, routes or rules changed.
    Changed,
    /// Addresses changed.
    Addresses,
    /// A neighbour changed.
    Neighbour(LinkNeighbour, Standing),
    /// Some notifications were lost.
    Lost,
}

/// The open sockets and the tasks that serve them. Dropping it closes all.
pub(super) struct Netlink {
    handle: Handle,
    notices: UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>,
    _connections: JoinSet<()>,
}

impl Netlink {
    /// Opens the sockets in the calling thread's network namespace. Notifications come from now on.
    pub(super) fn open() -> io::Result<Self> {
        let (requests, handle, _) = rtnetlink::new_connection_with_strict_check()?;
        let (mut notifications, _, notices) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv4Rule,
        ])?;
        enlarge(&mut notifications);
        let mut connections = JoinSet::new();
        connections.spawn(requests);
        connections.spawn(notifications);
        Ok(Self {
            handle,
            notices,
            _connections: connections,
        })
    }

    /// The next notification; `None` when the socket broke. May be dropped and called again.
    pub(super) async fn notice(&mut self) -> Option<Notice> {
        loop {
            let (message, _) = self.notices.next().await?;
            if let Some(notice) = notice(&message) {
                return Some(notice);
            }
        }
    }

    /// Reads all but neighbours. One thing after the other: a socket has one dump at a time, and a request is on its way
    /// with `execute`.
    pub(super) async fn picture(&self) -> Result<Picture, rtnetlink::Error> {
        let links = self.handle.link().get().execute();
        let links = collect(links, |message| Some(link(message))).await?;
        let addresses = self.addresses().await?;
        let mut routes = self.routes(libc::RT_TABLE_LOCAL).await?;
        routes.extend(self.routes(libc::RT_TABLE_MAIN).await?);
        let rules = self.handle.rule().get(IpVersion::V4).execute();
        Ok(Picture {
            links,
            addresses,
            routes,
            rules: collect(rules, unusual_rule).await?,
        })
    }

    /// Reads the addresses of all interfaces.
    pub(super) async fn addresses(&self) -> Result<Vec<Address>, rtnetlink::Error> {
        let mut request = self.handle.address().get();
        request.message_mut().header.family = FAMILY;
        collect(request.execute(), address).await
    }

    /// Reads all neighbours.
    pub(super) async fn neighbours(
        &self,
    ) -> Result<BTreeMap<LinkNeighbour, Standing>, rtnetlink::Error> {
        let request = self.handle.neighbours().get().set_address_family(FAMILY);
        let all: Vec<_> = collect(request.execute(), |message| neighbour(&message)).await?;
        Ok(all.into_iter().collect())
    }

    /// Makes the kernel look for a neighbour, or go on checking one that it knows.
    pub(super) async fn use_neighbour(
        &self,
        (interface, addr): LinkNeighbour,
    ) -> Result<(), rtnetlink::Error> {
        self.handle
            .neighbours()
            .add(interface, IpAddr::V4(addr))
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace()
            .execute()
            .await
    }

    /// Switches an interface on.
    pub(super) async fn bring_up(&self, interface: u32) -> Result<(), rtnetlink::Error> {
        let up = LinkUnspec::new_with_index(interface).up().build();
        self.handle.link().change(up).execute().await
    }

    async fn routes(&self, table: u8) -> Result<Vec<KernelRoute>, rtnetlink::Error> {
        let mut filter = RouteMessage::default();
        filter.header.address_family = FAMILY;
        filter.header.table = table;
        let request = self.handle.route().get(filter);
        match collect(request.execute(), |message| route(&message)).await {
            // The table is made with its first route.
            Err(rtnetlink::Error::NetlinkError(e)) if e.raw_code() == -libc::ENOENT => {
                Ok(Vec::new())
            }
            routes => routes,
        }
    }
}

fn enlarge<S: AsyncSocket>(connection: &mut Connection<RouteNetlinkMessage, S>) {
    let socket = connection.socket_mut().socket_mut();
    if let Err(error) = socket.set_rx_buf_sz(RECEIVE_BUFFER) {
        // It works with the default, at the price of more readings.
        tracing::debug!(%error, "cannot enlarge the netlink receive buffer");
    }
}

async fn collect<M, T>(
    messages: impl Stream<Item = Result<M, rtnetlink::Error>>,
    mut parse: impl FnMut(M) -> Option<T>,
) -> Result<Vec<T>, rtnetlink::Error> {
    messages
        .try_filter_map(|message| std::future::ready(Ok(parse(message))))
        .try_collect()
        .await
}

fn notice(message: &NetlinkMessage<RouteNetlinkMessage>) -> Option<Notice> {
    use RouteNetlinkMessage as M;
    match &message.payload {
        NetlinkPayload::Overrun(_) => Some(Notice::Lost),
        NetlinkPayload::InnerMessage(M::NewNeighbour(message)) => {
            neighbour(message).map(|(who, standing)| Notice::Neighbour(who, standing))
        }
        NetlinkPayload::InnerMessage(M::DelNeighbour(message)) => {
            neighbour(message).map(|(who, _)| Notice::Neighbour(who, Standing::Unknown))
        }
        NetlinkPayload::InnerMessage(M::NewRoute(message) | M::DelRoute(message)) => {
            let is_cache = message.header.flags.contains(RouteFlags::Cloned);
            (!is_cache).then_some(Notice::Changed)
        }
        NetlinkPayload::InnerMessage(M::NewAddress(_) | M::DelAddress(_)) => {
            Some(Notice::Addresses)
        }
        NetlinkPayload::InnerMessage(_) => Some(Notice::Changed),
        _ => None,
    }
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
        is_vrf: false,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(address) => link.mac = mac(&address),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::LinkInfo(infos) => {
                link.is_vrf = infos.contains(&LinkInfo::Kind(InfoKind::Vrf));
            }
            _ => {}
        }
    }
    link
}

fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

fn address(message: AddressMessage) -> Option<Address> {
    let (mut local, mut of_net) = (None, None);
    for attribute in message.attributes {
        match attribute {
            AddressAttribute::Local(IpAddr::V4(addr)) => local = Some(addr),
            AddressAttribute::Address(IpAddr::V4(addr)) => of_net = Some(addr),
            _ => {}
        }
    }
    let local = local.or(of_net)?;
    Some(Address {
        interface: message.header.index,
        local,
        net: Ipv4Net::new(of_net.unwrap_or(local), message.header.prefix_len).ok()?,
        secondary: message.header.flags.contains(AddressHeaderFlags::Secondary),
        scope: message.header.scope.into(),
    })
}

fn route(message: &RouteMessage) -> Option<KernelRoute> {
    let header = &message.header;
    if header.tos != 0 || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut table = u32::from(header.table);
    let mut route = KernelRoute {
        in_local: false,
        prefix: Ipv4Net::default(),
        metric: 0,
        scope: header.scope.into(),
        target: Target::Unreachable,
        source: None,
        mtu: None,
    };
    let mut dst = Ipv4Addr::UNSPECIFIED;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(addr)) => dst = *addr,
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::PrefSource(RouteAddress::Inet(addr)) => route.source = Some(*addr),
            RouteAttribute::Metrics(metrics) => route.mtu = mtu(metrics),
            _ => {}
        }
    }
    route.prefix = Ipv4Net::new(dst, header.destination_prefix_length)
        .ok()?
        .trunc();
    route.in_local = table == u32::from(libc::RT_TABLE_LOCAL);
    if !route.in_local && table != u32::from(libc::RT_TABLE_MAIN) {
        return None;
    }
    route.target = match header.kind {
        RouteType::Local => Target::Local,
        RouteType::Unicast => unicast(message)?,
        // `throw` goes on to the table default, where nothing is.
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw => {
            Target::Unreachable
        }
        _ => return None,
    };
    Some(route)
}

/// Where a unicast route leads; `None` when all of its next hops are dead. Of several the first that lives.
fn unicast(message: &RouteMessage) -> Option<Target> {
    let several = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    });
    match several {
        Some(hops) => {
            let hop = hops
                .iter()
                .find(|hop| !hop.flags.contains(RouteNextHopFlags::Dead))?;
            Some(next_hop(Some(hop.interface_index), &hop.attributes))
        }
        None if message.header.flags.contains(RouteFlags::Dead) => None,
        None => Some(next_hop(None, &message.attributes)),
    }
}

fn next_hop(mut interface: Option<u32>, attributes: &[RouteAttribute]) -> Target {
    let mut gateway = None;
    for attribute in attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::Gateway(RouteAddress::Inet(addr)) => gateway = Some(*addr),
            RouteAttribute::Via(_) | RouteAttribute::EncapType(_) => return Target::KernelOnly,
            _ => {}
        }
    }
    interface.map_or(Target::KernelOnly, |interface| Target::Via {
        interface,
        gateway,
    })
}

fn mtu(metrics: &[RouteMetric]) -> Option<u16> {
    metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(mtu) => Some((*mtu).try_into().unwrap_or(u16::MAX)),
        _ => None,
    })
}

fn neighbour(message: &NeighbourMessage) -> Option<(LinkNeighbour, Standing)> {
    let header = &message.header;
    if header.family != FAMILY || header.flags.contains(NeighbourFlags::Proxy) {
        return None;
    }
    let (mut addr, mut lladdr) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(dst)) => addr = Some(*dst),
            NeighbourAttribute::LinkLayerAddress(bytes) => lladdr = mac(bytes),
            _ => {}
        }
    }
    let addr = addr.filter(|addr| !addr.is_multicast() && !addr.is_broadcast())?;
    let standing = match (header.state, lladdr) {
        (
            NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe,
            Some(mac),
        ) => Standing::Known(mac),
        (NeighbourState::Permanent | NeighbourState::Noarp, Some(mac)) => Standing::Fixed(mac),
        (NeighbourState::Incomplete, _) => Standing::Resolving,
        (NeighbourState::Failed, _) => Standing::Failed,
        _ => Standing::Unknown,
    };
    Some(((header.ifindex, addr), standing))
}

/// Describes a rule that is none of the default ones.
fn unusual_rule(message: RuleMessage) -> Option<String> {
    let header = &message.header;
    let mut plain = header.action == RuleAction::ToTable
        && (header.src_len, header.dst_len, header.tos) == (0, 0, 0)
        && !header.flags.contains(RuleFlags::Invert);
    let (mut priority, mut table) = (0, u32::from(header.table));
    for attribute in &message.attributes {
        match attribute {
            RuleAttribute::Priority(value) => priority = *value,
            RuleAttribute::Table(value) => table = *value,
            // "Suppress nothing", and who made the rule.
            RuleAttribute::SuppressPrefixLen(u32::MAX) | RuleAttribute::Protocol(_) => {}
            _ => plain = false,
        }
    }
    let usual = plain
        && DEFAULT_RULES
            .iter()
            .any(|&(p, t)| (p, u32::from(t)) == (priority, table));
    (!usual).then(|| format!("the policy rule with priority {priority}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_route::route::RouteNextHop;

    fn unicast_route(attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.table = libc::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        message.attributes = attributes;
        message
    }

    fn hop(interface: u32, flags: RouteNextHopFlags) -> RouteNextHop {
        let mut hop = RouteNextHop::default();
        hop.interface_index = interface;
        hop.flags = flags;
        hop
    }

    #[test]
    fn of_several_next_hops_the_first_that_lives_is_taken() {
        let hops = |flags: [RouteNextHopFlags; 2]| {
            let hops = vec![hop(5, flags[0]), hop(6, flags[1])];
            route(&unicast_route(vec![RouteAttribute::MultiPath(hops)])).map(|r| r.target)
        };
        let (dead, alive) = (RouteNextHopFlags::Dead, RouteNextHopFlags::empty());
        let via = |interface| {
            Some(Target::Via {
                interface,
                gateway: None,
            })
        };
        assert_eq!(hops([alive, alive]), via(5));
        assert_eq!(hops([dead, alive]), via(6));
        assert_eq!(hops([dead, dead]), None);
    }

    #[test]
    fn routes_by_tos_of_other_tables_and_through_ipv6_are_not_for_workers() {
        let plain = unicast_route(vec![RouteAttribute::Oif(5)]);
        assert!(route(&plain).is_some());
        let mut by_tos = plain.clone();
        by_tos.header.tos = 0x10;
        assert_eq!(route(&by_tos), None);
        let mut elsewhere = plain.clone();
        elsewhere.attributes.push(RouteAttribute::Table(1000));
        assert_eq!(route(&elsewhere), None);
        let mut ipv6 = plain;
        let via = rtnetlink::packet_route::route::RouteVia::Inet6("fe80::1".parse().unwrap());
        ipv6.attributes.push(RouteAttribute::Via(via));
        assert_eq!(route(&ipv6).unwrap().target, Target::KernelOnly);
    }

    #[test]
    fn a_vrf_is_told_from_other_links() {
        let with = |kind| {
            let mut message = LinkMessage::default();
            message.attributes = vec![
                LinkAttribute::IfName("blue".to_owned()),
                LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)]),
            ];
            link(message).is_vrf
        };
        assert!(with(InfoKind::Vrf));
        assert!(!with(InfoKind::Tun));
    }

    #[test]
    fn a_rule_with_a_selector_is_unusual_and_the_default_ones_are_not() {
        let rule = |priority, table, selector: Option<RuleAttribute>| {
            let mut message = RuleMessage::default();
            message.header.action = RuleAction::ToTable;
            message.header.table = table;
            message.attributes = vec![RuleAttribute::Priority(priority)];
            message.attributes.extend(selector);
            unusual_rule(message).is_some()
        };
        assert!(!rule(32766, libc::RT_TABLE_MAIN, None));
        assert!(rule(32765, libc::RT_TABLE_MAIN, None));
        assert!(rule(32766, 100, None));
        let marked = Some(RuleAttribute::FwMark(1));
        assert!(rule(32766, libc::RT_TABLE_MAIN, marked));
    }

    #[test]
    fn groups_and_proxies_are_no_neighbours() {
        let message = |addr: [u8; 4], flags| {
            let mut message = NeighbourMessage::default();
            message.header.family = AddressFamily::Inet;
            message.header.ifindex = 5;
            message.header.state = NeighbourState::Noarp;
            message.header.flags = flags;
            message.attributes = vec![
                NeighbourAttribute::Destination(NeighbourAddress::Inet(addr.into())),
                NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 1]),
            ];
            neighbour(&message)
        };
        let none = NeighbourFlags::empty();
        let fixed = Standing::Fixed(Mac([2, 0, 0, 0, 0, 1]));
        let expected = Some(((5, Ipv4Addr::new(10, 0, 0, 7)), fixed));
        assert_eq!(message([10, 0, 0, 7], none), expected);
        assert_eq!(message([224, 0, 0, 18], none), None);
        assert_eq!(message([10, 0, 0, 7], NeighbourFlags::Proxy), None);
    }
}
