//! Upper thresholds: of the appliance, not of each worker.

use std::net::SocketAddrV4;
use std::time::Duration;

use serde_json::json;
use sluice_perf::frame::ACK;
use sluice_perf::scenario::SERVERS;

use crate::crowd::{Crowd, FIN, client};

const UPPER: u64 = 40;
const SERVERS_THERE: usize = 3;

/// Connections of each real server over all workers, now.
fn loads(crowd: &Crowd) -> Vec<u64> {
    let of = |server: usize| {
        crowd.fleet.sum(|cells| {
            let cells = &cells.servers[server];
            cells.active.read() + cells.inactive.read()
        })
    };
    (0..SERVERS_THERE.min(SERVERS.into())).map(of).collect()
}

#[test]
fn a_threshold_is_never_exceeded_however_many_come_at_once() {
    for scheduler in ["rr", "wrr", "lc", "wlc"] {
        for burst in [1, 32, 400] {
            let mut crowd = Crowd::of_four();
            crowd.serve(
                json!({"scheduler": scheduler}),
                json!({"upper_threshold": UPPER}),
                &[1; SERVERS_THERE],
            );
            let clients: Vec<SocketAddrV4> = (0..400).map(client).collect();
            let mut taken = 0;
            for clients in clients.chunks(burst) {
                taken += crowd.open(clients).iter().flatten().count() as u64;
                let loads = loads(&crowd);
                assert!(
                    loads.iter().all(|load| *load <= UPPER),
                    "{scheduler}, {burst} at once: {loads:?}"
                );
            }
            let room = UPPER * SERVERS_THERE as u64;
            assert_eq!(
                taken, room,
                "{scheduler}, {burst} at once: all room is used"
            );
        }
    }
}

#[test]
fn what_one_worker_ends_another_may_take() {
    let mut crowd = Crowd::of_four();
    crowd.call(
        "setting_set",
        json!({"settings": {"timeout_tcp": 10, "timeout_tcp_fin": 10}}),
    );
    crowd.serve(
        json!({"scheduler": "rr"}),
        json!({"upper_threshold": UPPER}),
        &[1],
    );
    let clients: Vec<SocketAddrV4> = (0..400).map(client).collect();
    crowd.open(&clients);
    let refused = crowd.open(&clients[300..]);
    assert!(refused.iter().all(Option::is_none), "{refused:?}");
    crowd.send_all(&clients, FIN | ACK);
    crowd.fleet.sleep(Duration::from_secs(200)).unwrap();
    assert_eq!(loads(&crowd)[0], 0);
    let again = crowd.open(&clients);
    assert_eq!(again.iter().flatten().count() as u64, UPPER);
}
