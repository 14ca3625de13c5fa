//! What goes to the kernel, what comes from it, and packets that wait for a next hop.

use std::net::Ipv4Addr;

use sluice_dataplane::command::{Event, PortId};
use sluice_dataplane::drop_reason::DropReason;
use sluice_dataplane::service::{Method, Protocol};

use crate::port::TestFrame;
use crate::rig::*;

const FROM: (Ipv4Addr, u16) = (CLIENT, 34567);

#[test]
fn what_is_no_business_of_ours_reaches_the_kernel_unchanged() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(1, 80, Method::Nat);
    let mut arp = vec![0xff; 6];
    arp.extend([2, 0, 0, 0, 0xfe, 1, 8, 6]);
    arp.extend([0; 28]);
    let frames = [
        arp,
        ethernet(mac(CLIENT_SIDE), &tcp(FROM, (VIP, 22), "S", b"")),
        ethernet(
            mac(CLIENT_SIDE),
            &tcp(FROM, (VIP, 80), "A", b"no connection"),
        ),
        ethernet(mac(CLIENT_SIDE), &udp(FROM, (VIP, 80), b"not TCP")),
        ethernet(mac(CLIENT_SIDE), &tcp((CLIENT, 20), (VIP, 80), "S", b"")),
    ];
    for frame in &frames {
        assert!(rig.frame(CLIENT_SIDE, frame).is_empty());
    }
    assert_eq!(rig.punted(CLIENT_SIDE), frames);
    assert_eq!(rig.cells.books.punted.read(), 5);
}

#[test]
fn without_an_exception_interface_such_packets_are_counted_drops() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.worker.port_mut(CLIENT_SIDE).unwrap().punt = None;
    rig.packet(CLIENT_SIDE, &tcp(FROM, (VIP, 22), "S", b""));
    assert_eq!(rig.drops(DropReason::NoKernel), 1);
}

#[test]
fn the_kernels_frames_go_out_as_they_are() {
    let mut rig = Rig::new(Protocol::Tcp);
    let frame = ethernet(mac_of(CLIENT), &udp((VIP, 53), FROM, b"answer"));
    rig.kernel[0]
        .to_worker
        .push(TestFrame::new(&frame))
        .unwrap();
    rig.poll();
    let out = rig.sent();
    assert_eq!(
        (out[0].side, out[0].to, &out[0].packet[..]),
        (CLIENT_SIDE, mac_of(CLIENT), &frame[14..])
    );
    assert_eq!(rig.cells.books.from_kernel.read(), 1);
}

#[test]
fn a_real_server_on_the_appliance_itself_is_translated_both_ways() {
    let mut rig = Rig::new(Protocol::Tcp);
    let mut fib = sluice_dataplane::egress::Fib::default();
    fib.insert(
        "192.168.1.1/32".parse().unwrap(),
        sluice_dataplane::egress::Route::Local,
    );
    rig.command(sluice_dataplane::command::Command::Fib(
        std::sync::Arc::new(fib),
    ));
    rig.add_server(1, 8080, Method::Nat);
    assert!(
        rig.packet(CLIENT_SIDE, &tcp(FROM, (VIP, 80), "S", b""))
            .is_empty()
    );
    let punted = rig.punted(CLIENT_SIDE);
    assert_eq!(flow(&punted[0][14..]), (FROM, (server(1), 8080)));
    assert_eq!(punted[0][14 + 8], 64, "the TTL stays");
    let reply = ethernet(mac_of(CLIENT), &tcp((server(1), 8080), FROM, "SA", b""));
    rig.kernel[0]
        .to_worker
        .push(TestFrame::new(&reply))
        .unwrap();
    rig.poll();
    assert_eq!(rig.sent()[0].flow(), ((VIP, 80), FROM));
}

#[test]
fn packets_wait_for_their_next_hop_and_follow_it_when_it_moves() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(9, 80, Method::Nat);
    rig.events();
    assert!(
        rig.packet(CLIENT_SIDE, &tcp(FROM, (VIP, 80), "S", b""))
            .is_empty()
    );
    assert_eq!(rig.cells.books.held.read(), 1);
    let asked: Vec<(PortId, Ipv4Addr)> = rig
        .events()
        .into_iter()
        .filter_map(|event| match event {
            Event::NeighbourMissing { port, addr } => Some((port, addr)),
            _ => None,
        })
        .collect();
    assert_eq!(asked, [(SERVER_SIDE, server(9))]);
    for mac in [mac_of(server(9)), mac_of(server(10))] {
        rig.neighbour(SERVER_SIDE, server(9), Some(mac));
        rig.packet(CLIENT_SIDE, &tcp(FROM, (VIP, 80), "A", b""))
            .iter()
            .for_each(|sent| assert_eq!(sent.to, mac));
    }
    assert_eq!(rig.cells.books.held.read(), 0);
    assert_eq!(rig.cells.books.tx.read(), 3);
}

#[test]
fn a_next_hop_that_never_answers_costs_its_packets_after_three_seconds() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.add_server(9, 80, Method::Nat);
    for _ in 0..6 {
        rig.packet(CLIENT_SIDE, &tcp(FROM, (VIP, 80), "S", b""));
    }
    assert_eq!(rig.drops(DropReason::NeighbourQueueFull), 2);
    rig.sleep(2_900);
    assert_eq!(rig.drops(DropReason::NeighbourUnresolved), 0);
    rig.sleep(200);
    assert_eq!(rig.drops(DropReason::NeighbourUnresolved), 4);
}
