//! The second rig: the appliance, or testpmd, on memif ports with `sluice-pktgen` at their other ends.
//!
//! [`measure`] brings both up, lets the generator run, and takes both down again, so that each figure is of a fresh appliance.
//! The appliance goes first: while it polls, nobody takes the memory away that it shares with the generator.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Deserializer;
use sluice_control::api::{Method, ServiceList};

use crate::daemon::Daemon;
use crate::interrupt;
use crate::pktgen::Report;
use crate::scenario::{Balanced, ROUTER_MAC, SERVERS, VIP, network, server};
use crate::testpmd::{Mode, Testpmd};

/// How long the appliance may take to come up.
const PATIENCE: Duration = Duration::from_secs(120);

/// The generator's program.
pub const PKTGEN: &str = "sluice-pktgen";

/// The appliance's program.
pub const SLUICED: &str = "sluiced";

/// The MAC of the appliance's port on the clients' side.
const APPLIANCE_MAC: &str = "02:00:00:00:00:01";

/// The MAC of its port on the real servers' side.
const BEHIND_MAC: &str = "02:00:00:00:00:02";

/// How the two are set up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// How packets get to real servers.
    pub method: Method,
    /// Whether the service is TCP's; else UDP's.
    pub tcp: bool,
    /// Whether real servers are on a port of their own.
    pub two_arms: bool,
    /// Connections that the appliance's table is made for.
    pub max_connections: u32,
    /// Frames in each ring, as a power of two.
    pub ring_log2: u8,
    /// The generator's frames are where the appliance reads them: saves a copy, and needs hugepages.
    pub zero_copy: bool,
    /// Whether memory comes from hugepages.
    pub hugepages: bool,
    /// The worker's core.
    pub worker_core: usize,
    /// The generator's core.
    pub pktgen_core: usize,
    /// A core for real servers alone; they need a port of their own.
    pub second_core: Option<usize>,
    /// Cores may be the same, and everybody sleeps when there is nothing to do.
    pub shared_cores: bool,
}

impl Setup {
    /// The worker on core 1, the generator on core 0, both without a pause; one port; no hugepages.
    pub fn new(method: Method) -> Self {
        Self {
            method,
            tcp: true,
            two_arms: false,
            max_connections: 1 << 20,
            ring_log2: 12,
            zero_copy: false,
            hugepages: false,
            worker_core: 1,
            pktgen_core: 0,
            second_core: None,
            shared_cores: false,
        }
    }

    fn arms(&self) -> &'static [&'static str] {
        if self.two_arms {
            &["wan", "lan"]
        } else {
            &["wan"]
        }
    }

    /// The appliance's boot file. All sockets are in `folder`.
    pub fn boot_file(&self, folder: &Path, file_prefix: &str) -> String {
        let mut text = format!(
            "[eal]\nfile_prefix = \"{file_prefix}\"\nhugepages = \"{}\"\n\n",
            if self.hugepages { "required" } else { "off" }
        );
        for (id, (arm, mac)) in self
            .arms()
            .iter()
            .zip([APPLIANCE_MAC, BEHIND_MAC])
            .enumerate()
        {
            let args = format!("role=server,{},mac={mac}", self.ring(id, folder));
            text += &format!(
                "[[port]]\nname = \"{arm}\"\ndevice = \"net_memif{id}\"\nargs = \"{args}\"\n\n"
            );
        }
        let polling = if self.shared_cores {
            "adaptive"
        } else {
            "busy"
        };
        text += &format!(
            "[workers]\ncores = [{}]\ncontrol_core = {}\nallow_shared_cores = {}\npolling = \"{polling}\"\nmax_connections = {}\n\n\
             [rpc]\nsocket = \"{}\"\n",
            self.worker_core,
            self.pktgen_core,
            self.shared_cores,
            self.max_connections,
            socket(folder).display()
        );
        let service = Balanced {
            protocol: if self.tcp { "tcp" } else { "udp" },
            scheduler: "rr",
            weight: |_| 1,
        };
        let arms = (self.arms()[0], self.arms()[self.arms().len() - 1]);
        text + &network(arms, self.method, &service)
    }

    /// The generator's command line for that appliance, without the program.
    pub fn generator(&self, folder: &Path) -> Vec<String> {
        let mut all = self.ports(folder, self.arms().len());
        let pairs = [
            ("--appliance-mac", APPLIANCE_MAC.to_owned()),
            ("--client-mac", ROUTER_MAC.to_string()),
            ("--vip", VIP.to_string()),
            ("--server", format!("{}:80", server(0))),
            ("--server-count", SERVERS.to_string()),
            ("--method", format!("{:?}", self.method).to_lowercase()),
        ];
        all.extend(pairs.map(|(name, value)| format!("{name}={value}")));
        all
    }

    /// The part of the generator's command line that says where it runs.
    fn ports(&self, folder: &Path, ports: usize) -> Vec<String> {
        let zero_copy = if self.zero_copy { ",zero-copy=yes" } else { "" };
        let port = |id| {
            format!(
                "--port=net_memif{id},role=client,{}{zero_copy}",
                self.ring(id, folder)
            )
        };
        let mut all: Vec<String> = (0..ports).map(port).collect();
        all.push(format!("--cores={}", self.pktgen_core));
        all.extend(self.second_core.map(|core| format!("--cores={core}")));
        // Its threads beside the generator only wait.
        all.push(format!("--control-core={}", self.worker_core));
        if self.shared_cores {
            all.push("--shared-cores".to_owned());
        }
        let hugepages = if self.hugepages { "required" } else { "off" };
        all.push(format!("--hugepages={hugepages}"));
        all
    }

    fn ring(&self, id: usize, folder: &Path) -> String {
        let socket = folder.join(format!("memif{id}.sock"));
        format!(
            "id={id},socket={},socket-abstract=no,rsize={}",
            socket.display(),
            self.ring_log2
        )
    }
}

