//! One connection, in one cache line.

use std::net::Ipv4Addr;

use super::key::{Direction, Ends, FlowKey};
use super::state::State;
use crate::egress::HopRef;
use crate::packet::checksum::Sum;
use crate::service::{Method, Protocol};
use crate::time::Grain;

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Endpoint {
    /// Address.
    pub addr: Ipv4Addr,
    /// Port.
    pub port: u16,
}

impl Endpoint {
    /// An address and a port.
    pub const fn new(addr: Ipv4Addr, port: u16) -> Self {
        Self { addr, port }
    }
}

/// What a connection is made from.
#[derive(Clone, Copy, Debug)]
pub struct NewConn {
    /// The client's packet: client to virtual address.
    pub client: FlowKey,
    /// Where the client's packets go: the real server's address, and its port after translation.
    pub server: Endpoint,
    /// FULLNAT: the source that the server sees.
    pub local: Option<Endpoint>,
    /// How packets get to the server.
    pub method: Method,
    /// The real server's place ([`crate::service::RsId::index`]).
    pub rs: u32,
}

/// A connection between a client and a real server by way of a virtual address.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Conn {
    /// What packets show, by [`Direction`]: client and virtual address; and server and what it sees as its client (the
    /// client itself unless FULLNAT), or virtual address and client where addresses are not translated (`SEMANTICS.md`
    /// section 1).
    ends: [Ends; 2],
    /// Translated: what translation adds to checksums, by [`Direction`]. Else there is none, and here is the server.
    how: [Words; 2],
    /// Ways to the server and to the client, by [`Direction`].
    pub hops: [HopRef; 2],
    /// The real server's place.
    pub rs: u32,
    /// Last packet, either direction ([`Grain::short`]).
    pub seen: u32,
    /// Grains it lives after that.
    pub timeout: u32,
    /// The moment that its place's timer is filed for ([`Grain::short`]), if `armed`.
    pub filed: u32,
    protocol: Protocol,
    method: Method,
    /// Its state; [`State::None`] for UDP.
    pub state: State,
    /// No packet from the server was seen yet: client packets follow the input-only state table. Set at first
    /// for DR and TUN.
    pub no_output: bool,
    /// Whether a persistence template sent it where it goes.
    pub control: Control,
    /// Packets from the client, no more than a byte can count.
    pub packets: u8,
    /// Its place in the table has a timer in the wheel. The place's next tenant takes it over.
    pub armed: bool,
    /// A newer connection's server packets look the same, and were given to that one.
    pub displaced: bool,
}

/// Two numbers of a connection whose meaning depends on its method.
type Words = [u16; 2];

/// What a persistence template has to do with a connection (`SEMANTICS.md` section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Control {
    /// None does.
    #[default]
    Free,
    /// One controls it, and has not heard from it that it was confirmed.
    Tentative,
    /// One controls it, and knows that it was confirmed.
    Confirmed,
}

const _: () = assert!(size_of::<Conn>() == 64, "a connection is one cache line");

/// What a translation adds to the sums that checksums stand for (RFC 1624), for [`Sum::patch`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// In the IP header: addresses.
    pub ip: u16,
    /// In the TCP or UDP header: addresses and ports.
    pub l4: u16,
}

impl Delta {
    fn between(old: (Endpoint, Endpoint), new: (Endpoint, Endpoint)) -> Self {
        let replace = |sum: Sum, old: Endpoint, new: Endpoint| {
            if old.addr == new.addr {
                sum
            } else {
                sum.replace_long(old.addr.to_bits(), new.addr.to_bits())
            }
        };
        let ip = replace(replace(Sum::default(), old.0, new.0), old.1, new.1);
        let port = |sum: Sum, old: Endpoint, new: Endpoint| {
            if old.port == new.port {
                sum
            } else {
                sum.replace_word(old.port, new.port)
            }
        };
        let l4 = port(port(ip, old.0, new.0), old.1, new.1);
        Self {
            ip: ip.folded_wire(),
            l4: l4.folded_wire(),
        }
    }
}

impl Delta {
    /// What translating back adds: the negative in one's complement, where all ones are also nothing.
    fn back(self) -> Self {
        let back = |sum| match sum {
            0 | u16::MAX => sum,
            sum => !sum,
        };
        Self {
            ip: back(self.ip),
            l4: back(self.l4),
        }
    }
}

