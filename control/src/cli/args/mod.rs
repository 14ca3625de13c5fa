//! The command line of `sluice`.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::api;
use crate::ipvsadm::ProcFile;

mod mark;
mod server;
mod service;

pub(super) use mark::MarkCommand;
pub(super) use server::{DrainArgs, MethodArg, ServerCommand, SetupArgs};
pub(super) use service::{LaddrCommand, ServiceCommand};

/// The client of sluiced, the layer-4 load balancer.
#[derive(Debug, Parser)]
#[command(
    name = "sluice",
    version,
    propagate_version = false,
    arg_required_else_help = true,
    subcommand_required = true,
    after_help = "\
Examples:
  sluice status                                        what runs, and how it does
  sluice service add tcp 10.0.0.1:80 --scheduler rr    a virtual service
  sluice server add tcp 10.0.0.1:80 192.168.1.1:80 --method nat --weight 3
  sluice connections --client 198.51.100.7             who talks to what
  sluice -o json stats | jq .totals                    for programs
  watch -n1 sluice status                              for eyes

Exit codes: 0 done; 1 the daemon refused or cannot be reached; 2 the command line is wrong.
Errors are one line on standard error and name the parameter."
)]
pub(super) struct Cli {
    /// The daemon's Unix socket.
    #[arg(long, global = true, env = "SLUICE_SOCKET", value_name = "PATH", default_value = api::DEFAULT_SOCKET)]
    pub(super) socket: PathBuf,

    /// How answers are printed: tables, or the daemon's own JSON.
    #[arg(short, long, global = true, value_enum, value_name = "FORMAT", default_value_t = Output::Table)]
    pub(super) output: Output,

    /// Seconds to wait for an answer.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(super) timeout: u64,

    #[command(subcommand)]
    pub(super) command: Command,
}

/// How answers are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Virtual services: what clients connect to.
    #[command(subcommand)]
    Service(ServiceCommand),

    /// Real servers: who answers for a service.
    #[command(subcommand, alias = "real-server")]
    Server(ServerCommand),

    /// Local addresses: the sources of FULLNAT connections.
    #[command(subcommand)]
    Laddr(LaddrCommand),

    /// Firewall marks: which packets get one, for services of marks.
    #[command(subcommand)]
    Mark(MarkCommand),

    /// Settings of the appliance, named as under net.ipv4.vs.
    #[command(subcommand)]
    Setting(SettingCommand),

    /// One screen about everything: version, workers, ports, services, drops.
    #[command(after_help = "\
Rates are per second, smoothed over some seconds. k, M, G are powers of 1000. Byte rates are bytes, not bits, and count from
the IP header on. `busy` is the share of a worker's turns, since start, that found something to do.")]
    Status,

    /// How each port spreads packets over the workers, whether its NIC does what it was told, and moving load between workers.
    #[command(after_help = "\
A packet's hash chooses an entry of the redirection table, and that its worker. Entries may be moved while packets come: connections
stay with the worker that has them until they expire, and their packets are handed over to it.

Examples:
  sluice rss
  sluice rss table
  sluice rss give 0-15,64 --worker 2
  sluice rss drain 1")]
    Rss {
        #[command(subcommand)]
        command: Option<RssCommand>,
    },

    /// Looks for what keeps services from being served; run it as root on the balancer. With --config: what this machine will do.
    #[command(after_help = "\
It finds services whose address is not this machine's, next hops that do not answer, exception interfaces that are gone, and
machines that answer ARP for the address of a service with real servers of method dr or tun: clients go to those past sluice.

With --config it needs no daemon: it says what this machine, its NICs and that boot file will do together (cores, NUMA, hugepages,
IOMMU, drivers, RSS, what becomes of NAT, rte_flow), and what to change. It has `sluiced --probe` ask the NICs, as root; while a daemon
has them, `sluice rss` tells.

Exit codes: 0 nothing was found; 3 something was; 1 the daemon cannot be reached, or ARP cannot be asked; 2 the boot file will not do.")]
    Doctor {
        /// A boot file, to look at before sluiced starts with it.
        #[arg(long, short, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Where /sys and /proc are: for the copied files of another machine.
        #[arg(long, value_name = "FOLDER", default_value = "/", requires = "config")]
        root: PathBuf,
    },

    /// All counters, exact: totals, each worker's books, each port.
    #[command(after_help = "\
