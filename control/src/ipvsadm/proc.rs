//! `/proc/net/ip_vs` and its siblings as a kernel has them, for the scripts and exporters that read them, and the tree of
//! `/proc/sys/net/ipv4/vs`. Formats as recorded (trace `text-all`): addresses in hexadecimal, timeouts of persistence in ticks of
//! 4 ms, statistics in hexadecimal.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::command::{Forward, Mask, Persistence, ServiceId};
use super::rows::{ServerRow, ServiceRow};
use crate::api::{Connection, Counters, Rates, Setting};

/// The kernel's ticks in a second.
const TICKS: u32 = 250;

/// The settings that a kernel has and sluice does not, with what a kernel shows: those of synchronisation.
const FIXED: [(&str, &str); 8] = [
    ("sync_persist_mode", "0"),
    ("sync_ports", "1"),
    ("sync_qlen_max", "3613"),
    ("sync_refresh_period", "0"),
    ("sync_retries", "0"),
    ("sync_sock_size", "0"),
    ("sync_threshold", "3\t50"),
    ("sync_version", "1"),
];

/// Begins the names of settings that a kernel has no file of: `ipvsadm --set` sets them.
const NO_FILE: &str = "timeout_";

/// `/proc/net/ip_vs`.
pub(super) fn services(services: &[ServiceRow]) -> String {
    let mut out = String::from(
        "IP Virtual Server version 1.2.1 (size=4096)\n\
         Prot LocalAddress:Port Scheduler Flags\n\
         \u{20} -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n",
    );
    let (marks, others): (Vec<_>, Vec<_>) = services
        .iter()
        .partition(|service| matches!(service.id, ServiceId::Mark { .. }));
    // Writing to a string cannot fail.
    for service in others.into_iter().chain(marks) {
        let scheduler = &service.scheduler;
        let ops = if service.one_packet { "ops " } else { "" };
        let _infallible = match service.id {
            ServiceId::Mark { mark, .. } => write!(out, "FWM  {mark:08X} {scheduler} {ops}"),
            ServiceId::Address { protocol, address } => {
                let blank = if address.is_ipv4() {
                    format!("{ops} ")
                } else {
                    String::new()
                };
                write!(
                    out,
                    "{}  {} {scheduler} {blank}",
                    protocol.title(),
                    endpoint(address)
                )
            }
        };
        if let Some(persistence) = service.persistence {
            let ticks = persistence.timeout_s * TICKS;
            let mask = mask(persistence, service.id);
            let _infallible = write!(out, "persistent {ticks} {mask:08X}");
        }
        out.push('\n');
        for server in &service.servers {
            self::server(&mut out, server);
        }
    }
    out
}

fn server(out: &mut String, server: &ServerRow) {
    let forward = match server.forward {
        Forward::Masq => "Masq",
        Forward::Route => "Route",
        Forward::Tunnel(_) => "Tunnel",
        Forward::FullNat => "FullNat",
    };
    let ServerRow {
        weight,
        active,
        inactive,
        ..
    } = server;
    let _infallible = writeln!(
        out,
        "  -> {}      {forward:<7} {weight:<6} {active:<10} {inactive:<10}",
        endpoint(server.address)
    );
}

/// A netmask in host order; a prefix length as its byte comes to stand.
fn mask(persistence: Persistence, id: ServiceId) -> u32 {
    match persistence.mask {
        Some(Mask::V4(mask)) => mask.to_bits(),
        Some(Mask::V6(length)) => u32::from(length).swap_bytes(),
        None if id.is_ipv6() => 128_u32.swap_bytes(),
        None => u32::MAX,
    }
}

fn endpoint(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) => format!("{:08X}:{:04X}", v4.ip().to_bits(), v4.port()),
        SocketAddr::V6(v6) => format!("[{}]:{:04X}", long(v6.ip().segments()), v6.port()),
    }
}

fn long(segments: [u16; 8]) -> String {
    let words: Vec<String> = segments.iter().map(|word| format!("{word:04x}")).collect();
    words.join(":")
}

