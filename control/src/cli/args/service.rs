//! `sluice service …`, `sluice laddr …`, and how a service is named.

use std::net::{Ipv4Addr, SocketAddr};

use clap::{Args, Subcommand, ValueEnum};

use crate::api;
use crate::cli::Failure;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ServiceCommand {
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

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(in crate::cli) struct ServiceChange {
    /// Scheduler, as ipvsadm spells it. Another one than before starts without flags.
    #[arg(short, long)]
    pub(in crate::cli) scheduler: Option<String>,
    /// The scheduler's flags, all of them; '' for none.
    #[arg(short = 'b', long, value_name = "FLAG,…", value_delimiter = ',')]
    pub(in crate::cli) scheduler_flags: Option<Vec<String>>,
    /// Seconds that a client's new connections go where its last one went; 0 for no persistence.
    #[arg(short, long, value_name = "SECONDS")]
    pub(in crate::cli) persistence: Option<u32>,
    /// Clients whose addresses agree in these bits count as one; '' for all bits.
    #[arg(short = 'M', long, value_name = "NETMASK")]
    pub(in crate::cli) mask: Option<String>,
    /// What else identifies a client; '' for nothing.
    #[arg(long, value_name = "ENGINE")]
    pub(in crate::cli) engine: Option<String>,
    /// Schedules each UDP packet anew, or not.
    #[arg(long, value_name = "true|false")]
    pub(in crate::cli) one_packet: Option<bool>,
}

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum LaddrCommand {
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
pub(in crate::cli) struct LaddrArgs {
    #[command(flatten)]
    pub(in crate::cli) service: ServiceArgs,
    /// The local address.
    #[arg(value_name = "LOCAL_ADDRESS")]
    pub(in crate::cli) address: Ipv4Addr,
}

#[derive(Clone, Copy, Debug, Args)]
pub(in crate::cli) struct ServiceArgs {
    /// Transport protocol; or fwmark (IPv4) or fwmark6 (IPv6) for the packets of a firewall mark.
    #[arg(value_enum)]
    protocol: KindArg,
    /// Virtual address and port, as in 10.0.0.1:80; or the firewall mark's number.
    #[arg(value_name = "SERVICE", value_parser = virtual_end)]
    service: VirtualEnd,
}

impl ServiceArgs {
    pub(in crate::cli) fn reference(&self) -> Result<api::ServiceRef, Failure> {
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
pub(in crate::cli) struct FilterArgs {
    /// Only of the service with this protocol (or fwmark, fwmark6) …
    #[arg(value_enum, requires = "of_service")]
    protocol: Option<KindArg>,
    /// … and this virtual address and port (or mark).
    #[arg(id = "of_service", value_name = "SERVICE", value_parser = virtual_end)]
    service: Option<VirtualEnd>,
}

impl FilterArgs {
    pub(in crate::cli) fn filter(&self) -> Result<api::ServiceFilter, Failure> {
        let service = self.protocol.zip(self.service);
        let service = service
            .map(|(kind, end)| reference(kind, end))
            .transpose()?;
        Ok(api::ServiceFilter { service })
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum KindArg {
    Tcp,
    Udp,
    Sctp,
    Fwmark,
    Fwmark6,
}

pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    let expected = || "expected ADDRESS:PORT, as in 10.0.0.1:80".to_owned();
    text.parse().map_err(|_| expected())
}
