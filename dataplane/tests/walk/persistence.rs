//! Persistence beyond what the recorded traces show (`SEMANTICS.md` section 5).

use std::net::Ipv4Addr;

use sluice_dataplane::command::{Command, ServiceEdit};
use sluice_dataplane::conn::state::State::None as NoState;
use sluice_dataplane::conn::state::StateName::{Assured, Of};
use sluice_dataplane::service::{Method, Protocol, ServiceId};

use crate::rig::*;

const ALL_BITS: [u8; 4] = [255; 4];
const WEB: (Ipv4Addr, u16) = (VIP, 80);

fn client(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 16, 0, last)
}

fn persistent(servers: &[u8]) -> Rig {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.persist(300, ALL_BITS);
    for server in servers {
        rig.add_server(*server, 80, Method::Nat);
    }
    rig
}

#[test]
fn clients_that_agree_in_the_mask_share_a_template() {
    let mut rig = persistent(&[1, 2]);
    rig.persist(300, [255, 255, 255, 4]);
    let first = rig.syn((client(1), 1000), WEB);
    assert_eq!(rig.syn((client(3), 1000), WEB), first, "bit 2 is 0 in both");
    assert_ne!(rig.syn((client(4), 1000), WEB), first);
    let clients: Vec<_> = rig.templates().iter().map(|row| row.0).collect();
    assert_eq!(clients, [client(0), client(4)]);
}

#[test]
fn a_template_sends_to_an_overloaded_and_to_a_quiesced_server() {
    let mut rig = Rig::new(Protocol::Tcp);
    rig.persist(300, ALL_BITS);
    let one = rig.add_server(1, 80, Method::Nat);
    rig.service.real_servers[0].upper_threshold = 1;
    rig.put(ServiceEdit::ServerEdited(one));
    assert_eq!(rig.syn((client(1), 1000), WEB), Some(1));
    assert_eq!(rig.syn((client(2), 1000), WEB), None, "it is full");
    assert_eq!(rig.syn((client(1), 1001), WEB), Some(1));
    rig.set_weight(one, 0);
    assert_eq!(rig.syn((client(1), 1002), WEB), Some(1));
    assert_eq!(rig.cells.servers[1].templates.read(), 1);
}

#[test]
fn with_expire_quiescent_template_a_quiesced_servers_clients_move() {
    let mut rig = persistent(&[1, 2]);
    rig.settings(|settings| settings.expire_quiescent_template = true);
    assert_eq!(rig.syn((client(1), 1000), WEB), Some(2));
    let two = rig.service.real_servers[0].id;
    rig.set_weight(two, 0);
    assert_eq!(rig.syn((client(1), 1001), WEB), Some(1));
    let rows = rig.templates();
    let short: Vec<_> = rows.iter().map(|row| (row.1, row.2, row.3)).collect();
    assert_eq!(short, [(80, 1, 80), (65535, 2, 65535)]);
    rig.set_weight(two, 1);
    assert_eq!(
        rig.syn((client(1), 1002), WEB),
        Some(1),
        "it moved for good"
    );
}

#[test]
fn a_template_survives_its_service_and_works_again_with_the_revived_server() {
    let mut rig = persistent(&[1, 2]);
    assert_eq!(rig.syn((client(1), 1000), WEB), Some(2));
    let servers = std::mem::take(&mut rig.service.real_servers);
    rig.command(Command::DeleteService(ServiceId(0)));
    rig.put(ServiceEdit::Created);
    // Added in the other order, so that the scheduler alone would say 1.
    for server in servers {
        rig.service.real_servers.insert(0, server);
        let id = server.id;
        rig.put(ServiceEdit::ServerAdded { id, revived: true });
    }
    assert_eq!(rig.syn((client(1), 1001), WEB), Some(2));
    assert_eq!(rig.templates().len(), 1);
}

#[test]
fn a_template_takes_up_its_servers_new_method() {
    let mut rig = persistent(&[1]);
    rig.syn((client(1), 1000), WEB);
    let id = rig.service.real_servers[0].id;
    rig.service.real_servers[0].method = Method::Dr;
    rig.put(ServiceEdit::ServerEdited(id));
    let out = rig.packet(CLIENT_SIDE, &tcp((client(1), 1001), WEB, "S", b""));
    assert_eq!(out[0].flow(), ((client(1), 1001), WEB));
}

#[test]
fn establishing_assures_a_template_and_so_does_a_udp_reply() {
    let mut rig = persistent(&[1]);
    let from = (client(1), 1000);
    rig.syn(from, WEB);
    assert_eq!(rig.templates()[0].4, Of(NoState));
    rig.packet(SERVER_SIDE, &tcp((server(1), 80), from, "SA", b""));
    assert_eq!(rig.templates()[0].4, Of(NoState));
    rig.packet(CLIENT_SIDE, &tcp(from, WEB, "A", b""));
    assert_eq!(rig.templates()[0].4, Assured);

    let mut rig = Rig::new(Protocol::Udp);
    rig.persist(300, ALL_BITS);
    rig.add_server(1, 80, Method::Nat);
    for _ in 0..2 {
        rig.packet(CLIENT_SIDE, &udp(from, WEB, b"?"));
        assert_eq!(rig.templates()[0].4, Of(NoState));
    }
    rig.packet(SERVER_SIDE, &udp((server(1), 80), from, b"!"));
    assert_eq!(rig.templates()[0].4, Assured);
}

