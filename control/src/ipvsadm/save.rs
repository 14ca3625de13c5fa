//! The lines of `ipvsadm -S`, which `ipvsadm -R` reads back. As stock, those forget thresholds; [`Thresholds::Kept`] is for `sluice
//! save`.

use std::fmt::Write;

use super::command::{Checksum, Forward, Protocol, ServiceId, Tunnel};
use super::listing::Addresses;
use super::rows::{ServerRow, ServiceRow};

/// Whether `-x` and `-y` are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thresholds {
    Kept,
    Forgotten,
}

/// The lines that make `services` again.
pub(super) fn lines(
    services: &[ServiceRow],
    addresses: &Addresses<'_>,
    thresholds: Thresholds,
) -> String {
    let mut out = String::new();
    for service in services {
        let id = id(service.id, addresses);
        // Writing to a string cannot fail.
        let _infallible = writeln!(out, "-A {id} {}", options(service));
        for laddr in &service.laddrs {
            let _infallible = writeln!(out, "-P {id} -z {laddr}");
        }
        for server in &service.servers {
            let address = addresses.show(server.address, service.id.protocol_name());
            let _infallible = write!(out, "-a {id} -r {address} {}", server_options(server));
            if thresholds == Thresholds::Kept && server.upper_threshold > 0 {
                let _infallible = write!(out, " -x {}", server.upper_threshold);
                if server.lower_threshold > 0 {
                    let _infallible = write!(out, " -y {}", server.lower_threshold);
                }
            }
            out.push('\n');
        }
    }
    out
}

fn id(id: ServiceId, addresses: &Addresses<'_>) -> String {
    match id {
        ServiceId::Address { protocol, address } => {
            let option = match protocol {
                Protocol::Tcp => "-t",
                Protocol::Udp => "-u",
                Protocol::Sctp => "--sctp-service",
            };
            format!("{option} {}", addresses.show(address, protocol.name()))
        }
        ServiceId::Mark { mark, ipv6 } => {
            format!("-f {}{}", mark.cast_signed(), if ipv6 { " -6" } else { "" })
        }
    }
}

fn options(service: &ServiceRow) -> String {
    let mut options = format!("-s {}", service.scheduler);
    if let Some(persistence) = service.persistence {
        let _infallible = write!(options, " -p {}", persistence.timeout_s);
        if let Some(mask) = persistence.mask {
            let _infallible = write!(options, " -M {mask}");
        }
    }
    if service.one_packet {
        options.push_str(" -o");
    }
    if let Some(engine) = &service.engine {
        let _infallible = write!(options, " --pe {engine}");
    }
    let flags = service.sched_flags.names(&service.scheduler);
    if !flags.is_empty() {
        let _infallible = write!(options, " -b {}", flags.join(","));
    }
    options
}

fn server_options(server: &ServerRow) -> String {
    let weight = server.weight;
    match server.forward {
        Forward::Masq => format!("-m -w {weight}"),
        Forward::Route => format!("-g -w {weight}"),
        Forward::FullNat => format!("-b -w {weight}"),
        Forward::Tunnel(tunnel) => format!("-i -w {weight} {}", tunnel_options(tunnel)),
    }
}

fn tunnel_options(tunnel: Tunnel) -> String {
    let checksum_option = |checksum| match checksum {
        Checksum::None => "--tun-nocsum",
        Checksum::Full => "--tun-csum",
        Checksum::Remote => "--tun-remcsum",
    };
    match tunnel {
        Tunnel::Ipip => "--tun-type ipip".to_owned(),
        Tunnel::Gre { checksum } => format!("--tun-type gre {}", checksum_option(checksum)),
        Tunnel::Gue { port, checksum } => {
            format!(
                "--tun-type gue --tun-port {port} {}",
                checksum_option(checksum)
            )
        }
    }
}
