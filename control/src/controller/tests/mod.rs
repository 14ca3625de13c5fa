//! A controller and workers that do as told.

mod connections;
mod statistics;
mod steering;

use std::collections::HashSet;
use std::net::Ipv4Addr;

use serde_json::json;
use sluice_dataplane::command::{Census, ConnRow, ConnSlice, PortId, WorkerId};
use sluice_dataplane::conn::state::{State, StateName};
use sluice_dataplane::egress::{Fib, Mac, Route};
use sluice_dataplane::service::{Method, Protocol, ServiceSpec};
use sluice_dataplane::worker::WorkerChannels;

use super::*;
use crate::publish;

/// Workers that do as told, turned by hand: what they were told, and a table of connections to list.
struct Crew {
    channels: Vec<WorkerChannels>,
    seen: Vec<Command>,
    table: u64,
    /// Connections left, by class that moved.
    moved: Vec<u64>,
    /// Censuses so far.
    asked: usize,
}

/// A worker with so many connections left of each class.
fn count(mut census: Census, left: &[u64]) -> Box<Census> {
    census.connections = left.iter().sum();
    for (class, left) in census.classes.iter_mut().zip(left) {
        *class = *left > 0;
    }
    Box::new(census)
}

impl Crew {
    fn turn(&mut self) {
        for (id, worker) in (0..).zip(&mut self.channels) {
            while let Ok(envelope) = worker.commands.pop() {
                let event = match envelope.command {
                    Command::ListConnections(slice) => {
                        let answer = list(*slice, WorkerId(id), self.table);
                        Some(Event::Connections(Box::new(answer)))
                    }
                    Command::CountMoved(census) => {
                        self.asked += 1;
                        Some(Event::Counted(count(*census, &self.moved)))
                    }
                    command => {
                        self.seen.push(command);
                        None
                    }
                };
                if let Some(event) = event {
                    worker.events.push(event).unwrap();
                }
                if !envelope.more {
                    worker.cells.set_applied(envelope.revision);
                }
            }
        }
    }

    /// The service of the last command.
    fn last_put(&self) -> &ServiceSpec {
        match self.seen.last() {
            Some(Command::PutService { service, .. }) => service,
            other => panic!("expected a service, not {other:?}"),
        }
    }
}

/// Every third row matches whatever is asked; ten places are looked at in one go.
fn list(mut slice: ConnSlice, worker: WorkerId, table: u64) -> ConnSlice {
    let begin = slice.cursor.unwrap();
    let mut at = begin;
    while at < table && at < begin + 10 && slice.rows.len() < slice.rows.capacity() {
        if at.is_multiple_of(3) {
            slice.rows.push(row(at, worker));
        }
        at += 1;
    }
    slice.cursor = (at < table).then_some(at);
    slice
}

fn row(n: u64, worker: WorkerId) -> ConnRow {
    ConnRow {
        protocol: Some(Protocol::Tcp),
        template: false,
        client: (Ipv4Addr::from(n as u32), 1000),
        virtual_addr: (Ipv4Addr::new(10, 0, 0, 1), 80),
        server: (Ipv4Addr::new(192, 168, 1, 1), 80),
        local: None,
        method: Method::Nat,
        state: StateName::Of(State::Established),
        expires_ms: 5,
        worker,
    }
}

fn rig_with(workers: usize, limits: Limits, statics: Statics) -> (Controller, Crew) {
    let info = WorkerInfo {
        core: 1,
        max_connections: 1000,
    };
    let (links, channels) = (0..workers)
        .map(|_| publish::link(Arc::new(limits.cells())))
        .map(|(link, channels)| ((info, link), channels))
        .unzip();
    let controller = Controller::new(Setup {
        limits,
        workers: links,
        ports: Box::new(Vec::new),
        dpdk: "none".to_owned(),
        statics,
    });
    let crew = Crew {
        channels,
        seen: Vec::new(),
        table: 0,
        moved: Vec::new(),
        asked: 0,
    };
    (controller, crew)
}

fn rig(workers: usize) -> (Controller, Crew) {
    let limits = Limits {
        max_services: 100,
        max_real_servers: 100,
    };
    rig_with(workers, limits, Statics::default())
}

fn call(rig: &mut (Controller, Crew), method: &str, params: Value) -> Result<Value, ApiError> {
    let (controller, crew) = rig;
    controller.call(method, params, &mut || crew.turn())
}