#[test]
fn a_syn_does_not_take_over_a_connection_that_a_template_controls() {
    for (persists, conns) in [(true, 1), (false, 2)] {
        let mut rig = persistent(&[1]);
        if !persists {
            rig.service.persistence = None;
            rig.put(ServiceEdit::Edited);
        }
        let from = (client(1), 1000);
        rig.syn(from, WEB);
        rig.packet(SERVER_SIDE, &tcp((server(1), 80), from, "SA", b""));
        rig.packet(CLIENT_SIDE, &tcp(from, WEB, "A", b""));
        rig.packet(CLIENT_SIDE, &tcp(from, WEB, "R", b""));
        assert_eq!(rig.syn(from, WEB), Some(1));
        assert_eq!(rig.cells.servers[1].conns.read(), conns);
    }
}

#[test]
fn an_unassured_template_goes_with_its_last_connection_that_is_forced_out() {
    for established in [false, true] {
        let mut rig = persistent(&[1, 2]);
        rig.settings(|settings| settings.expire_nodest_conn = true);
        let from = (client(1), 1000);
        assert_eq!(rig.syn(from, WEB), Some(2));
        if established {
            rig.packet(SERVER_SIDE, &tcp((server(2), 80), from, "SA", b""));
            rig.packet(CLIENT_SIDE, &tcp(from, WEB, "A", b""));
        }
        let two = rig.service.real_servers[0].id;
        rig.set_weight(two, 0);
        // A SYN of a quiesced server's connection expires it and is scheduled anew.
        let again = rig.syn(from, WEB);
        assert_eq!(again, Some(if established { 2 } else { 1 }));
        assert_eq!(rig.templates().len(), 1);
    }
}

#[test]
fn deleting_a_server_sweeps_its_connections_and_templates_at_once_only_with_expire_nodest_conn() {
    for sweeps in [false, true] {
        let mut rig = persistent(&[1, 2]);
        rig.settings(|settings| settings.expire_nodest_conn = sweeps);
        for last in 1..=6 {
            rig.syn((client(last), 1000), WEB);
        }
        let two = rig.service.real_servers[0].id;
        rig.delete_server(two);
        rig.sleep(200);
        let left = if sweeps { (3, 3) } else { (6, 6) };
        let rows = rig.connections();
        let templates = rows.iter().filter(|row| row.template).count();
        assert_eq!((rows.len() - templates, templates), left);
        let of_two = if sweeps { 0 } else { 3 };
        assert_eq!(rig.cells.servers[2].templates.read(), of_two);
        if sweeps {
            rig.service.real_servers.clear();
            rig.command(Command::DeleteService(ServiceId(0)));
            rig.sleep(200);
            assert!(rig.connections().is_empty());
        }
    }
}

#[test]
fn a_persistent_service_without_usable_server_refuses_and_leaves_no_template() {
    let mut rig = persistent(&[1]);
    let one = rig.service.real_servers[0].id;
    rig.set_weight(one, 0);
    let out = rig.packet(CLIENT_SIDE, &tcp((client(1), 1000), WEB, "S", b""));
    assert_eq!(
        (out.len(), out[0].side, out[0].packet[20]),
        (1, CLIENT_SIDE, 3)
    );
    assert!(rig.templates().is_empty());
}

#[test]
fn a_full_template_table_refuses_new_clients_and_serves_known_ones() {
    let mut rig = persistent(&[1]);
    // 256 connections fit, and 112 templates beside them.
    for n in 0..112u16 {
        let from = Ipv4Addr::new(172, 16, 1, n as u8);
        assert_eq!(rig.syn((from, 1000), WEB), Some(1), "{n}");
    }
    assert_eq!(rig.syn((client(9), 1000), WEB), None);
    let full = sluice_dataplane::drop_reason::DropReason::TemplatesFull;
    assert_eq!(rig.drops(full), 1);
    assert_eq!(rig.syn((Ipv4Addr::new(172, 16, 1, 0), 1001), WEB), Some(1));
}

#[test]
fn a_longer_persistence_holds_for_new_templates_only() {
    let mut rig = persistent(&[1]);
    rig.syn((client(1), 1000), WEB);
    rig.persist(600, ALL_BITS);
    rig.syn((client(1), 1001), WEB);
    rig.syn((client(2), 1000), WEB);
    let left: Vec<_> = rig.templates().iter().map(|row| row.5).collect();
    assert!(
        (299..=300).contains(&left[0]) && (599..=600).contains(&left[1]),
        "{left:?}"
    );
}