A worker's books balance between two bursts of packets; read in the middle of one, they may be
apart by as much as that:
  rx + from kernel + handed in + generated + extra fragments
    = tx + punted + handed out + merged + held + dropped")]
    Stats,

    /// Dropped packets by reason; only reasons that occurred, unless --all.
    Drops {
        /// Also reasons that did not occur.
        #[arg(long)]
        all: bool,
    },

    /// Connections, filtered.
    #[command(
        alias = "conns",
        after_help = "\
Examples:
  sluice connections --protocol tcp --virtual 10.0.0.1:80
  sluice connections --server 192.168.1.1 --limit 0 | wc -l

Connections that come and go while the list is made may be missed. `expires` is minutes:seconds."
    )]
    Connections(ConnectionArgs),

    /// Prints the whole configuration as lines that `restore` reads: services as `ipvsadm -S` with thresholds, settings, mark rules, daemons.
    #[command(after_help = "\
Example:
  sluice save > services; sluice restore --replace services")]
    Save,

    /// Executes the lines that `save` (or `ipvsadm -S`) wrote. Comments and empty lines are fine.
    #[command(after_help = "\
All lines are checked before the first is executed. A line that the daemon refuses is told with its number; the others are done
all the same, and the exit code is 1.")]
    Restore {
        /// Deletes all services first, and with a file of `save` all mark rules and daemons; traffic of known connections goes
        /// on when its real servers are back.
        #[arg(long)]
        replace: bool,
        /// The file; standard input if it is `-`.
        #[arg(default_value = "-")]
        file: PathBuf,
    },

    /// Prints what a kernel with IPVS has in /proc/net/FILE, for scripts and exporters that read it.
    #[command(after_help = "\
Examples:
  sluice proc ip_vs_stats
  sluice proc settings | grep sloppy      # as `grep -r '' /proc/sys/net/ipv4/vs` on a kernel

Of the settings, those that `sluice setting list` does not have show a kernel's default and have no effect.")]
    Proc {
        /// Which.
        #[arg(value_enum)]
        file: ProcArg,
    },

    /// The versions of the daemon, of its DPDK and of this client.
    Version,

    /// The daemon's methods with a line about each.
    Methods,

    /// Calls a method by hand and prints its answer as JSON.
    #[command(after_help = r#"Examples:
  sluice rpc version
  sluice rpc service_add '{"service": {"protocol": "tcp", "address": "10.0.0.1:80"}, "scheduler": "rr"}'
  sluice rpc real_server_add - < server.json"#)]
    Rpc {
        /// Method; `sluice methods` lists them.
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        method: String,
        /// Its parameters, a JSON object; `-` reads them from standard input.
        #[arg(value_name = "JSON")]
        params: Option<String>,
    },

    /// Prints completions for a shell.
    #[command(after_help = "\
Example:
  sluice completions bash > /etc/bash_completion.d/sluice")]
    Completions {
        /// For which shell.
        shell: Shell,
    },

    /// Does what ipvsadm would, with the same words, output and exit codes.
    #[command(
        disable_help_flag = true,
        after_help = "\
Also when this program is called by the name ipvsadm. Beyond ipvsadm 1.31, as in DPVS:
  -b with -a or -e                      FULLNAT
  -P -t SERVICE -z ADDRESS              add a local address
  -Q -t SERVICE -z ADDRESS              delete a local address
  -G [-t SERVICE]                       list local addresses

Examples:
  sluice ipvsadm -A -t 10.0.0.1:80 -s rr
  sluice ipvsadm -Ln --stats
  sluice ipvsadm -S -n > rules; sluice ipvsadm -R < rules"
    )]
    Ipvsadm {
        /// As ipvsadm(8) has them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum SettingCommand {
    /// Lists all settings.
    List,
    /// Changes settings, all that are given or none.
    #[command(after_help = "\
Example:
  sluice setting set timeout_tcp=600 conn_reuse_mode=1")]
    Set {
        /// A setting and its value.
        #[arg(required = true, value_name = "NAME=VALUE", value_parser = setting)]
        settings: Vec<(String, u32)>,
    },
}

fn setting(text: &str) -> Result<(String, u32), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    let value = value
        .parse()
        .map_err(|_| format!("{value:?} is not a number from 0 on"))?;
    Ok((name.to_owned(), value))
}

