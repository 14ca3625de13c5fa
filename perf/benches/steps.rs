//! Nanoseconds of the steps of a packet's walk, each by itself: `cargo bench -p sluice-perf`. They say where to look; what
//! counts is the whole (`make bench`, `make guard`).

#![expect(
    clippy::unwrap_used,
    reason = "a benchmark that cannot go on has failed"
)]

use std::cell::RefCell;
use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;
use sluice_control::api;
use sluice_dataplane::command::{ServiceEdit, Settings};
use sluice_dataplane::conn::timer::TimerWheel;
use sluice_dataplane::conn::{Conn, ConnTable, Endpoint, FlowKey, NewConn};
use sluice_dataplane::parse::parse;
use sluice_dataplane::sched::Request;
use sluice_dataplane::service::{Method, Protocol, SchedulerKind, ServiceId, Services};
use sluice_dataplane::stats::WorkerCells;
use sluice_dataplane::steer::toeplitz::{KEY_LEN, Key, Toeplitz};
use sluice_dataplane::time::{Grain, TickRate, Ticks};
use sluice_perf::choice::service;
use sluice_perf::frame::{self, ACK};
use sluice_perf::scenario::{ROUTER_MAC, Scenario, VIP, WIRE_MAC};
use sluice_perf::traffic::Traffic;
use sluice_perf::walk::Walk;

/// Keys of a sample, so that reading the clock costs nothing.
const BATCH: usize = 1024;

/// Connections in a table.
const SIZES: [u32; 3] = [1_000, 100_000, 1_000_000];

fn main() {
    divan::main();
}

#[divan::bench]
fn parsing(bencher: Bencher) {
    let client = SocketAddrV4::new(Ipv4Addr::new(11, 0, 0, 1), 1024);
    let frame = frame::tcp((ROUTER_MAC, WIRE_MAC), client, VIP, ACK, 1);
    bencher
        .counter(ItemsCount::new(1u32))
        .bench_local(|| parse(black_box(&frame), WIRE_MAC));
}

#[divan::bench]
fn hash(bencher: Bencher) {
    let table = ConnTable::new(1024, 7);
    let ends = key(1).ends();
    bencher
        .counter(ItemsCount::new(1u32))
        .bench_local(|| table.hash(Protocol::Tcp.number(), black_box(&ends)));
}

/// RSS in software, of IPv4 with ports: under the key that every field hashes alike, and under any other.
#[divan::bench(args = ["symmetric", "any"])]
fn toeplitz(bencher: Bencher, key: &str) {
    let key = match key {
        "symmetric" => Key::symmetric(KEY_LEN),
        _ => Key::microsoft(),
    };
    let toeplitz = Toeplitz::new(key);
    bencher
        .counter(ItemsCount::new(1u32))
        .bench_local(|| toeplitz.hash(black_box(&[11, 0, 0, 1, 10, 0, 0, 1, 4, 0, 0, 80])));
}

#[divan::bench(args = SIZES)]
fn lookup_hit(bencher: Bencher, live: u32) {
    lookups(bencher, live, 0..live);
}

#[divan::bench(args = SIZES)]
fn lookup_miss(bencher: Bencher, live: u32) {
    lookups(bencher, live, live..2 * live);
}

/// Looks keys up one after the other, in no order: no prefetch across a burst hides the memory.
fn lookups(bencher: Bencher, live: u32, wanted: std::ops::Range<u32>) {
    let table = filled(live, live as usize);
    let mut turn = 0;
    bencher
        .counter(ItemsCount::new(BATCH))
        .bench_local(move || {
            let mut found = 0;
            for _ in 0..BATCH {
                turn = spread(turn);
                let number = wanted.start + turn % (wanted.end - wanted.start);
                found += usize::from(table.contains(key(number)));
            }
            found
        });
}

