use std::collections::HashSet;

use proptest::prelude::*;

use super::super::plan::{PortNeeds, RssCapabilities, Side, plan};
use super::*;
use crate::service::Protocol;

const SERVER: Endpoint = Endpoint::new(Ipv4Addr::new(192, 168, 1, 1), 80);
const LADDR: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 254);

/// A port of clients and one of servers, on NICs like these.
fn two_sided(workers: u16, table: u16, hash_types: HashTypes) -> Steering {
    let can = RssCapabilities {
        queues: 64,
        table,
        hash_types,
        key_len: 40,
    };
    let queues = None;
    let needs = [Side::Clients, Side::Servers].map(|side| PortNeeds { side, queues, can });
    let plans = plan(&needs, workers).into_iter();
    let spread = plans.map(|plan| match plan.rss {
        Some(rss) => Spread::Rss(rss),
        None => Spread::One(WorkerId(0)),
    });
    Steering::new(workers, spread.collect())
}

fn full() -> HashTypes {
    HashTypes::EVERY_KIND | HashTypes::SOURCE | HashTypes::DESTINATION
}

fn models(workers: u16) -> [Steering; 4] {
    [
        two_sided(workers, 512, full()),
        two_sided(workers, 128, HashTypes::EVERY_KIND),
        two_sided(workers, 64, HashTypes::EVERY_KIND),
        Steering::new(workers, Vec::new()),
    ]
}

fn tcp(src: Endpoint, dst: Endpoint) -> Packet {
    Packet::flow(Protocol::Tcp, &Ends::new(src, dst))
}

#[test]
fn workers_share_the_local_ports_out_among_them() {
    for workers in [1, 2, 3, 5, 16] {
        for steering in models(workers) {
            let mut seen = HashSet::new();
            for worker in (0..workers).map(WorkerId) {
                let count = steering.local_ports(worker);
                let least = PORTS / u32::from(workers) * 3 / 4;
                assert!(count >= least, "{workers} {count}");
                for nth in 0..count {
                    let port = steering.local_port(worker, SERVER, LADDR, nth).unwrap();
                    assert!(port >= FIRST_PORT && seen.insert(port));
                    let local = Endpoint::new(LADDR, port);
                    assert_eq!(steering.owner_of_reply(SERVER, local), worker);
                }
            }
            assert_eq!(seen.len(), PORTS as usize);
        }
    }
}

#[test]
fn one_worker_owns_all_and_takes_ports_in_order() {
    let single = Steering::single();
    assert_eq!(single.local_ports(WorkerId(0)), PORTS);
    for nth in [0, 1, PORTS - 1] {
        let port = single.local_port(WorkerId(0), SERVER, LADDR, nth);
        assert_eq!(port, Some(FIRST_PORT + nth as u16));
    }
    assert_eq!(single.owner_of_client(SERVER), WorkerId(0));
}

#[test]
fn a_worker_without_entries_has_no_ports() {
    let steering = two_sided(5, 4, HashTypes::EVERY_KIND);
    assert_eq!(steering.local_ports(WorkerId(4)), 0);
    assert_eq!(steering.local_port(WorkerId(4), SERVER, LADDR, 0), None);
}

#[test]
fn workers_without_a_queue_own_something_all_the_same() {
    let can = RssCapabilities {
        queues: 2,
        table: 128,
        hash_types: full(),
        key_len: 40,
    };
    let needs = PortNeeds {
        can,
        ..PortNeeds::default()
    };
    let rss = plan(&[needs], 5)[0].rss.clone().unwrap();
    let steering = Steering::new(5, vec![Spread::Rss(rss)]);
    assert!(!steering.shares_out(PortId(0)));
    let owned = |worker| {
        steering
            .owners()
            .iter()
            .filter(|owner| owner.0 == worker)
            .count()
    };
    assert_eq!([0, 1, 2, 3, 4].map(owned), [26, 26, 26, 25, 25]);
}

#[test]
fn nat_comes_home_where_each_side_is_hashed_by_its_own_end() {
    let home = |steering: &Steering| {
        let ports = [(0, Side::Clients), (1, Side::Servers)];
        ports.map(|(port, side)| steering.brings_nat_home(PortId(port), side))
    };
    let full = two_sided(3, 512, full());
    assert_eq!(home(&full), [true; 2]);
    assert!(!full.brings_nat_home(PortId(0), Side::Both));
    let common = two_sided(3, 128, HashTypes::EVERY_KIND);
    assert_eq!(home(&common), [false; 2]);
    assert_eq!(home(&Steering::new(3, Vec::new())), [false; 2]);
    assert_eq!(home(&Steering::single()), [true; 2]);
    // A NIC that has a table of its own.
    let Spread::Rss(plan) = full.spread(PortId(0)) else {
        unreachable!("it was planned so")
    };
    let table = plan.table().iter().map(|queue| (queue + 1) % 3).collect();
    let toeplitz = Arc::clone(plan.toeplitz());
    let odd = RssPlan::new(toeplitz, plan.types(), table, plan.workers().to_vec());
    let spreads = vec![Spread::Rss(odd.unwrap()), full.spread(PortId(1)).clone()];
    assert_eq!(home(&Steering::new(3, spreads)), [false, true]);
}