/// `/proc/net/ip_vs_conn`.
pub(super) fn connections(connections: &[Connection]) -> String {
    let mut out = String::from(
        "Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData\n",
    );
    let words = |address: SocketAddr| {
        let ip = match address.ip() {
            IpAddr::V4(v4) => format!("{:08X}", v4.to_bits()),
            IpAddr::V6(v6) => long(v6.segments()),
        };
        format!("{ip} {:04X}", address.port())
    };
    for connection in connections {
        let _infallible = writeln!(
            out,
            "{:<3} {} {} {} {:<11} {:>7}",
            connection.protocol.name().to_uppercase(),
            words(connection.client),
            words(connection.virtual_address),
            words(connection.server),
            connection.state,
            connection.expires_ms / 1000,
        );
    }
    out
}

/// `/proc/net/ip_vs_stats`.
pub(super) fn statistics(totals: &Counters, rates: &Rates) -> String {
    let Counters {
        conns,
        in_packets,
        out_packets,
        in_bytes,
        out_bytes,
    } = totals;
    let Rates {
        cps,
        in_pps,
        out_pps,
        in_bps,
        out_bps,
    } = rates;
    format!(
        "   Total Incoming Outgoing         Incoming         Outgoing\n\
         \u{20}  Conns  Packets  Packets            Bytes            Bytes\n\
         {conns:8X} {in_packets:8X} {out_packets:8X} {in_bytes:16X} {out_bytes:16X}\n\n\
         \u{20}Conns/s   Pkts/s   Pkts/s          Bytes/s          Bytes/s\n\
         {cps:8X} {in_pps:8X} {out_pps:8X} {in_bps:16X} {out_bps:16X}\n"
    )
}

/// `/proc/net/ip_vs_app` of a machine whose FTP helper is loaded and has nothing to do: sluice looks FTP's services up as IPVS does, and
/// has no other helper.
pub(super) const APPLICATIONS: &str =
    "prot port    usecnt name\nTCP  21      0      ftp              \n";

/// What is in each file of `/proc/sys/net/ipv4/vs`, by name. `settings` are sluice's own; what only a kernel has shows its default.
pub(super) fn settings(settings: &[Setting]) -> Vec<(String, String)> {
    let files = settings
        .iter()
        .filter(|setting| !setting.name.starts_with(NO_FILE));
    let own = files.map(|setting| (setting.name.clone(), setting.value.to_string()));
    let fixed = FIXED.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut all: Vec<_> = own.chain(fixed).collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sluice_dataplane::command::Settings;

    use super::*;
    use crate::settings;

    #[test]
    fn statistics_are_hexadecimal() {
        let totals = Counters {
            conns: 255,
            in_bytes: 1 << 32,
            ..Counters::default()
        };
        let lines = statistics(&totals, &Rates::default());
        assert_eq!(
            lines.lines().nth(2),
            Some("      FF        0        0        100000000                0")
        );
    }

    #[test]
    fn connections_of_both_families_are_written_in_full() {
        let connection = |client: &str, server: &str| {
            serde_json::from_value(json!({
                "protocol": "tcp", "state": "SYN_RECV", "expires_ms": 40_900, "client": client,
                "virtual": "10.0.0.1:443", "server": server, "method": "dr", "worker": 0,
            }))
            .unwrap()
        };
        let lines = connections(&[
            connection("198.51.100.7:8001", "192.168.1.5:443"),
            connection("[2001:db8:99::1]:8003", "[2001:db8:5::2]:80"),
        ]);
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(
            lines[1],
            "TCP C6336407 1F41 0A000001 01BB C0A80105 01BB SYN_RECV         40"
        );
        assert!(lines[2].starts_with("TCP 2001:0db8:0099:0000:0000:0000:0000:0001 1F43 "));
    }

    #[test]
    fn settings_that_sluice_has_show_its_values() {
        let mut own = settings::list(&Settings::default());
        for setting in &mut own {
            setting.value += u32::from(setting.name == "sloppy_tcp");
        }
        let all = super::settings(&own);
        let value = |name: &str| &all.iter().find(|(known, _)| known == name).unwrap().1;
        assert_eq!(
            (
                value("sloppy_tcp").as_str(),
                value("sync_threshold").as_str()
            ),
            ("1", "3\t50")
        );
        assert!(all.is_sorted() && all.len() == 29);
    }
}
