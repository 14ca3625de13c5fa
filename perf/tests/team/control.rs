//! Statistics, listings, zeroing, expiry and deletion: of all workers, whichever has what.

use std::net::SocketAddrV4;
use std::time::Duration;

use serde_json::json;
use sluice_control::api::{Connection, Connections, Service, ServiceList};
use sluice_dataplane::drop_reason::DropReason;
use sluice_perf::frame::{ACK, SYN};
use sluice_perf::scenario::server;

use crate::crowd::{Crowd, client, service};

const CONNECTIONS: u32 = 400;

/// Connections of a service with two real servers, over all four workers.
fn connected() -> (Crowd, Vec<SocketAddrV4>) {
    let mut crowd = Crowd::of_four();
    crowd.call("setting_set", json!({"settings": {"timeout_tcp": 30}}));
    crowd.serve(json!({"scheduler": "rr"}), json!({}), &[1, 1]);
    let clients: Vec<_> = (0..CONNECTIONS).map(client).collect();
    let got = crowd.establish(&clients);
    assert!(got.iter().all(Option::is_some));
    let each = crowd.each();
    assert!(each.iter().all(|count| *count > 20), "{each:?}");
    (crowd, clients)
}

fn listed(crowd: &mut Crowd) -> Service {
    let list = crowd.call("service_list", json!({}));
    let list: ServiceList = serde_json::from_value(list).unwrap();
    list.services.into_iter().next().unwrap()
}

/// All connections, by pages that end in the midst of a worker's.
fn connections(crowd: &mut Crowd) -> Vec<Connection> {
    let (mut all, mut cursor) = (Vec::new(), None);
    loop {
        let params = json!({"limit": 37, "cursor": cursor});
        let page: Connections =
            serde_json::from_value(crowd.call("connection_list", params)).unwrap();
        all.extend(page.connections);
        cursor = page.cursor;
        if cursor.is_none() {
            return all;
        }
    }
}

#[test]
fn statistics_are_the_sums_over_all_workers_and_zeroing_clears_them_all() {
    let (mut crowd, clients) = connected();
    let service = listed(&mut crowd);
    let all = u64::from(CONNECTIONS);
    assert_eq!(service.stats.conns, all);
    assert_eq!(service.stats.in_packets, 2 * all);
    assert_eq!(service.stats.in_bytes, 2 * all * 50);
    let active = service.real_servers.iter().map(|real| real.active);
    assert_eq!(active.sum::<u64>(), all);
    let conns = service.real_servers.iter().map(|real| real.stats.conns);
    assert_eq!(conns.sum::<u64>(), all);

    crowd.call("service_zero", json!({}));
    assert_eq!(listed(&mut crowd).stats.conns, 0);
    crowd.send_all(&clients[..10], ACK);
    let service = listed(&mut crowd);
    assert_eq!((service.stats.conns, service.stats.in_packets), (0, 10));
    let active = service.real_servers.iter().map(|real| real.active);
    assert_eq!(active.sum::<u64>(), all, "they are still there");
}

#[test]
fn listings_name_every_connection_once_and_the_worker_that_has_it() {
    let (mut crowd, clients) = connected();
    let list = connections(&mut crowd);
    let mut known: Vec<_> = list.iter().map(|row| row.client).collect();
    let mut wanted: Vec<std::net::SocketAddr> = clients.iter().map(|c| (*c).into()).collect();
    known.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(known, wanted);
    for (worker, count) in crowd.each().into_iter().enumerate() {
        let of_worker = list.iter();
        let of_worker = of_worker.filter(|row| usize::from(row.worker) == worker);
        assert_eq!(of_worker.count() as u64, count, "worker {worker}");
    }
}

#[test]
fn connections_of_all_workers_expire() {
    let (mut crowd, _) = connected();
    crowd.fleet.sleep(Duration::from_secs(29)).unwrap();
    assert_eq!(crowd.each().iter().sum::<u64>(), u64::from(CONNECTIONS));
    crowd.fleet.sleep(Duration::from_secs(3)).unwrap();
    assert_eq!(crowd.each(), [0; 4]);
    let service = listed(&mut crowd);
    let left = service.real_servers.iter();
    assert!(
        left.into_iter()
            .all(|real| real.active + real.inactive == 0)
    );
    assert_eq!(connections(&mut crowd).len(), 0);
}

#[test]
fn a_deleted_real_server_gets_nothing_of_any_worker() {
    let (mut crowd, clients) = connected();
    let gone = format!("{}:80", server(0));
    let params = json!({"service": service(), "address": gone});
    crowd.call("real_server_delete", params);
    let got = crowd.send_all(&clients, ACK);
    let half = CONNECTIONS as usize / 2;
    let still = got.iter().filter(|server| **server == Some(1)).count();
    let stopped = got.iter().filter(|server| server.is_none()).count();
    assert_eq!(still + stopped, CONNECTIONS as usize);
    assert!(still.abs_diff(half) <= 4, "{still} stayed with the other");
    let reason = DropReason::ServerGone as usize;
    for cells in crowd.fleet.cells() {
        assert!(
            cells.books.drops[reason].read() > 0,
            "a worker dropped none"
        );
    }
    let new: Vec<_> = (1000..1200).map(client).collect();
    assert!(crowd.open(&new).iter().all(|server| *server == Some(1)));
}

#[test]
fn a_deleted_service_is_gone_for_all_workers() {
    let (mut crowd, clients) = connected();
    crowd.call("service_delete", json!({"service": service()}));
    let got = crowd.send_all(&clients, SYN);
    assert!(got.iter().all(Option::is_none));
}
