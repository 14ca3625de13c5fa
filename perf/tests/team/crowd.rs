//! Clients of a fleet whose real servers answer directly: what they send, and who gets it.

use std::net::{Ipv4Addr, SocketAddrV4};

use serde_json::{Value, json};
use sluice_dataplane::egress::Mac;
use sluice_dataplane::io::rss_nic::Model;
use sluice_perf::frame::{self, ACK, SYN};
use sluice_perf::scale::cabling::Cabling;
use sluice_perf::scale::fleet::{Fleet, Plan, mac};
use sluice_perf::scenario::{ROUTER_MAC, SERVERS, VIP, server, server_mac};

pub(crate) const FIN: u8 = 1;

/// A packet of a client.
#[derive(Clone, Copy)]
pub(crate) struct Packet {
    pub(crate) client: SocketAddrV4,
    pub(crate) flags: u8,
}

pub(crate) struct Crowd {
    pub(crate) fleet: Fleet,
}

/// The only service, in JSON-RPC's words.
pub(crate) fn service() -> Value {
    json!({"protocol": "tcp", "address": VIP.to_string()})
}

/// One of very many clients.
pub(crate) fn client(n: u32) -> SocketAddrV4 {
    // An odd factor permutes 32 bits.
    let mixed = n.wrapping_mul(0x9e37_79b1);
    let address = Ipv4Addr::from_bits(0x0b00_0000 | mixed >> 8);
    SocketAddrV4::new(address, 1024 + (mixed as u16 >> 1))
}

impl Crowd {
    /// Four workers, the first of which gets five packets of eight.
    pub(crate) fn of_four() -> Self {
        Self::of(4, true)
    }

    pub(crate) fn of(workers: usize, skewed: bool) -> Self {
        let cabling = Cabling::TwoArms;
        let plan = Plan {
            workers,
            model: Model::Common,
            cabling,
            skewed,
            max_connections: 200_000,
        };
        let fleet = Fleet::new(&plan, &cabling.surroundings()).unwrap();
        Self { fleet }
    }

    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        self.fleet.call(method, params).unwrap()
    }

    /// The service, with so many real servers of these weights; `options` of the service, `of_servers` of each server.
    pub(crate) fn serve(&mut self, options: Value, of_servers: Value, weights: &[u32]) {
        self.serve_at(service(), options, of_servers, weights);
    }

    /// The same for UDP.
    pub(crate) fn serve_udp(&mut self, options: Value, weights: &[u32]) {
        let service = json!({"protocol": "udp", "address": VIP.to_string()});
        self.serve_at(service, options, json!({}), weights);
    }

    fn serve_at(&mut self, service: Value, options: Value, of_servers: Value, weights: &[u32]) {
        self.call("service_add", with(options, json!({"service": service})));
        for (n, weight) in (0..).zip(weights) {
            let address = format!("{}:80", server(n));
            let own =
                json!({"service": service, "address": address, "method": "dr", "weight": weight});
            self.call("real_server_add", with(of_servers.clone(), own));
        }
    }

    /// Sends packets, all within one turn of the workers, and says for each which real server got it.
    pub(crate) fn send(&mut self, packets: &[Packet]) -> Vec<Option<u8>> {
        for (number, packet) in (0..).zip(packets) {
            let frame = frame::tcp(macs(), packet.client, VIP, packet.flags, number);
            self.receive(&frame);
        }
        self.settle();
        let mut got = vec![None; packets.len()];
        while let Some((server, frame)) = self.reached() {
            let (.., number) = frame::read(&frame).unwrap();
            let before = got[number as usize].replace(server);
            assert_eq!(before, None, "packet {number} came out twice");
        }
        got
    }

    /// Sends a datagram, and says which real server got it.
    pub(crate) fn send_datagram(&mut self, client: SocketAddrV4) -> Option<u8> {
        self.receive(&frame::udp(macs(), client, VIP));
        self.settle();
        let (server, _) = self.reached()?;
        assert!(self.reached().is_none(), "it came out twice");
        Some(server)
    }

    fn receive(&mut self, frame: &[u8]) {
        let port = Cabling::TwoArms.clients();
        self.fleet.receive(port, frame).unwrap();
    }

    fn settle(&mut self) {
        self.fleet.settle().unwrap();
        assert_eq!(self.fleet.imbalance(), None);
    }

    /// The next frame that came out to a real server, and to which; ICMP errors to clients are passed over.
    fn reached(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let sent = self.fleet.sent()?;
            if sent.port == Cabling::TwoArms.servers() {
                let to = &sent.bytes()[..6];
                let which = (0..SERVERS).find(|n| server_mac(server(*n)).0 == to);
                return Some((which.unwrap(), sent.bytes().to_vec()));
            }
        }
    }

    /// Opens connections one after the other in one turn, and says which real server each got.
    pub(crate) fn open(&mut self, clients: &[SocketAddrV4]) -> Vec<Option<u8>> {
        self.send_all(clients, SYN)
    }

    pub(crate) fn establish(&mut self, clients: &[SocketAddrV4]) -> Vec<Option<u8>> {
        let got = self.open(clients);
        assert_eq!(self.send_all(clients, ACK), got);
        got
    }

    pub(crate) fn send_all(&mut self, clients: &[SocketAddrV4], flags: u8) -> Vec<Option<u8>> {
        let packet = |client: &SocketAddrV4| Packet {
            client: *client,
            flags,
        };
        let packets: Vec<Packet> = clients.iter().map(packet).collect();
        self.send(&packets)
    }

    /// Connections of each worker.
    pub(crate) fn each(&self) -> Vec<u64> {
        let cells = self.fleet.cells().iter();
        cells.map(|cells| cells.connections.read()).collect()
    }
}

/// Of what a client sends.
fn macs() -> (Mac, Mac) {
    (ROUTER_MAC, mac(Cabling::TwoArms.clients()))
}

fn with(mut all: Value, own: Value) -> Value {
    let (Some(all_of), Value::Object(own)) = (all.as_object_mut(), own) else {
        panic!("parameters are objects");
    };
    all_of.extend(own);
    all
}
