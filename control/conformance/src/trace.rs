//! A recorded trace: the format of `dataplane/ipvs/golden/README.md`, strictly.
//!
//! What the README does not name is refused here, in a sentence, so that no part of a recording is ever skipped
//! unseen.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer};

/// A whole recording.
#[derive(Debug)]
pub struct Trace {
    /// What it describes of the director.
    pub header: Header,
    /// What happened, in order.
    pub steps: Vec<Step>,
}

/// Why a file is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// Not JSON, or the header is not as the README says.
    #[error("is not a trace: {0}")]
    Malformed(serde_json::Error),
    /// A step that the README does not describe.
    #[error("step {index} is none that the format knows: {reason}")]
    Step {
        /// Which, from 0.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
}

impl Trace {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        Self::parse(&std::fs::read(path)?)
    }

    /// Reads the bytes of a file.
    pub fn parse(json: &[u8]) -> Result<Self, TraceError> {
        let file: File = serde_json::from_slice(json).map_err(TraceError::Malformed)?;
        let steps = file.steps.into_iter().enumerate();
        let steps = steps
            .map(|(index, step)| {
                serde_json::from_value(step).map_err(|error| TraceError::Step {
                    index,
                    reason: error.to_string(),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            header: Header {
                name: file.name,
                desc: file.desc,
                sysctl: file.sysctl,
                vips: file.vips,
                mtu: file.mtu,
                cl_mtu: file.cl_mtu,
                fwmark: file.fwmark,
                ipv6: file.ipv6,
                rs: file.rs.unwrap_or_else(default_neighbours),
            },
            steps,
        })
    }
}

/// The director that was recorded.
#[derive(Clone, Debug)]
pub struct Header {
    /// The trace's name. Nothing may depend on it.
    pub name: String,
    /// What it shows.
    pub desc: String,
    /// Names under `net.ipv4.vs` with their values, where they are not the defaults.
    pub sysctl: BTreeMap<String, serde_json::Value>,
    /// Addresses of the director, on the client side.
    pub vips: Vec<IpAddr>,
    /// MTU of the server side.
    pub mtu: u16,
    /// MTU of the client side, if not 1500.
    pub cl_mtu: Option<u16>,
    /// Destination prefixes that get a firewall mark; their addresses are the director's own.
    pub fwmark: Vec<MarkedPrefix>,
    /// Whether the director has IPv6 addresses.
    pub ipv6: bool,
    /// The neighbours on the server side.
    pub rs: Vec<IpAddr>,
}

/// Packets to `dst` carry `mark`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkedPrefix {
    /// The destinations.
    pub dst: IpNet,
    /// The mark.
    pub mark: u32,
}

/// One step.
#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Step {
    /// A command line of ipvsadm.
    Ipvsadm(Command),
    /// A packet arrives.
    Pkt(Packet),
    /// Time passes.
    Sleep(Sleep),
    /// What the director emits by itself for some time.
    Recv(Recv),
    /// A file is read.
    Read(Read),
    /// A command of the director's shell.
    Cmd(Command),
    /// One packet many times, with nothing recorded but how many came out.
    Repeat(Repeat),
}

impl Step {
    /// The recorded time since the start; `None` where none, or none that can be, was recorded.
    pub fn time(&self) -> Option<Duration> {
        let t = match self {
            Self::Ipvsadm(step) | Self::Cmd(step) => step.t,
            Self::Pkt(step) => step.t,
            Self::Sleep(step) => step.t,
            Self::Recv(step) => step.t,
            Self::Read(step) => step.t,
            Self::Repeat(step) => step.t,
        };
        t.filter(|t| (0.0..=LONGEST_PAUSE_S).contains(t))
            .map(Duration::from_secs_f64)
    }