#[test]
fn a_clients_nic_that_hashes_both_ends_leaves_replies_of_fullnat_aligned() {
    let full = two_sided(3, 512, full());
    let Spread::Rss(plan) = full.spread(PortId(0)) else {
        unreachable!("it was planned so")
    };
    let both = Spread::Rss(plan.hashing(HashTypes::EVERY_KIND));
    let steering = Steering::new(3, vec![both, full.spread(PortId(1)).clone()]);
    for worker in (0..3).map(WorkerId) {
        for nth in 0..steering.local_ports(worker) {
            let port = steering.local_port(worker, SERVER, LADDR, nth).unwrap();
            let reply = tcp(SERVER, Endpoint::new(LADDR, port));
            assert_eq!(steering.reaches(PortId(1), &reply), Some(worker));
        }
    }
}

#[test]
fn a_class_that_moved_remembers_who_had_it_until_that_one_has_nothing_left() {
    let client = Endpoint::new(Ipv4Addr::new(198, 51, 100, 7), 4711);
    for workers in [3, 100] {
        let steering = two_sided(workers, 128, HashTypes::EVERY_KIND);
        let before = steering.owner_of_client(client);
        let to = WorkerId((before.0 + 1) % workers);
        assert!(!steering.has_moved());
        assert_eq!(steering.former_of_client(client), []);
        let all_to = |to| vec![to; 128];
        let moved = steering.moved(all_to(to), steering.ports.clone()).unwrap();
        assert!(moved.has_moved());
        assert_eq!(moved.owner_of_client(client), to);
        assert_eq!(moved.former_of_client(client), [before]);
        assert_eq!(moved.formers().len(), usize::from(workers) - 1);
        // Back again: now the other one is asked.
        let back = moved.moved(all_to(before), moved.ports.clone()).unwrap();
        assert_eq!(back.former_of_client(client), [to]);
        // It has connections of this class only, and then of none.
        let class = back.class_of_client(client);
        let left: Vec<bool> = (0..128).map(|other| other == class).collect();
        let still = back.settled(to, &left).unwrap();
        assert_eq!(still.former_of_client(client), [to]);
        assert!(still.settled(to, &left).is_none());
        let gone = still.settled(to, &[false; 128]).unwrap();
        assert_eq!(gone.former_of_client(client), []);
        let settled = gone.formers().into_iter().fold(gone, |steering, worker| {
            steering.settled(worker, &[false; 128]).unwrap()
        });
        assert!(!settled.has_moved());
        assert!(steering.moved(vec![to; 64], Vec::new()).is_none());
    }
}

#[test]
fn local_ports_stay_whose_they_were_when_classes_move() {
    let steering = two_sided(3, 128, HashTypes::EVERY_KIND);
    let moved = steering.moved(vec![WorkerId(1); 128], Vec::new()).unwrap();
    for worker in (0..3).map(WorkerId) {
        assert_eq!(moved.local_ports(worker), steering.local_ports(worker));
        for nth in 0..moved.local_ports(worker) {
            let port = moved.local_port(worker, SERVER, LADDR, nth).unwrap();
            let local = Endpoint::new(LADDR, port);
            assert_eq!(steering.owner_of_reply(SERVER, local), worker);
            assert_eq!(moved.owner_of_reply(SERVER, local), worker);
        }
    }
}

#[test]
fn a_port_that_is_not_known_of_tells_nothing() {
    let steering = Steering::new(2, vec![Spread::One(WorkerId(0)), Spread::Unknown]);
    let packet = tcp(SERVER, SERVER);
    let reaches = |port| steering.reaches(PortId(port), &packet);
    assert_eq!([0, 1, 2].map(reaches), [Some(WorkerId(0)), None, None]);
}

proptest! {
    #[test]
    fn a_reply_of_fullnat_reaches_the_worker_that_chose_the_port(
        workers in 2u16..=16,
        server in any::<(u32, u16)>(),
        laddr in any::<u32>(),
        nth in any::<u32>(),
    ) {
        let server = Endpoint::new(Ipv4Addr::from_bits(server.0), server.1);
        let laddr = Ipv4Addr::from_bits(laddr);
        for steering in models(workers) {
            for worker in (0..workers).map(WorkerId) {
                let nth = nth % steering.local_ports(worker);
                let port = steering.local_port(worker, server, laddr, nth).unwrap();
                let local = Endpoint::new(laddr, port);
                prop_assert_eq!(steering.owner_of_reply(server, local), worker);
                let reaches = steering.reaches(PortId(1), &tcp(server, local));
                prop_assert!(reaches.is_none_or(|reached| reached == worker));
                prop_assert_eq!(reaches.is_none(), steering.ports.is_empty());
            }
        }
    }

    #[test]
    fn nat_hands_nothing_over_where_nics_hash_one_end(
        workers in 2u16..=16,
        client in any::<(u32, u16)>(),
        vip in any::<(u32, u16)>(),
    ) {
        let [client, vip] = [client, vip]
            .map(|(addr, port)| Endpoint::new(Ipv4Addr::from_bits(addr), port));
        let steering = two_sided(workers, 512, full());
        let owner = Some(steering.owner_of_client(client));
        prop_assert_eq!(steering.reaches(PortId(0), &tcp(client, vip)), owner);
        prop_assert_eq!(steering.reaches(PortId(1), &tcp(SERVER, client)), owner);
    }

    #[test]
    fn clients_and_fragments_have_owners_that_are_there(
        workers in 1u16..=16,
        ends in any::<(u32, u16, u32, u16)>(),
    ) {
        let (src, src_port, dst, dst_port) = ends;
        let src = Endpoint::new(Ipv4Addr::from_bits(src), src_port);
        let dst = Endpoint::new(Ipv4Addr::from_bits(dst), dst_port);
        for steering in models(workers) {
            for owner in [
                steering.owner_of_client(src),
                steering.owner_of_fragment(src.addr, dst.addr, src_port),
            ] {
                prop_assert!(owner.0 < workers);
            }
        }
    }
}