impl Conn {
    /// A connection that was never seen, inactive.
    pub fn new(new: &NewConn) -> Self {
        let client = Endpoint::new(new.client.src, new.client.src_port);
        let virtual_ = Endpoint::new(new.client.dst, new.client.dst_port);
        let outside = Ends::new(client, virtual_);
        let translated = matches!(new.method, Method::Nat | Method::FullNat);
        let (reply, how) = if translated {
            let local = new.local.unwrap_or(client);
            let there = Delta::between((client, virtual_), (local, new.server));
            let how = [there, there.back()].map(|delta| [delta.ip, delta.l4]);
            (Ends::new(new.server, local), how)
        } else {
            let [a, b, c, d] = new.server.addr.octets();
            let addr = [u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d])];
            (outside.reversed(), [addr, [new.server.port, 0]])
        };
        Self {
            ends: [outside, reply],
            how,
            hops: [HopRef::NONE; 2],
            rs: new.rs,
            seen: 0,
            timeout: 0,
            filed: 0,
            protocol: new.client.protocol,
            method: new.method,
            state: State::None,
            no_output: !translated,
            control: Control::Free,
            packets: 0,
            armed: false,
            displaced: false,
        }
    }

    /// What lies at a free place: no packet's key, since nothing has the unspecified address.
    pub(super) fn vacant() -> Self {
        let nowhere = Endpoint::new(Ipv4Addr::UNSPECIFIED, 0);
        let client = FlowKey {
            protocol: Protocol::Tcp,
            src: nowhere.addr,
            dst: nowhere.addr,
            src_port: 0,
            dst_port: 0,
        };
        Self::new(&NewConn {
            client,
            server: nowhere,
            local: None,
            method: Method::Dr,
            rs: 0,
        })
    }

    /// What a packet of direction `direction` shows.
    #[inline]
    pub fn ends(&self, direction: Direction) -> &Ends {
        &self.ends[direction as usize]
    }

    /// The same with the protocol, decoded.
    pub fn key(&self, direction: Direction) -> FlowKey {
        self.ends(direction).key(self.protocol)
    }

    /// Whether a packet of direction `direction` shows this, `protocol` being its number.
    #[inline(always)]
    pub fn is(&self, direction: Direction, protocol: u8, ends: &Ends) -> bool {
        self.ends(direction).words() == ends.words() && self.protocol.number() == protocol
    }

    /// Notes that a packet went in this direction.
    #[inline(always)]
    pub fn count_packet(&mut self, direction: Direction) {
        let to_server = direction == Direction::ToServer;
        self.packets = self.packets.saturating_add(u8::from(to_server));
    }

    /// What a packet of direction `direction` shows when it leaves: the reverse of what its answer shows.
    #[inline]
    pub fn leaves_as(&self, direction: Direction) -> Ends {
        self.ends[1 - direction as usize].reversed()
    }

    /// What translation adds to the checksums of a packet of direction `direction`; nonsense where there is none.
    #[inline]
    pub fn delta(&self, direction: Direction) -> Delta {
        let [ip, l4] = self.how[direction as usize];
        Delta { ip, l4 }
    }

    /// Whether addresses change on the way: NAT and FULLNAT.
    #[inline]
    pub fn translated(&self) -> bool {
        matches!(self.method, Method::Nat | Method::FullNat)
    }

    /// Whether it counts as active (`SEMANTICS.md` section 3).
    #[inline]
    pub fn active(&self) -> bool {
        self.state.is_active()
    }

    /// Its protocol.
    #[inline]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// How packets get to the server; stays when the server's method is edited.
    #[inline]
    pub fn method(&self) -> Method {
        self.method
    }

    /// The client.
    #[inline]
    pub fn client(&self) -> Endpoint {
        self.ends[0].src()
    }

    /// The virtual address and port.
    #[inline]
    pub fn virtual_endpoint(&self) -> Endpoint {
        self.ends[0].dst()
    }

    /// The real server.
    #[inline(always)]
    pub fn server(&self) -> Endpoint {
        if self.translated() {
            return self.ends[1].src();
        }
        Endpoint::new(self.tunnel_end(), self.how[1][0])
    }

    /// The real server's address, of a connection whose packets' addresses are not translated; else nonsense.
    #[inline(always)]
    pub fn tunnel_end(&self) -> Ipv4Addr {
        let octets: [u8; 4] = zerocopy::transmute!(self.how[0]);
        Ipv4Addr::from(octets)
    }

    /// FULLNAT: the source that the server sees.
    #[inline]
    pub fn local(&self) -> Option<Endpoint> {
        (self.method == Method::FullNat).then(|| self.ends[1].dst())
    }

    /// Grains left to live; 0 when it has expired.
    #[inline]
    pub fn left(&self, now: Grain) -> u32 {
        self.timeout.saturating_sub(now.since(self.seen))
    }

    /// Whether its time has come.
    #[inline]
    pub fn expired(&self, now: Grain) -> bool {
        now.since(self.seen) > self.timeout
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::network_endian::U16;

    use super::*;

    #[test]
    fn a_delta_of_nothing_is_nothing() {
        let a = Endpoint::new(Ipv4Addr::new(10, 0, 0, 1), 80);
        assert_eq!(Delta::between((a, a), (a, a)), Delta::default());
    }

    #[test]
    fn a_delta_equals_word_by_word_replacement() {
        let old = (
            Endpoint::new(Ipv4Addr::new(198, 51, 100, 7), 34567),
            Endpoint::new(Ipv4Addr::new(10, 0, 0, 1), 80),
        );
        let new = (
            Endpoint::new(Ipv4Addr::new(10, 9, 9, 9), 1024),
            Endpoint::new(Ipv4Addr::new(10, 0, 0, 2), 8080),
        );
        let mut sum = Sum::of_checksum(0xf3dd);
        for (old, new) in [(old.0, new.0), (old.1, new.1)] {
            sum = sum
                .replace_long(old.addr.to_bits(), new.addr.to_bits())
                .replace_word(old.port, new.port);
        }
        let delta = Delta::between(old, new);
        let mut checksum = U16::new(0xf3dd);
        Sum::patch(&mut checksum, delta.l4);
        assert_eq!(checksum.get(), sum.checksum());
    }

    proptest! {
        #[test]
        fn the_way_back_adds_what_translating_back_does(
            addrs in prop::array::uniform4(any::<u32>()),
            ports in prop::array::uniform4(any::<u16>()),
            same in 0usize..4,
        ) {
            let mut ends: [Endpoint; 4] =
                std::array::from_fn(|n| Endpoint::new(Ipv4Addr::from_bits(addrs[n]), ports[n]));
            if same > 1 {
                ends[same] = ends[same - 2];
            }
            let [a, b, c, d] = ends;
            prop_assert_eq!(Delta::between((a, b), (c, d)).back(), Delta::between((d, c), (b, a)));
        }
    }
}
