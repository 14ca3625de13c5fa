//! The tables of `ipvsadm -L`, byte for byte (`SEMANTICS.md` section 11).

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::command::{Checksum, Forward, List, ServiceId, Tunnel, What};
use super::names::Names;
use super::rows::{ServerRow, ServiceRow};
use crate::api::{Connection, Counters, FlowProtocol, Rates};

/// What stands over every full table. The size is what a kernel says by default; sluice's table is sized otherwise.
const BANNER: &str = "IP Virtual Server version 1.2.1 (size=4096)\n";

/// Writes addresses, as numbers or by name.
pub(super) struct Addresses<'a> {
    numeric: bool,
    names: &'a dyn Names,
    hosts: RefCell<HashMap<IpAddr, Option<String>>>,
}

impl<'a> Addresses<'a> {
    pub(super) fn new(numeric: bool, names: &'a dyn Names) -> Self {
        let hosts = RefCell::default();
        Self {
            numeric,
            names,
            hosts,
        }
    }

    /// Address and port of `protocol` (as services(5) spells it).
    pub(super) fn show(&self, address: SocketAddr, protocol: &str) -> String {
        if self.numeric {
            return address.to_string();
        }
        let mut hosts = self.hosts.borrow_mut();
        let ip = address.ip();
        let host = hosts.entry(ip).or_insert_with(|| self.names.host(ip));
        let host = host.clone().unwrap_or_else(|| ip.to_string());
        let port = match address.port() {
            0 => "0".to_owned(),
            port => self
                .names
                .service(port, protocol)
                .unwrap_or_else(|| port.to_string()),
        };
        if ip.is_ipv6() {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }
}

/// The table that `list` asks for, of `services` in their order; with the banner unless it is of one service.
pub(super) fn services(services: &[ServiceRow], list: &List, names: &dyn Names) -> String {
    let addresses = Addresses::new(list.numeric, names);
    let mut out = String::new();
    if list.service.is_none() {
        out.push_str(BANNER);
    }
    out.push_str(header(list.what));
    for service in services {
        let head = head(service.id, &addresses);
        let line = match list.what {
            What::Stats => format!("{head:<33}{}", counters(&service.stats, list.exact)),
            What::Rates => format!("{head:<33}{}", rates(&service.rates, list.exact)),
            _ => format!("{head}{}", flags(service)),
        };
        out.push_str(&line);
        out.push('\n');
        for server in &service.servers {
            let mut address = addresses.show(server.address, service.id.protocol_name());
            if !list.numeric {
                // Names are cut to the column.
                address = address.chars().take(28).collect();
            }
            out.push_str(&row(&address, server, list));
            out.push('\n');
        }
    }
    out
}

fn header(what: What) -> &'static str {
    match what {
        What::Stats => {
            "Prot LocalAddress:Port               Conns   InPkts  OutPkts  InBytes OutBytes\n  -> RemoteAddress:Port\n"
        }
        What::Rates => {
            "Prot LocalAddress:Port                 CPS    InPPS   OutPPS    InBPS   OutBPS\n  -> RemoteAddress:Port\n"
        }
        What::Thresholds => {
            "Prot LocalAddress:Port            Uthreshold Lthreshold ActiveConn InActConn \n  -> RemoteAddress:Port\n"
        }
        What::PersistentConn => {
            "Prot LocalAddress:Port            Weight    PersistConn ActiveConn InActConn \n  -> RemoteAddress:Port\n"
        }
        What::TunInfo => {
            "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward TunnelInfo    Weight ActiveConn InActConn\n"
        }
        _ => {
            "Prot LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
        }
    }
}

fn head(id: ServiceId, addresses: &Addresses<'_>) -> String {
    match id {
        ServiceId::Address { protocol, address } => {
            format!(
                "{:<4} {}",
                protocol.title(),
                addresses.show(address, protocol.name())
            )
        }
        ServiceId::Mark { mark, ipv6 } => {
            format!(
                "FWM  {}{}",
                mark.cast_signed(),
                if ipv6 { " IPv6" } else { "" }
            )
        }
    }
}

fn flags(service: &ServiceRow) -> String {
    let mut flags = format!(" {}", service.scheduler);
    let named = service.sched_flags.names(&service.scheduler);
    // Writing to a string cannot fail.
    if !named.is_empty() {
        let _infallible = write!(flags, " ({})", named.join(","));
    }
    if let Some(persistence) = service.persistence {
        let _infallible = write!(flags, " persistent {}", persistence.timeout_s);
        if let Some(mask) = persistence.mask {
            let _infallible = write!(flags, " mask {mask}");
        }
    }
    if let Some(engine) = &service.engine
        && service.persistence.is_some()
    {
        let _infallible = write!(flags, " pe {engine}");
    }
    if service.one_packet {
        flags.push_str(" ops");
    }
    flags
}

