//! Persistence templates and lblc's caches that another worker owns (contract 3 of the design).

use std::net::Ipv4Addr;

use sluice_dataplane::command::{Command, ServiceEdit};
use sluice_dataplane::conn::state::StateName;
use sluice_dataplane::drop_reason::DropReason;
use sluice_dataplane::service::{Method, Protocol, RsId, SchedulerKind};
use sluice_dataplane::time::Span;

use crate::related::{TOO_LONG, error};
use crate::rig::*;
use crate::team::Team;

const WEB: (Ipv4Addr, u16) = (VIP, 80);

fn client(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, n)
}

/// A service with three DR servers whose clients stay with theirs for 60 s; packets of it go to the worker that a test names.
fn persistent(workers: u16) -> (Team, Vec<RsId>) {
    let mut team = Team::new(workers, 64, Protocol::Tcp);
    team.spread_by_nics();
    let mut ids = Vec::new();
    team.each(|rig| {
        ids = (1..=3).map(|n| rig.add_server(n, 80, Method::Dr)).collect();
        rig.persist(60, [255; 4]);
    });
    (team, ids)
}

fn syn(team: &mut Team, worker: usize, from: (Ipv4Addr, u16)) -> Option<u8> {
    number_of(&team.packet(worker, CLIENT_SIDE, &tcp(from, WEB, "S", b"")))
}

/// All templates, with the worker that has them.
fn templates(team: &mut Team) -> Vec<(usize, Ipv4Addr, StateName)> {
    let mut all = Vec::new();
    for (id, rig) in team.workers.iter_mut().enumerate() {
        all.extend(rig.templates().iter().map(|row| (id, row.0, row.4)));
    }
    all
}

#[test]
fn a_client_has_one_server_whoever_receives_its_connections() {
    for workers in [2, 3, 5] {
        let (mut team, _) = persistent(workers);
        for n in 1..=20 {
            let servers: Vec<_> = (0..8)
                .map(|at| {
                    let worker = usize::from(at) % usize::from(workers);
                    syn(&mut team, worker, (client(n), 5000 + at))
                })
                .collect();
            assert!(servers[0].is_some());
            assert!(servers.iter().all(|one| *one == servers[0]), "{servers:?}");
        }
        let mut owners: Vec<_> = templates(&mut team).iter().map(|one| one.0).collect();
        assert_eq!(owners.len(), 20, "one for each client");
        owners.dedup();
        assert_eq!(owners.len(), usize::from(workers), "each owns some");
        assert_eq!(team.sum(|cells| cells.connections.read()), 160);
        // The connections are the receivers', not the owners'.
        let least = 160 / u64::from(workers) - 20;
        assert!(team.connections().iter().all(|count| *count >= least));
    }
}

#[test]
fn notes_that_one_turn_leaves_unread_the_next_reads_unasked() {
    let (mut team, _) = persistent(2);
    let client = owned_by_the_second(&mut team);
    let before = team.workers[1].templates().len();
    assert_eq!(before, 1);
    let (connections, waiting) = (team.connections()[0], 200);
    for port in 5000..5000 + waiting {
        alone(&mut team, (client, port));
    }
    for _ in 0..20 {
        team.workers[1].poll();
    }
    for _ in 0..20 {
        team.workers[0].poll();
    }
    let opened = team.connections()[0] - connections;
    assert_eq!(
        opened,
        u64::from(waiting),
        "each with one question and one answer"
    );
}

#[test]
fn the_owner_learns_that_a_connection_was_confirmed_and_that_it_ended() {
    let (mut team, _) = persistent(3);
    for worker in 0..3 {
        let from = (client(worker + 1), 5000);
        for other in 0..3 {
            let from = (from.0, 5000 + other);
            assert!(syn(&mut team, usize::from(other as u8), from).is_some());
            let ack = tcp(from, WEB, "A", b"");
            team.packet(usize::from(other as u8), CLIENT_SIDE, &ack);
        }
    }
    let shown = templates(&mut team);
    assert_eq!(shown.len(), 3);
    assert!(
        shown.iter().all(|one| one.2 == StateName::Assured),
        "{shown:?}"
    );
    // Established connections last 15 minutes; while they do, the templates that control them live on.
    for _ in 0..10 {
        team.each(|rig| rig.sleep(60_000));
    }
    assert_eq!(templates(&mut team).len(), 3);
    for _ in 0..10 {
        team.each(|rig| rig.sleep(60_000));
    }
    assert_eq!(team.sum(|cells| cells.connections.read()), 0);
    assert_eq!(templates(&mut team), []);
    let counted = |number: usize| team.sum(|cells| cells.servers[number].templates.read());
    assert_eq!([1, 2, 3].map(counted), [0, 0, 0]);
}

/// A client whose template the second worker owns.
fn owned_by_the_second(team: &mut Team) -> Ipv4Addr {
    let found = (1..=200).map(client).find(|client| {
        syn(team, 0, (*client, 4000));
        templates(team)
            .iter()
            .any(|one| one.0 == 1 && one.1 == *client)
    });
    found.expect("a hash that spreads")
}

