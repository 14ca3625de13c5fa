//! Workers together choose as one would (contract 3 of the design).

use sluice_dataplane::command::ServiceEdit;
use sluice_dataplane::service::{Method, Protocol, RsId, SchedulerKind};
use sluice_dataplane::time::TickRate;

use crate::rig::*;
use crate::team::Team;

const WEIGHTS: [u32; 3] = [1, 3, 2];
const CONNECTIONS: u16 = 250;

/// Which of four workers receives connection `n`: a skewed steering.
fn receiver(n: u16, workers: usize) -> usize {
    let drawn = usize::from(n.wrapping_mul(40_503) >> 8) % 20;
    [0..11, 11..16, 16..19, 19..20]
        .iter()
        .position(|part| part.contains(&drawn))
        .unwrap()
        % workers
}

/// How many of the connections each server gets, which arrive at 5,000 a second.
fn shares(kind: SchedulerKind, workers: u16) -> [u64; 3] {
    let mut team = Team::new(workers, 64, Protocol::Udp);
    team.spread_by_nics();
    team.each(|rig| {
        rig.service.scheduler = kind;
        rig.put(ServiceEdit::Edited);
        for (number, weight) in (1..).zip(WEIGHTS) {
            let id = rig.add_server(number, 80, Method::Dr);
            rig.set_weight(id, weight);
        }
    });
    for n in 0..CONNECTIONS {
        let client = (CLIENT, 1000 + n);
        let at = receiver(n, usize::from(workers));
        let out = team.packet(at, CLIENT_SIDE, &udp(client, (VIP, 80), b"?"));
        assert_eq!(out.len(), 1);
        team.pass(TickRate::NANOSECONDS.millis(1).0 / 5);
    }
    [1, 2, 3].map(|number| team.sum(|cells| cells.servers[number].conns.read()))
}

#[test]
fn servers_get_from_four_workers_what_one_would_give_them() {
    use SchedulerKind as Kind;
    for kind in [
        Kind::Rr,
        Kind::Wrr,
        Kind::Lc,
        Kind::Wlc,
        Kind::Sed,
        Kind::Nq,
    ] {
        let (one, four) = (shares(kind, 1), shares(kind, 4));
        for (alone, together) in one.iter().zip(four) {
            let most = u64::from(CONNECTIONS) / 50;
            assert!(
                alone.abs_diff(together) <= most,
                "{kind:?}: {one:?} and {four:?}"
            );
        }
    }
}

fn with_threshold(team: &mut Team, number: u8, upper: u32, lower: u32) -> RsId {
    let mut added = None;
    team.each(|rig| {
        let id = rig.add_server(number, 80, Method::Dr);
        set_thresholds(rig, id, upper, lower);
        added = Some(id);
    });
    added.unwrap()
}

fn set_thresholds(rig: &mut Rig, id: RsId, upper: u32, lower: u32) {
    for real in rig
        .service
        .real_servers
        .iter_mut()
        .filter(|real| real.id == id)
    {
        (real.upper_threshold, real.lower_threshold) = (upper, lower);
    }
    rig.put(ServiceEdit::ServerEdited(id));
}

/// So many connections, received by the workers in turn: how many were sent to a server.
fn open(team: &mut Team, ports: std::ops::Range<u16>) -> usize {
    let workers = team.workers.len();
    let to = |port: u16| {
        (
            usize::from(port) % workers,
            udp((CLIENT, port), (VIP, 80), b"?"),
        )
    };
    ports
        .map(to)
        .filter(|(at, packet)| number_of(&team.packet(*at, CLIENT_SIDE, packet)).is_some())
        .count()
}

#[test]
fn a_threshold_holds_for_all_workers_together() {
    for kind in [SchedulerKind::Rr, SchedulerKind::Wlc, SchedulerKind::Wrr] {
        let mut team = Team::new(4, 64, Protocol::Udp);
        team.each(|rig| {
            rig.service.scheduler = kind;
            rig.put(ServiceEdit::Edited);
        });
        let first = with_threshold(&mut team, 1, 10, 5);
        with_threshold(&mut team, 2, 3, 2);
        assert_eq!(open(&mut team, 1000..1100), 13, "{kind:?}");
        let conns =
            |team: &Team, number: usize| team.sum(|cells| cells.servers[number].inactive.read());
        assert_eq!((conns(&team, 1), conns(&team, 2)), (10, 3));

        // Raised while all are there, and then they go.
        team.each(|rig| set_thresholds(rig, first, 12, 11));
        assert_eq!(open(&mut team, 1100..1200), 2, "{kind:?}");
        team.each(|rig| rig.sleep(301_000));
        assert_eq!((conns(&team, 1), conns(&team, 2)), (0, 0));
        assert_eq!(open(&mut team, 1000..1100), 15, "{kind:?}");
    }
}

#[test]
fn connections_from_before_a_threshold_count() {
    let mut team = Team::new(3, 64, Protocol::Udp);
    let id = with_threshold(&mut team, 1, 0, 0);
    assert_eq!(open(&mut team, 1000..1010), 10);
    team.each(|rig| set_thresholds(rig, id, 12, 8));
    assert_eq!(open(&mut team, 1010..1020), 2);
    team.each(|rig| set_thresholds(rig, id, 0, 0));
    assert_eq!(open(&mut team, 1020..1030), 10);
}

#[test]
fn a_worker_sees_what_others_have_given_a_server() {
    use SchedulerKind as Kind;
    for kind in [Kind::Lc, Kind::Wlc, Kind::Sed, Kind::Twos] {
        let mut team = Team::new(2, 64, Protocol::Udp);
        team.spread_by_nics();
        team.each(|rig| {
            rig.service.scheduler = kind;
            rig.put(ServiceEdit::Edited);
            rig.add_server(1, 80, Method::Dr);
        });
        let at = |worker: usize, port: u16, team: &mut Team| {
            let packet = udp((CLIENT, port), (VIP, 80), b"?");
            number_of(&team.packet(worker, CLIENT_SIDE, &packet)).unwrap()
        };
        assert!((0..10).all(|n| at(0, 1000 + n, &mut team) == 1));
        team.each(|rig| {
            rig.add_server(2, 80, Method::Dr);
        });
        team.pass(TickRate::NANOSECONDS.millis(1).0);
        let to_second = (0..8).filter(|n| at(1, 2000 + n, &mut team) == 2).count();
        // Two draws may be of one server.
        let expected = if kind == Kind::Twos { 5 } else { 8 };
        assert!(to_second >= expected, "{kind:?}: {to_second}");
    }
}
