//! Listings of connections, slice by slice.

use serde_json::json;

use super::*;

#[test]
fn connections_are_listed_over_all_workers_in_pages() {
    let mut rig = rig(2);
    rig.1.table = 1000;
    let mut seen = Vec::new();
    let mut cursor = Value::Null;
    for page in 0.. {
        assert!(page < 20);
        let mut params = json!({"limit": 40});
        if !cursor.is_null() {
            params["cursor"] = cursor;
        }
        let answer = ok(&mut rig, "connection_list", params);
        let rows = answer["connections"].as_array().unwrap().clone();
        assert!(rows.len() <= 40);
        seen.extend(rows);
        cursor = answer["cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    // 0, 3, … 999 at each worker, none twice.
    assert_eq!(seen.len(), 2 * 334);
    assert_eq!(seen[0]["virtual"], "10.0.0.1:80");
    assert_eq!(seen.iter().filter(|row| row["worker"] == 1).count(), 334);
    for params in [json!({"limit": 0}), json!({"limit": 10_001})] {
        assert!(call(&mut rig, "connection_list", params).is_err());
    }
}

#[test]
fn a_cursor_that_no_listing_gave_is_refused() {
    let mut rig = rig(2);
    for cursor in [
        "",
        "x",
        "0",
        "0:",
        ":0",
        "0:+5",
        "+0:5",
        "0:-1",
        "0: 5",
        "0:5:5",
        "2:0",
        "65536:0",
        "0:1435",
        "0:18446744073709551615",
        "0:18446744073709551616",
    ] {
        let error = call(&mut rig, "connection_list", json!({"cursor": cursor})).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParams, "{cursor:?}");
        assert_eq!(error.data.path.as_deref(), Some("cursor"), "{cursor:?}");
    }
    ok(&mut rig, "connection_list", json!({"cursor": "1:1434"}));
}

#[test]
fn a_listing_that_a_worker_does_not_answer_times_out() {
    let (mut controller, _crew) = rig(1);
    let Reply::Connections(id) =
        controller.handle("connection_list", json!({}), &Peer::Inside("test"))
    else {
        panic!("a listing takes time");
    };
    controller.tick(Duration::from_millis(1900));
    assert!(controller.take_listing(id).is_none());
    controller.tick(Duration::from_millis(2000));
    let error = controller.take_listing(id).unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
}

#[test]
fn a_listing_that_takes_long_is_answered_in_part_with_a_cursor() {
    let (mut controller, mut crew) = rig(1);
    crew.table = 1_000_000;
    let Reply::Connections(id) =
        controller.handle("connection_list", json!({}), &Peer::Inside("test"))
    else {
        panic!("a listing takes time");
    };
    for turn in 0..30 {
        crew.turn();
        controller.tick(Duration::from_millis(50 * turn));
    }
    let answer = controller.take_listing(id).unwrap().unwrap();
    assert!(answer["connections"].as_array().unwrap().len() > 10);
    assert!(answer["cursor"].is_string());
}
