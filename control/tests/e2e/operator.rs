//! What helps an operator to prepare and to retire real servers: setup scripts, the doctor, draining.

use std::time::Duration;

use crate::netns::Netns;
use crate::rig::{LADDR, Rig, VIP, eventually};
use crate::shell::{Shell, run_script};
use crate::traffic::{Server, connect, http_get};
use crate::tunnel::Decapsulator;

/// A request is answered by the only server.
fn serves(rig: &mut Rig, port: u16) {
    let to = format!("{VIP}:{port}").parse().expect("an address");
    let answer = rig.client.run(|| http_get(to)).expect("an answer");
    assert_eq!(answer, "rs1");
}

/// Has the script printed for `args`, and runs it on the real server.
fn set_up(rig: &Rig, server: &Netns, args: &str) {
    let script = Shell::on(rig).sluice(&format!("server setup-script {args}"));
    run_script(server, &script);
}

#[test]
fn the_dr_script_makes_a_real_server() {
    let mut rig = Rig::one_arm(1);
    set_up(&rig, &rig.servers[0], &format!("--mode dr --vip {VIP}"));
    let service = rig.service("tcp", 80, "rr");
    rig.real_server(&service, "10.0.0.11:80", "dr");
    let _server = Server::http(&rig.servers[0], &format!("{VIP}:80"), "rs1");
    serves(&mut rig, 80);
    rig.close();
}

#[test]
fn the_tun_script_makes_a_real_server() {
    let mut rig = Rig::one_arm(1);
    let end = Decapsulator::start(&rig.servers[0], "10.0.0.11");
    let script = Shell::on(&rig).sluice(&format!(
        "server setup-script --mode tun --vip {VIP} --tunnel decap"
    ));
    // Not every kernel has the module: here a program takes its place.
    assert!(script.contains("\nmodprobe ipip\n"));
    let script = script.replace("modprobe ipip", "true");
    run_script(&rig.servers[0], &script);
    let service = rig.service("tcp", 80, "rr");
    rig.real_server(&service, "10.0.0.11:80", "tun");
    let _server = Server::http(&rig.servers[0], &format!("{VIP}:80"), "rs1");
    serves(&mut rig, 80);
    assert!(end.finish() > 3);
    rig.close();
}

#[test]
fn the_nat_script_makes_a_real_server() {
    let mut rig = Rig::two_arms(1);
    rig.servers[0].ip("route del default");
    set_up(&rig, &rig.servers[0], "--mode nat --gateway 192.168.1.254");
    let service = rig.service("tcp", 80, "rr");
    rig.real_server(&service, "192.168.1.1:8080", "nat");
    let _server = Server::http(&rig.servers[0], "192.168.1.1:8080", "rs1");
    serves(&mut rig, 80);
    rig.close();
}

#[test]
fn the_fullnat_script_makes_a_real_server() {
    let mut rig = Rig::two_arms(1);
    rig.servers[0].ip("route del default");
    // A local address that is not on the servers' network.
    rig.appliance.ip("addr add 10.9.9.9/32 dev ex1");
    let args = format!("--mode fullnat --laddr {LADDR} --laddr 10.9.9.9 --gateway 192.168.1.254");
    set_up(&rig, &rig.servers[0], &args);
    let service = rig.service("tcp", 80, "rr");
    rig.laddr(&service, "10.9.9.9");
    rig.real_server(&service, "192.168.1.1:8080", "fullnat");
    let _server = Server::http(&rig.servers[0], "192.168.1.1:8080", "rs1");
    serves(&mut rig, 80);
    rig.close();
}

#[test]
fn the_doctor_finds_a_dr_server_that_answers_arp_for_the_vip() {
    let mut rig = Rig::one_arm(2);
    set_up(&rig, &rig.servers[0], &format!("--mode dr --vip {VIP}"));
    // The rig's wire ends in the appliance's own namespace, whose kernel has the VIP: a NIC's would not.
    rig.appliance.sysctl("ipv4/conf/dt0/arp_ignore", "8");
    // Who forgets the rest answers for every address that it has.
    rig.servers[1].ip(&format!("addr add {VIP}/32 dev lo"));
    let service = rig.service("tcp", 80, "rr");
    rig.real_server(&service, "10.0.0.11:80", "dr");
    rig.real_server(&service, "10.0.0.12:80", "dr");

    let found = Shell::on(&rig).sluice_with("doctor", "");
    assert_eq!((found.code, found.err.as_str()), (3, ""), "{found:?}");
    let talks = |server: &str| found.out.contains(&format!("real server {server} ("));
    assert!(talks("10.0.0.12") && !talks("10.0.0.11"), "{}", found.out);
    assert!(found.out.contains(&format!("answers ARP for {VIP} on ex0")));

    set_up(&rig, &rig.servers[1], &format!("--mode dr --vip {VIP}"));
    let found = Shell::on(&rig).sluice("doctor");
    assert_eq!(found, "nothing is wrong with 1 service\n");

    rig.appliance.ip(&format!("addr del {VIP}/32 dev ex0"));
    eventually("the VIP is gone", || {
        rig.listed(&service)["vip_local"] == serde_json::json!(false)
    });
    let found = Shell::on(&rig).sluice_with("doctor", "");
    assert_eq!(found.code, 3);
    assert!(found.out.contains("matches nothing"), "{}", found.out);
    rig.close();
}

#[test]
fn draining_ends_with_the_last_connection_or_at_the_deadline() {
    let mut rig = Rig::two_arms(1);
    let service = rig.service("tcp", 7, "rr");
    rig.real_server(&service, "192.168.1.1:7", "nat");
    let _server = Server::tcp_echo(&rig.servers[0], "192.168.1.1:7");
    let to = service.address();
    let stream = rig.client.run(|| connect(to)).expect("a connection");
    eventually("the connection is counted", || {
        rig.listed(&service)["real_servers"][0]["active"] == 1
    });

    let shell = Shell::on(&rig);
    let drain = format!("server drain tcp {VIP}:7 192.168.1.1:7");
    let now = shell.sluice(&drain);
    assert!(now.contains("weight 0, 1 connections remain"), "{now}");
    let late = shell.sluice_with(&format!("{drain} --wait --deadline 1"), "");
    assert_eq!((late.code, late.err.as_str()), (3, ""), "{late:?}");
    let last = late.out.lines().last();
    assert!(
        last.is_some_and(
            |line| line.contains("1 connections remain") && !line.contains("after 0 s")
        ),
        "{late:?}"
    );

    // What is closed ends when its state's time is over: two minutes, or one second here.
    rig.rpc.call(
        "setting_set",
        serde_json::json!({"settings": {"timeout_tcp": 1, "timeout_tcp_fin": 1}}),
    );
    let shell = Shell::on(&rig);
    let waits = std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| shell.sluice_with(&format!("{drain} --wait --deadline 100"), ""));
        std::thread::sleep(Duration::from_millis(200));
        // A packet gives it the timeout of now; then nothing comes for longer than that.
        rig.client
            .run(|| std::io::Write::write_all(&mut &stream, b"last").expect("it is open"));
        waiting.join().expect("no panic")
    });
    assert_eq!((waits.code, waits.err.as_str()), (0, ""), "{waits:?}");
    assert!(
        waits.out.contains(", 0 connections remain"),
        "{}",
        waits.out
    );

    let gone = shell.sluice_with("server drain tcp 10.0.0.1:7 192.168.1.9:7 --wait", "");
    assert_eq!(gone.code, 1, "{gone:?}");
    drop(stream);
    rig.close();
}
