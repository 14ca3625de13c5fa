//! The command line.

use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::ensure;
use clap::{Parser, ValueEnum};
use ipnet::Ipv4Net;
use sluice_control::api::Method;
use sluice_dataplane::dpdk::Hugepages;
use sluice_dataplane::egress::Mac;

use super::engine::Run;
use super::pick::Spread;
use super::plan::{Plan, Role, Traffic};
use super::rate::Rate;
use super::session::Place;
use super::size::Sizes;

const EXAMPLES: &str = "\
Examples:
  Two memif ports of a sluiced that has the other ends, FULLNAT, as fast as it goes, two cores:
    sluice-pktgen --port net_memif0,id=0,socket=/run/wan.sock --port net_memif1,id=1,socket=/run/lan.sock \\
      --appliance-mac 02:00:00:00:00:01 --server-count 100 --method fullnat --traffic tcp --flows 100k --cores 1,2
  The highest rate of 64-byte packets without loss through a NIC:
    sluice-pktgen --port 0000:01:00.0 --appliance-mac 3c:fd:fe:00:00:01 --hugepages required --search
  New connections, 250,000 a second, each of four packets:
    sluice-pktgen … --traffic tcp --life 1 --rate 1M
  Frames into a file:
    sluice-pktgen --port net_pcap0,tx_pcap=out.pcap --role send --packets 1000 --rate max

Exit status: 0 if all is as it should be, 1 if anything was lost, reordered or wrong, 2 if it could not run.";

/// Generates packets for a load balancer, answers as its real servers, and checks all that comes back.
#[derive(Clone, Debug, Parser)]
#[command(name = "sluice-pktgen", version, after_help = EXAMPLES)]
pub struct Options {
    /// A port, with DPDK's arguments: net_memif0,role=client,socket=/run/x.sock, a PCI address, net_pcap0,tx_pcap=out.pcap.
    /// Twice for one on the clients' side and one on the real servers'
    #[arg(long = "port", required = true, value_name = "DEVICE[,ARGS]")]
    ports: Vec<String>,

    /// Who answers: both (our own real servers do), client (something out there gives payloads back: a UDP echo service,
    /// testpmd), send (nobody)
    #[arg(long, value_enum, default_value_t = RoleName::Both)]
    role: RoleName,

    /// The MAC that clients' frames go to: the appliance's
    #[arg(long, value_parser = mac, default_value = "02:00:00:00:00:01", value_name = "MAC")]
    appliance_mac: Mac,

    /// The MAC that clients' frames come from: their router's
    #[arg(long, value_parser = mac, default_value = "02:00:00:00:00:fe", value_name = "MAC")]
    client_mac: Mac,

    /// The service
    #[arg(long, default_value = "10.0.0.1:80", value_name = "ADDRESS:PORT")]
    vip: SocketAddrV4,

    /// The first real server. The MAC of a.b.c.d is 02:01:00:00:c:d, in hexadecimal
    #[arg(long, default_value = "192.168.1.1:80", value_name = "ADDRESS:PORT")]
    server: SocketAddrV4,

    /// Real servers, at consecutive addresses
    #[arg(long, default_value_t = 1, value_name = "COUNT")]
    server_count: u16,

    /// How packets must come to real servers; whichever way if not given
    #[arg(long, value_enum)]
    method: Option<MethodName>,

    /// Where clients are
    #[arg(long, default_value = "11.0.0.0/16", value_name = "NETWORK")]
    clients: Ipv4Net,

    /// udp: datagrams; tcp: connections with true sequence numbers, opened, used, closed; syn: SYNs of ever new connections
    #[arg(long, value_enum, default_value_t = TrafficName::Udp)]
    traffic: TrafficName,

    /// Flows at a time
    #[arg(long, value_parser = count, default_value = "1k")]
    flows: u32,

    /// How packets spread over flows: uniform (in random order), zipf (exponent 1), zipf:EXPONENT
    #[arg(long, default_value = "uniform")]
    spread: Spread,

    /// Packets with data in a connection before another takes its place; no end if not given
    #[arg(long, value_name = "PACKETS")]
    life: Option<u32>,

    /// Connections a second that give way to others, whatever their life
    #[arg(long, value_parser = per_second, default_value = "0", value_name = "RATE")]
    churn: f64,

    /// Seconds to wait for the answer to a SYN or FIN before another connection takes its place
    #[arg(long, default_value_t = 3, value_name = "SECONDS")]
    patience: u32,

    /// SYNs of a flood, from addresses all over 23.0.0.0/8, for each packet
    #[arg(long, default_value_t = 0, value_name = "COUNT")]
    flood: u32,

    /// Bytes of frames with data, frame check sequence included: 64 to 1518, imix, or a mix such as 64:7,594:4,1518:1
    #[arg(long, default_value = "64")]
    size: Sizes,