fn ok(rig: &mut (Controller, Crew), method: &str, params: Value) -> Value {
    call(rig, method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
}

fn web() -> Value {
    json!({"protocol": "tcp", "address": "10.0.0.1:80"})
}

fn with_a_server(workers: usize) -> (Controller, Crew) {
    let mut rig = rig(workers);
    ok(
        &mut rig,
        "service_add",
        json!({"service": web(), "scheduler": "rr"}),
    );
    ok(
        &mut rig,
        "real_server_add",
        json!({"service": web(), "address": "192.168.1.1:80", "method": "nat"}),
    );
    rig
}

#[test]
fn a_change_is_answered_with_its_revision_and_listed() {
    let mut rig = rig(2);
    let service = json!({"service": web()});
    assert_eq!(
        ok(&mut rig, "service_add", service.clone()),
        json!({"revision": 1})
    );
    let server =
        json!({"service": web(), "address": "192.168.1.1:8080", "method": "nat", "weight": 3});
    assert_eq!(
        ok(&mut rig, "real_server_add", server),
        json!({"revision": 2})
    );
    let list = ok(&mut rig, "service_list", json!({}));
    assert_eq!(list["services"][0]["scheduler"], "wlc");
    assert_eq!(list["services"][0]["real_servers"][0]["weight"], 3);
    let list = ok(&mut rig, "real_server_list", service.clone());
    assert_eq!(
        list["real_servers"][0]["real_server"]["address"],
        "192.168.1.1:8080"
    );
    ok(
        &mut rig,
        "laddr_add",
        json!({"service": web(), "address": "10.1.0.1"}),
    );
    assert_eq!(
        ok(&mut rig, "laddr_list", json!({}))["laddrs"][0]["address"],
        "10.1.0.1"
    );
    ok(
        &mut rig,
        "real_server_set",
        json!({"service": web(), "address": "192.168.1.1:8080", "weight": 0}),
    );
    ok(
        &mut rig,
        "laddr_delete",
        json!({"service": web(), "address": "10.1.0.1"}),
    );
    ok(
        &mut rig,
        "service_set",
        json!({"service": web(), "scheduler": "rr"}),
    );
    ok(
        &mut rig,
        "real_server_delete",
        json!({"service": web(), "address": "192.168.1.1:8080"}),
    );
    ok(&mut rig, "service_delete", service.clone());
    assert_eq!(
        ok(&mut rig, "service_list", json!({}))["services"],
        json!([])
    );
    assert_eq!(
        call(&mut rig, "service_list", service).unwrap_err().kind(),
        ErrorKind::NoSuchService
    );
}

#[test]
fn every_method_is_described_and_takes_no_unknown_parameter() {
    let mut rig = rig(1);
    let methods = ok(&mut rig, "rpc_methods", json!({}));
    let methods = methods["methods"].as_array().unwrap().clone();
    assert_eq!(methods.len(), 28);
    for method in methods {
        assert!(method["description"].as_str().unwrap().len() > 10);
        let name = method["name"].as_str().unwrap();
        let params = json!({"service": web(), "no_such": 1});
        let error = call(&mut rig, name, params).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParams, "{name}");
        assert!(error.message.contains("unknown field"), "{name}: {error}");
    }
    let error = call(&mut rig, "service_ad", json!({})).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MethodNotFound);
    assert!(ok(&mut rig, "version", json!({}))["sluice"].is_string());
}

#[test]
fn a_worker_that_does_not_turn_is_named_and_the_change_stands() {
    let mut rig = rig(2);
    let stopped = rig.1.channels.pop().unwrap();
    let error = call(&mut rig, "service_add", json!({"service": web()})).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AppliedPartially);
    assert_eq!(
        (error.data.workers, error.data.revision),
        (vec![1], Some(1))
    );
    rig.1.channels.push(stopped);
    let (controller, crew) = &mut rig;
    controller.settle(1, &mut || crew.turn()).unwrap();
    assert_eq!(controller.applied(), 1);
}

#[test]
fn what_the_boot_file_says_of_the_network_holds_against_the_kernel() {
    let (port, next, mac) = (PortId(0), Ipv4Addr::new(10, 9, 0, 2), Mac([2; 6]));
    let vip = Ipv4Addr::new(10, 0, 0, 1);
    let via = Route::Via {
        port,
        gateway: Some(next),
        source: vip,
        mtu: None,
    };
    let statics = Statics {
        local: HashSet::from([vip.into()]),
        routes: vec![
            ("0.0.0.0/0".parse().unwrap(), via),
            ("10.0.0.1/32".parse().unwrap(), Route::Local),
        ],
        neighbours: vec![(port, next, mac)],
    };
    let mut rig = rig_with(
        1,
        Limits {
            max_services: 4,
            max_real_servers: 4,
        },
        statics,
    );
    ok(&mut rig, "service_add", json!({"service": web()}));
    assert!(rig.1.last_put().vip_local);
    let mut kernel = Fib::default();
    kernel.insert("0.0.0.0/0".parse().unwrap(), Route::Unreachable);
    kernel.insert("10.5.0.0/16".parse().unwrap(), Route::Kernel);
    rig.0.fib(&kernel);
    rig.0.neighbour(port, next, None);
    rig.0.local_addresses([]);
    let (controller, crew) = &mut rig;
    controller
        .settle(controller.revision(), &mut || crew.turn())
        .unwrap();
    assert_eq!(
        controller.routes().lookup(Ipv4Addr::new(8, 8, 8, 8)),
        Some(via)
    );
    assert_eq!(
        controller.routes().lookup(Ipv4Addr::new(10, 5, 0, 1)),
        Some(Route::Kernel)
    );
    let neighbours: Vec<_> = crew
        .seen
        .iter()
        .filter_map(|command| match command {
            Command::Neighbour { addr, mac, .. } => Some((*addr, *mac)),
            _ => None,
        })
        .collect();
    assert_eq!(neighbours, [(next, Some(mac))]);
    assert_eq!(
        ok(&mut rig, "service_list", json!({}))["services"][0]["vip_local"],
        true
    );
}

