//! `sluice server …`.

use std::net::{Ipv4Addr, SocketAddr};

use clap::{Args, Subcommand, ValueEnum};

use super::service::{FilterArgs, ServiceArgs, socket_address};
use crate::api;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ServerCommand {
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

A line is printed whenever the number of connections that remain has changed, and at the deadline. Closed connections count until their state's timeout
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
pub(in crate::cli) struct DrainArgs {
    #[command(flatten)]
    pub(in crate::cli) server: ServerArgs,
    /// Wait until no connection is left.
    #[arg(long)]
    pub(in crate::cli) wait: bool,
    /// Wait so many seconds at most.
    #[arg(long = "deadline", value_name = "SECONDS", requires = "wait")]
    pub(in crate::cli) timeout: Option<u64>,
}

#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct SetupArgs {
    /// How packets will get there.
    #[arg(short, long, value_enum)]
    pub(in crate::cli) mode: MethodArg,
    /// The service's address (dr, tun).
    #[arg(long, value_name = "ADDRESS")]
    pub(in crate::cli) vip: Option<Ipv4Addr>,
    /// sluice's address on the servers' network (nat; fullnat where local addresses are on another network).
    #[arg(long, value_name = "ADDRESS")]
    pub(in crate::cli) gateway: Option<Ipv4Addr>,
    /// A local address of the service (fullnat); may be given many times.
    #[arg(long = "laddr", value_name = "ADDRESS")]
    pub(in crate::cli) laddrs: Vec<Ipv4Addr>,
    /// The interface that takes tunnels apart (tun).
    #[arg(long, value_name = "INTERFACE", default_value = "tunl0")]
    pub(in crate::cli) tunnel: String,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(in crate::cli) struct ServerChange {
    /// How packets of new connections get there.
    #[arg(short, long, value_enum)]
    pub(in crate::cli) method: Option<MethodArg>,
    /// With method tun, what the tunnel is made of, as with `add`.
    #[arg(long, value_name = "TUNNEL", value_parser = tunnel)]
    pub(in crate::cli) tunnel: Option<api::Tunnel>,
    /// Share of the new connections; 0 takes none.
    #[arg(short, long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(..=i64::from(i32::MAX)))]
    pub(in crate::cli) weight: Option<u32>,
    /// No new connections from this many on; 0 for no bound.
    #[arg(short = 'x', long, value_name = "CONNECTIONS")]
    pub(in crate::cli) upper_threshold: Option<u32>,
    /// New connections again below this many; 0 for three quarters of the upper threshold.
    #[arg(short = 'y', long, value_name = "CONNECTIONS")]
    pub(in crate::cli) lower_threshold: Option<u32>,
}

#[derive(Clone, Copy, Debug, Args)]
pub(in crate::cli) struct ServerArgs {
    #[command(flatten)]
    pub(in crate::cli) service: ServiceArgs,
    /// The real server's address and port, as in 192.168.1.1:80.
    #[arg(value_name = "SERVER", value_parser = socket_address)]
    pub(in crate::cli) server: SocketAddr,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum MethodArg {
    Nat,
    Dr,
    Tun,
    Fullnat,
}

impl MethodArg {
    /// As it is typed.
    pub(in crate::cli) fn name(self) -> &'static str {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
