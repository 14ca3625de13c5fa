//! `sluice doctor --config`: what it says before a start, with real devices asked.

use std::fs;

use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::netns::Netns;
use crate::pcap;
use crate::rig::cores;
use crate::shell::Shell;

#[test]
fn the_doctor_asks_the_ports_devices_while_no_daemon_has_them() {
    let home = TempDir::with_prefix("sluice-e2e-").expect("a temporary directory");
    let inside = |name: &str| home.path().join(name).to_string_lossy().into_owned();
    let (input, output) = (inside("in.pcap"), inside("kept"));
    pcap::write(input.as_ref(), &[]);
    fs::write(&output, "kept").expect("a place for it");
    let ports = [
        ("null", "net_null0", "no-rx=1".to_owned()),
        ("tap", "net_tap1", "iface=dt1".to_owned()),
        ("ring", "net_ring2", String::new()),
        (
            "files",
            "net_pcap3",
            format!("rx_pcap={input},tx_pcap={output}"),
        ),
    ];
    let ports = ports.map(|(name, device, args)| {
        format!("[[port]]\nname = {name:?}\ndevice = {device:?}\nargs = {args:?}\n")
    });
    let boot = format!(
        "[eal]\nfile_prefix = \"PREFIX\"\nhugepages = \"off\"\n[workers]\n{}\npolling = \"adaptive\"\n\
         max_connections = 1000\n[rpc]\nsocket = \"SOCKET\"\n{}",
        cores(3),
        ports.concat()
    );
    let (config, socket) = (inside("doctor.toml"), inside("rpc.sock"));
    let own = boot
        .replace("PREFIX", "sluice-doctor")
        .replace("SOCKET", &socket);
    fs::write(&config, own).expect("a place for it");
    let netns = Netns::new("doctor");
    let doctor = || {
        let shell = Shell::at(&netns, socket.clone().into());
        shell
            .sluice_with(&format!("doctor --config {config}"), "")
            .out
    };

    let interfaces = netns.ip("-br link");
    let said = doctor();
    for line in [
        "port null: driver net_null, 3 of 1024 receive queues for 3 workers, RSS by a table of 128 entries and a key whose length it does not tell, of ipv4 ",
        "port null: about 2 of 3 packets of NAT are handed over to the worker that has their connection: this port cannot hash one end alone",
        "port tap: driver net_tap, 3 of 16 receive queues for 3 workers, no RSS",
        "port ring: driver net_ring, 3 of 16 receive queues for 3 workers, no RSS",
        "port files: driver net_pcap, 1 of 1 receive queues for 3 workers (no RSS): all packets reach worker 0",
        "port files: 1 transmit queues for 3 workers",
        "port files: takes no rules of rte_flow; sluice needs none",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    let kept = fs::read_to_string(&output).expect("it is there");
    assert_eq!(kept, "kept", "what the port writes to is not touched");
    assert_eq!(netns.ip("-br link"), interfaces);

    let daemon = Daemon::spawn_at(&netns, &boot, home).ready();
    let said = doctor();
    assert!(
        said.contains("devices: not asked what they can do (RSS, rte_flow): ")
            && said.contains("another sluiced is listening"),
        "{said}"
    );
    daemon.stop();
}