    /// Packets a second (250k, 1.5M), a ramp over the duration (10k..1M), or max
    #[arg(long, default_value = "100k")]
    rate: Rate,

    /// Seconds to send
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    duration: f64,

    /// Stop after so many packets, if that comes earlier
    #[arg(long, value_parser = count, value_name = "COUNT")]
    packets: Option<u32>,

    /// Seconds to send before that, uncounted
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS")]
    warm_up: f64,

    /// Seconds to wait at the end for what is still missing
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    drain: f64,

    /// Search for the highest rate without loss (RFC 2544), in trials of the duration
    #[arg(long)]
    search: bool,

    /// Where the search begins; as fast as the port takes packets if not given
    #[arg(long, value_parser = per_second, requires = "search", value_name = "RATE")]
    search_from: Option<f64>,

    /// How close the search comes, in per cent
    #[arg(long, default_value_t = 1.0, value_name = "PERCENT")]
    search_precision: f64,

    /// Per cent of packets that may be lost
    #[arg(long, default_value_t = 0.0, value_name = "PERCENT")]
    max_loss: f64,

    /// A core for all, or one for clients and one for real servers (two ports)
    #[arg(long, value_delimiter = ',', default_value = "1")]
    cores: Vec<usize>,

    /// The core of everything else
    #[arg(long, default_value_t = 0, value_name = "CORE")]
    control_core: usize,

    /// Cores may be the same, and sleep when there is nothing to do: tests and small machines
    #[arg(long)]
    shared_cores: bool,

    /// Where memory comes from
    #[arg(long, value_enum, default_value_t = HugepagesName::Auto)]
    hugepages: HugepagesName,

    /// Frames that wait in each queue of a port. A memif has rings of 2^rsize of its own
    #[arg(long, default_value_t = 1024, value_name = "COUNT")]
    descriptors: u16,

    /// Bytes of the longest IP packet
    #[arg(long, default_value_t = 1500, value_name = "BYTES")]
    mtu: u16,

    /// Tells DPDK programs on one machine apart; made of the process' number if not given
    #[arg(long, value_name = "NAME")]
    file_prefix: Option<String>,

    /// An argument for DPDK's EAL, as it is
    #[arg(long = "eal-arg", allow_hyphen_values = true, value_name = "ARG")]
    eal_args: Vec<String>,

    /// Seconds that links may take to come up, and real servers to answer while flows are opened
    #[arg(long, default_value_t = 10, value_name = "SECONDS")]
    start_timeout: u64,

    /// Seeds all that is random
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Write the report as JSON into this file; - for standard output, without text
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Say nothing while it runs
    #[arg(long)]
    quiet: bool,

