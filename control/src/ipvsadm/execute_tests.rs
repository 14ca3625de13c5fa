//! What the traces cannot show: FULLNAT and local addresses, what is not in this version, and a daemon that is away.

use serde_json::Value;

use super::names::LocalNames;
use super::{Outcome, run_with_names};
use crate::api::{ErrorData, ErrorKind, Method};
use crate::client::{Rpc, RpcError};
use crate::fake_daemon::FakeDaemon;

fn run(rpc: &mut dyn Rpc, line: &str) -> Outcome {
    let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    run_with_names(&args, &mut std::io::empty(), rpc, &LocalNames)
}

fn ok(rpc: &mut dyn Rpc, line: &str) -> String {
    let outcome = run(rpc, line);
    assert_eq!(
        (outcome.rc, outcome.err.as_str()),
        (0, ""),
        "ipvsadm {line}"
    );
    outcome.out
}

fn fails(rpc: &mut dyn Rpc, line: &str) -> (i32, String) {
    let outcome = run(rpc, line);
    assert_eq!(outcome.out, "", "ipvsadm {line}");
    (outcome.rc, outcome.err)
}

/// Answers every call with one error.
struct Failing(RpcError);

impl Rpc for Failing {
    fn call(&mut self, _method: &str, _params: Value) -> Result<Value, RpcError> {
        Err(self.0.clone())
    }
}

fn failing(kind: ErrorKind, path: Option<&str>, message: &str) -> Failing {
    Failing(RpcError::Refused {
        code: kind.code(),
        message: message.to_owned(),
        data: Some(ErrorData {
            kind,
            path: path.map(str::to_owned),
            workers: Vec::new(),
            revision: None,
        }),
    })
}

#[test]
fn fullnat_is_b_with_servers_and_local_addresses_are_p_q_g_as_in_dpvs() {
    let mut daemon = FakeDaemon::default();
    ok(&mut daemon, "-A -t 10.0.0.1:80 -s rr");
    ok(
        &mut daemon,
        "--add-laddr -z 192.168.1.200 -t 10.0.0.1:80 -F dpdk1",
    );
    ok(&mut daemon, "-P -z 192.168.1.201 -t 10.0.0.1:80");
    ok(
        &mut daemon,
        "-a -t 10.0.0.1:80 -r 192.168.1.1:8080 -b -w 100",
    );
    assert_eq!(daemon.services[0].real_servers[0].method, Method::FullNat);
    assert_eq!(
        ok(&mut daemon, "-Ln -t 10.0.0.1:80").lines().last(),
        Some("  -> 192.168.1.1:8080             FullNat 100    0          0         ")
    );
    assert_eq!(
        ok(&mut daemon, "-G"),
        "VIP:VPORT            TOTAL    SNAT_IP\n\
         10.0.0.1:80          2\n\
         \u{20}                             192.168.1.200\n\
         \u{20}                             192.168.1.201\n"
    );
    let saved = "-A -t 10.0.0.1:80 -s rr\n\
                 -P -t 10.0.0.1:80 -z 192.168.1.200\n\
                 -P -t 10.0.0.1:80 -z 192.168.1.201\n\
                 -a -t 10.0.0.1:80 -r 192.168.1.1:8080 -b -w 100\n";
    assert_eq!(ok(&mut daemon, "-Sn"), saved);
    let mut restored = FakeDaemon::default();
    let outcome = run_with_names(
        &["-R".to_owned()],
        &mut saved.as_bytes(),
        &mut restored,
        &LocalNames,
    );
    assert_eq!(outcome, Outcome::default());
    assert_eq!(ok(&mut restored, "-Sn"), saved);

    ok(&mut daemon, "-Q -z 192.168.1.200 -t 10.0.0.1:80");
    assert_eq!(daemon.services[0].laddrs.len(), 1);
    assert_eq!(
        fails(&mut daemon, "-Q -z 192.168.1.200 -t 10.0.0.1:80"),
        (255, "address: there is no 192.168.1.200\n".to_owned())
    );
    assert_eq!(
        fails(&mut daemon, "-P -t 10.0.0.1:80"),
        (
            2,
            "You need to supply the 'laddr' option for the 'add-laddr' command\n".to_owned()
        )
    );
}

