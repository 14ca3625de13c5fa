//! FULLNAT's source: a local address and a port that no other connection to that real server uses.
//!
//! Ports are tried in turn from where the last search for the same real server stopped, so a closed port is
//! reused last. Each worker takes ports by which replies find it ([`crate::steer`]).

use std::net::Ipv4Addr;
use std::sync::Arc;

use hashbrown::HashMap;

use super::connection::Endpoint;
use super::key::FlowKey;
use super::table::{ConnTable, Hash};
use crate::command::WorkerId;
use crate::drop_reason::DropReason;
use crate::service::Protocol;
use crate::stats::WorkerCells;
use crate::steer::Steering;

/// Ports tried for one connection. With one port in a hundred free, a search fails once in thirty thousand.
const TRIES: u32 = 1024;

/// Where to go on searching, by real server.
#[derive(Debug)]
pub struct LocalPorts {
    next: HashMap<u64, u32, foldhash::fast::RandomState>,
    cells: Arc<WorkerCells>,
    worker: WorkerId,
}

impl LocalPorts {
    /// Room for as many real servers at a time as `cells` are for. When more came and went, all searches begin anew: it costs steps. Only
    /// ports by which replies find `worker`, whose cells these are, are given out.
    pub fn new(cells: Arc<WorkerCells>, worker: WorkerId) -> Self {
        Self {
            next: HashMap::with_capacity_and_hasher(cells.servers.len(), Default::default()),
            cells,
            worker,
        }
    }

    /// An address of `laddrs` and a port, such that no connection in `table` has it towards `server`; and the hash of the packets
    /// that `server` sends there.
    pub fn choose(
        &mut self,
        table: &ConnTable,
        steering: &Steering,
        protocol: Protocol,
        server: Endpoint,
        laddrs: &[Ipv4Addr],
    ) -> Result<(Endpoint, Hash), DropReason> {
        if laddrs.is_empty() {
            return Err(DropReason::NoLocalAddress);
        }
        let laddr_count = u32::try_from(laddrs.len()).unwrap_or(u32::MAX);
        let count = steering
            .local_ports(self.worker)
            .saturating_mul(laddr_count);
        let key = protocol.with(server.addr, server.port);
        if self.next.len() >= self.cells.servers.len() && !self.next.contains_key(&key) {
            self.next.clear();
        }
        let worker = self.worker;
        // Addresses take turns, so that a few connections already use them all.
        let local = |at: u32| {
            let (nth, laddr) = match laddr_count {
                1 => (at, 0),
                // Two divisions, for which everything else would wait.
                count => (at / count, at % count),
            };
            let laddr = laddrs[laddr as usize];
            let port = steering.local_port(worker, server, laddr, nth)?;
            Some(Endpoint::new(laddr, port))
        };
        let reply = |local: Endpoint| FlowKey {
            protocol,
            src: server.addr,
            src_port: server.port,
            dst: local.addr,
            dst_port: local.port,
        };
        let next = self.next.entry(key).or_insert(0);
        for _ in 0..TRIES.min(count) {
            // There may be fewer now than when it was written.
            let at = if *next < count { *next } else { 0 };
            *next = if at + 1 < count { at + 1 } else { 0 };
            let Some(found) = local(at) else {
                self.cells.ports_passed_over.add(1);
                continue;
            };
            let ends = reply(found).ends();
            let hash = table.hash(protocol.number(), &ends);
            if table.lookup(hash, protocol, &ends).is_none() {
                if let Some(following) = local(*next) {
                    table.prefetch_key(reply(following));
                }
                return Ok((found, hash));
            }
            self.cells.ports_passed_over.add(1);
        }
        Err(DropReason::LocalPortsExhausted)
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::tests_support::fullnat_conn;
    use super::*;

    const LADDR: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 254);
    const FIRST: u16 = crate::steer::classes::FIRST_PORT;
    const COUNT: u32 = 65536 - FIRST as u32;
    fn cells(servers: usize) -> Arc<WorkerCells> {
        Arc::new(WorkerCells::new(1, servers))
    }

    const ONLY: WorkerId = WorkerId(0);
    const SERVER: Endpoint = Endpoint::new(Ipv4Addr::new(192, 168, 1, 1), 80);

    #[test]
    fn every_port_is_given_out_once_and_then_none() {
        let mut table = ConnTable::new(COUNT as usize + 1, 1);
        let mut ports = LocalPorts::new(cells(2), ONLY);
        for n in 0..COUNT {
            let (local, _) = ports
                .choose(&table, &Steering::single(), Protocol::Tcp, SERVER, &[LADDR])
                .unwrap();
            assert!(local.port >= FIRST);
            table.insert(fullnat_conn(n, SERVER, local)).unwrap();
        }
        let passed_over = |ports: &LocalPorts| ports.cells.ports_passed_over.read();
        assert_eq!(passed_over(&ports), 0, "each was free when its turn came");
        let full = ports.choose(&table, &Steering::single(), Protocol::Tcp, SERVER, &[LADDR]);
        assert_eq!(full, Err(DropReason::LocalPortsExhausted));
        assert_eq!(passed_over(&ports), u64::from(TRIES));
        let other = Endpoint::new(Ipv4Addr::new(192, 168, 1, 2), 80);
        let local = ports.choose(&table, &Steering::single(), Protocol::Tcp, other, &[LADDR]);
        assert_eq!(local.unwrap().0, Endpoint::new(LADDR, FIRST));
    }

    #[test]
    fn more_servers_than_there_is_room_for_are_served_all_the_same() {
        let table = ConnTable::new(1, 1);
        let mut ports = LocalPorts::new(cells(2), ONLY);
        for n in 1..=100 {
            let server = Endpoint::new(Ipv4Addr::new(192, 168, 2, n), 80);
            let local = ports.choose(&table, &Steering::single(), Protocol::Tcp, server, &[LADDR]);
            assert_eq!(local.unwrap().0, Endpoint::new(LADDR, FIRST));
            assert!(ports.next.len() <= 2);
        }
    }

    #[test]
    fn no_local_address_is_its_own_reason() {
        let table = ConnTable::new(1, 1);
        let none = LocalPorts::new(cells(1), ONLY).choose(
            &table,
            &Steering::single(),
            Protocol::Tcp,
            SERVER,
            &[],
        );
        assert_eq!(none, Err(DropReason::NoLocalAddress));
    }
}
