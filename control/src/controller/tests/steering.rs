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
fn a_nic_that_refuses_its_table_is_shown_until_it_takes_one() {
    let (mut rig, _) = steered();
    let mut refuses = true;
    rig.0.rss_programmer(move |_, _| {
        if std::mem::take(&mut refuses) {
            return Err("lan: busy".to_owned());
        }
        Ok(())
    });
    let mut after = |request| {
        ok(&mut rig, "rss_table_set", request);
        rig.0.progress();
        ok(&mut rig, "rss_table_list", json!({}))
    };
    let table = after(json!({"drain": 0}));
    assert_eq!(table["refused"], json!(["lan: busy"]));
    assert_eq!(table["owners"], json!([1, 1, 1, 1]));
    assert_eq!(after(json!({"reset": true}))["refused"], Value::Null);
}

/// Lets time pass and the workers do what is asked of them.
fn at(rig: &mut (Controller, Crew), seconds: u64) -> Value {
    rig.0.tick(Duration::from_secs(seconds));
    rig.1.turn();
    rig.0.progress();
    rig.1.turn();
    ok(rig, "rss_table_list", json!({}))
}

#[test]
fn who_has_nothing_left_of_an_entry_is_asked_for_it_no_more() {
    let (mut rig, _) = steered();
    // Entries 0 and 2 move, and worker 0 has many connections of others.
    rig.1.channels[0].cells.connections.set(1000);
    ok(&mut rig, "rss_table_set", json!({"drain": 0}));
    rig.1.moved = vec![3, 0, 2, 0];
    let owners = json!([1, 1, 1, 1]);
    let moving = |left: u64| json!({"owners": owners, "moving": true, "left": left});
    assert_eq!(at(&mut rig, 5), json!({"owners": owners, "moving": true}));
    assert_eq!(rig.1.asked, 0, "packets may still arrive as before");
    assert_eq!(at(&mut rig, 20), moving(5));
    rig.1.moved = vec![0, 0, 2, 0];
    assert_eq!(at(&mut rig, 40), moving(2));
    assert_eq!(told(&rig.1).formers(), [WorkerId(0)]);
    rig.1.moved = vec![0; 4];
    assert_eq!(at(&mut rig, 60), json!({"owners": owners, "moving": false}));
    assert!(!told(&rig.1).has_moved());
    assert_eq!(told(&rig.1).owners(), [WorkerId(1); 4], "they stay moved");
    assert_eq!(rig.1.asked, 3, "of worker 0 alone");
    at(&mut rig, 80);
    assert_eq!(rig.1.asked, 3, "and no more");
}

#[test]
fn an_answer_of_before_another_move_says_nothing() {
    let (mut rig, _) = steered();
    ok(&mut rig, "rss_table_set", json!({"drain": 0}));
    rig.0.tick(Duration::from_secs(20));
    // The worker counts, and before its answer is read, more moves.
    rig.1.turn();
    ok(&mut rig, "rss_table_set", json!({"drain": 1}));
    let table = ok(&mut rig, "rss_table_list", json!({}));
    assert_eq!(table["moving"], true);
    assert_eq!(told(&rig.1).formers(), [WorkerId(1)]);
}

#[test]
fn nobody_is_forgotten_while_a_worker_has_yet_to_hear_of_the_move() {
    let (mut rig, _) = steered();
    rig.0
        .handle("rss_table_set", json!({"drain": 0}), &Peer::Inside("test"));
    for seconds in [20, 40, 60] {
        rig.0.tick(Duration::from_secs(seconds));
    }
    rig.1.turn();
    assert_eq!(rig.1.asked, 0);
    rig.0.tick(Duration::from_secs(65));
    rig.1.turn();
    assert_eq!(rig.1.asked, 0, "it has known for a moment");
    assert_eq!(at(&mut rig, 80)["moving"], false);
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
