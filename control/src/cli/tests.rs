//! The client against a daemon of tests, over a Unix socket.

use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::api::{Connection, Drop, Method, Protocol};
use crate::fake_daemon::FakeDaemon;

/// A daemon behind a socket of its own, removed at the end.
struct Served {
    socket: PathBuf,
}

impl Served {
    fn new(name: &str, daemon: FakeDaemon) -> Self {
        let socket =
            std::env::temp_dir().join(format!("sluice-cli-{}-{name}.sock", std::process::id()));
        daemon.serve(&socket);
        Self { socket }
    }

    /// Exit code, standard output and error of a command line; words are split at blanks.
    fn run(&self, line: &str) -> (u8, String, String) {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.run_words(&words, "")
    }

    fn run_words(&self, words: &[&str], stdin: &str) -> (u8, String, String) {
        let socket = self.socket.to_str().unwrap();
        let args = ["sluice", "--socket", socket].into_iter();
        let args = args.chain(words.iter().copied()).map(OsString::from);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut streams = Streams {
            stdin: &mut stdin.as_bytes(),
            out: &mut out,
            err: &mut err,
        };
        let code = run(&args.collect::<Vec<_>>(), &mut streams);
        (
            code,
            String::from_utf8(out).unwrap(),
            String::from_utf8(err).unwrap(),
        )
    }

    fn ok(&self, line: &str) -> String {
        let (code, out, err) = self.run(line);
        assert_eq!((code, err.as_str()), (0, ""), "sluice {line}");
        out
    }

    fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(line)).unwrap()
    }

    /// The one line of an error.
    fn fails(&self, line: &str) -> (u8, String) {
        let (code, out, err) = self.run(line);
        assert_eq!(out, "", "sluice {line}");
        assert_eq!(err.lines().count(), 1, "sluice {line}: {err}");
        (code, err)
    }
}

impl std::ops::Drop for Served {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.socket);
    }
}

#[test]
fn counters_start_anew_of_one_service_or_of_all() {
    let daemon = Served::new("zero", FakeDaemon::default());
    daemon.ok("service add tcp 10.0.0.1:80");
    assert_eq!(
        daemon.ok("service zero tcp 10.0.0.1:80"),
        "counters of service tcp 10.0.0.1:80 start anew (revision 2)\n"
    );
    assert_eq!(
        daemon.ok("service zero"),
        "counters of all services start anew (revision 3)\n"
    );
    assert_eq!(daemon.fails("service zero tcp 10.0.0.9:80").0, 1);
}

#[test]
fn a_service_with_real_servers_is_built_changed_listed_and_deleted() {
    let daemon = Served::new("build", FakeDaemon::default());
    assert_eq!(
        daemon.ok("service add tcp 10.0.0.1:80 --scheduler rr"),
        "service tcp 10.0.0.1:80 added (revision 1)\n"
    );
    assert_eq!(
        daemon.ok("server add tcp 10.0.0.1:80 192.168.1.1:8080 --method nat --weight 3"),
        "real server 192.168.1.1:8080 of tcp 10.0.0.1:80 added (revision 2)\n"
    );
    daemon.ok("server add tcp 10.0.0.1:80 192.168.1.2:80 --method dr --upper-threshold 100 --lower-threshold 50");
    daemon.ok("server set tcp 10.0.0.1:80 192.168.1.1:8080 --weight 0");
    daemon.ok("service set tcp 10.0.0.1:80 --scheduler wrr");
    daemon.ok("laddr add tcp 10.0.0.1:80 192.168.1.200");
    assert_eq!(
        daemon.ok("server list tcp 10.0.0.1:80"),
        "\
service          real server       method  weight  upper  lower  active  inactive  conns  conns/s  in pkts/s  out pkts/s
tcp 10.0.0.1:80  192.168.1.1:8080  nat          0      -      -       0         0      0        0          0           0
tcp 10.0.0.1:80  192.168.1.2:80    dr           1    100     50       0         0      0        0          0           0
"
    );
    assert_eq!(
        daemon.ok("service list"),
        "\
service          scheduler  VIP local  servers  active  inactive  conns  conns/s  in pkts/s  out pkts/s  local addresses
tcp 10.0.0.1:80  wrr        yes              2       0         0      0        0          0           0  192.168.1.200
"
    );
    assert_eq!(
        daemon.ok("laddr list"),
        "service          local address\ntcp 10.0.0.1:80  192.168.1.200\n"
    );
    daemon.ok("laddr delete tcp 10.0.0.1:80 192.168.1.200");
    daemon.ok("server delete tcp 10.0.0.1:80 192.168.1.2:80");
    daemon.ok("service set tcp 10.0.0.1:80 --scheduler sh --scheduler-flags sh-port,sh-fallback");
    assert!(
        daemon
            .ok("service list")
            .contains("sh (sh-port,sh-fallback)")
    );
    daemon.ok("service set tcp 10.0.0.1:80 --scheduler-flags=");
    assert!(!daemon.ok("service list").contains('('));
    daemon.ok("service delete tcp 10.0.0.1:80");
    assert_eq!(daemon.ok("service list").lines().count(), 1);
}

