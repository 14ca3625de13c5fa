//! The daemon itself, as an operator starts and stops it. Needs DPDK, but no hugepages, no NIC and no root.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a panic is the way to say what went wrong"
)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use sluice_control::boot::Machine;

/// For the start, on a machine with other things to do.
const START: Duration = Duration::from_secs(120);

/// For the end, likewise; the daemon gives itself less.
const STOP: Duration = Duration::from_secs(150);

/// A folder for one test's files, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("sluiced-test-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn socket(&self) -> PathBuf {
        self.0.join("rpc.sock")
    }

    /// A boot file that runs anywhere, with `more` at its end.
    fn boot(&self, more: &str) -> PathBuf {
        let core = Machine::this().cores[0];
        let text = format!(
            "[eal]\nfile_prefix = {:?}\nhugepages = \"off\"\n\
             [[port]]\nname = \"wan\"\ndevice = \"net_ring0\"\n\
             [workers]\ncores = [{core}]\ncontrol_core = {core}\nallow_shared_cores = true\n\
             polling = \"adaptive\"\nmax_connections = 1000\n\
             [rpc]\nsocket = {:?}\n{more}",
            self.0.file_name().unwrap(),
            self.socket()
        );
        let path = self.0.join("boot.toml");
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn sluiced(config: &PathBuf) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluiced"));
    command.arg("--config").arg(config).env_remove("RUST_LOG");
    command.args(["--stop-timeout", "140"]);
    command
}

/// The one sentence with which it refuses.
fn refusal(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    let mut said = stderr.lines().filter(|line| line.starts_with("sluiced: "));
    let sentence = said.next().unwrap().to_owned();
    assert_eq!(said.next(), None, "{stderr}");
    sentence
}

struct Daemon(Child);

impl Daemon {
    /// Sends SIGTERM and waits for the end.
    fn terminate(&mut self) -> ExitStatus {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success());
        let deadline = Instant::now() + STOP;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "SIGTERM does not stop it");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_serves_until_sigterm_and_leaves_nothing_behind() {
    let folder = Folder::new("life");
    let service = "[[service]]\nprotocol = \"tcp\"\naddress = \"10.0.0.1:80\"\n\
                   [[static.address]]\nport = \"wan\"\naddress = \"10.0.0.1/32\"\n";
    let notify = folder.0.join("notify.sock");
    let systemd = UnixDatagram::bind(&notify).unwrap();
    systemd.set_read_timeout(Some(START)).unwrap();
    // A dead daemon's socket is no obstacle.
    drop(UnixListener::bind(folder.socket()).unwrap());
    let child = sluiced(&folder.boot(service))
        .env("NOTIFY_SOCKET", &notify)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut daemon = Daemon(child);
    let mut buffer = [0; 64];
    let n = systemd.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"READY=1\n");
    let mode = fs::metadata(folder.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);

    let mut stream = UnixStream::connect(folder.socket()).unwrap();
    stream
        .write_all(b"{\"jsonrpc\":\"2.0\",\"method\":\"service_list\",\"id\":1}")
        .unwrap();
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line).unwrap();
    assert!(
        line.contains("10.0.0.1:80") && line.contains("\"vip_local\":true"),
        "{line}"
    );

    let second = sluiced(&folder.boot(service)).output().unwrap();
    assert!(refusal(&second).contains("another sluiced is listening there"));

    let status = daemon.terminate();
    assert_eq!(status.code(), Some(0));
    assert!(!folder.socket().exists());
}

#[test]
fn sigterm_while_it_starts_is_a_clean_stop_too() {
    let folder = Folder::new("early");
    let instance = folder.0.join("dpdk").join(folder.0.file_name().unwrap());
    let boot = folder.boot("");
    // The socket comes before DPDK, and DPDK's folder long before the ports.
    for sign in [folder.socket(), instance.clone()] {
        let child = sluiced(&boot)
            .env("RUNTIME_DIRECTORY", &folder.0)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut daemon = Daemon(child);
        let deadline = Instant::now() + START;
        while !sign.exists() {
            assert!(Instant::now() < deadline, "no {}", sign.display());
            std::thread::yield_now();
        }
        let status = daemon.terminate();
        assert_eq!(status.code(), Some(0), "{status}");
        assert!(!folder.socket().exists());
        assert!(!instance.exists());
    }
}