/// Where programs are and files may be.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `sluiced`.
    pub sluiced: PathBuf,
    /// `sluice-pktgen`.
    pub pktgen: PathBuf,
    /// For sockets and logs; nobody else's, and its name is no longer than a socket's may be.
    pub folder: PathBuf,
}

impl Programs {
    /// Those built into the folder that holds `this`, a program or test of the same build. `Err` names what is missing.
    pub fn beside(this: &Path, folder: &Path) -> anyhow::Result<Self> {
        // Tests are one folder deeper.
        let found = |name: &str| {
            let mut folders = this.ancestors().skip(1).take(2);
            let found =
                folders.find_map(|folder| Some(folder.join(name)).filter(|file| file.exists()));
            found.with_context(|| format!("{name} is missing: cargo build --workspace"))
        };
        Ok(Self {
            sluiced: found(SLUICED)?,
            pktgen: found(PKTGEN)?,
            folder: folder.to_owned(),
        })
    }

    fn file_prefix(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default();
        format!(
            "sluice-{}",
            name.to_string_lossy()
                .replace(|c: char| !c.is_ascii_alphanumeric(), "-")
        )
    }
}

/// What the generator saw, and what the appliance says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// How the two were set up.
    pub setup: Setup,
    /// What the generator saw. Its complaints are no error here: whoever measures may want losses.
    pub generator: Report,
    /// Packets that the appliance has received.
    pub rx: u64,
    /// Packets that it has sent.
    pub tx: u64,
    /// Why it has dropped packets, and how many.
    pub drops: HashMap<String, u64>,
    /// Connections that its service has made.
    pub made: u64,
    /// Its connections when the generator was done.
    pub connections: u64,
    /// What it was given that no packet accounts for: sent by the generator but not received. Frames are lost in memif, where
    /// neither side counts them, only if one of them is taken down too early.
    pub unaccounted: u64,
}

/// A run of the generator with these arguments beside those of `setup`, against a fresh appliance. `Err` if either does not
/// run, or the appliance's books do not balance.
pub fn measure(
    setup: &Setup,
    programs: &Programs,
    arguments: &[String],
) -> anyhow::Result<Measured> {
    let (measured, ()) = measure_during(setup, programs, arguments, |_, run| run())?;
    Ok(measured)
}

/// The same, with something else going on: `meanwhile` gets the appliance's RPC socket, and lets the generator run, once, by
/// calling what it gets besides.
pub fn measure_during<T>(
    setup: &Setup,
    programs: &Programs,
    arguments: &[String],
    meanwhile: impl FnOnce(&Path, &mut dyn FnMut() -> anyhow::Result<()>) -> anyhow::Result<T>,
) -> anyhow::Result<(Measured, T)> {
    let folder = &programs.folder;
    let prefix = programs.file_prefix();
    let boot = setup.boot_file(folder, &prefix);
    let mut daemon = Daemon::start(&programs.sluiced, &boot, &socket(folder), folder)?;
    let is_ready = |stats: &sluice_control::api::Stats,
                    worker: &sluice_control::api::WorkerStats| {
        worker.applied >= stats.revision
    };
    daemon.await_worker(PATIENCE, is_ready)?;
    let mut all = setup.generator(folder);
    all.extend_from_slice(arguments);
    let mut generator = None;
    let result = meanwhile(&socket(folder), &mut || {
        generator = Some(Generator::run(&programs.pktgen, &all, folder)?);
        Ok(())
    })?;
    let generator = generator.context("the generator was not let run")?;
    let said = Said::of(&mut daemon)?;
    let books = daemon.stop()?;
    let generator = generator.finish()?;
    remove_runtime_folder(&prefix);
    let dropped: u64 = said.drops.values().sum();
    ensure!(
        books.rx == books.tx + books.dropped && books.dropped >= dropped,
        "the appliance's books do not balance: {books:?}, {:?}",
        said.drops
    );
    let measured = Measured {
        setup: setup.clone(),
        unaccounted: generator.emitted().saturating_sub(books.rx),
        generator,
        rx: books.rx,
        tx: books.tx,
        drops: said.drops,
        made: said.made,
        connections: said.connections,
    };
    Ok((measured, result))
}