    /// As a person would point at it: `ipvsadm -Ln`, `pkt "syn"`.
    pub fn title(&self) -> String {
        match self {
            Self::Ipvsadm(step) => format!("ipvsadm {}", step.args),
            Self::Cmd(step) => format!("cmd {}", step.args),
            Self::Pkt(step) => match &step.label {
                Some(label) => format!("pkt \"{label}\" from the {} side", step.side),
                None => format!("pkt from the {} side", step.side),
            },
            Self::Sleep(step) => format!("sleep {:?}", step.arg),
            Self::Recv(step) => format!("recv {:?}", step.wait),
            Self::Read(step) => format!("read {}", step.arg),
            Self::Repeat(step) => format!("repeat {} times", step.arg.n),
        }
    }
}

/// A command line and what it did.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The words after the program's name, or with it for `cmd`.
    pub args: String,
    /// What it read.
    #[serde(default)]
    pub stdin: String,
    /// Its exit code.
    pub rc: i32,
    /// What it printed.
    pub out: String,
    /// What it complained.
    pub err: String,
    /// Recorded time in seconds.
    pub t: Option<f64>,
}

/// A packet and what came of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packet {
    /// What is tested.
    pub label: Option<String>,
    /// Where it arrives.
    pub side: Side,
    /// From the IP header on.
    #[serde(deserialize_with = "hex")]
    pub l3: Vec<u8>,
    /// `l3` decoded, for readers of the file.
    #[serde(default, rename = "ip")]
    _ip: IgnoredAny,
    /// What was emitted because of it.
    pub out: Vec<Emitted>,
    /// Which real server got it; says nothing that `out` does not.
    pub chosen: Option<String>,
    /// Recorded time in seconds.
    pub t: Option<f64>,
}

/// A packet that the director emitted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emitted {
    /// Where.
    pub side: Side,
    /// The next hop's MAC.
    #[serde(deserialize_with = "mac")]
    pub dmac: [u8; 6],
    /// The next hop, where it is one of the real servers.
    pub nexthop: Option<IpAddr>,
    /// From the IP header on.
    #[serde(deserialize_with = "hex")]
    pub l3: Vec<u8>,
    #[serde(default, rename = "ip")]
    _ip: IgnoredAny,
    #[serde(default, rename = "inner")]
    _inner: IgnoredAny,
    #[serde(default, rename = "kind")]
    _kind: IgnoredAny,
    #[serde(default, rename = "t")]
    _t: IgnoredAny,
}

impl Emitted {
    /// One that was emitted here, rather than recorded.
    pub fn new(side: Side, dmac: [u8; 6], l3: Vec<u8>) -> Self {
        Self {
            side,
            dmac,
            nexthop: None,
            l3,
            _ip: IgnoredAny,
            _inner: IgnoredAny,
            _kind: IgnoredAny,
            _t: IgnoredAny,
        }
    }
}

/// Which interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// `cl0`.
    Client,
    /// `sv0`.
    Server,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// Time passes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sleep {
    /// So much.
    #[serde(deserialize_with = "seconds")]
    pub arg: Duration,
    #[serde(default, rename = "result")]
    _result: IgnoredAny,
    /// Recorded time in seconds.
    pub t: Option<f64>,
}

/// What the director emits by itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recv {
    /// For so long.
    #[serde(deserialize_with = "seconds")]
    pub wait: Duration,
    /// What came.
    pub out: Vec<Emitted>,
    /// Recorded time in seconds.
    pub t: Option<f64>,
}

/// A file of /proc.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Read {
    /// Its path.
    pub arg: String,
    /// What was in it.
    pub result: String,
    /// Recorded time in seconds.
    pub t: Option<f64>,
}

/// One packet, many times, from the client side.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeat {
    /// What and how often.
    pub arg: Repeated,
    /// How many packets the director emitted for them.
    pub result: usize,
    /// Recorded time in seconds.
    pub t: Option<f64>,
}

/// What is repeated.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeated {
    /// The packet.
    pub pkt: Datagram,
    /// How often.
    pub n: usize,
}

