//! A flood of SYNs, ten for each packet of an established connection.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use sluice_control::api::{ConnectionList, Connections, Method};
use sluice_control::client::{UnixClient, ask};

use super::rig::{Boot, Rig, window};
use crate::frame::{self, SYN, Wire};
use crate::report::experiment::{Better, Experiment};
use crate::scenario::{ROUTER_MAC, Scenario, VIP, WIRE_MAC, name};
use crate::traffic::{self, Traffic};
use crate::walk::Walk;

const CONNECTIONS: u32 = 50_000;

/// Connections that the table has room for: fewer than there are SYNs.
const ROOM: u32 = 1 << 19;

/// SYNs for each packet of an established connection.
const FLOOD: u32 = 10;

/// How long it may take to hear every client twice.
const PATIENCE: Duration = Duration::from_secs(60);

/// For one page of a listing.
const ANSWER: Duration = Duration::from_secs(30);

/// What SYNs beyond the table's room are dropped for.
const FULL: &str = "table_full";

/// Runs it.
pub fn run(rig: &Rig<'_>, rounds: usize, cpu: Duration) -> anyhow::Result<Experiment> {
    let mut experiment = Experiment {
        title: "A SYN flood of ten times the traffic".to_owned(),
        how: "50 k established connections, and ten SYNs of made-up clients for each of their packets, half a million clients or more, over and over: more than the table has room for. No established connection ends, and none of its packets is lost.".to_owned(),
        axis: "packets".to_owned(),
        unit: "Mpps of established connections".to_owned(),
        better: Better::Higher,
        lines: Vec::new(),
    };
    for method in [Method::Dr, Method::FullNat] {
        let scenario = Scenario::of_connections(method, CONNECTIONS);
        let mut walk = Walk::new(&scenario)?;
        let traffic = Traffic::new(&scenario, &mut walk)?;
        let mut boot = Boot::of(&scenario, &rig.place())?;
        // The table is full whatever the flood does: so it is as full at the end of a window as at its beginning.
        let packets = scenario.flows * (1 + FLOOD);
        boot.set("workers", "max_connections", i64::from(ROOM));
        boot.set("workers", "extra_frames", i64::from(packets + 1024));
        boot.set_room(200, scenario.frames() + packets);
        for flooded in [false, true] {
            let at = if flooded { "under the flood" } else { "alone" };
            eprintln!("{}, {at}", name(method));
            if flooded {
                rig.write(traffic.opening_file(), mixed(&traffic.steady))?;
            } else {
                rig.write(traffic.opening_file(), traffic.steady.iter().copied())?;
            }
            let (share, wanted) = if flooded {
                (1.0 / f64::from(1 + FLOOD), u64::from(ROOM))
            } else {
                (1.0, u64::from(CONNECTIONS))
            };
            for _ in 0..rounds {
                let mut daemon = rig.start(&boot, wanted)?;
                // Until every client has been heard twice since the table is full.
                let heard = daemon.worker()?.rx + 2 * u64::from(packets);
                daemon.await_worker(PATIENCE, |_, worker| worker.rx >= heard)?;
                let window = window(&mut daemon, cpu, &[FULL])?;
                experiment.push(name(method), at, window.mpps() * share);
                let known = established(&rig.place().socket)?;
                ensure!(
                    known == CONNECTIONS as usize,
                    "{known} of {CONNECTIONS} connections are established"
                );
                rig.stop(daemon)?;
            }
        }
    }
    Ok(experiment)
}

/// How many connections of the clients proper are established: attackers have other addresses.
fn established(socket: &Path) -> anyhow::Result<usize> {
    let mut client = UnixClient::new(socket, ANSWER);
    let mut count = 0;
    for address in traffic::client_addresses(CONNECTIONS) {
        let mut request = ConnectionList {
            client: Some(address),
            limit: Some(10_000),
            ..ConnectionList::default()
        };
        loop {
            let params = serde_json::to_value(&request)?;
            let found: Connections = ask(&mut client, "connection_list", params)?;
            let listed = found.connections.iter();
            count += listed.filter(|conn| conn.state == "ESTABLISHED").count();
            if found.cursor.is_none() {
                break;
            }
            request.cursor = found.cursor;
        }
    }
    Ok(count)
}

/// Each frame, and so many SYNs after it, each of another client.
fn mixed(steady: &[Wire]) -> impl Iterator<Item = Wire> + '_ {
    let macs = (ROUTER_MAC, WIRE_MAC);
    (0..).zip(steady).flat_map(move |(n, frame)| {
        let syns = (n * FLOOD..).take(FLOOD as usize);
        let syn = move |number| frame::tcp(macs, attacker(number), VIP, SYN, number);
        std::iter::once(*frame).chain(syns.map(syn))
    })
}

/// A made-up client: an odd factor permutes 32 bits, so none comes twice.
fn attacker(number: u32) -> SocketAddrV4 {
    let spread = number.wrapping_mul(0x9e37_79b1);
    let address = Ipv4Addr::from_bits(0xac10_0000 | spread >> 12);
    SocketAddrV4::new(address, 4096 + (spread & 0xfff) as u16)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::frame::ACK;

    #[test]
    fn ten_syns_of_different_clients_follow_each_frame() {
        let server = SocketAddrV4::new(Ipv4Addr::new(11, 0, 0, 1), 1024);
        let steady: Vec<Wire> = (0..1000)
            .map(|n| frame::tcp((ROUTER_MAC, WIRE_MAC), server, VIP, ACK, n))
            .collect();
        let all: Vec<Wire> = mixed(&steady).collect();
        assert_eq!(all.len(), 11_000);
        assert!(
            steady
                .iter()
                .zip(all.chunks(11))
                .all(|(frame, chunk)| chunk[0] == *frame)
        );
        let clients: HashSet<SocketAddrV4> = all
            .iter()
            .map(|frame| frame::read(frame).unwrap().0)
            .collect();
        assert_eq!(clients.len(), 10_000 + 1);
    }
}
