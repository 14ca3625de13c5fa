//! The command line of `sluice`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use ipnet::Ipv4Net;

use super::Failure;
use crate::api;
use crate::ipvsadm::ProcFile;

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

    /// Looks for what keeps services from being served; run it as root on the balancer.
    #[command(after_help = "\
It finds services whose address is not this machine's, next hops that do not answer, exception interfaces that are gone, and
machines that answer ARP for the address of a service with real servers of method dr or tun: clients go to those past sluice.

Exit codes: 0 nothing was found; 3 something was; 1 the daemon cannot be reached, or ARP cannot be asked.")]
    Doctor,

    /// All counters, exact: totals, each worker's books, each port.
    #[command(after_help = "\
A worker's books balance at any instant:
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
pub(super) enum MarkCommand {
    /// Adds a rule at the end, or at a place.
    #[command(after_help = "\
Examples, with what did it in front of LVS:
  sluice mark add 1 --destination 10.0.1.0/24
      iptables -t mangle -A PREROUTING -d 10.0.1.0/24 -j MARK --set-mark 1
  sluice mark add 2 --destination 10.0.0.1 --protocol tcp --destination-ports 80
  sluice service add fwmark 1 --scheduler lblc

The first rule that fits a packet decides (iptables goes on, and the last one does). Only packets that are addressed to this
machine and belong to no connection are asked about.")]
    Add {
        #[command(flatten)]
        rule: MarkArgs,
        /// Its place afterwards, from 1; the end if not given.
        #[arg(long, value_name = "N")]
        position: Option<usize>,
    },
    /// Deletes a rule.
    Delete {
        /// Its place, from 1; `list` shows it.
        position: usize,
    },
    /// Lists the rules in order.
    List,
}

#[derive(Debug, Args)]
pub(super) struct MarkArgs {
    /// The mark; 0 exempts from later rules.
    mark: u32,
    /// The sender's address is in this prefix.
    #[arg(short, long, value_name = "PREFIX", value_parser = prefix)]
    source: Option<Ipv4Net>,
    /// The destination's address is in this prefix.
    #[arg(short, long, value_name = "PREFIX", value_parser = prefix)]
    destination: Option<Ipv4Net>,
    /// Only this protocol.
    #[arg(short, long, value_enum)]
    protocol: Option<ProtocolArg>,
    /// The sender's port is one of these: 80, or 8000-8099.
    #[arg(long, value_name = "PORTS")]
    source_ports: Option<api::Ports>,
    /// The destination's port is one of these.
    #[arg(long, value_name = "PORTS")]
    destination_ports: Option<api::Ports>,
    /// Only packets that came in by this port of the appliance.
    #[arg(long, value_name = "NAME")]
    port: Option<String>,
}

impl MarkArgs {
    pub(super) fn rule(self) -> api::MarkRule {
        api::MarkRule {
            source: self.source,
            destination: self.destination,
            protocol: self.protocol.map(Into::into),
            source_ports: self.source_ports,
            destination_ports: self.destination_ports,
            port: self.port,
            mark: self.mark,
        }
    }
}

