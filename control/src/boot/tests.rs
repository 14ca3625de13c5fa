use std::net::Ipv4Addr;

use sluice_dataplane::command::PortId;
use sluice_dataplane::egress::Route;

use super::*;

fn machine() -> Machine {
    Machine {
        cores: vec![0, 1, 2],
    }
}

fn parse(text: &str) -> Result<Boot, BootError> {
    Boot::parse(Path::new("boot.toml"), text, &machine())
}

/// The message of a refusal, which must be one line.
fn refused(text: &str) -> String {
    let message = parse(text).unwrap_err().to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

const PORT: &str = "[[port]]\nname = \"wan\"\ndevice = \"net_tap0\"\n";

const FULL: &str = r#"
[eal]
file_prefix = "demo"
hugepages = "off"
memory_mb = 128
extra_args = ["--no-telemetry"]

[[port]]
name = "wan"
device = "net_tap0"
args = "iface=dwan"
exception = "wan0"
mtu = 9000
[[port]]
name = "lan"
device = "0000:01:00.1"
promiscuous = true
checksum_offload = false

[workers]
cores = [2]
polling = "adaptive"
max_connections = 1000

[rpc]
socket = "/tmp/x.sock"
mode = 0o600

[limits]
max_services = 10

[[static.address]]
port = "wan"
address = "10.0.0.254/24"
[[static.address]]
port = "wan"
address = "10.0.0.1/32"
[[static.route]]
prefix = "0.0.0.0/0"
port = "wan"
gateway = "10.0.0.253"
[[static.neighbour]]
port = "wan"
address = "10.0.0.253"
mac = "02:00:00:00:00:01"

[[service]]
protocol = "tcp"
address = "10.0.0.1:80"
scheduler = "rr"
laddrs = ["10.0.0.254"]
[[service.real_server]]
address = "192.168.1.1:80"
method = "fullnat"
[[service.real_server]]
address = "192.168.1.2:80"
method = "nat"
weight = 2
"#;

#[test]
fn a_port_is_all_that_must_be_said() {
    let boot = parse(PORT).unwrap();
    assert_eq!(boot.workers.cores, [1]);
    assert_eq!(boot.control_core(), 0);
    assert_eq!(boot.rpc.socket, Path::new("/run/sluice/rpc.sock"));
    assert_eq!(boot.rpc.mode, 0o660);
    assert_eq!(boot.rpc.max_request_bytes, 1 << 20);
    assert_eq!(boot.ports[0].mtu, 1500);
    assert_eq!(boot.exceptions().count(), 0);
}

#[test]
fn everything_that_can_be_said_is_understood() {
    let boot = parse(FULL).unwrap();
    assert_eq!(boot.ports[0].device_with_args(), "net_tap0,iface=dwan");
    assert!(boot.ports[1].is_pci());
    assert_eq!(boot.exceptions().collect::<Vec<_>>(), [(0, "wan0")]);
    assert_eq!(boot.rpc.mode, 0o600);
    let statics = boot.statics().unwrap();
    assert_eq!(statics.local.len(), 2);
    let own = Ipv4Addr::new(10, 0, 0, 254);
    let via = |gateway| Route::Via {
        port: PortId(0),
        gateway,
        source: own,
        mtu: None,
    };
    let routes: Vec<(String, Route)> = statics
        .routes
        .iter()
        .map(|(prefix, route)| (prefix.to_string(), *route))
        .collect();
    let want = [
        ("10.0.0.0/24", via(None)),
        ("0.0.0.0/0", via(Some(Ipv4Addr::new(10, 0, 0, 253)))),
        ("10.0.0.254/32", Route::Local),
        ("10.0.0.1/32", Route::Local),
    ];
    assert_eq!(
        routes,
        want.map(|(prefix, route)| (prefix.to_owned(), route))
    );
}

#[test]
fn unknown_keys_and_wrong_types_are_shown_with_their_line() {
    for (text, start, part) in [
        (
            "[workers]\ncors = [1]\n",
            "boot.toml:2:1: ",
            "unknown field `cors`",
        ),
        ("[worker]\n", "boot.toml:1:2: ", "unknown field `worker`"),
        (
            "[[port]]\nname = \"wan\"\n",
            "boot.toml:1:1: ",
            "missing field `device`",
        ),
        (
            "\n[workers]\ncores = \"1\"\n",
            "boot.toml:3:9: ",
            "invalid type",
        ),
        (
            "[[port]]\nname = \"wan\"\ndevice = 7\n",
            "boot.toml:3:10: ",
            "invalid type",
        ),
        ("[rpc]\nmode = -1\n", "boot.toml:2:8: ", "-1"),
        (
            "[eal]\nhugepages = \"maybe\"\n",
            "boot.toml:2:13: ",
            "unknown variant `maybe`",
        ),
        (
            "[[static.route]]\nprefix = \"10.0.0.0\"\nport = \"wan\"\n",
            "boot.toml:2:10: ",
            "invalid",
        ),
        ("[eal\n", "boot.toml:1:5: ", ""),
    ] {
        let message = refused(text);
        assert!(
            message.starts_with(start) && message.contains(part),
            "{text:?} gave {message}"
        );
    }
}

#[test]
fn cores_are_checked_against_the_machine_and_each_other() {
    let workers = |more: &str| format!("{PORT}[workers]\n{more}\n");
    for (text, part) in [
        ("cores = []", "at least one core"),
        (
            "cores = [7]",
            "there is no core 7 here, or this process may not use it; there are 0, 1, 2",
        ),
        ("control_core = 9", "there is no core 9"),
        ("cores = [1, 1]", "two workers on core 1"),
        (
            "cores = [1]\ncontrol_core = 1",
            "core 1 belongs to a worker",
        ),
        (
            "cores = [1]\ncontrol_core = 1\nallow_shared_cores = true",
            "set it to \"adaptive\"",
        ),
        (
            "max_connections = 0",
            "workers.max_connections: 0 is not from 1 to",
        ),
        (
            "frame_len = 20000",
            "workers.frame_len: 20000 is not from 64 to 16384",
        ),
        (
            "extra_frames = 100000000",
            "workers.extra_frames: 100000000 is not from 0 to",
        ),
    ] {
        let message = refused(&workers(text));
        assert!(message.contains(part), "{text:?} gave {message}");
    }
    let shared =
        workers("cores = [1]\ncontrol_core = 1\nallow_shared_cores = true\npolling = \"adaptive\"");
    assert_eq!(parse(&shared).unwrap().control_core(), 1);
    assert_eq!(parse(&workers("cores = [0]")).unwrap().control_core(), 1);
}

#[test]
fn ports_are_checked_against_each_other() {
    let second = |more: &str| format!("{PORT}[[port]]\n{more}\n");
    for (text, part) in [
        (
            second("name = \"wan\"\ndevice = \"net_tap1\""),
            "two ports have the name \"wan\"",
        ),
        (
            second("name = \"lan\"\ndevice = \"net_tap0\""),
            "two ports have the device \"net_tap0\"",
        ),
        (
            format!(
                "{}[[port]]\nname = \"dmz\"\ndevice = \"01:0A.0\"\n",
                second("name = \"lan\"\ndevice = \"0000:01:0a.0\"")
            ),
            "two ports have the device \"0000:01:0a.0\"",
        ),
        (
            format!(
                "{}args = \"iface=dt0\"\n",
                second(
                    "name = \"lan\"\ndevice = \"net_tap1\"\nargs = \"iface=dt0\"\n[[port]]\nname = \"dmz\"\ndevice = \"net_tap2\""
                )
            ),
            "two interfaces would have the name \"dt0\"",
        ),
        (
            second(
                "name = \"lan\"\ndevice = \"net_tap1\"\nargs = \"iface=dt1\"\nexception = \"dt1\"",
            ),
            "two interfaces would have the name \"dt1\"",
        ),
        (
            second("name = \"lan\"\ndevice = \"net_tap1\"\nargs = \"iface=dt1,bogus=1\""),
            "port \"lan\": args: net_tap1 knows iface, mac, remote, but no \"bogus\"",
        ),
        (
            format!("{PORT}[eal]\nextra_args = [\"--help\"]\n"),
            "eal.extra_args: with \"--help\" DPDK prints something",
        ),
        (
            format!("{PORT}[eal]\nmemory_mb = 0\n"),
            "eal.memory_mb: 0 is not from 1 to",
        ),
        (
            second("name = \"lan\"\ndevice = \"eth1\""),
            "\"eth1\" is neither a PCI address",
        ),
        (
            second("name = \"lan\"\ndevice = \"net_tap1\"\nmtu = 60"),
            "mtu 60",
        ),
        (
            second(
                "name = \"lan\"\ndevice = \"net_tap1\"\nexception = \"a-name-that-is-too-long\"",
            ),
            "interface's name",
        ),
        (
            "[workers]\ncores = [1]\n".to_owned(),
            "there is no [[port]]",
        ),
    ] {
        let message = refused(&text);
        assert!(message.contains(part), "{text:?} gave {message}");
    }
}

#[test]
fn static_entries_must_name_ports_and_sources() {
    for (text, part) in [
        (
            "[[static.address]]\nport = \"x\"\naddress = \"10.0.0.1/24\"",
            "static.address[0].port: there is no port \"x\"; there are wan",
        ),
        (
            "[[static.route]]\nport = \"wan\"\nprefix = \"0.0.0.0/0\"",
            "static.route[0]: give it a source",
        ),
        (
            "[[static.neighbour]]\nport = \"wan\"\naddress = \"10.0.0.1\"\nmac = \"zz\"",
            "static.neighbour[0].mac",
        ),
    ] {
        let message = refused(&format!("{PORT}{text}\n"));
        assert!(message.contains(part), "{text:?} gave {message}");
    }
}

#[test]
fn services_to_begin_with_obey_the_same_rules_as_later_ones() {
    let fullnat = FULL.replace("laddrs = [\"10.0.0.254\"]", "");
    let message = refused(&fullnat);
    assert!(
        message.contains("service[0].real_server[0]: FULLNAT without a local address"),
        "{message}"
    );
    let twice = format!("{FULL}[[service]]\nprotocol = \"tcp\"\naddress = \"10.0.0.1:80\"\n");
    assert!(refused(&twice).contains("service[1]: there is a service tcp 10.0.0.1:80 already"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Boot::load(Path::new("/nonexistent/boot.toml")).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("/nonexistent/boot.toml: cannot read the boot file: ")
    );
}
