//! Connections by number: the frames of their ends, and what must become of each on its way through the appliance.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, ensure};
use sluice_control::api::Method;
use sluice_dataplane::egress::Mac;
use sluice_dataplane::packet::checksum::Sum;

use super::cabling::Cabling;
use super::fleet::mac;
use crate::frame::{self, ACK, SYN, Wire};
use crate::scenario::{LADDRS, ROUTER_MAC, SERVERS, VIP, server, server_mac};
use crate::traffic::client;

/// Bytes in front of an IP packet.
const ETHERNET: usize = 14;

/// Bytes of an IPv4 header.
const IPV4: usize = 20;

/// A packet's part in its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whether the client sends it.
    pub by_client: bool,
    flags: u8,
}

/// What a connection is made of, in order.
pub const STEPS: [Step; 6] = [
    Step::by_client(SYN),
    Step::by_server(SYN | ACK),
    Step::by_client(ACK),
    Step::by_server(ACK),
    Step::by_client(ACK),
    Step::by_server(ACK),
];

/// The TTL that everything is sent with.
const TTL: u8 = 64;

impl Step {
    const fn by_client(flags: u8) -> Self {
        let by_client = true;
        Self { by_client, flags }
    }

    const fn by_server(flags: u8) -> Self {
        let by_client = false;
        Self { by_client, flags }
    }
}

/// How a real server sees its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which real server, from 0.
    pub server: u8,
    /// Whom it takes for the client.
    pub peer: SocketAddrV4,
}

/// The number that a packet carries: which connection's, and which step.
pub fn number(flow: u32, step: usize) -> u32 {
    flow * STEPS.len() as u32 + step as u32
}

/// The connection and the step of a number.
pub fn flow_and_step(number: u32) -> (u32, usize) {
    let steps = STEPS.len() as u32;
    (number / steps, (number % steps) as usize)
}

/// What a client sends.
pub fn from_client(cabling: Cabling, flow: u32, step: usize) -> Wire {
    let macs = (ROUTER_MAC, mac(cabling.clients()));
    let flags = STEPS[step].flags;
    frame::tcp(macs, client(flow), VIP, flags, number(flow, step))
}

/// What a real server answers whom it takes for its client.
pub fn from_server(cabling: Cabling, seen: Seen, flow: u32, step: usize) -> Wire {
    let address = server(seen.server);
    let macs = (server_mac(address), mac(cabling.replies()));
    let from = SocketAddrV4::new(address, VIP.port());
    frame::tcp(macs, from, seen.peer, STEPS[step].flags, number(flow, step))
}

/// Looks at what came out for a client's packet and says how its real server sees it. `Err` if any byte is not as it must be.
pub fn at_server(
    method: Method,
    cabling: Cabling,
    frame: &[u8],
    flow: u32,
    step: usize,
) -> anyhow::Result<Seen> {
    let (src, dst, _) = frame::read(frame).context("not of TCP")?;
    let to = frame.get(..6).context("cut short")?;
    let which = (0..SERVERS).find(|n| server_mac(server(*n)).0 == to);
    let chosen = which.context("its MAC is no real server's")?;
    let (address, ours) = (server(chosen), mac(cabling.servers()));
    let real = SocketAddrV4::new(address, VIP.port());
    let (peer, target) = match method {
        Method::Nat => (client(flow), real),
        Method::FullNat => {
            let local = *src.ip();
            let known = (1..=LADDRS).any(|n| local == Ipv4Addr::new(192, 168, 2, n));
            ensure!(known && src.port() >= 1024, "{src} is no local address");
            (src, real)
        }
        Method::Dr | Method::Tun => (client(flow), VIP),
    };
    ensure!((src, dst) == (peer, target), "{src} to {dst}");
    let macs = (ours, server_mac(address));
    let flags = STEPS[step].flags;
    let inner = passed_on(frame::tcp(macs, peer, target, flags, number(flow, step)));
    if method == Method::Tun {
        check_tunnel(frame, macs, address, &inner[ETHERNET..])?;
    } else {
        is(frame, &inner)?;
    }
    let server = chosen;
    Ok(Seen { server, peer })
}

/// Looks at what came out for a real server's packet. `Err` if any byte is not as it must be.
pub fn at_client(cabling: Cabling, frame: &[u8], flow: u32, step: usize) -> anyhow::Result<()> {
    let macs = (mac(cabling.clients()), ROUTER_MAC);
    let flags = STEPS[step].flags;
    let right = passed_on(frame::tcp(
        macs,
        VIP,
        client(flow),
        flags,
        number(flow, step),
    ));
    is(frame, &right)
}

/// `Err` where they differ first.
fn is(frame: &[u8], right: &[u8]) -> anyhow::Result<()> {
    let (len, wanted) = (frame.len(), right.len());
    ensure!(len == wanted, "{len} bytes instead of {wanted}");
    let differs = frame.iter().zip(right).position(|(a, b)| a != b);
    if let Some(at) = differs {
        let (is, must) = (frame[at], right[at]);
        anyhow::bail!("byte {at} is {is:#04x} instead of {must:#04x}");
    }
    Ok(())
}

/// As a router passes it on.
fn passed_on(mut frame: Wire) -> Wire {
    frame[ETHERNET + 8] = TTL - 1;
    frame[ETHERNET + 10..ETHERNET + 12].fill(0);
    let checksum = Sum::default()
        .bytes(&frame[ETHERNET..ETHERNET + IPV4])
        .checksum();
    frame[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&checksum.to_be_bytes());
    frame
}

fn check_tunnel(frame: &[u8], macs: (Mac, Mac), to: Ipv4Addr, inner: &[u8]) -> anyhow::Result<()> {
    let (from_mac, to_mac) = macs;
    let head = [to_mac.0.as_slice(), &from_mac.0, &[8, 0]].concat();
    let (ethernet, rest) = frame.split_at(ETHERNET);
    is(ethernet, &head)?;
    let (outer, carried) = rest.split_at_checked(IPV4).context("cut short")?;
    is(carried, inner).context("inside")?;
    let len = ((IPV4 + inner.len()) as u16).to_be_bytes();
    let right = outer[0] == 0x45
        && outer[2..4] == len
        && outer[9] == 4
        && outer[16..20] == to.octets()
        && Sum::default().bytes(outer).checksum() == 0;
    ensure!(right, "the outer header is {outer:02x?}");
    Ok(())
}