#[test]
fn a_new_service_whose_address_is_not_ours_is_said_to_wait_for_it() {
    let daemon = FakeDaemon {
        vips_elsewhere: true,
        ..FakeDaemon::default()
    };
    let daemon = Served::new("elsewhere", daemon);
    assert_eq!(
        daemon.ok("service add tcp 10.0.0.1:80"),
        "service tcp 10.0.0.1:80 added (revision 1)\n\
         10.0.0.1 is not an address of this machine yet: ip addr add 10.0.0.1/32 dev sl-client\n"
    );
    let applied = daemon.json("-o json service add tcp 10.0.0.1:81");
    assert_eq!(applied, json_of(r#"{"revision": 2}"#));
}

#[test]
fn an_exception_interface_that_is_gone_is_warned_of() {
    let daemon = FakeDaemon {
        kernel: Some(api::KernelStats {
            missing_interfaces: vec!["sl-client".to_owned()],
            ..api::KernelStats::default()
        }),
        ..FakeDaemon::default()
    };
    let daemon = Served::new("gone", daemon);
    for line in ["status", "stats"] {
        let said = daemon.ok(line);
        assert!(
            said.contains("! the exception interface sl-client is gone"),
            "{said}"
        );
    }
    assert!(daemon.ok("status").contains(" sl-client (gone) "));
}

#[test]
fn json_is_the_daemons_answer() {
    let daemon = Served::new("json", FakeDaemon::default());
    let applied = daemon.json("-o json service add udp 10.0.0.1:53");
    assert_eq!(applied, json_of(r#"{"revision": 1}"#));
    let list = daemon.json("service list -o json");
    assert_eq!(list["services"][0]["scheduler"], "wlc");
    assert_eq!(list["services"][0]["service"]["address"], "10.0.0.1:53");
    let status = daemon.json("-o json status");
    assert_eq!(status["version"]["sluice"], "0.1.0");
    assert_eq!(status["stats"]["uptime_s"], 3725);
}

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_refusal_is_one_line_that_names_the_parameter_and_exit_1() {
    let daemon = Served::new("refusal", FakeDaemon::default());
    daemon.ok("service add tcp 10.0.0.1:80");
    assert_eq!(
        daemon.fails("service add tcp 10.0.0.1:80"),
        (1, "error: there is such a service already\n".to_owned())
    );
    assert_eq!(
        daemon.fails("server add tcp 10.0.0.1:80 224.0.0.1:80"),
        (1, "error: address: 224.0.0.1 is not unicast\n".to_owned())
    );
    assert_eq!(
        daemon
            .fails("server delete tcp 10.0.0.1:81 192.168.1.1:80")
            .0,
        1
    );
}

#[test]
fn a_wrong_command_line_is_one_line_and_exit_2() {
    let daemon = Served::new("usage", FakeDaemon::default());
    let (code, error) = daemon.fails("service add tcp 10.0.0.1");
    assert_eq!(code, 2);
    assert!(
        error.contains("<SERVICE>") && error.contains("expected ADDRESS:PORT"),
        "{error}"
    );
    let (code, error) = daemon.fails("service add tcp");
    assert_eq!(code, 2);
    assert!(error.contains("<SERVICE>"), "{error}");
    let (code, error) = daemon.fails("server add tcp 10.0.0.1:80 192.168.1.1:80 --weight -1");
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("-1 is not in 0..=2147483647"), "{error}");
    let (code, error) = daemon.fails("server set tcp 10.0.0.1:80 192.168.1.1:80");
    assert_eq!(code, 2);
    assert!(error.contains("--weight"), "{error}");
    let (code, error) = daemon.fails("server list tcp");
    assert_eq!(code, 2, "{error}");
    let (code, error) = daemon.fails("statsu");
    assert_eq!(code, 2);
    assert!(
        error.contains("status") || error.contains("stats"),
        "{error}"
    );
}

#[test]
fn an_absent_daemon_is_one_line_and_exit_1() {
    let daemon = Served {
        socket: std::env::temp_dir().join("sluice-cli-nobody.sock"),
    };
    let (code, error) = daemon.fails("status");
    assert_eq!(code, 1);
    assert!(
        error.contains("is it running?") && error.contains("--socket"),
        "{error}"
    );
}

#[test]
fn help_goes_to_standard_output_and_none_at_all_to_standard_error() {
    let daemon = Served::new("help", FakeDaemon::default());
    for line in [
        "--help",
        "service add --help",
        "help server add",
        "help ipvsadm",
    ] {
        let help = daemon.ok(line);
        assert!(help.contains("Example"), "sluice {line}: {help}");
    }
    let (code, out, err) = daemon.run("service");
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("Usage:"), "{err}");
}

fn connection(client: &str) -> Connection {
    Connection {
        protocol: Protocol::Tcp.into(),
        template: false,
        state: "ESTABLISHED".to_owned(),
        expires_ms: 899_999,
        client: client.parse().unwrap(),
        virtual_address: "10.0.0.1:80".parse().unwrap(),
        server: "192.168.1.1:80".parse().unwrap(),
        local: Some("192.168.1.200:1024".parse().unwrap()),
        method: Method::FullNat,
        worker: 3,
    }
}

#[test]
fn connections_follow_the_cursor_up_to_the_limit() {
    let ports = [8001, 8002, 8003, 8004, 8005];
    let daemon = FakeDaemon {
        connections: ports
            .iter()
            .map(|port| connection(&format!("198.51.100.7:{port}")))
            .collect(),
        ..FakeDaemon::default()
    };
    let daemon = Served::new("connections", daemon);
    let all = daemon.ok("connections");
    assert_eq!(all.lines().count(), 6);
    assert_eq!(
        all.lines().nth(5),
        Some(
            "tcp    ESTABLISHED    14:59  198.51.100.7:8005      10.0.0.1:80            192.168.1.1:80         192.168.1.200:1024     fullnat  3"
        )
    );
    let (code, out, err) = daemon.run("connections --limit 3");
    assert_eq!((code, out.lines().count()), (0, 4));
    assert_eq!(
        err,
        "the first 3 are shown; --limit N shows more, --limit 0 all\n"
    );
    assert_eq!(
        daemon
            .ok("connections --protocol udp --limit 0")
            .lines()
            .count(),
        1
    );
    let json = daemon.json("-o json connections --limit 0");
    assert_eq!(json["connections"].as_array().unwrap().len(), 5);
    assert_eq!(json.get("cursor"), None);
    let json = daemon.json("-o json connections --limit 3");
    assert_eq!(json["cursor"], "3");
}

#[test]
fn status_shows_version_workers_ports_services_and_what_is_wrong() {
    let drop = |reason: &str, packets| Drop {
        reason: reason.to_owned(),
        description: "it was said why".to_owned(),
        packets,
    };
    let mut daemon = FakeDaemon {
        drops: vec![drop("no_real_server", 7), drop("short_udp", 0)],
        ..FakeDaemon::default()
    };
    daemon
        .call(
            "service_add",
            json_of(r#"{"service": {"protocol": "tcp", "address": "10.0.0.1:80"}}"#),
        )
        .unwrap();
    daemon.services[0].vip_local = false;
    daemon.services[0].laddrs_not_local = vec![[10, 0, 0, 9].into()];
    let daemon = Served::new("status", daemon);
    daemon.ok("server add tcp 10.0.0.1:80 192.168.1.1:80 --method nat");
    assert_eq!(
        daemon.ok("status"),
        "\
sluice 0.1.0, DPDK 22.11.7, up 1 h 2 min, revision 2
now: 1.50k connections/s; in 0 packets/s, 0B/s; out 0 packets/s, 0B/s

worker  core  connections  full  rx  tx  punted  dropped  busy
0          1            0    0%   0   0       0        0   25%

port    link           MTU  exception     rx  tx  missed  errors
client  up 10 Gbit/s  1500  sl-client  12.3k   0       0       0

service              scheduler  weight  active  inactive  conns  conns/s  in pkts/s  out pkts/s
tcp 10.0.0.1:80      wlc                     0         0      0        0          0           0
  -> 192.168.1.1:80  nat             1       0         0      0        0          0           0

dropped because  packets  which means
no_real_server         7  it was said why

! tcp 10.0.0.1:80: 10.0.0.1 is not an address of this machine; the service matches nothing
! tcp 10.0.0.1:80: the local address 10.0.0.9 is not an address of this machine; replies to it do not come here
! worker 0 is still at revision 0
"
    );
    assert_eq!(daemon.ok("drops").lines().count(), 2);
    assert_eq!(daemon.ok("drops --all").lines().count(), 3);
}

#[test]
fn stats_version_and_methods_are_tables() {
    let daemon = Served::new("tables", FakeDaemon::default());
    let stats = daemon.ok("stats");
    assert!(stats.starts_with("revision 0, up 1 h 2 min\n"), "{stats}");
    for line in [
        "connections at most  1048576",
        "busy                     25%",
        "client  02:00:00:00:00:01  12345   0",
        "client       4.99 %  617        0   0    0      0           3",
    ] {
        assert!(stats.contains(line), "{line}: {stats}");
    }
    assert!(
        daemon
            .ok("version")
            .starts_with("sluiced 0.1.0\nDPDK    22.11.7\nsluice  ")
    );
    assert_eq!(
        daemon.ok("methods"),
        "method   what it does\nversion  What runs. No parameters.\n"
    );
}

#[test]
fn rpc_calls_any_method_with_json_of_the_command_line_or_of_standard_input() {
    let daemon = Served::new("raw", FakeDaemon::default());
    let service = r#"{"service": {"protocol": "tcp", "address": "10.0.0.1:80"}}"#;
    let (code, out, _) = daemon.run_words(&["rpc", "service_add", service], "");
    assert_eq!((code, out.as_str()), (0, "{\n  \"revision\": 1\n}\n"));
    let (code, _, err) = daemon.run_words(&["rpc", "service_delete", "-"], service);
    assert_eq!((code, err.as_str()), (0, ""));
    let (code, error) = daemon.fails("rpc service_add {");
    assert_eq!(code, 2);
    assert!(error.starts_with("error: JSON: "), "{error}");
    assert_eq!(
        daemon.fails("rpc nonsense"),
        (1, "error: there is no method nonsense\n".to_owned())
    );
}

#[test]
fn ipvsadm_is_the_front_end_with_its_own_options_and_exit_codes() {
    let daemon = Served::new("ipvsadm", FakeDaemon::default());
    daemon.ok("ipvsadm -A -t 10.0.0.1:80 -s rr");
    assert_eq!(daemon.ok("ipvsadm -S -n"), "-A -t 10.0.0.1:80 -s rr\n");
    assert!(daemon.ok("ipvsadm -h").starts_with("ipvsadm v1.31"));
    assert!(daemon.ok("ipvsadm --help").starts_with("ipvsadm v1.31"));
    assert!(daemon.ok("ipvsadm --version").starts_with("ipvsadm v1.31"));
    assert_eq!(
        daemon.fails("ipvsadm -A -t 10.0.0.1:80 -s rr"),
        (255, "Service already exists\n".to_owned())
    );
    assert_eq!(daemon.fails("ipvsadm -a -t 10.0.0.1:80").0, 2);
    let (code, out, err) = daemon.run_words(&["ipvsadm", "-R"], "-A -t 10.0.0.1:81 -s rr\n");
    assert_eq!((code, out.as_str(), err.as_str()), (0, "", ""));
    assert!(daemon.ok("ipvsadm -Ln").contains("TCP  10.0.0.1:81 rr\n"));
}

#[test]
fn services_of_marks_and_their_rules_are_typed_and_listed() {
    let daemon = Served::new("marks", FakeDaemon::default());
    assert_eq!(
        daemon.ok("mark add 1 --destination 10.0.1.0/24 --protocol tcp --destination-ports 80-89"),
        "rule added: mark=1 destination=10.0.1.0/24 protocol=tcp destination_ports=80-89 (revision 1)\n"
    );
    daemon.ok("mark add 0 --source 198.51.100.7 --position 1");
    let list = daemon.ok("mark list");
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[1].contains("198.51.100.7/32"), "{list}");
    assert!(
        lines[2].contains("10.0.1.0/24") && lines[2].contains("80-89"),
        "{list}"
    );
    daemon.ok("mark delete 1");
    assert!(!daemon.ok("mark list").contains("198.51.100.7"));

    let added =
        daemon.ok("service add fwmark 1 --scheduler lblc --persistence 300 --mask 255.255.255.0");
    assert!(added.starts_with("service fwmark 1 added"), "{added}");
    daemon.ok("server add fwmark 1 192.168.1.1:0");
    assert!(daemon.ok("service list").contains("fwmark 1"));
    assert_eq!(
        daemon.ok("ipvsadm -S -n"),
        "-A -f 1 -s lblc -p 300 -M 255.255.255.0\n-a -f 1 -r 192.168.1.1:0 -g -w 1\n"
    );
    daemon.ok("service set fwmark 1 --persistence 0");
    assert!(daemon.ok("ipvsadm -Ln").contains("FWM  1 lblc\n"));
    assert_eq!(daemon.fails("service add fwmark 10.0.0.1:80").0, 2);
    assert_eq!(daemon.fails("service add tcp 5").0, 2);
    assert_eq!(daemon.fails("mark add 1 --destination-ports 89-80").0, 2);
}

#[test]
fn settings_are_listed_and_set_together() {
    let daemon = Served::new("settings", FakeDaemon::default());
    assert_eq!(
        daemon.ok("setting set timeout_udp=30 sloppy_tcp=1"),
        "set sloppy_tcp=1 timeout_udp=30 (revision 1)\n"
    );
    let list = daemon.ok("setting list");
    let row = |name: &str| {
        list.lines()
            .find(|line| line.starts_with(name))
            .unwrap()
            .to_owned()
    };
    assert!(row("timeout_udp").contains(" 30 "), "{list}");
    assert!(row("sloppy_tcp").contains(" 1 "), "{list}");
    let (code, error) = daemon.fails("setting set conn_reuse_mode=9 timeout_udp=1");
    assert!(code == 1 && error.contains("takes 0 to 3"), "{error}");
    let (code, error) = daemon.fails("setting set timeout_udp");
    assert!(code == 2 && error.contains("NAME=VALUE"), "{error}");
    assert!(daemon.ok("setting list").contains(" 30 "));
}

#[test]
fn completions_know_the_commands() {
    let daemon = Served::new("completions", FakeDaemon::default());
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            daemon.ok(&format!("completions {shell}")).contains("laddr"),
            "{shell}"
        );
    }
}
