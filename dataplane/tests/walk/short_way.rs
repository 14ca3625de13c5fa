//! What most packets take, beside what the others take: a difference must not be seen.

use sluice_dataplane::command::Event;
use sluice_dataplane::conn::state::{State, StateName};
use sluice_dataplane::drop_reason::DropReason;
use sluice_dataplane::service::{Method, Protocol};

use crate::rig::*;

const FROM: (std::net::Ipv4Addr, u16) = (CLIENT, 5000);

fn established(method: Method) -> Rig {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(1, 80, method);
    for flags in ["S", "A", "A", "A"] {
        assert_eq!(client(&mut rig, flags).len(), 1);
    }
    rig
}

fn client(rig: &mut Rig, flags: &str) -> Vec<Sent> {
    rig.packet(CLIENT_SIDE, &tcp(FROM, (VIP, 80), flags, b""))
}

fn replies(rig: &mut Rig, flags: &str) -> Vec<Sent> {
    rig.packet(SERVER_SIDE, &tcp((server(1), 80), FROM, flags, b""))
}

/// The last byte of each packet that comes out now.
fn numbers_sent(rig: &mut Rig) -> Vec<u8> {
    rig.poll();
    let last = |sent: &Sent| *sent.packet.last().unwrap();
    rig.sent().iter().map(last).collect()
}

fn state(rig: &mut Rig) -> (StateName, u64) {
    let row = rig.connections().pop().unwrap();
    (row.state, (row.expires_ms + 500) / 1000)
}

#[test]
fn each_packet_counts_once_for_its_server_and_once_for_its_service() {
    let mut rig = established(Method::Nat);
    for _ in 0..5 {
        assert_eq!(replies(&mut rig, "A").len(), 1);
    }
    for cells in [
        &rig.cells.servers[1].traffic,
        &rig.cells.services[0].traffic,
    ] {
        let counts = cells
            .each_ref()
            .map(|way| (way.packets.read(), way.bytes.read()));
        assert_eq!(counts, [(4, 160), (5, 200)]);
    }
}

#[test]
fn a_deleted_server_takes_no_packet_more_either_way() {
    let mut rig = Rig::new(Protocol::Tcp);
    let id = rig.add_server(1, 80, Method::Dr);
    for flags in ["S", "A", "A"] {
        assert_eq!(client(&mut rig, flags).len(), 1);
    }
    rig.delete_server(id);
    assert!(client(&mut rig, "A").is_empty());
    assert_eq!(rig.drops(DropReason::ServerGone), 1);
}

#[test]
fn new_timeouts_hold_from_the_next_packet_on() {
    let mut rig = established(Method::Dr);
    assert_eq!(state(&mut rig), (StateName::Of(State::Established), 900));
    rig.settings(|settings| settings.timeouts.established_s = 77);
    client(&mut rig, "A");
    assert_eq!(state(&mut rig), (StateName::Of(State::Established), 77));
}

#[test]
fn a_fin_is_understood_between_packets_that_change_nothing() {
    let mut rig = established(Method::Nat);
    replies(&mut rig, "A");
    replies(&mut rig, "FA");
    assert_eq!(state(&mut rig).0, StateName::Of(State::FinWait));
    client(&mut rig, "A");
    assert_eq!(state(&mut rig).0, StateName::Of(State::FinWait));
    client(&mut rig, "FA");
    assert_eq!(state(&mut rig).0, StateName::Of(State::TimeWait));
}

#[test]
fn a_first_reply_changes_what_the_clients_packets_mean() {
    // As long as no reply was seen a client's FIN leads to FIN_WAIT, then to CLOSE_WAIT.
    for (reply, expected) in [
        (false, StateName::Of(State::FinWait)),
        (true, StateName::Of(State::CloseWait)),
    ] {
        let mut rig = established(Method::Dr);
        if reply {
            // A reply that shows the VIP as its source, through us.
            rig.packet(SERVER_SIDE, &tcp((VIP, 80), FROM, "A", b""));
        }
        client(&mut rig, "A");
        client(&mut rig, "FA");
        assert_eq!(state(&mut rig).0, expected, "reply seen: {reply}");
    }
}

#[test]
fn a_packet_without_flags_closes_and_the_next_ones_follow_the_rules() {
    let mut rig = established(Method::Nat);
    client(&mut rig, "");
    assert_eq!(state(&mut rig), (StateName::Of(State::Close), 10));
    client(&mut rig, "A");
    assert_eq!(state(&mut rig).0, StateName::Of(State::Close));
}

#[test]
fn a_neighbour_in_use_is_reported_again_and_again() {
    let mut rig = established(Method::Dr);
    rig.events();
    let mut reported = 0;
    for _ in 0..30 {
        client(&mut rig, "A");
        rig.sleep(1000);
        let events = rig.events();
        reported += events
            .iter()
            .filter(|event| matches!(event, Event::NeighbourUsed { .. }))
            .count();
    }
    assert!((3..=6).contains(&reported), "{reported} times in 30 s");
    rig.sleep(6000);
    rig.events();
    rig.sleep(30_000);
    assert!(rig.events().is_empty(), "nobody uses it any more");
}

#[test]
fn frames_of_a_connection_keep_their_order_whatever_way_they_take() {
    let mut rig = established(Method::Dr);
    rig.packet(CLIENT_SIDE, &tcp((CLIENT, 6000), (VIP, 80), "S", b""));
    let flags = ["A", "A", "A", "S", "A", "FA", "A"];
    let frames = flags.iter().zip(0..).map(|(flags, n)| {
        let port = if *flags == "S" { 6001 + n } else { 5000 };
        ethernet(
            mac(CLIENT_SIDE),
            &tcp((CLIENT, port), (VIP, 80), flags, &[n as u8]),
        )
    });
    let port = &mut rig.worker.port_mut(CLIENT_SIDE).unwrap().port;
    frames.for_each(|frame| port.deliver(&frame));
    let numbers = numbers_sent(&mut rig);
    let (opening, others): (Vec<u8>, Vec<u8>) = numbers.iter().partition(|number| **number == 3);
    assert_eq!((opening, others), (vec![3], vec![0, 1, 2, 4, 5, 6]));
}

#[test]
fn a_burst_may_open_a_connection_and_go_on_with_it() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(1, 80, Method::Nat);
    let port = &mut rig.worker.port_mut(CLIENT_SIDE).unwrap().port;
    for (number, flags) in ["S", "S", "A", "FA"].iter().enumerate() {
        let packet = tcp(FROM, (VIP, 80), flags, &[number as u8]);
        port.deliver(&ethernet(mac(CLIENT_SIDE), &packet));
    }
    let numbers = numbers_sent(&mut rig);
    assert_eq!(numbers, [0, 1, 2, 3]);
    assert_eq!(rig.connections().len(), 1);
    assert_eq!(state(&mut rig).0, StateName::Of(State::CloseWait));
    assert_eq!(rig.cells.servers[1].conns.read(), 1);
}