#[test]
fn what_cannot_be_started_is_refused_with_one_sentence_and_exit_2() {
    let folder = Folder::new("refusals");
    for (more, sentence) in [
        ("nope = 1\n", "boot.toml:15:1: unknown field `nope`"),
        ("mode = \"x\"\n", "boot.toml:15:8: invalid type"),
        (
            "[limits]\nmax_services = 0\n",
            "limits.max_services: 0 is not from 1",
        ),
        (
            "[[port]]\nname = \"lan\"\ndevice = \"net_nonsense0\"\n",
            "net_nonsense0",
        ),
    ] {
        let output = sluiced(&folder.boot(more)).output().unwrap();
        let refusal = refusal(&output);
        assert!(refusal.contains(sentence), "{more:?} gave {refusal}");
        assert!(!folder.socket().exists());
    }
    let output = sluiced(&folder.0.join("absent.toml")).output().unwrap();
    assert!(refusal(&output).contains("cannot read the boot file"));
}

#[test]
fn a_boot_file_can_be_checked_without_starting() {
    let folder = Folder::new("check");
    let good = sluiced(&folder.boot("")).arg("--check").output().unwrap();
    assert_eq!(good.status.code(), Some(0), "{good:?}");
    let bad =
        sluiced(&folder.boot("[[service]]\nprotocol = \"tcp\"\naddress = \"224.0.0.1:80\"\n"));
    let bad = { bad }.arg("--check").output().unwrap();
    assert!(refusal(&bad).contains("service[0]: service 224.0.0.1 is not a unicast address"));
}

#[test]
fn it_asks_devices_what_they_can_do_and_changes_nothing_by_it() {
    let folder = Folder::new("probe");
    let (input, output) = (folder.0.join("in.pcap"), folder.0.join("out.pcap"));
    // A capture without a packet.
    let header = [
        0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0,
    ];
    fs::write(&input, header).unwrap();
    fs::write(&output, "kept").unwrap();
    let ports = format!(
        "[[port]]\nname = \"null\"\ndevice = \"net_null1\"\n\
         [[port]]\nname = \"files\"\ndevice = \"net_pcap2\"\nargs = \"rx_pcap={},tx_pcap={}\"\n\
         [[port]]\nname = \"vm\"\ndevice = \"net_virtio_user3\"\nargs = \"path=/none\"\n\
         [[port]]\nname = \"odd\"\ndevice = \"net_nonsense4\"\n",
        input.display(),
        output.display()
    );
    let config = folder.boot(&ports);
    let probe = || sluiced(&config).arg("--probe").output().unwrap();
    let asked = probe();
    assert!(asked.status.success(), "{asked:?}");
    let asked: serde_json::Value = serde_json::from_slice(&asked.stdout).unwrap();
    let ports = &asked["ports"];
    let device = |port: usize, key: &str| ports[port]["device"][key].clone();
    assert_eq!(device(0, "driver"), "net_ring");
    assert_eq!(device(0, "rss_table"), 0);
    assert_eq!(device(0, "rx_queues"), 16);
    assert_eq!(device(1, "driver"), "net_null");
    assert_eq!(device(1, "rss_table"), 128);
    let types = device(1, "rss_types").as_str().unwrap().to_owned();
    assert!(
        types.contains("ipv4-tcp") && !types.contains("only"),
        "{types}"
    );
    assert_eq!(device(1, "flow_rules"), "none");
    assert_eq!(
        (device(2, "rx_queues"), device(2, "tx_queues")),
        (1.into(), 1.into())
    );
    assert!(
        ports[3]["not_asked"].as_str().unwrap().contains("peer"),
        "{ports}"
    );
    assert!(ports[4].get("device").is_none(), "{ports}");
    assert_eq!(fs::read_to_string(&output).unwrap(), "kept");

    // Not while somebody has them.
    let _daemon = UnixListener::bind(folder.socket()).unwrap();
    let sentence = refusal(&probe());
    assert!(
        sentence.contains("another sluiced is listening"),
        "{sentence}"
    );
}
