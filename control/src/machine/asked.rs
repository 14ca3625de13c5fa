//! What the devices of a boot file say that they can do: `sluiced --probe` asks them, and `sluice doctor --config` has it do so.

use std::env;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use sluice_dataplane::steer::{HashTypes, RssCapabilities};

/// How long the devices may take to answer; most need less than a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `sluiced --probe` prints: an answer for each port of the boot file, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Each port's.
    pub ports: Vec<Answer>,
}

/// A port's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What it can do.
    Device(Device),
    /// It would be of no use to sluiced either, for this reason.
    Failed(String),
    /// It is better not asked, or nobody could, for this reason.
    NotAsked(String),
}

/// What a device can do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// DPDK's driver of it.
    pub driver: String,
    /// Receive queues at most.
    pub rx_queues: u16,
    /// Transmit queues at most.
    pub tx_queues: u16,
    /// Entries of the redirection table; 0 if there is none.
    pub rss_table: u16,
    /// Bytes of the RSS key; 0 if it does not say.
    pub rss_key: u8,
    /// What it can hash, in words: `ipv4 ipv4-tcp l3-src-only`.
    pub rss_types: String,
    /// The NUMA node that it is attached to.
    pub node: Option<u32>,
    /// Whether it takes rules of rte_flow.
    pub flow_rules: FlowRules,
}

/// What a device says to a plain rule of rte_flow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowRules {
    /// It takes it.
    Taken,
    /// It takes none.
    #[default]
    None,
    /// It refuses this one, for this reason.
    Refused(String),
}

impl Device {
    /// As the data plane has it.
    pub fn capabilities(&self) -> RssCapabilities {
        RssCapabilities {
            queues: self.rx_queues,
            table: self.rss_table,
            hash_types: HashTypes::named(&self.rss_types),
            key_len: self.rss_key,
        }
    }
}

/// Has `sluiced` ask the devices of a boot file. `Err` says why that was not possible.
pub fn ask(config: &Path) -> Result<Asked, String> {
    let daemon = daemon();
    let child = Command::new(&daemon)
        .arg("--config")
        .arg(config)
        .args(["--probe", "--log-level", "error"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.map_err(|error| format!("{} cannot be run: {error}", daemon.display()))?;
    answer(child, PATIENCE)
}

/// The daemon beside this program; else the one that the shell would find.
fn daemon() -> PathBuf {
    let beside = env::current_exe()
        .ok()
        .map(|own| own.with_file_name("sluiced"));
    beside
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("sluiced"))
}

fn answer(mut child: Child, patience: Duration) -> Result<Asked, String> {
    let gone = |error: std::io::Error| format!("sluiced --probe: {error}");
    let (out, err) = (reader(child.stdout.take()), reader(child.stderr.take()));
    let deadline = Instant::now() + patience;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(gone)? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().and_then(|()| child.wait()).map_err(gone)?;
            return Err(format!(
                "the devices did not answer within {} s",
                patience.as_secs()
            ));
        }
        thread::sleep(Duration::from_millis(10));
    };
    let [out, err] = [out, err].map(|reader| reader.join().unwrap_or_default());
    if !status.success() {
        let said = err.lines().rev();
        let mut said = said.filter_map(|line| line.strip_prefix("sluiced: "));
        return Err(said.next().unwrap_or("sluiced --probe failed").to_owned());
    }
    // A driver may print something of its own before it.
    let last = out.lines().last().unwrap_or_default();
    serde_json::from_str(last).map_err(|error| format!("sluiced --probe said {last:?}: {error}"))
}

fn reader(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            let _cut_short = stream.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    #[test]
    fn the_last_line_is_the_answer_whatever_drivers_print() {
        let asked = Asked {
            ports: vec![
                Answer::Device(Device {
                    rx_queues: 4,
                    rss_table: 128,
                    rss_types: "ipv4 ipv4-tcp l3-src-only".into(),
                    flow_rules: FlowRules::Refused("no \"eth\"".into()),
                    ..Device::default()
                }),
                Answer::NotAsked("it belongs to its peer".into()),
            ],
        };
        let text = serde_json::to_string(&asked).unwrap();
        let script = format!("echo hello; cat <<'END'\n{text}\nEND");
        let patience = Duration::from_secs(20);
        assert_eq!(answer(shell(&script), patience).as_ref(), Ok(&asked));
        let Answer::Device(device) = &asked.ports[0] else {
            unreachable!("it is the first")
        };
        let types = HashTypes::IPV4 | HashTypes::IPV4_TCP | HashTypes::L3_SRC_ONLY;
        assert_eq!(device.capabilities().hash_types, types);
    }

    #[test]
    fn no_answer_has_a_reason() {
        let patience = Duration::from_secs(20);
        let refused = "echo WARN x >&2; echo 'sluiced: no memory' >&2; exit 2";
        assert_eq!(answer(shell(refused), patience), Err("no memory".into()));
        let error = answer(shell("echo '{'"), patience).unwrap_err();
        assert!(error.starts_with("sluiced --probe said"), "{error}");
        let late = answer(shell("exec sleep 100"), Duration::from_secs(1));
        assert_eq!(
            late,
            Err("the devices did not answer within 1 s".to_owned())
        );
    }
}
