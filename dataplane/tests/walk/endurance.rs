//! What must hold however long it goes on, and whatever is asked.

use std::sync::Arc;

use sluice_dataplane::command::{Command, ConnFilter, ConnSlice, Event, ServiceEdit};
use sluice_dataplane::service::{Method, Protocol, ServiceId, ServiceKey};

use crate::rig::*;

#[test]
fn opening_and_closing_for_ever_leaves_no_timer_behind() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(1, 80, Method::Nat);
    let syn = tcp((CLIENT, 5000), (VIP, 80), "S", b"");
    let bare = tcp((CLIENT, 5000), (VIP, 80), "", b"");
    for _ in 0..100_000 {
        rig.packet(CLIENT_SIDE, &syn);
        rig.packet(CLIENT_SIDE, &bare);
    }
    for port in 6000..6100 {
        rig.packet(CLIENT_SIDE, &tcp((CLIENT, port), (VIP, 80), "S", b""));
    }
    assert_eq!(rig.cells.connections.read(), 101);
    rig.sleep(61_000);
    assert_eq!(rig.cells.connections.read(), 0);
}

#[test]
fn ever_earlier_deadlines_fill_no_store_for_good() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(1, 80, Method::Nat);
    // Each round trip of states leaves timers behind that go stale, up to 900 s ahead.
    for _ in 0..600 {
        for port in 0..100 {
            let from = (CLIENT, 5000 + port);
            for flags in ["S", "A", "F", "R"] {
                rig.packet(CLIENT_SIDE, &tcp(from, (VIP, 80), flags, b""));
            }
        }
        rig.sleep(10_200);
    }
    rig.sleep(120_000);
    assert_eq!(rig.cells.connections.read(), 0);
}

#[test]
fn a_made_up_cursor_is_past_the_end() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(1, 80, Method::Nat);
    rig.packet(CLIENT_SIDE, &tcp((CLIENT, 5000), (VIP, 80), "S", b""));
    rig.events();
    for cursor in [u64::MAX, 1 << 40, 256] {
        rig.command(Command::ListConnections(Box::new(ConnSlice {
            query: cursor,
            cursor: Some(cursor),
            filter: ConnFilter::default(),
            rows: Vec::with_capacity(4),
        })));
        rig.poll();
        let answers = rig.events();
        let [Event::Connections(slice)] = &answers[..] else {
            panic!("{answers:?}")
        };
        assert_eq!(
            (slice.query, slice.cursor, slice.rows.len()),
            (cursor, None, 0)
        );
    }
    assert_eq!(rig.connections().len(), 1);
}

#[test]
fn a_connection_gets_its_replies_back_when_the_newer_one_that_took_them_is_gone() {
    let mut rig = Rig::new(Protocol::Udp);
    rig.add_server(1, 80, Method::Nat);
    let mut second = rig.service.clone();
    second.id = ServiceId(1);
    second.key = ServiceKey::Address {
        protocol: Protocol::Udp,
        addr: VIP.into(),
        port: 81,
    };
    second.real_servers[0].id.index = 2;
    rig.command(Command::PutService {
        service: Arc::new(second),
        edit: ServiceEdit::Created,
    });
    let client = (CLIENT, 5000);
    let reply = udp((server(1), 80), client, b"reply");
    rig.packet(CLIENT_SIDE, &udp(client, (VIP, 80), b"older"));
    rig.packet(CLIENT_SIDE, &udp(client, (VIP, 81), b"newer"));
    assert_eq!(rig.packet(SERVER_SIDE, &reply)[0].flow().0, (VIP, 81));
    for _ in 0..4 {
        rig.sleep(100_000);
        rig.packet(CLIENT_SIDE, &udp(client, (VIP, 80), b"older"));
    }
    assert_eq!(rig.connections().len(), 1);
    assert_eq!(rig.packet(SERVER_SIDE, &reply)[0].flow().0, (VIP, 80));
}