/// A prefix, or an address as a prefix of itself.
fn prefix(text: &str) -> Result<Ipv4Net, String> {
    let address = || text.parse::<Ipv4Addr>().ok().map(Ipv4Net::from);
    let prefix = text.parse().ok().or_else(address);
    prefix.ok_or_else(|| "expected an IPv4 prefix, as in 10.0.1.0/24".to_owned())
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
pub(super) enum ServiceCommand {
    /// Adds a service.
    #[command(after_help = "\
Example:
  sluice service add tcp 10.0.0.1:80 --scheduler rr

The address must be one of this machine's (`ip addr add`): elsewhere the service matches nothing, and `status` says so.")]
    Add {
        #[command(flatten)]
        service: ServiceArgs,
        /// Scheduler, as ipvsadm spells it: rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh, twos.
        #[arg(short, long, default_value = "wlc")]
        scheduler: String,
        /// The scheduler's flags: sh-fallback, sh-port, mh-fallback, mh-port, flag-1, flag-2, flag-3.
        #[arg(short = 'b', long, value_name = "FLAG,…", value_delimiter = ',')]
        scheduler_flags: Vec<String>,
        /// Seconds that a client's new connections go where its last one went; 0 for no persistence.
        #[arg(short, long, value_name = "SECONDS", default_value_t = 0)]
        persistence: u32,
        /// Clients whose addresses agree in these bits count as one: a netmask; a prefix length for IPv6.
        #[arg(short = 'M', long, value_name = "NETMASK")]
        mask: Option<String>,
        /// What else identifies a client: sip.
        #[arg(long, value_name = "ENGINE")]
        engine: Option<String>,
        /// Schedules each UDP packet anew.
        #[arg(long)]
        one_packet: bool,
    },
    /// Changes a service; what is not given stays.
    Set {
        #[command(flatten)]
        service: ServiceArgs,
        #[command(flatten)]
        change: ServiceChange,
    },
    /// Deletes a service and its real servers.
    #[command(after_help = "\
The last service of an address leaves its packets to the kernel, which resets the connections they belong to, as with LVS.")]
    Delete {
        #[command(flatten)]
        service: ServiceArgs,
    },
    /// Starts counters and rates anew, of a service and its real servers, or of everything.
    #[command(after_help = "\
Examples:
  sluice service zero tcp 10.0.0.1:80
  sluice service zero                     # all services, and the totals")]
    Zero {
        #[command(flatten)]
        filter: FilterArgs,
    },
    /// Lists services.
    List {
        #[command(flatten)]
        filter: FilterArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum ServerCommand {
    /// Adds a real server to a service.
    #[command(after_help = "\
Examples:
  sluice server add tcp 10.0.0.1:80 192.168.1.1:8080 --method nat --weight 3
  sluice server add tcp 10.0.0.1:80 192.168.1.2:80 --method dr --upper-threshold 1000

Methods:
  nat      the server's replies must come back through this machine (its default route)
  dr       the server is on a network of ours and has the service's address on its loopback
  tun      as dr, over IP-in-IP
  fullnat  the server sees a local address of ours as the client; add one with `sluice laddr add` first
With dr and tun the port is the service's whatever is given.")]
    Add {
        #[command(flatten)]
        server: ServerArgs,
        /// How packets get there.
        #[arg(short, long, value_enum, default_value_t = MethodArg::Dr)]
        method: MethodArg,
        /// With method tun, what the tunnel is made of: ipip, gre, gre:full, gue:PORT, gue:PORT:full, gue:PORT:remote (the checksum).
        #[arg(long, value_name = "TUNNEL", value_parser = tunnel)]
        tunnel: Option<api::Tunnel>,
        /// Share of the new connections; 0 takes none.
        #[arg(short, long, value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(..=i64::from(i32::MAX)))]
        weight: u32,
        /// No new connections from this many on; 0 for no bound.
        #[arg(short = 'x', long, value_name = "CONNECTIONS", default_value_t = 0)]
        upper_threshold: u32,
        /// New connections again below this many; 0 for three quarters of the upper threshold.
        #[arg(short = 'y', long, value_name = "CONNECTIONS", default_value_t = 0)]
        lower_threshold: u32,
    },
    /// Changes a real server; what is not given stays.
    #[command(after_help = "\
Example:
  sluice server set tcp 10.0.0.1:80 192.168.1.1:8080 --weight 0    # drain it: known connections go on")]
    Set {
        #[command(flatten)]
        server: ServerArgs,
        #[command(flatten)]
        change: ServerChange,
    },
    /// Deletes a real server; its connections get no more packets.
    Delete {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Takes a real server out of service gently: weight 0, and with --wait until its connections have ended.
    #[command(after_help = "\
Example:
  sluice server drain tcp 10.0.0.1:80 192.168.1.1:8080 --wait --deadline 600 && ssh 192.168.1.1 reboot

A line is printed whenever the number of connections that remain has changed. Closed connections count until their state's timeout
is over, as `InActConn` does. With persistence, clients that have a template go on coming unless expire_quiescent_template is 1.

Exit codes: 0 weight 0 is in force and, with --wait, no connection is left; 3 some are left at the deadline; 1 the daemon refused,
or the real server was deleted meanwhile; 2 the command line is wrong.")]
    Drain(DrainArgs),
    /// Prints commands that make a Linux machine a real server, line by line with their reasons.
    #[command(after_help = "\
Examples:
  sluice server setup-script --mode dr --vip 10.0.0.1 | ssh root@192.168.1.1 sh -e
  sluice server setup-script --mode nat --gateway 192.168.1.254
  sluice server setup-script --mode fullnat --laddr 192.168.1.253

It asks nobody: no daemon needs to run.")]
    SetupScript(SetupArgs),
    /// Lists real servers.
    List {
        #[command(flatten)]
        filter: FilterArgs,
    },
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct DrainArgs {
    #[command(flatten)]
    pub(super) server: ServerArgs,
    /// Wait until no connection is left.
    #[arg(long)]
    pub(super) wait: bool,
    /// Wait so many seconds at most.
    #[arg(long = "deadline", value_name = "SECONDS", requires = "wait")]
    pub(super) timeout: Option<u64>,
}

#[derive(Clone, Debug, Args)]
pub(super) struct SetupArgs {
    /// How packets will get there.
    #[arg(short, long, value_enum)]
    pub(super) mode: MethodArg,
    /// The service's address (dr, tun).
    #[arg(long, value_name = "ADDRESS")]
    pub(super) vip: Option<Ipv4Addr>,
    /// sluice's address on the servers' network (nat; fullnat where local addresses are on another network).
    #[arg(long, value_name = "ADDRESS")]
    pub(super) gateway: Option<Ipv4Addr>,
    /// A local address of the service (fullnat); may be given many times.
    #[arg(long = "laddr", value_name = "ADDRESS")]
    pub(super) laddrs: Vec<Ipv4Addr>,
    /// The interface that takes tunnels apart (tun).
    #[arg(long, value_name = "INTERFACE", default_value = "tunl0")]
    pub(super) tunnel: String,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct ServiceChange {
    /// Scheduler, as ipvsadm spells it. Another one than before starts without flags.
    #[arg(short, long)]
    pub(super) scheduler: Option<String>,
    /// The scheduler's flags, all of them; '' for none.
    #[arg(short = 'b', long, value_name = "FLAG,…", value_delimiter = ',')]
    pub(super) scheduler_flags: Option<Vec<String>>,
    /// Seconds that a client's new connections go where its last one went; 0 for no persistence.
    #[arg(short, long, value_name = "SECONDS")]
    pub(super) persistence: Option<u32>,
    /// Clients whose addresses agree in these bits count as one; '' for all bits.
    #[arg(short = 'M', long, value_name = "NETMASK")]
    pub(super) mask: Option<String>,
    /// What else identifies a client; '' for nothing.
    #[arg(long, value_name = "ENGINE")]
    pub(super) engine: Option<String>,
    /// Schedules each UDP packet anew, or not.
    #[arg(long, value_name = "true|false")]
    pub(super) one_packet: Option<bool>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(super) struct ServerChange {
    /// How packets of new connections get there.
    #[arg(short, long, value_enum)]
    pub(super) method: Option<MethodArg>,
    /// With method tun, what the tunnel is made of, as with `add`.
    #[arg(long, value_name = "TUNNEL", value_parser = tunnel)]
    pub(super) tunnel: Option<api::Tunnel>,
    /// Share of the new connections; 0 takes none.
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(..=i64::from(i32::MAX)))]
    pub(super) weight: Option<u32>,
    /// No new connections from this many on; 0 for no bound.
    #[arg(short = 'x', long, value_name = "CONNECTIONS")]
    pub(super) upper_threshold: Option<u32>,
    /// New connections again below this many; 0 for three quarters of the upper threshold.
    #[arg(short = 'y', long, value_name = "CONNECTIONS")]
    pub(super) lower_threshold: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(super) enum LaddrCommand {
    /// Adds a local address to a service.
    #[command(after_help = "\
Example:
  sluice laddr add tcp 10.0.0.1:80 192.168.1.200

Each address and real server has some 64,000 ports, so as many connections at a time.

The address must be one of this machine's (`ip addr add`), or servers get no answer when they ask who has it. And it must be
sluice's alone: packets to its ports from 1024 on that belong to no connection of sluice are dropped, not given to the kernel, so
that this machine's own connections from it die.")]
    Add(LaddrArgs),
    /// Deletes a local address from a service.
    Delete(LaddrArgs),
    /// Lists local addresses.
    List {
        #[command(flatten)]
        filter: FilterArgs,
    },
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct LaddrArgs {
    #[command(flatten)]
    pub(super) service: ServiceArgs,
    /// The local address.
    #[arg(value_name = "LOCAL_ADDRESS")]
    pub(super) address: Ipv4Addr,
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct ServiceArgs {
    /// Transport protocol; or fwmark (IPv4) or fwmark6 (IPv6) for the packets of a firewall mark.
    #[arg(value_enum)]
    protocol: KindArg,
    /// Virtual address and port, as in 10.0.0.1:80; or the firewall mark's number.
    #[arg(value_name = "SERVICE", value_parser = virtual_end)]
    service: VirtualEnd,
}

impl ServiceArgs {
    pub(super) fn reference(&self) -> Result<api::ServiceRef, Failure> {
        reference(self.protocol, self.service)
    }
}

/// What stands behind the protocol.
#[derive(Clone, Copy, Debug)]
enum VirtualEnd {
    Address(SocketAddr),
    Mark(u32),
}

fn virtual_end(text: &str) -> Result<VirtualEnd, String> {
    match text.parse() {
        Ok(mark) => Ok(VirtualEnd::Mark(mark)),
        Err(_) => socket_address(text).map(VirtualEnd::Address),
    }
}

fn reference(kind: KindArg, end: VirtualEnd) -> Result<api::ServiceRef, Failure> {
    let protocol = match (kind, end) {
        (KindArg::Fwmark | KindArg::Fwmark6, VirtualEnd::Mark(mark)) => {
            let ipv6 = matches!(kind, KindArg::Fwmark6);
            return Ok(api::ServiceRef::Mark { mark, ipv6 });
        }
        (KindArg::Fwmark | KindArg::Fwmark6, VirtualEnd::Address(_)) => {
            let why = "SERVICE: expected a firewall mark's number, as in `fwmark 5`";
            return Err(Failure::Input(why.to_owned()));
        }
        (KindArg::Tcp, _) => api::Protocol::Tcp,
        (KindArg::Udp, _) => api::Protocol::Udp,
        (KindArg::Sctp, _) => api::Protocol::Sctp,
    };
    match end {
        VirtualEnd::Address(address) => Ok(api::ServiceRef::Address { protocol, address }),
        VirtualEnd::Mark(_) => {
            let why = "SERVICE: expected ADDRESS:PORT, as in 10.0.0.1:80";
            Err(Failure::Input(why.to_owned()))
        }
    }
}

/// One service, or all.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct FilterArgs {
    /// Only of the service with this protocol (or fwmark, fwmark6) …
    #[arg(value_enum, requires = "of_service")]
    protocol: Option<KindArg>,
    /// … and this virtual address and port (or mark).
    #[arg(id = "of_service", value_name = "SERVICE", value_parser = virtual_end)]
    service: Option<VirtualEnd>,
}

impl FilterArgs {
    pub(super) fn filter(&self) -> Result<api::ServiceFilter, Failure> {
        let service = self.protocol.zip(self.service);
        let service = service
            .map(|(kind, end)| reference(kind, end))
            .transpose()?;
        Ok(api::ServiceFilter { service })
    }
}

#[derive(Clone, Copy, Debug, Args)]
pub(super) struct ServerArgs {
    #[command(flatten)]
    pub(super) service: ServiceArgs,
    /// The real server's address and port, as in 192.168.1.1:80.
    #[arg(value_name = "SERVER", value_parser = socket_address)]
    pub(super) server: SocketAddr,
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
pub(super) enum KindArg {
    Tcp,
    Udp,
    Sctp,
    Fwmark,
    Fwmark6,
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
pub(super) enum MethodArg {
    Nat,
    Dr,
    Tun,
    Fullnat,
}

impl MethodArg {
    /// As it is typed.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Dr => "dr",
            Self::Tun => "tun",
            Self::Nat => "nat",
            Self::Fullnat => "fullnat",
        }
    }
}

impl From<MethodArg> for api::Method {
    fn from(method: MethodArg) -> Self {
        match method {
            MethodArg::Nat => Self::Nat,
            MethodArg::Dr => Self::Dr,
            MethodArg::Tun => Self::Tun,
            MethodArg::Fullnat => Self::FullNat,
        }
    }
}

fn tunnel(text: &str) -> Result<api::Tunnel, String> {
    let expected =
        || "expected ipip, gre, gre:full, gue:PORT, gue:PORT:full or gue:PORT:remote".to_owned();
    let checksum = |word| match word {
        None | Some("none") => Ok(api::TunnelChecksum::None),
        Some("full") => Ok(api::TunnelChecksum::Full),
        Some("remote") => Ok(api::TunnelChecksum::Remote),
        Some(_) => Err(expected()),
    };
    let mut words = text.split(':');
    let tunnel = match words.next() {
        Some("ipip") => api::Tunnel::Ipip,
        Some("gre") => api::Tunnel::Gre {
            checksum: checksum(words.next())?,
        },
        Some("gue") => {
            let port = words.next().and_then(|port| port.parse().ok());
            api::Tunnel::Gue {
                port: port.ok_or_else(expected)?,
                checksum: checksum(words.next())?,
            }
        }
        _ => return Err(expected()),
    };
    if words.next().is_some() {
        Err(expected())
    } else {
        Ok(tunnel)
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

fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let expected = || "expected ADDRESS:PORT, as in 10.0.0.1:80".to_owned();
    text.parse().map_err(|_| expected())
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
    fn tunnels_are_a_type_with_port_and_checksum() {
        use api::{Tunnel, TunnelChecksum};
        let gre = |checksum| Ok(Tunnel::Gre { checksum });
        assert_eq!(tunnel("ipip"), Ok(Tunnel::Ipip));
        assert_eq!(tunnel("gre"), gre(TunnelChecksum::None));
        assert_eq!(tunnel("gre:full"), gre(TunnelChecksum::Full));
        let gue = Tunnel::Gue {
            port: 6080,
            checksum: TunnelChecksum::Remote,
        };
        assert_eq!(tunnel("gue:6080:remote"), Ok(gue));
        for wrong in [
            "gue",
            "gue:x",
            "gre:some",
            "ipip:full",
            "gue:1:full:2",
            "vxlan",
        ] {
            assert!(tunnel(wrong).is_err(), "{wrong}");
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