#[test]
fn the_port_of_a_real_server_is_the_services_unless_translated() {
    let mut daemon = FakeDaemon::default();
    ok(&mut daemon, "-A -t 10.0.0.1:80 -s rr");
    ok(&mut daemon, "-a -t 10.0.0.1:80 -r 192.168.1.1:8080 -g");
    ok(&mut daemon, "-a -t 10.0.0.1:80 -r 192.168.1.2:8080 -m");
    ok(&mut daemon, "-a -t 10.0.0.1:80 -r 192.168.1.3 -m");
    ok(&mut daemon, "-a -t 10.0.0.1:80 -r 192.168.1.4:0 -m");
    let addresses: Vec<_> = daemon.services[0]
        .real_servers
        .iter()
        .rev()
        .map(|server| server.address.to_string())
        .collect();
    assert_eq!(
        addresses,
        [
            "192.168.1.1:80",
            "192.168.1.2:8080",
            "192.168.1.3:80",
            "192.168.1.4:0"
        ]
    );
}

#[test]
fn editing_resets_what_is_not_given() {
    let mut daemon = FakeDaemon::default();
    ok(&mut daemon, "-A -t 10.0.0.1:80 -s rr");
    ok(
        &mut daemon,
        "-a -t 10.0.0.1:80 -r 192.168.1.1:80 -m -w 5 -x 10 -y 5",
    );
    ok(&mut daemon, "-e -t 10.0.0.1:80 -r 192.168.1.1:80");
    let server = daemon.services[0].real_servers[0];
    assert_eq!((server.method, server.weight), (Method::Dr, 1));
    assert_eq!((server.upper_threshold, server.lower_threshold), (0, 0));
    ok(&mut daemon, "-E -t 10.0.0.1:80");
    assert_eq!(daemon.services[0].scheduler, "wlc");
}

#[test]
fn connections_are_followed_over_all_slices() {
    let mut daemon = FakeDaemon::default();
    let connection = crate::api::Connection {
        protocol: crate::api::FlowProtocol::Udp,
        template: false,
        state: "UDP".to_owned(),
        expires_ms: 299_500,
        client: "198.51.100.7:8002".parse().unwrap(),
        virtual_address: "10.0.0.1:53".parse().unwrap(),
        server: "192.168.1.3:53".parse().unwrap(),
        local: None,
        method: Method::Dr,
        worker: 0,
    };
    daemon.connections = vec![connection; 5];
    let out = ok(&mut daemon, "-Lnc");
    assert_eq!(out.lines().count(), 7);
    assert_eq!(
        out.lines().last(),
        Some("UDP 04:59  UDP         198.51.100.7:8002  10.0.0.1:53        192.168.1.3:53")
    );
    assert_eq!(daemon.calls, ["connection_list"; 3]);
}

#[test]
fn flush_deletes_every_service_and_zero_asks_the_daemon() {
    let mut daemon = FakeDaemon::default();
    ok(&mut daemon, "-A -t 10.0.0.1:80 -s rr");
    ok(&mut daemon, "-A -u 10.0.0.1:53 -s rr");
    daemon.services[0].stats.conns = 5;
    daemon.services[1].stats.conns = 6;
    ok(&mut daemon, "-Z -t 10.0.0.1:80");
    assert_eq!(
        (
            daemon.services[0].stats.conns,
            daemon.services[1].stats.conns
        ),
        (0, 6)
    );
    ok(&mut daemon, "-Z");
    assert_eq!(daemon.services[1].stats.conns, 0);
    ok(&mut daemon, "-C");
    assert!(daemon.services.is_empty());
}

#[test]
fn timeouts_are_set_and_listed_and_0_keeps_one() {
    let mut daemon = FakeDaemon::default();
    assert_eq!(
        ok(&mut daemon, "-L --timeout"),
        "Timeout (tcp tcpfin udp): 900 120 300\n"
    );
    ok(&mut daemon, "--set 1 2 3");
    ok(&mut daemon, "--set 0 5 0");
    assert_eq!(
        ok(&mut daemon, "-L --timeout"),
        "Timeout (tcp tcpfin udp): 1 5 3\n"
    );
}

#[test]
fn scheduler_flags_are_set_listed_and_saved() {
    let mut daemon = FakeDaemon::default();
    ok(&mut daemon, "-A -t 10.0.0.1:80 -s sh -b sh-port,flag-1");
    ok(&mut daemon, "-A -t 10.0.0.2:80 -b flag-3");
    assert!(ok(&mut daemon, "-Ln").contains("TCP  10.0.0.1:80 sh (sh-fallback,sh-port)\n"));
    let saved = ok(&mut daemon, "-Sn");
    assert!(
        saved.contains("-A -t 10.0.0.1:80 -s sh -b sh-fallback,sh-port\n"),
        "{saved}"
    );
    assert!(
        saved.contains("-A -t 10.0.0.2:80 -s wlc -b flag-3\n"),
        "{saved}"
    );
    ok(&mut daemon, "-E -t 10.0.0.1:80 -s sh");
    assert!(ok(&mut daemon, "-Ln").contains("TCP  10.0.0.1:80 sh\n"));
}

