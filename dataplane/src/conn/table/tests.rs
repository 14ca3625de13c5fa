//! Of the table as a whole.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::tests_support::{client_key, conn};
use super::*;
use crate::conn::NewConn;
use crate::service::Method;

#[test]
fn a_connection_is_found_from_both_sides() {
    let mut table = ConnTable::new(4, 1);
    let conn = conn(1, 1000, 1, Method::Nat);
    let id = table.insert(conn).unwrap();
    let key = client_key(&conn);
    assert_eq!(
        table.find(key),
        Some(Hit {
            id,
            direction: Direction::ToServer
        })
    );
    let reply = FlowKey {
        src: conn.server().addr,
        src_port: 8080,
        ..key.reversed()
    };
    assert_eq!(
        table.find(reply),
        Some(Hit {
            id,
            direction: Direction::ToClient
        })
    );
    assert!(!table.contains(key.reversed()));
    table.remove(id).unwrap();
    assert!(!table.contains(key) && !table.contains(reply) && table.is_empty());
}

#[test]
fn a_full_table_refuses_and_keeps_what_it_has() {
    let mut table = ConnTable::new(2, 1);
    table.insert(conn(1, 1, 1, Method::Nat)).unwrap();
    table.insert(conn(1, 2, 1, Method::Nat)).unwrap();
    assert_eq!(table.insert(conn(1, 3, 1, Method::Nat)), Err(Full));
    assert_eq!(table.len(), 2);
    assert!(table.contains(client_key(&conn(1, 1, 1, Method::Nat))));
}

#[test]
fn replies_that_look_alike_go_to_the_latest_connection() {
    let mut table = ConnTable::new(2, 1);
    let first = conn(1, 1, 1, Method::Nat);
    let client = FlowKey {
        dst: Ipv4Addr::new(10, 0, 0, 2),
        ..client_key(&first)
    };
    let second = Conn::new(&NewConn {
        client,
        server: first.server(),
        local: None,
        method: Method::Nat,
        rs: 0,
    });
    let old = table.insert(first).unwrap();
    let new = table.insert(second).unwrap();
    let reply = first.key(Direction::ToClient);
    assert_eq!(table.find(reply).unwrap().id, new);
    let older = Hit {
        id: old,
        direction: Direction::ToServer,
    };
    assert!(table.of(older).displaced);
    table.relink(older);
    assert_eq!(table.find(reply).unwrap().id, new);
    table.remove(new).unwrap();
    table.relink(older);
    assert_eq!(table.find(reply).unwrap().id, old);
    assert!(!table.of(older).displaced);
    table.remove(old).unwrap();
    assert!(!table.contains(reply));
}

#[test]
fn replies_whose_key_is_known_to_be_free_find_the_first_half() {
    let mut table = ConnTable::new(2, 1);
    let conn = conn(1, 1, 1, Method::FullNat);
    let hash = |table: &ConnTable, key: FlowKey| table.hash(key.protocol.number(), &key.ends());
    let (client, reply) = (client_key(&conn), conn.key(Direction::ToClient));
    let (there, back) = (hash(&table, client), hash(&table, reply));
    let half = table.begin(conn, there, Some(back)).unwrap();
    assert!(table.contains(client) && table.contains(reply));
    table.complete(half).unwrap();
    table.remove(half.id).unwrap();
    assert!(!table.contains(client) && !table.contains(reply) && table.is_empty());
}

#[test]
fn scanning_in_small_pieces_sees_every_connection_once() {
    let mut table = ConnTable::new(50, 1);
    for port in 0..40 {
        table.insert(conn(1, port, 1, Method::Dr)).unwrap();
    }
    let (mut place, mut seen) = (0, 0);
    while let Some((found, next)) = table.scan(place, 3) {
        seen += usize::from(found.is_some());
        place = next;
    }
    assert_eq!(seen, 40);
}

#[test]
fn a_table_fills_to_its_capacity_and_stays_within_its_budget() {
    let capacity = 100_000;
    for seed in 0..3 {
        let mut table = ConnTable::new(capacity, seed);
        for n in 0..capacity {
            let conn = conn(n as u8, (n >> 8) as u16, (n % 7) as u8, Method::Nat);
            assert!(
                table.insert(conn).is_ok(),
                "refused connection {n} of {capacity}"
            );
        }
        assert!(
            table.bytes() == ConnTable::bytes_for(capacity) && table.bytes() / capacity <= 104,
            "{} bytes a connection",
            table.bytes() / capacity
        );
    }
}

proptest! {
    #[test]
    fn the_table_agrees_with_a_plain_map(
        steps in prop::collection::vec((any::<bool>(), 0u8..4, 0u16..12, 0u8..3, 0u8..2), 1..200),
    ) {
        let mut table = ConnTable::new(16, 7);
        let mut model: HashMap<FlowKey, ConnId> = HashMap::new();
        for (add, client, port, server, method) in steps {
            let method = if method == 0 { Method::Dr } else { Method::Nat };
            let conn = conn(client, port, server, method);
            let key = client_key(&conn);
            match (add, model.get(&key)) {
                (true, None) if model.len() < 16 => {
                    model.insert(key, table.insert(conn).unwrap());
                }
                (true, None) => prop_assert_eq!(table.insert(conn), Err(Full)),
                (false, Some(id)) => {
                    prop_assert_eq!(client_key(&table.remove(*id).unwrap()), key);
                    model.remove(&key);
                }
                _ => {}
            }
            prop_assert_eq!(table.len(), model.len());
            for (key, id) in &model {
                let hit = table.find(*key);
                prop_assert_eq!(hit, Some(Hit { id: *id, direction: Direction::ToServer }));
                let reply = table.conn(*id).unwrap().key(Direction::ToClient);
                prop_assert_eq!(table.find(reply).unwrap().id, *id);
            }
        }
    }
}