/// A UDP datagram: TTL 64, DF set, id 0, right checksums, as all recorded ones are made.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Datagram {
    /// Only `udp` occurs.
    pub proto: Udp,
    /// Source address.
    pub src: Ipv4Addr,
    /// Source port.
    pub sport: u16,
    /// Destination address.
    pub dst: Ipv4Addr,
    /// Destination port.
    pub dport: u16,
    /// What it carries.
    #[serde(default, deserialize_with = "hex")]
    pub payload_hex: Vec<u8>,
}

/// The protocol of a repeated packet.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Udp {
    /// UDP.
    Udp,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    name: String,
    #[serde(default)]
    desc: String,
    #[serde(default)]
    sysctl: BTreeMap<String, serde_json::Value>,
    vips: Vec<IpAddr>,
    mtu: u16,
    cl_mtu: Option<u16>,
    #[serde(default)]
    fwmark: Vec<MarkedPrefix>,
    #[serde(default)]
    ipv6: bool,
    rs: Option<Vec<IpAddr>>,
    steps: Vec<serde_json::Value>,
}

/// 192.168.1.1 to 192.168.1.16.
fn default_neighbours() -> Vec<IpAddr> {
    (1..=16)
        .map(|n| Ipv4Addr::new(192, 168, 1, n).into())
        .collect()
}

/// Longer than any recording: more would only keep the reader waiting.
const LONGEST_PAUSE_S: f64 = 7.0 * 86_400.0;

fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let seconds = f64::deserialize(from)?;
    if (0.0..=LONGEST_PAUSE_S).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err(D::Error::custom(format!(
            "{seconds} is no length of time in seconds"
        )))
    }
}

fn hex<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    let digits = String::deserialize(from)?;
    unhex(&digits).ok_or_else(|| {
        D::Error::custom("bytes are written as an even number of hexadecimal digits")
    })
}

fn mac<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 6], D::Error> {
    let text = String::deserialize(from)?;
    unhex(&text.replace(':', ""))
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| D::Error::custom(format!("`{text}` is no MAC address")))
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let (pairs, odd) = digits.as_bytes().as_chunks::<2>();
    if !odd.is_empty() {
        return None;
    }
    let digit = |c: u8| (c as char).to_digit(16).map(|d| d as u8);
    pairs
        .iter()
        .map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_step(step: &str) -> Result<Trace, TraceError> {
        let json = format!(
            r#"{{"name": "x", "desc": "", "sysctl": {{}}, "vips": ["10.0.0.1"], "mtu": 1500, "steps": [{step}]}}"#
        );
        Trace::parse(json.as_bytes())
    }

    #[test]
    fn every_recorded_trace_is_understood_whole() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dataplane/ipvs/golden");
        let mut read = 0;
        for entry in std::fs::read_dir(golden).unwrap() {
            let path = entry.unwrap().path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                let trace = Trace::read(&path)
                    .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                assert!(!trace.steps.is_empty());
                read += 1;
            }
        }
        assert!(read > 100);
    }

    #[test]
    fn an_unknown_step_is_named() {
        let error = with_step(r#"{"op": "reboot"}"#).unwrap_err().to_string();
        assert!(
            error.contains("step 0") && error.contains("reboot"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_key_of_a_step_is_named() {
        let error = with_step(r#"{"op": "sleep", "arg": 1.0, "again": 2}"#).unwrap_err();
        assert!(error.to_string().contains("again"), "{error}");
    }

    #[test]
    fn bytes_that_are_none_are_refused() {
        for l3 in ["4", "4g", "é0"] {
            let step = format!(
                r#"{{"op": "pkt", "side": "client", "l3": "{l3}", "ip": {{}}, "out": []}}"#
            );
            let error = with_step(&step).unwrap_err().to_string();
            assert!(error.contains("hexadecimal"), "{error}");
        }
    }

    #[test]
    fn a_step_that_never_ends_is_refused() {
        for arg in ["-1", "1e300"] {
            let error = with_step(&format!(r#"{{"op": "sleep", "arg": {arg}}}"#)).unwrap_err();
            assert!(error.to_string().contains("length of time"), "{error}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused_with_the_place() {
        let error = Trace::parse(b"{\"name\": ").unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
    }
}