#[divan::bench(args = SIZES, sample_size = 1)]
fn insert(bencher: Bencher, live: u32) {
    let table = RefCell::new(filled(live, live as usize + BATCH));
    let ids = RefCell::new(Vec::with_capacity(BATCH));
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| {
            for id in ids.borrow_mut().drain(..) {
                table.borrow_mut().remove(id);
            }
        })
        .bench_local_values(|()| {
            let (mut table, mut ids) = (table.borrow_mut(), ids.borrow_mut());
            ids.extend((live..).take(BATCH).map(|n| table.insert(conn(n)).unwrap()));
        });
}

#[divan::bench(args = SIZES, sample_size = 1)]
fn expire(bencher: Bencher, live: u32) {
    let table = RefCell::new(filled(live, live as usize + BATCH));
    let wheel = RefCell::new(TimerWheel::new(live as usize + BATCH, Grain(0)));
    let now = RefCell::new(0);
    bencher
        .counter(ItemsCount::new(BATCH))
        .with_inputs(|| {
            *now.borrow_mut() += 1000;
            for n in (live..).take(BATCH) {
                let id = table.borrow_mut().insert(conn(n)).unwrap();
                assert!(wheel.borrow_mut().file(id, Grain(*now.borrow())));
            }
        })
        .bench_local_values(|()| {
            let (mut table, mut wheel) = (table.borrow_mut(), wheel.borrow_mut());
            let due = Grain(*now.borrow() + 100);
            let mut ended = 0;
            while let Some(timer) = wheel.pop(due) {
                ended += usize::from(table.remove(timer.id).is_some());
            }
            assert_eq!(ended, BATCH);
        });
}

#[divan::bench(args = SchedulerKind::ALL.map(SchedulerKind::name))]
fn choice(bencher: Bencher, name: &str) {
    const SERVERS: u32 = 100;
    let kinds = SchedulerKind::ALL;
    let kind = *kinds.iter().find(|kind| kind.name() == name).unwrap();
    let mut services = Services::new(Arc::new(WorkerCells::new(1, SERVERS as usize)));
    services.put(Arc::new(service(kind, SERVERS, 1)), ServiceEdit::Created);
    let settings = Settings::default();
    let mut turn = 0;
    bencher.counter(ItemsCount::new(1u32)).bench_local(move || {
        turn = spread(turn);
        let request = Request {
            flow: &key(turn),
            now: Ticks(u64::from(turn)),
            rate: TickRate::NANOSECONDS,
            settings: &settings,
        };
        services
            .schedule(ServiceId(0), &request)
            .map(|server| server.id)
    });
}

/// The whole walk of packets of known connections, all in the first cache: what differs is how they are rewritten.
#[divan::bench(args = ["dr", "tun", "nat", "fullnat"])]
fn rewrite(bencher: Bencher, method: &str) {
    let method: api::Method = serde_json::from_value(method.into()).unwrap();
    let scenario = Scenario { method, flows: 64 };
    let mut walk = Walk::new(&scenario).unwrap();
    let traffic = Traffic::new(&scenario, &mut walk).unwrap();
    walk.load(&traffic.steady);
    bencher
        .counter(ItemsCount::new(BATCH))
        .bench_local(move || walk.go_on(BATCH));
}

/// A linear congruential generator (Numerical Recipes): visits every number once before it comes round.
fn spread(state: u32) -> u32 {
    state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)
}

fn key(number: u32) -> FlowKey {
    FlowKey {
        protocol: Protocol::Tcp,
        src: Ipv4Addr::from_bits(0x0b00_0000 + number / 50_000),
        src_port: (1024 + number % 50_000) as u16,
        dst: *VIP.ip(),
        dst_port: VIP.port(),
    }
}

fn conn(number: u32) -> Conn {
    Conn::new(&NewConn {
        client: key(number),
        server: Endpoint::new(Ipv4Addr::new(192, 168, 1, 1), 80),
        local: None,
        method: Method::Nat,
        rs: 0,
    })
}

fn filled(live: u32, capacity: usize) -> ConnTable {
    let mut table = ConnTable::new(capacity, 7);
    for n in 0..live {
        table.insert(conn(n)).unwrap();
    }
    table
}