fn row(address: &str, server: &ServerRow, list: &List) -> String {
    let ServerRow {
        weight,
        upper_threshold,
        lower_threshold,
        active,
        inactive,
        templates,
        ..
    } = server;
    let forward = match server.forward {
        Forward::Masq => "Masq",
        Forward::Route => "Route",
        Forward::Tunnel(_) => "Tunnel",
        Forward::FullNat => "FullNat",
    };
    let row = match list.what {
        What::Stats => return format!("  -> {address:<28}{}", counters(&server.stats, list.exact)),
        What::Rates => return format!("  -> {address:<28}{}", rates(&server.rates, list.exact)),
        What::Thresholds => format!("{upper_threshold:<10} {lower_threshold:<10}"),
        What::PersistentConn => format!("{weight:<9} {templates:<11}"),
        What::TunInfo => format!("{forward:<7} {:<13} {weight:<6}", tun_info(server.forward)),
        _ => format!("{forward:<7} {weight:<6}"),
    };
    format!("  -> {address:<28} {row} {active:<10} {inactive:<10}")
}

fn tun_info(forward: Forward) -> String {
    let sign = |checksum| match checksum {
        Checksum::None => "-c",
        Checksum::Full => "+c",
        Checksum::Remote => "+r",
    };
    match forward {
        Forward::Tunnel(Tunnel::Ipip) => "ipip".to_owned(),
        Forward::Tunnel(Tunnel::Gre { checksum }) => format!("gre:{}", sign(checksum)),
        Forward::Tunnel(Tunnel::Gue { port, checksum }) => format!("gue:{port}:{}", sign(checksum)),
        _ => "n/a".to_owned(),
    }
}

fn counters(counters: &Counters, exact: bool) -> String {
    let Counters {
        conns,
        in_packets,
        out_packets,
        in_bytes,
        out_bytes,
    } = *counters;
    columns([conns, in_packets, out_packets, in_bytes, out_bytes], exact)
}

fn rates(rates: &Rates, exact: bool) -> String {
    let Rates {
        cps,
        in_pps,
        out_pps,
        in_bps,
        out_bps,
    } = *rates;
    columns([cps, in_pps, out_pps, in_bps, out_bps], exact)
}

fn columns(numbers: [u64; 5], exact: bool) -> String {
    let show = |number: u64| match exact {
        true => format!(" {number:>8}"),
        false => format!(" {:>8}", shortened(number)),
    };
    numbers.into_iter().map(show).collect()
}

/// A number in at most eight columns. K from 10^8 and M from 10^9 on are recorded (text-hugenum); where G and T begin is not.
fn shortened(number: u64) -> String {
    const UNITS: [(u64, u64, char); 4] = [
        (100_000_000_000_000, 1_000_000_000_000, 'T'),
        (100_000_000_000, 1_000_000_000, 'G'),
        (1_000_000_000, 1_000_000, 'M'),
        (100_000_000, 1000, 'K'),
    ];
    match UNITS.iter().find(|(from, ..)| number >= *from) {
        Some((_, unit, letter)) => format!("{}{letter}", number / unit),
        None => number.to_string(),
    }
}

/// The lines of `ipvsadm -Lc`, in the order given.
pub(super) fn connections(connections: &[Connection], list: &List, names: &dyn Names) -> String {
    let addresses = Addresses::new(list.numeric, names);
    let engines = if list.persistent_conn {
        "        pe name          pe_data"
    } else {
        ""
    };
    let mut out = format!(
        "IPVS connection entries\npro expire state       source             virtual            destination{engines}\n"
    );
    for connection in connections {
        let (title, protocol) = match connection.protocol {
            FlowProtocol::Tcp => ("TCP", "tcp"),
            FlowProtocol::Udp => ("UDP", "udp"),
            FlowProtocol::Sctp => ("SCTP", "sctp"),
            FlowProtocol::Ip => ("IP", "ip"),
        };
        let show = |address| addresses.show(address, protocol);
        let seconds = connection.expires_ms / 1000;
        let _infallible = writeln!(
            out,
            "{:<3} {:02}:{:02}  {:<11} {:<18} {:<18} {}",
            title,
            seconds / 60,
            seconds % 60,
            connection.state,
            show(connection.client),
            show(connection.virtual_address),
            show(connection.server),
        );
    }
    out
}