#[test]
fn workers_questions_about_neighbours_reach_the_kernel_mirror() {
    let (mut controller, mut crew) = rig(1);
    let (port, addr) = (PortId(1), Ipv4Addr::new(10, 0, 0, 7));
    crew.channels[0]
        .events
        .push(Event::NeighbourMissing { port, addr })
        .unwrap();
    crew.channels[0]
        .events
        .push(Event::NeighbourUsed { port, addr })
        .unwrap();
    controller.tick(Duration::ZERO);
    let events = controller.take_neighbour_events();
    assert!(matches!(
        events[0],
        Event::NeighbourMissing {
            port: PortId(1),
            ..
        }
    ));
    assert!(matches!(events[1], Event::NeighbourUsed { addr: a, .. } if a == addr));
    assert!(controller.take_neighbour_events().is_empty());
}

#[test]
fn synchronisation_daemons_are_started_once_each_and_need_a_port() {
    let port = PortStats {
        name: "servers".to_owned(),
        exception: Some("sv0".to_owned()),
        mtu: 1500,
        ..PortStats::default()
    };
    let mut rig = with_a_server(1);
    rig.0.ports = Box::new(move || vec![port.clone()]);
    let refused = |rig: &mut _, method: &str, params| call(rig, method, params).unwrap_err().kind();
    let master = json!({"role": "master", "interface": "sv0", "syncid": 9});
    let elsewhere = json!({"role": "master", "interface": "eth7"});
    assert_eq!(
        refused(&mut rig, "sync_daemon_start", elsewhere),
        ErrorKind::NoSuchInterface
    );
    let answer = ok(&mut rig, "sync_daemon_start", master.clone());
    assert!(answer["warnings"][0].is_string());
    assert_eq!(
        refused(&mut rig, "sync_daemon_start", master),
        ErrorKind::SyncDaemonRuns
    );
    ok(
        &mut rig,
        "sync_daemon_start",
        json!({"role": "backup", "interface": "servers"}),
    );
    let list = ok(&mut rig, "sync_daemon_list", json!({}))["daemons"].clone();
    assert_eq!(
        list[0],
        json!({"role": "master", "interface": "sv0", "syncid": 9, "maxlen": 1472,
               "group": "224.0.0.81", "port": 8848, "ttl": 1})
    );
    assert_eq!(list[1]["role"], "backup");

    let mixed = json!({"service": web(), "address": "[2001:db8::1]:80", "method": "tun"});
    assert_eq!(
        refused(&mut rig, "real_server_add", mixed.clone()),
        ErrorKind::InvalidParams
    );
    ok(&mut rig, "sync_daemon_stop", json!({"role": "master"}));
    assert_eq!(
        refused(&mut rig, "sync_daemon_stop", json!({"role": "master"})),
        ErrorKind::NoSyncDaemon
    );
    ok(&mut rig, "sync_daemon_stop", json!({"role": "backup"}));
    ok(&mut rig, "real_server_add", mixed);
    assert_eq!(
        refused(
            &mut rig,
            "sync_daemon_start",
            json!({"role": "backup", "interface": "sv0"})
        ),
        ErrorKind::InvalidParams
    );
}

#[test]
fn settings_reach_the_workers_or_are_refused_whole() {
    let mut rig = rig(1);
    let set = json!({"settings": {"lblcr_expiration": 5, "timeout_udp": 30}});
    assert_eq!(ok(&mut rig, "setting_set", set), json!({"revision": 1}));
    let settings = rig.1.seen.iter().find_map(|command| match command {
        Command::Settings(settings) => Some(settings.clone()),
        _ => None,
    });
    let settings = settings.expect("the workers are told");
    assert_eq!(settings.lblcr_expiration_s, 5);
    assert_eq!(settings.timeouts.udp_s, 30);
    let list = ok(&mut rig, "setting_list", json!({}));
    let udp = json!({"name": "timeout_udp", "value": 30, "description": "Seconds that an idle UDP connection lives"});
    assert!(
        list["settings"].as_array().unwrap().contains(&udp),
        "{list}"
    );
    let wrong = json!({"settings": {"lblcr_expiration": 6, "pmtu_disc": 2}});
    let error = call(&mut rig, "setting_set", wrong).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfRange);
    assert_eq!(rig.0.settings().lblcr_expiration_s, 5);
}