#[test]
fn what_the_daemon_cannot_do_yet_is_said_in_one_line() {
    let mut old = failing(ErrorKind::MethodNotFound, None, "there is no such method");
    assert_eq!(
        fails(&mut old, "-Z"),
        (
            255,
            "not in this version: the daemon has no service_zero\n".to_owned()
        )
    );
}

#[test]
fn services_of_kinds_that_cannot_exist_yet_do_not_exist() {
    let mut daemon = FakeDaemon::default();
    let error = |rc, text: &str| (rc, format!("{text}\n"));
    assert_eq!(fails(&mut daemon, "-L -f 99"), error(1, "No such service"));
    assert_eq!(
        fails(&mut daemon, "-D -f 99"),
        error(255, "No such service")
    );
    assert_eq!(
        fails(&mut daemon, "-Z -f 99"),
        error(255, "No such service")
    );
    assert_eq!(
        fails(&mut daemon, "-a -f 99 -r 192.168.1.1"),
        error(255, "Service not defined")
    );
    assert_eq!(
        fails(&mut daemon, "--stop-daemon master"),
        error(255, "No daemon is running")
    );
    assert_eq!(ok(&mut daemon, "-L --daemon"), "");
}

#[test]
fn errors_without_a_kernel_text_keep_the_daemons_words() {
    let mut full = failing(
        ErrorKind::Full,
        None,
        "10000 services are configured; raise max_services",
    );
    assert_eq!(
        fails(&mut full, "-A -t 10.0.0.1:80 -s rr"),
        (
            255,
            "10000 services are configured; raise max_services\n".to_owned()
        )
    );
    let mut other = failing(
        ErrorKind::InvalidParams,
        Some("weigth"),
        "unknown field `weigth`",
    );
    assert_eq!(
        fails(&mut other, "-a -t 10.0.0.1:80 -r 192.168.1.1"),
        (255, "unknown field `weigth`\n".to_owned())
    );
    let mut away = Failing(RpcError::PermissionDenied {
        socket: "/s".to_owned(),
    });
    assert_eq!(fails(&mut away, "-Ln").0, 255);
}

#[test]
fn what_sluice_saves_it_restores_with_thresholds_comments_and_order() {
    let mut daemon = FakeDaemon::default();
    ok(&mut daemon, "--set 100 0 200");
    ok(&mut daemon, "-A -u 10.0.0.1:53 -s rr");
    ok(&mut daemon, "-A -t 10.0.0.1:80 -s wrr");
    ok(
        &mut daemon,
        "-a -t 10.0.0.1:80 -r 192.168.1.2:80 -m -w 3 -x 100 -y 50",
    );
    ok(&mut daemon, "-a -t 10.0.0.1:80 -r 192.168.1.1:80 -m -x 7");
    assert!(run(&mut daemon, "-S -n").note.contains("sluice save"));
    let saved = super::save(&mut daemon);
    let lines = saved.out.lines().skip(1);
    assert!(saved.out.contains("\nsetting timeout_tcp 100\n"));
    assert_eq!(
        lines
            .skip_while(|line| line.starts_with("setting "))
            .collect::<Vec<_>>(),
        [
            "-A -u 10.0.0.1:53 -s rr",
            "-A -t 10.0.0.1:80 -s wrr",
            "-a -t 10.0.0.1:80 -r 192.168.1.2:80 -m -w 3 -x 100 -y 50",
            "-a -t 10.0.0.1:80 -r 192.168.1.1:80 -m -w 1 -x 7",
        ]
    );
    let mut restored = FakeDaemon::default();
    ok(&mut restored, "-A -t 10.0.0.9:80");
    let outcome = super::restore(&saved.out, true, &mut restored);
    assert_eq!(outcome, Outcome::default());
    assert_eq!(restored.services, daemon.services);
    assert_eq!(super::save(&mut restored), saved);
    let again = super::restore(
        "# all there\n\n-A -t 10.0.0.1:80\n-A -t 10.0.0.2:80\n",
        false,
        &mut restored,
    );
    assert_eq!(
        (again.rc, again.err.as_str()),
        (1, "line 3: Service already exists\n")
    );
    assert_eq!(restored.services.len(), 3);
    let wrong = super::restore(
        "-A -t 10.0.0.3:80\n-A -t 10.0.0.4:0\n",
        false,
        &mut restored,
    );
    assert_eq!(
        (wrong.rc, wrong.err.as_str()),
        (
            2,
            "line 2: Zero port specified for non-persistent service: nothing was done\n"
        )
    );
    assert_eq!(restored.services.len(), 3);
}