/// The first worker receives a SYN and turns alone.
fn alone(team: &mut Team, from: (Ipv4Addr, u16)) {
    let rig = &mut team.workers[0];
    let port = &mut rig.worker.port_mut(CLIENT_SIDE).unwrap().port;
    port.deliver(&ethernet(mac(CLIENT_SIDE), &tcp(from, WEB, "S", b"")));
    rig.poll();
}

#[test]
fn an_error_that_schedules_its_connection_goes_where_the_client_is() {
    for workers in [2, 3] {
        let (mut team, _) = persistent(workers);
        team.each(|rig| rig.settings(|settings| settings.schedule_icmp = true));
        for n in 1..=20 {
            let server = syn(&mut team, 0, (client(n), 5000));
            assert!(server.is_some());
            for worker in 0..usize::from(workers) {
                let quoted = tcp(WEB, (client(n), 6000 + worker as u16), "SA", b"");
                let error = error(client(99), VIP, TOO_LONG, &quoted);
                assert_eq!(number_of(&team.packet(worker, CLIENT_SIDE, &error)), server);
            }
        }
        let all = |team: &Team| team.sum(|cells| cells.connections.read());
        assert_eq!(all(&team), 20 * u64::from(1 + workers));
        team.each(|rig| rig.sleep(3200));
        assert_eq!(all(&team), 20, "those of errors lasted three seconds");
        assert_eq!(templates(&mut team).len(), 20);
        // The errors' connections are given back: nothing holds the templates but their time.
        for _ in 0..10 {
            team.each(|rig| rig.sleep(60_000));
        }
        team.settle();
        assert_eq!(templates(&mut team), []);
    }
}

#[test]
fn an_error_that_nobody_is_to_take_is_a_counted_drop() {
    let (mut team, ids) = persistent(2);
    team.each(|rig| rig.settings(|settings| settings.schedule_icmp = true));
    let from = owned_by_the_second(&mut team);
    for id in ids {
        team.each(|rig| rig.delete_server(id));
    }
    for worker in 0..2 {
        let quoted = tcp(WEB, (from, 6000), "SA", b"");
        let error = error(client(99), VIP, TOO_LONG, &quoted);
        assert!(team.packet(worker, CLIENT_SIDE, &error).is_empty());
    }
    assert_eq!(team.drops(DropReason::NoServer), 2);
}

#[test]
fn an_owner_that_does_not_turn_costs_a_counted_drop_and_no_wrong_server() {
    let (mut team, _) = persistent(2);
    let from = owned_by_the_second(&mut team);
    let server = syn(&mut team, 0, (from, 4001));
    for port in 5000..5004 {
        alone(&mut team, (from, port));
    }
    assert_eq!(team.workers[0].cells.books.held.read(), 4);
    assert_eq!(team.workers[0].sent().len(), 0);
    team.workers[0].sleep(300);
    assert_eq!(team.drops(DropReason::AdviceMissing), 4);
    assert_eq!(team.workers[0].cells.books.held.read(), 0);
    // The answers come too late; what they counted is given back, so that the template ends in its time.
    team.settle();
    assert!(team.sent().is_empty());
    assert_eq!(syn(&mut team, 0, (from, 5000)), server);
    for _ in 0..10 {
        team.each(|rig| rig.sleep(60_000));
    }
    assert_eq!(templates(&mut team), []);
}

#[test]
fn an_answer_that_comes_too_late_costs_the_client_no_template() {
    let (mut team, _) = persistent(2);
    team.each(|rig| rig.persist(600, [255; 4]));
    let from = owned_by_the_second(&mut team);
    let server = syn(&mut team, 0, (from, 4001));
    // The connections end, and the template lives on for its time.
    team.each(|rig| rig.sleep(62_000));
    team.settle();
    assert_eq!(team.sum(|cells| cells.connections.read()), 0);
    alone(&mut team, (from, 5000));
    team.workers[0].sleep(300);
    assert_eq!(team.drops(DropReason::AdviceMissing), 1);
    team.settle();
    assert!(templates(&mut team).iter().any(|one| one.1 == from));
    assert_eq!(syn(&mut team, 0, (from, 5001)), server);
}

#[test]
fn no_more_packets_wait_than_there_is_room_for() {
    let (mut team, _) = persistent(2);
    let from = owned_by_the_second(&mut team);
    for port in 10_000..11_100 {
        alone(&mut team, (from, port));
    }
    assert_eq!(team.workers[0].cells.books.held.read(), 1024);
    assert_eq!(team.drops(DropReason::AdviceQueueFull), 76);
    team.settle();
    assert_eq!(team.workers[0].cells.books.held.read(), 0);
}

