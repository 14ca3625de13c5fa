//! Coming up and going away.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::daemon::Daemon;
use crate::netns::Netns;
use crate::rig::boot;

#[test]
fn sigterm_ends_it_cleanly() {
    let netns = Netns::new("appliance");
    let daemon = Daemon::spawn(&netns, &boot(&["lan"])).ready();
    assert!(netns.ip("-br link").contains("dt0"));
    // Exit 0 and no socket.
    daemon.stop();
    assert!(
        !netns.ip("-br link").contains("dt0"),
        "its interfaces go with it"
    );
    assert!(!netns.ip("-br link").contains("ex0"));
}

#[test]
fn the_socket_is_for_its_owner_and_group() {
    let netns = Netns::new("appliance");
    let daemon = Daemon::spawn(&netns, &boot(&["lan"])).ready();
    let mode = daemon
        .socket()
        .metadata()
        .expect("a socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    daemon.stop();
}

#[test]
fn a_killed_daemon_is_succeeded() {
    let netns = Netns::new("appliance");
    let first = Daemon::spawn(&netns, &boot(&["lan"])).ready();
    // Its socket stays, and nobody listens there.
    let home = first.kill();
    assert!(home.path().join("rpc.sock").exists());
    let second = Daemon::spawn_at(&netns, &boot(&["lan"]), home).ready();
    second.rpc().call("version", json!({}));
    second.stop();
}

#[test]
fn a_living_daemon_keeps_its_socket() {
    let netns = Netns::new("appliance");
    let first = Daemon::spawn(&netns, &boot(&["lan"])).ready();
    let elsewhere = Netns::new("second");
    let socket = first.socket().to_string_lossy().into_owned();
    let second = Daemon::spawn(&elsewhere, &boot(&["lan"]).replace("SOCKET", &socket));
    let (code, said) = second.refused();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains(&socket), "{said}");
    first.rpc().call("version", json!({}));
    first.stop();
}