#[derive(Debug, Subcommand)]
pub(super) enum RssCommand {
    /// Which entries each worker has.
    Table,
    /// Gives entries to a worker.
    Give {
        /// Which, as in 0-15,64.
        #[arg(value_parser = entries)]
        entries: Entries,
        /// Who gets them.
        #[arg(short, long)]
        worker: u16,
    },
    /// Gives all entries of a worker to the others that have any, in turn.
    Drain {
        /// Whose.
        worker: u16,
    },
    /// Gives all workers equally many, as at start.
    Reset,
}

/// Entries of the redirection table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entries(pub(super) Vec<u16>);

fn entries(text: &str) -> Result<Entries, String> {
    let wrong = || format!("{text:?} are no entries; write them as in 0-15,64");
    let mut all = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let [first, last] = [first, last].map(|number| number.parse::<u16>().ok());
        let (first, last) = first.zip(last).ok_or_else(wrong)?;
        if first > last {
            return Err(wrong());
        }
        all.extend(first..=last);
    }
    Ok(Entries(all))
}

#[derive(Debug, Args)]
pub(super) struct ConnectionArgs {
    /// Only of this protocol.
    #[arg(short, long, value_enum)]
    protocol: Option<ProtocolArg>,
    /// Only of this client.
    #[arg(short, long, value_name = "ADDRESS")]
    client: Option<Ipv4Addr>,
    /// Only to this virtual address, or to one port of it.
    #[arg(long = "virtual", value_name = "ADDRESS[:PORT]", value_parser = address_maybe_port)]
    virtual_address: Option<(Ipv4Addr, Option<u16>)>,
    /// Only to this real server.
    #[arg(long, value_name = "ADDRESS")]
    server: Option<Ipv4Addr>,
    /// At most so many; 0 for all.
    #[arg(short, long, value_name = "N", default_value_t = 1000)]
    pub(super) limit: usize,
}

impl ConnectionArgs {
    pub(super) fn filter(&self) -> api::ConnectionList {
        api::ConnectionList {
            protocol: self.protocol.map(Into::into),
            client: self.client,
            virtual_address: self.virtual_address.map(|(address, _)| address),
            virtual_port: self.virtual_address.and_then(|(_, port)| port),
            server: self.server,
            limit: None,
            cursor: None,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ProtocolArg {
    Tcp,
    Udp,
    Sctp,
}

impl From<ProtocolArg> for api::Protocol {
    fn from(protocol: ProtocolArg) -> Self {
        match protocol {
            ProtocolArg::Tcp => Self::Tcp,
            ProtocolArg::Udp => Self::Udp,
            ProtocolArg::Sctp => Self::Sctp,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum ProcArg {
    /// Services and real servers.
    IpVs,
    /// Connections.
    IpVsConn,
    /// Totals and rates, in hexadecimal.
    IpVsStats,
    /// Application helpers.
    IpVsApp,
    /// The tree of /proc/sys/net/ipv4/vs.
    Settings,
}

impl From<ProcArg> for ProcFile {
    fn from(file: ProcArg) -> Self {
        match file {
            ProcArg::IpVs => Self::IpVs,
            ProcArg::IpVsConn => Self::IpVsConn,
            ProcArg::IpVsStats => Self::IpVsStats,
            ProcArg::IpVsApp => Self::IpVsApp,
            ProcArg::Settings => Self::Settings,
        }
    }
}

fn address_maybe_port(text: &str) -> Result<(Ipv4Addr, Option<u16>), String> {
    let expected = || "expected ADDRESS or ADDRESS:PORT, as in 10.0.0.1:80".to_owned();
    let (address, port) = match text.split_once(':') {
        Some((address, port)) => (address, Some(port.parse().map_err(|_| expected())?)),
        None => (text, None),
    };
    Ok((address.parse().map_err(|_| expected())?, port))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn entries_are_numbers_and_ranges() {
        assert_eq!(entries("0-2,9"), Ok(Entries(vec![0, 1, 2, 9])));
        for wrong in ["", "2-1", "a", "1-", "1,,2", "65536"] {
            assert!(entries(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn virtual_addresses_come_with_or_without_a_port() {
        let address = Ipv4Addr::new(10, 0, 0, 1);
        assert_eq!(address_maybe_port("10.0.0.1"), Ok((address, None)));
        assert_eq!(address_maybe_port("10.0.0.1:80"), Ok((address, Some(80))));
        assert!(address_maybe_port("10.0.0.1:").is_err());
        assert!(address_maybe_port("10.0.0.1:70000").is_err());
    }
}