#[test]
fn settings_marks_and_daemons_are_saved_and_replaced() {
    let mut daemon = FakeDaemon::default();
    let marks = "mark mark=5 destination=10.0.1.0/24 protocol=tcp destination_ports=80-89\n\
                 mark mark=0 source=198.51.100.7/32 source_ports=53 port=lan\n";
    let daemons = "--start-daemon backup --mcast-interface ex0 --syncid 7 --sync-maxlen 1200 \
                   --mcast-group 224.0.0.90 --mcast-port 8849 --mcast-ttl 3\n";
    let outcome = super::restore(
        &format!("{marks}-A -f 5 -s rr\nsetting sloppy_tcp 1\n{daemons}"),
        false,
        &mut daemon,
    );
    assert_eq!(outcome, Outcome::default());
    let saved = super::save(&mut daemon).out;
    assert!(saved.contains("\nsetting sloppy_tcp 1\n"), "{saved}");
    assert!(
        saved.ends_with(&format!("{marks}-A -f 5 -s rr\n{daemons}")),
        "{saved}"
    );

    let mut other = FakeDaemon::default();
    let before = "mark mark=9\nsetting drop_entry 3\n-A -t 10.0.0.9:80\n\
                  --start-daemon master --mcast-interface ex1\n";
    assert_eq!(super::restore(before, false, &mut other).rc, 0);
    // Of services alone: all else stays.
    assert_eq!(super::restore("-A -f 5\n", true, &mut other).rc, 0);
    let kept = super::save(&mut other).out;
    assert!(kept.contains("\nmark mark=9\n-A -f 5 -s wlc\n--start-daemon master "));
    assert_eq!(super::restore(&saved, true, &mut other), Outcome::default());
    assert_eq!(super::save(&mut other).out, saved);

    for (wrong, why) in [
        (
            "setting sloppy_tcp yes",
            "setting sloppy_tcp takes a number",
        ),
        ("mark 5", "mark: expected NAME=VALUE, not 5"),
        ("mark destination=10.0.0.1/32", "mark: missing field `mark`"),
        ("mark mark=5 from=10.0.0.1/32", "mark: unknown field `from`"),
    ] {
        let said = super::restore(&format!("-C\n{wrong}\n"), true, &mut other);
        assert_eq!(said.rc, 2);
        assert!(
            said.err.starts_with(&format!("line 2: {why}")),
            "{}",
            said.err
        );
        assert_eq!(super::save(&mut other).out, saved);
    }
    let refused = super::restore("setting no_such 1\n", false, &mut other);
    assert_eq!(refused.rc, 1);
    assert!(refused.err.contains("no_such"), "{}", refused.err);
}

#[test]
fn slips_and_refusals_get_one_more_line() {
    let mut daemon = FakeDaemon::default();
    ok(&mut daemon, "-A -t 10.0.0.1:80 -s rr");
    let slip = run(&mut daemon, "-a -t 10.0.0.1:80 -r 192.168.1.1 -I");
    assert_eq!(
        (slip.rc, slip.err.as_str(), slip.note.as_str()),
        (
            255,
            "-I: unknown option\n",
            "hint: a tunnel is -i, in lower case\n"
        )
    );
    let unknown = run(&mut daemon, "-A -t 10.0.0.2:80 -s nosuch");
    assert_eq!(unknown.err, "Scheduler or persistence engine not found\n");
    assert!(
        unknown
            .note
            .starts_with("hint: there is no scheduler nosuch"),
        "{}",
        unknown.note
    );
    let mut text = &b"-A -t 10.0.0.3:80\n# comment\n"[..];
    let restored = run_with_names(&["-R".to_owned()], &mut text, &mut daemon, &LocalNames);
    assert_eq!(restored.rc, 255);
    assert!(
        restored.note.contains("line 2 stopped it: # comment"),
        "{}",
        restored.note
    );
    assert_eq!(run(&mut daemon, "-D -t 10.0.0.9:80").note, "");
}

#[test]
fn a_mistake_in_restored_lines_stops_there_and_a_refusal_does_not() {
    let mut daemon = FakeDaemon::default();
    let lines = "-A -t 10.0.0.1:80 -s nosuch\n-A -t 10.0.0.1:81 -s rr\n-a -t 10.0.0.1:81 -w 3\n-A -t 10.0.0.1:82 -s rr\n";
    let outcome = run_with_names(
        &["-R".to_owned()],
        &mut lines.as_bytes(),
        &mut daemon,
        &LocalNames,
    );
    assert_eq!(outcome.rc, 2);
    assert_eq!(
        outcome.err,
        "Scheduler or persistence engine not found\n\
         You need to supply the 'real-server' option for the 'add-server' command\n"
    );
    assert_eq!(daemon.services.len(), 1);
}
