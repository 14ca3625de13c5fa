//! Clients that stay with their real server, whichever workers their connections come to.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use serde_json::json;

use crate::crowd::Crowd;

/// Clients.
const CLIENTS: u32 = 500;

/// Connections of each, from ports that lead to different workers.
const EACH: u16 = 20;

fn address(client: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0b00_0000 + (client << 8) + 7)
}

/// The connections of all clients, each client's far apart; in bursts of so many.
fn connections() -> Vec<SocketAddrV4> {
    let of_port = |port| (0..CLIENTS).map(move |client| SocketAddrV4::new(address(client), port));
    (0..EACH).flat_map(|n| of_port(2000 + 17 * n)).collect()
}

#[test]
fn a_client_is_never_on_two_real_servers() {
    for burst in [1, 64, 512] {
        let mut crowd = Crowd::of_four();
        crowd.serve(
            json!({"scheduler": "rr", "persistence_s": 300}),
            json!({}),
            &[1; 5],
        );
        let mut chosen: HashMap<Ipv4Addr, u8> = HashMap::new();
        for clients in connections().chunks(burst) {
            for (client, server) in clients.iter().zip(crowd.establish(clients)) {
                let server = server.unwrap();
                let before = *chosen.entry(*client.ip()).or_insert(server);
                assert_eq!(server, before, "{client} in bursts of {burst}");
            }
        }
        for server in 0..5 {
            let share = chosen.values().filter(|chosen| **chosen == server).count();
            assert!(share > CLIENTS as usize / 10, "{share} clients on {server}");
        }
    }
}

#[test]
fn a_client_whose_connections_come_all_at_once_is_on_one_real_server() {
    let mut crowd = Crowd::of_four();
    crowd.serve(
        json!({"scheduler": "rr", "persistence_s": 300}),
        json!({}),
        &[1; 5],
    );
    for client in 0..CLIENTS {
        let all: Vec<_> = (0..EACH)
            .map(|n| SocketAddrV4::new(address(client), 2000 + 17 * n))
            .collect();
        let got = crowd.open(&all);
        assert!(
            got[0].is_some() && got.iter().all(|server| *server == got[0]),
            "{got:?}"
        );
    }
}
