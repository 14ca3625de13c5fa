//! A scenario's frames: those that open its connections, and those that are replayed.
//!
//! Connections are opened in one random order and replayed in another, so that neither the table nor its records are
//! walked in the order in which they lie in memory. Servers' frames are computed by the walk in memory: what it sends a
//! server comes back with its ends swapped.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use anyhow::Context;

use crate::frame::{self, ACK, SYN, Wire};
use crate::scenario::{BURST, OPENING_MAC, ROUTER_MAC, Scenario, VIP, WIRE_MAC, server_mac};
use crate::walk::Walk;

/// Client ports used at one client address.
const PORTS: u32 = 50_000;

/// Frames in front of the first opening one, to nobody. The worker applies 64 commands and receives a burst by turns: so
/// it has its whole configuration when the first one comes.
const PADDING: usize = BURST * 64;

/// The frames.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// A SYN a connection, to the forwarding port.
    pub opening: Arc<[Wire]>,
    /// An ACK a connection and direction, in another order; the sequence number is the place.
    pub steady: Arc<[Wire]>,
}

impl Traffic {
    /// Makes the frames, and with that opens and establishes the connections in `walk`.
    pub fn new(scenario: &Scenario, walk: &mut Walk) -> anyhow::Result<Self> {
        let client_macs = (ROUTER_MAC, WIRE_MAC);
        let mut flows: Vec<u32> = (0..scenario.connections()).collect();
        shuffle(&mut flows, 1);
        let syn = |flow| frame::tcp(client_macs, client(flow), VIP, SYN, flow);
        let opening: Arc<[Wire]> = flows.into_iter().map(syn).collect();
        let forwarded = walk.forward(&opening).context("opening connections")?;

        let mut ends: Vec<_> = (0..scenario.connections())
            .map(|flow| (client_macs, client(flow), VIP))
            .collect();
        if scenario.both_directions() {
            for forwarded in &forwarded {
                let (local, server, _) = frame::read(forwarded).context("no TCP came out")?;
                ends.push(((server_mac(*server.ip()), WIRE_MAC), server, local));
            }
        }
        drop(forwarded);
        shuffle(&mut ends, 2);
        let ack = |(number, (macs, src, dst))| frame::tcp(macs, src, dst, ACK, number);
        let steady: Arc<[Wire]> = (0..).zip(ends).map(ack).collect();
        walk.replay(&steady);
        Ok(Self { opening, steady })
    }

    /// Frames of clients only, with no opening ones, to more than one service: `vip` says to which one a flow goes.
    pub fn of_clients(scenario: &Scenario, vip: impl Fn(u32) -> SocketAddrV4) -> Self {
        let mut flows: Vec<u32> = (0..scenario.connections()).collect();
        shuffle(&mut flows, 2);
        let macs = (ROUTER_MAC, WIRE_MAC);
        let ack = |(number, flow)| frame::tcp(macs, client(flow), vip(flow), ACK, number);
        Self {
            opening: Arc::new([]),
            steady: (0..).zip(flows).map(ack).collect(),
        }
    }

    /// The opening frames as they come in by the opening port, with some to nobody in front.
    pub fn opening_file(&self) -> impl Iterator<Item = Wire> + '_ {
        let to_nobody = frame::tcp((ROUTER_MAC, ROUTER_MAC), VIP, VIP, SYN, 0);
        let opening = self.opening.iter().map(|frame| {
            let mut frame = *frame;
            frame[..6].copy_from_slice(&OPENING_MAC.0);
            frame
        });
        std::iter::repeat_n(to_nobody, PADDING).chain(opening)
    }
}

/// The addresses of the clients of so many flows.
pub fn client_addresses(flows: u32) -> impl Iterator<Item = Ipv4Addr> {
    (0..flows)
        .step_by(PORTS as usize)
        .map(|flow| *client(flow).ip())
}

/// The client of a flow.
pub fn client(flow: u32) -> SocketAddrV4 {
    let address = Ipv4Addr::from_bits(0x0b00_0000 + flow / PORTS);
    SocketAddrV4::new(address, (1024 + flow % PORTS) as u16)
}

/// Puts items in another order, the same for the same seed: Fisher and Yates, with the high bits of a linear congruential
/// generator (Knuth's MMIX).
pub fn shuffle<T>(items: &mut [T], seed: u64) {
    let mut state = seed;
    for at in (1..items.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        items.swap(at, (state >> 33) as usize % (at + 1));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use sluice_control::api::Method;

    use super::*;

    #[test]
    fn every_method_forwards_every_frame_of_every_flow() {
        for method in [Method::Dr, Method::Tun, Method::Nat, Method::FullNat] {
            let scenario = Scenario::of_connections(method, 500);
            let mut walk = Walk::new(&scenario).unwrap();
            let traffic = Traffic::new(&scenario, &mut walk).unwrap();
            assert_eq!(traffic.steady.len(), scenario.flows as usize);
            let out = walk.forward(&traffic.steady).unwrap();
            let numbers: HashSet<u32> = out
                .iter()
                .map(|frame| frame::read(frame).unwrap().2)
                .collect();
            assert_eq!(numbers.len(), traffic.steady.len(), "{method:?}");
            assert_eq!(walk.cells.connections.read(), 500, "{method:?}");
            assert_eq!(walk.cells.services[0].conns.read(), 500, "{method:?}");
        }
    }

    #[test]
    fn a_shuffle_keeps_all_and_moves_most() {
        let mut items: Vec<u32> = (0..1000).collect();
        shuffle(&mut items, 1);
        let stayed = items
            .iter()
            .zip(0..)
            .filter(|(item, at)| *item == at)
            .count();
        assert!(stayed < 20, "{stayed} stayed");
        items.sort_unstable();
        assert!(items.iter().copied().eq(0..1000));
    }
}