    /// After the report, keep the ports up until standard input ends
    #[arg(long)]
    pub linger: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleName {
    Both,
    Client,
    Send,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum TrafficName {
    Udp,
    Tcp,
    Syn,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum HugepagesName {
    Auto,
    Required,
    Off,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum MethodName {
    Nat,
    Fullnat,
    Dr,
    Tun,
}

/// How a run is made, beside what is sent.
#[derive(Clone, Debug)]
pub(crate) struct Course {
    pub(crate) run: Run,
    pub(crate) warm_up_s: f64,
    pub(crate) drain_s: f64,
    pub(crate) max_loss_percent: f64,
    /// Where a search begins, and how close it comes.
    pub(crate) search: Option<(Option<f64>, f64)>,
}

impl Options {
    /// What is sent to whom.
    pub(crate) fn plan(&self) -> Plan {
        Plan {
            role: match self.role {
                RoleName::Both => Role::Both,
                RoleName::Client => Role::Client,
                RoleName::Send => Role::Send,
            },
            traffic: match self.traffic {
                TrafficName::Udp => Traffic::Udp,
                TrafficName::Tcp => Traffic::Tcp,
                TrafficName::Syn => Traffic::Syn,
            },
            vip: self.vip,
            first_server: self.server,
            servers: self.server_count,
            method: self.method.map(|method| match method {
                MethodName::Nat => Method::Nat,
                MethodName::Fullnat => Method::FullNat,
                MethodName::Dr => Method::Dr,
                MethodName::Tun => Method::Tun,
            }),
            clients: self.clients,
            flood_clients: Ipv4Net::new_assert([23, 0, 0, 0].into(), 8),
            client_mac: self.client_mac,
            appliance_mac: self.appliance_mac,
            flows: self.flows,
            spread: self.spread,
            life: self.life,
            churn: self.churn,
            patience_s: self.patience,
            sizes: self.size.clone(),
            seed: self.seed,
        }
    }

    /// What it runs on.
    pub(crate) fn place(&self) -> Place {
        let prefix = || format!("sluice-pktgen-{}", std::process::id());
        Place {
            ports: self.ports.clone(),
            cores: self.cores.clone(),
            control_core: self.control_core,
            shared_cores: self.shared_cores,
            descriptors: self.descriptors,
            mtu: self.mtu,
            file_prefix: self.file_prefix.clone().unwrap_or_else(prefix),
            hugepages: match self.hugepages {
                HugepagesName::Auto => Hugepages::Auto,
                HugepagesName::Required => Hugepages::Required,
                HugepagesName::Off => Hugepages::Off,
            },
            eal_args: self.eal_args.clone(),
            start_timeout: Duration::from_secs(self.start_timeout),
            progress: !self.quiet,
        }
    }

    /// How it goes. `Err` says what cannot be.
    pub(crate) fn course(&self) -> anyhow::Result<Course> {
        let seconds = [
            ("--duration", self.duration, f64::MIN_POSITIVE),
            ("--warm-up", self.warm_up, 0.0),
            ("--drain", self.drain, 0.0),
        ];
        for (name, value, least) in seconds {
            let fine = value >= least && value <= 1e6;
            ensure!(fine, "{name}: {value} is no number of seconds");
        }
        let precision = self.search_precision / 100.0;
        ensure!(
            (0.0001..0.5).contains(&precision),
            "--search-precision: between 0.01 and 50 per cent, not {}",
            self.search_precision
        );
        Ok(Course {
            run: Run {
                rate: self.rate,
                seconds: self.duration,
                packets: self.packets.map(u64::from),
                flood: self.flood,
                churn: self.churn,
            },
            warm_up_s: self.warm_up,
            drain_s: self.drain,
            max_loss_percent: self.max_loss,
            search: self.search.then_some((self.search_from, precision)),
        })
    }
}

impl FromStr for Spread {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let zipf = |exponent: &str| {
            let exponent = exponent.parse().ok();
            exponent.filter(|exponent: &f64| (0.0..=10.0).contains(exponent))
        };
        match text.split_once(':').unwrap_or((text, "1")) {
            ("uniform", "1") => Ok(Self::Uniform),
            ("zipf", exponent) => zipf(exponent)
                .map(Self::Zipf)
                .ok_or_else(|| format!("{exponent:?} is no exponent from 0 to 10")),
            _ => Err("give uniform, zipf or zipf:EXPONENT".to_owned()),
        }
    }
}

fn mac(text: &str) -> Result<Mac, String> {
    let bytes: Vec<u8> = text
        .split(':')
        .filter(|byte| byte.len() == 2)
        .map_while(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    let mac = bytes.try_into().ok().map(Mac).filter(|_| text.len() == 17);
    mac.ok_or_else(|| "a MAC looks like 02:00:00:00:00:01".to_owned())
}

/// `1000`, `100k`, `1M`.
fn count(text: &str) -> Result<u32, String> {
    let value = per_second(text)?;
    let whole = value.fract() == 0.0 && value <= f64::from(u32::MAX);
    if whole {
        Ok(value as u32)
    } else {
        Err("give a whole number such as 1000, 100k or 1M".to_owned())
    }
}

/// `0`, `250`, `100k`, `1.5M`.
fn per_second(text: &str) -> Result<f64, String> {
    match text.parse() {
        _ if text == "0" => Ok(0.0),
        Ok(Rate::Fixed(rate)) => Ok(rate),
        _ => Err("give a number such as 250, 100k or 1.5M".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Options, clap::Error> {
        let words = ["sluice-pktgen", "--port", "net_null0"];
        Options::try_parse_from(words.into_iter().chain(line.split_whitespace()))
    }

    #[test]
    fn the_command_line_is_sound_and_its_defaults_make_a_plan() {
        Options::command().debug_assert();
        let options = parse("").unwrap();
        options.plan().check().unwrap();
        assert_eq!(options.course().unwrap().run.rate, Rate::Fixed(100_000.0));
    }

    #[test]
    fn numbers_and_spreads_are_read_as_people_write_them() {
        let options = parse("--flows 2M --spread zipf:1.2 --churn 5k --rate 1k..2M --size imix");
        let options = options.unwrap();
        let plan = options.plan();
        assert_eq!((plan.flows, plan.churn), (2_000_000, 5000.0));
        assert_eq!(plan.spread, Spread::Zipf(1.2));
        let rate = options.course().unwrap().run.rate;
        assert_eq!(rate, Rate::Ramp(1000.0, 2_000_000.0));
    }

    #[test]
    fn nonsense_is_refused_with_what_would_make_sense() {
        for (line, hint) in [
            ("--rate fast", "1.5M"),
            ("--size 63", "imix"),
            ("--spread pareto", "zipf"),
            ("--flows 1.5", "whole"),
            ("--appliance-mac 2:0", "02:00"),
            ("--search-from 1M", "--search"),
            ("--role router", "client"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(hint), "{line}: {error}");
        }
        for line in [
            "--duration 0",
            "--drain -1",
            "--duration nan",
            "--search-precision 0",
        ] {
            let line = line.replacen(' ', "=", 1);
            assert!(parse(&line).unwrap().course().is_err(), "{line}");
        }
    }
}