/// What an appliance says before it is stopped.
struct Said {
    drops: HashMap<String, u64>,
    made: u64,
    connections: u64,
}

impl Said {
    fn of(daemon: &mut Daemon) -> anyhow::Result<Self> {
        let services: ServiceList = daemon.ask("service_list")?;
        Ok(Self {
            drops: daemon.drops()?,
            made: services
                .services
                .iter()
                .map(|service| service.stats.conns)
                .sum(),
            connections: daemon.worker()?.connections,
        })
    }
}

/// A run of the generator, in role client, against a stock testpmd that gives frames back.
pub fn against_testpmd(
    setup: &Setup,
    mode: Mode,
    programs: &Programs,
    arguments: &[String],
) -> anyhow::Result<Report> {
    let folder = &programs.folder;
    let prefix = format!("{}-testpmd", programs.file_prefix());
    let log = folder.join("testpmd.log");
    let mut testpmd = Testpmd::launch(&testpmd_arguments(setup, folder, &prefix), &log)?;
    testpmd.forward(mode)?;
    let mut all = setup.ports(folder, 1);
    all.push("--role=client".to_owned());
    all.extend_from_slice(arguments);
    let generator = Generator::run(&programs.pktgen, &all, folder)?;
    testpmd.stop()?;
    remove_runtime_folder(&prefix);
    generator.finish()
}

fn testpmd_arguments(setup: &Setup, folder: &Path, prefix: &str) -> Vec<String> {
    let device = format!("net_memif0,role=server,{}", setup.ring(0, folder));
    let memory = if setup.hugepages {
        "--huge-unlink"
    } else {
        "--no-huge"
    };
    let lcores = format!("0@{},1@{}", setup.pktgen_core, setup.worker_core);
    let descriptors = 1u32 << setup.ring_log2;
    let all = [
        "--lcores",
        &lcores,
        "--main-lcore=0",
        "--no-pci",
        memory,
        "-m",
        "256",
        "--file-prefix",
        prefix,
        "--vdev",
        &device,
        "--",
        "-i",
        "--nb-cores=1",
        // The link comes up when the generator does.
        "--disable-link-check",
        &format!("--total-num-mbufs={}", 4 * descriptors + 4096),
    ];
    all.map(str::to_owned).into()
}

/// A generator that is done, and keeps its ports up.
struct Generator {
    child: Child,
    stdin: ChildStdin,
    report: Report,
}

impl Generator {
    /// Runs it until it has its report.
    fn run(binary: &Path, arguments: &[String], folder: &Path) -> anyhow::Result<Self> {
        let log = folder.join("pktgen.log");
        let mut command = Command::new(binary);
        command
            .args(arguments)
            .args(["--json=-", "--linger", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?);
        let mut child = interrupt::spawn(&mut command)
            .with_context(|| format!("{} does not start", binary.display()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (stdin, stdout) = (stdin.context("no stdin")?, stdout.context("no stdout")?);
        let mut reports = Deserializer::from_reader(BufReader::new(stdout)).into_iter();
        let Some(report) = reports.next() else {
            let status = child.wait()?;
            let said = fs::read_to_string(&log).unwrap_or_default();
            anyhow::bail!("{PKTGEN} ended with {status}: {}", said.trim());
        };
        Ok(Self {
            child,
            stdin,
            report: report.context("the generator's report")?,
        })
    }

    /// Takes its ports down.
    fn finish(self) -> anyhow::Result<Report> {
        let Self {
            mut child,
            stdin,
            report,
        } = self;
        drop(stdin);
        let status = child.wait()?;
        // 0 and 1 are its verdicts.
        ensure!(
            matches!(status.code(), Some(0 | 1)),
            "{PKTGEN} ended with {status}"
        );
        Ok(report)
    }
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("rpc.sock")
}

/// What EAL leaves of an instance.
fn remove_runtime_folder(file_prefix: &str) {
    let _ = fs::remove_dir_all(Path::new("/var/run/dpdk").join(file_prefix));
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use sluice_control::boot::{Boot, Machine};

    use super::*;
    use crate::pktgen::Options;

    #[test]
    fn the_boot_file_and_the_command_line_are_ones_that_both_programs_take() {
        let folder = Path::new("/tmp/x");
        let machine = Machine { cores: vec![0, 1] };
        for method in [Method::Nat, Method::FullNat, Method::Dr, Method::Tun] {
            for two_arms in [false, true] {
                let setup = Setup {
                    two_arms,
                    ..Setup::new(method)
                };
                let text = setup.boot_file(folder, "sluice-x");
                let boot = Boot::parse(Path::new("boot.toml"), &text, &machine).unwrap();
                assert_eq!(boot.ports.len(), if two_arms { 2 } else { 1 });
                assert!(boot.statics().is_ok());
                let words = setup.generator(folder);
                let words = std::iter::once(PKTGEN.to_owned()).chain(words);
                Options::try_parse_from(words).unwrap();
            }
        }
    }
}
