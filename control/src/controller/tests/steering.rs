//! Moving load between workers.

use std::sync::Mutex;

use serde_json::json;
use sluice_dataplane::steer::toeplitz::{KEY_LEN, Key, Toeplitz};
use sluice_dataplane::steer::{HashTypes, RssPlan, Spread, Steering};

use super::*;

type Programmed = Arc<Mutex<Vec<(PortId, Vec<u16>)>>>;

/// Two workers behind one NIC with a table of four, and what that was told.
fn steered() -> ((Controller, Crew), Programmed) {
    let mut rig = rig(2);
    let toeplitz = Arc::new(Toeplitz::new(Key::symmetric(KEY_LEN)));
    let polled_by = vec![WorkerId(0), WorkerId(1)];
    let plan = RssPlan::new(toeplitz, HashTypes::EVERY_KIND, vec![0, 1, 0, 1], polled_by).unwrap();
    rig.0
        .steer(Arc::new(Steering::new(2, vec![Spread::Rss(plan)])));
    let programmed = Programmed::default();
    let told = Arc::clone(&programmed);
    rig.0.rss_programmer(move |port, table| {
        told.lock().unwrap().push((port, table.to_vec()));
        Ok(())
    });
    (rig, programmed)
}

fn told(crew: &Crew) -> &Steering {
    match crew.seen.last() {
        Some(Command::Steering(steering)) => steering,
        other => panic!("expected a steering, not {other:?}"),
    }
}

#[test]
fn a_nic_is_told_when_all_workers_know() {
    let (mut rig, programmed) = steered();
    let reply = rig
        .0
        .handle("rss_table_set", json!({"drain": 0}), &Peer::Inside("test"));
    let Reply::WhenApplied { revision, .. } = reply else {
        panic!("{reply:?}");
    };
    rig.0.progress();
    assert!(
        programmed.lock().unwrap().is_empty(),
        "a worker does not know yet"
    );
    rig.1.turn();
    rig.0.progress();
    assert!(rig.0.applied() >= revision);
    assert_eq!(*programmed.lock().unwrap(), [(PortId(0), vec![1; 4])]);
    assert_eq!(told(&rig.1).owners(), [WorkerId(1); 4]);
    rig.0.progress();
    assert_eq!(programmed.lock().unwrap().len(), 1, "it is told once");
    let table = ok(&mut rig, "rss_table_list", json!({}));
    assert_eq!(table, json!({"owners": [1, 1, 1, 1], "moving": true}));
}

#[test]
fn who_has_no_connection_left_is_asked_no_more() {
    let (mut rig, _) = steered();
    let cells = rig.1.channels[0].cells.clone();
    cells.connections.set(3);
    ok(
        &mut rig,
        "rss_table_set",
        json!({"give": {"entries": [0], "worker": 1}}),
    );
    let moving = |rig: &mut _| ok(rig, "rss_table_list", json!({}))["moving"].clone();
    rig.0.tick(Duration::from_secs(20));
    assert_eq!(moving(&mut rig), true);
    cells.connections.set(0);
    rig.0.tick(Duration::from_secs(40));
    assert_eq!(moving(&mut rig), false);
    rig.1.turn();
    assert!(!told(&rig.1).has_moved());
    assert_eq!(
        told(&rig.1).owners()[0],
        WorkerId(1),
        "the entry stays moved"
    );
}

#[test]
fn there_is_nothing_to_move_before_ports_are_known() {
    let mut rig = rig(2);
    let error = call(&mut rig, "rss_table_set", json!({"reset": true})).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfRange);
    let error = call(&mut steered().0, "rss_table_set", json!({"drain": 2})).unwrap_err();
    assert!(
        error.to_string().contains("there is no worker 2"),
        "{error}"
    );
}
