//! Stock `dpdk-testpmd` on the same file, with the same burst, queues, buffers and memory: what a packet costs when nothing is
//! done with it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::interrupt;
use crate::scenario::{BURST, CACHE, DESCRIPTORS, FRAME_LEN, HEADROOM, Place, Scenario};
use crate::timing::{ThreadClock, WORKER, Window};

/// Its program.
pub const PROGRAM: &str = "dpdk-testpmd";

/// What it does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Swaps the MACs.
    MacSwap,
    /// Swaps MACs, addresses and ports.
    FiveTupleSwap,
}

impl Mode {
    /// As testpmd spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::MacSwap => "macswap",
            Self::FiveTupleSwap => "5tswap",
        }
    }
}

/// A running one. Ends with this.
pub struct Testpmd {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Its own, so that the appliance's is not in its way.
pub fn file_prefix(place: &Place) -> String {
    format!("{}-testpmd", place.file_prefix)
}

/// Its command line, without the program.
pub fn arguments(scenario: &Scenario, place: &Place) -> Vec<String> {
    let lcores = format!("0@{},1@{}", place.control_core, place.worker_core);
    let device = format!("net_pcap0,rx_pcap={},infinite_rx=1", place.steady.display());
    let mut arguments: Vec<String> = ["--lcores", &lcores, "--main-lcore", "0", "--no-pci"]
        .map(str::to_owned)
        .into();
    // Else it leaves pages behind, which the appliance then lacks.
    let memory = if place.hugepages {
        "--huge-unlink"
    } else {
        "--no-huge"
    };
    arguments.push(memory.to_owned());
    let eal = [
        ("--file-prefix", file_prefix(place)),
        ("-m", scenario.memory_mb().to_string()),
        ("--vdev", device),
    ];
    for (name, value) in eal {
        arguments.extend([name.to_owned(), value]);
    }
    arguments.extend(["--".to_owned(), "-i".to_owned()]);
    let own = [
        ("nb-cores", 1),
        ("burst", BURST as u32),
        ("rxq", 1),
        ("txq", 1),
        ("rxd", DESCRIPTORS.into()),
        ("txd", DESCRIPTORS.into()),
        ("total-num-mbufs", scenario.frames()),
        ("mbuf-size", (HEADROOM + FRAME_LEN).into()),
        ("mbcache", CACHE),
    ];
    arguments.extend(own.map(|(name, value)| format!("--{name}={value}")));
    arguments
}

impl Testpmd {
    /// Starts it. It forwards nothing yet.
    pub fn start(scenario: &Scenario, place: &Place, log: &Path) -> anyhow::Result<Self> {
        Self::launch(&arguments(scenario, place), log)
    }

    /// Starts it, with one port, by any command line with `-i`. It forwards nothing yet.
    pub fn launch(arguments: &[String], log: &Path) -> anyhow::Result<Self> {
        // Into a pipe it would print only when much has come together.
        let mut command = Command::new("stdbuf");
        command
            .args(["--output=L", PROGRAM])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(log)?);
        let mut child = interrupt::spawn(&mut command)
            .context("dpdk-testpmd does not start; is dpdk-dev installed?")?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let mut testpmd = Self {
            orders: orders.context("no stdin")?,
            answers: BufReader::new(answers.context("no stdout")?),
            child,
        };
        testpmd.order("show config fwd")?;
        testpmd
            .answer("packet forwarding - ports=1")
            .with_context(|| std::fs::read_to_string(log).unwrap_or_default())?;
        Ok(testpmd)
    }

    /// From now on it forwards.
    pub fn forward(&mut self, mode: Mode) -> anyhow::Result<()> {
        self.order(&format!("set fwd {}", mode.name()))?;
        self.order("start")
    }

    /// Packets in so much CPU time.
    pub fn measure(
        &mut self,
        mode: Mode,
        warm_up: Duration,
        cpu: Duration,
    ) -> anyhow::Result<Window> {
        self.forward(mode)?;
        let clock = ThreadClock::find(self.child.id(), WORKER)?;
        clock.window(warm_up, &mut || self.packets(), |packets| *packets)?;
        let (window, _, _) = clock.window(cpu, &mut || self.packets(), |packets| *packets)?;
        self.order("stop")?;
        Ok(window)
    }

    /// Ends it.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.order("quit")?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
        bail!("testpmd does not quit");
    }

    /// Packets sent since its start.
    fn packets(&mut self) -> anyhow::Result<u64> {
        self.order("show port stats 0")?;
        // What `stop` says about the past has TX-packets too, but beside TX-dropped.
        let line = self.answer("TX-errors:")?;
        transmitted(&line).with_context(|| format!("testpmd counts {line:?}"))
    }

    fn order(&mut self, order: &str) -> anyhow::Result<()> {
        writeln!(self.orders, "{order}").context("testpmd has ended")
    }

    /// The next line with `wanted` in it.
    fn answer(&mut self, wanted: &str) -> anyhow::Result<String> {
        let mut line = String::new();
        while self.answers.read_line(&mut line)? > 0 {
            if line.contains(wanted) {
                return Ok(line);
            }
            line.clear();
        }
        bail!("testpmd ended before it said {wanted:?}");
    }
}

impl Drop for Testpmd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The number in `  TX-packets: 77         TX-errors: 0          TX-bytes:  4928`.
fn transmitted(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("TX-packets:")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_counted_by_the_line_of_the_port() {
        let line = "  TX-packets: 77         TX-errors: 0          TX-bytes:  4928\n";
        assert_eq!(transmitted(line), Some(77));
        assert_eq!(transmitted("  RX-errors: 0"), None);
    }
}
