//! `sluice mark …`.

use std::net::Ipv4Addr;

use clap::{Args, Subcommand};
use ipnet::Ipv4Net;

use super::ProtocolArg;
use crate::api;

#[derive(Debug, Subcommand)]
pub(in crate::cli) enum MarkCommand {
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
pub(in crate::cli) struct MarkArgs {
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
    pub(in crate::cli) fn rule(self) -> api::MarkRule {
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