#[test]
fn an_owner_that_has_not_heard_of_the_service_is_asked_again() {
    let (mut team, _) = persistent(2);
    let from = owned_by_the_second(&mut team);
    let id = team.workers[1].service.id;
    team.workers[1].command(Command::DeleteService(id));
    let syn = tcp((from, 6000), WEB, "S", b"");
    assert!(team.packet(0, CLIENT_SIDE, &syn).is_empty());
    assert_eq!(team.workers[0].cells.books.held.read(), 1);
    team.workers[1].put(ServiceEdit::Created);
    team.each(|rig| rig.now = rig.now + Span(2_000_000));
    team.settle();
    assert!(number_of(&team.sent()).is_some());
    // And one that never hears of it: a drop.
    team.workers[1].command(Command::DeleteService(id));
    let syn = tcp((from, 6001), WEB, "S", b"");
    assert!(team.packet(0, CLIENT_SIDE, &syn).is_empty());
    for _ in 0..4 {
        team.each(|rig| rig.sleep(100));
    }
    assert_eq!(team.drops(DropReason::AdviceMissing), 1);
}

#[test]
fn an_asker_that_has_not_heard_of_the_server_asks_again() {
    let (mut team, _) = persistent(2);
    let from = owned_by_the_second(&mut team);
    // The client's server, deleted and replaced by one that only the owner knows.
    let ids: Vec<_> = (1..=3)
        .map(|index| RsId {
            index,
            generation: 0,
        })
        .collect();
    for id in ids {
        team.each(|rig| rig.delete_server(id));
    }
    team.workers[1].add_server(5, 80, Method::Dr);
    let syn = tcp((from, 6000), WEB, "S", b"");
    assert!(team.packet(0, CLIENT_SIDE, &syn).is_empty());
    assert_eq!(team.workers[0].cells.books.held.read(), 1);
    team.workers[0].add_server(5, 80, Method::Dr);
    team.each(|rig| rig.now = rig.now + Span(2_000_000));
    team.settle();
    assert_eq!(number_of(&team.sent()), Some(5));
}

#[test]
fn nobody_to_take_it_is_answered_to_the_client() {
    let (mut team, _) = persistent(2);
    let from = owned_by_the_second(&mut team);
    team.each(|rig| {
        for index in 1..=3 {
            rig.delete_server(RsId {
                index,
                generation: 0,
            });
        }
    });
    team.packet(0, CLIENT_SIDE, &tcp((from, 6000), WEB, "S", b""));
    assert_eq!(team.drops(DropReason::NoServer), 1);
}

#[test]
fn a_threshold_holds_for_servers_that_owners_chose() {
    let (mut team, ids) = persistent(3);
    team.each(|rig| {
        for id in &ids {
            let mut servers = rig.service.real_servers.iter_mut();
            let real = servers.find(|real| real.id == *id).unwrap();
            (real.upper_threshold, real.lower_threshold) = (5, 2);
            rig.put(ServiceEdit::ServerEdited(*id));
        }
    });
    let opened = (1..=60)
        .filter(|n| syn(&mut team, usize::from(*n) % 3, (client(*n), 5000)).is_some())
        .count();
    assert_eq!(opened, 15);
    for number in 1..=3 {
        let conns = team.sum(|cells| {
            let server = &cells.servers[number];
            server.active.read() + server.inactive.read()
        });
        assert_eq!(conns, 5);
    }
}

#[test]
fn a_place_that_an_owner_takes_for_one_who_has_not_heard_of_the_threshold_is_given_back() {
    let (mut team, ids) = persistent(2);
    team.each(|rig| {
        for id in &ids[1..] {
            rig.delete_server(*id);
        }
    });
    let from: Vec<_> = (1..=200).map(client).collect();
    let threshold = |rig: &mut Rig| {
        rig.service.real_servers[0].upper_threshold = 8;
        rig.put(ServiceEdit::ServerEdited(ids[0]));
    };
    threshold(&mut team.workers[1]);
    // The second worker owns some of these clients, and takes places for them.
    let opened = |team: &mut Team, clients: &[Ipv4Addr]| {
        let syns = clients.iter().map(|from| syn(team, 0, (*from, 5000)));
        syns.filter(Option::is_some).count()
    };
    assert_eq!(opened(&mut team, &from[..7]), 7);
    threshold(&mut team.workers[0]);
    assert_eq!(opened(&mut team, &from[7..]), 1, "7 of 8 are there");
    for _ in 0..10 {
        team.each(|rig| rig.sleep(60_000));
    }
    assert_eq!(team.connections(), [0, 0]);
    assert_eq!(opened(&mut team, &from), 8, "as many as ever");
}

#[test]
fn lblc_sends_a_destination_to_one_server_whoever_receives_its_connections() {
    for kind in [SchedulerKind::Lblc, SchedulerKind::Lblcr] {
        let (mut team, ids) = persistent(4);
        team.each(|rig| {
            rig.service.persistence = None;
            rig.service.scheduler = kind;
            rig.put(ServiceEdit::Edited);
            // So much that no other needs to relieve it.
            ids.iter().for_each(|id| rig.set_weight(*id, 100));
        });
        let servers: Vec<_> = (0..12)
            .map(|n| {
                syn(
                    &mut team,
                    usize::from(n as u8) % 4,
                    (client(n as u8), 5000 + n),
                )
            })
            .collect();
        assert!(servers[0].is_some());
        assert!(servers.iter().all(|one| *one == servers[0]), "{servers:?}");
        assert!(team.connections().iter().all(|count| *count == 3));
    }
}
