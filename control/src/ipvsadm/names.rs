//! Host and port names: what the command line may use for numbers, and what listings without `-n` show.

use std::net::{IpAddr, ToSocketAddrs};
use std::sync::OnceLock;

/// Looks names up, both ways.
pub trait Names {
    /// The address of a host.
    fn address(&self, host: &str) -> Option<IpAddr>;
    /// The name of a host.
    fn host(&self, address: IpAddr) -> Option<String>;
    /// The port that `name` has with `protocol`, one of `tcp`, `udp` and `sctp`.
    fn port(&self, name: &str, protocol: &str) -> Option<u16>;
    /// The name of a port with `protocol`.
    fn service(&self, port: u16, protocol: &str) -> Option<String>;
}

/// As the system does: the resolver, and `/etc/services`.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemNames;

impl Names for SystemNames {
    fn address(&self, host: &str) -> Option<IpAddr> {
        let found: Vec<IpAddr> = (host, 0)
            .to_socket_addrs()
            .ok()?
            .map(|found| found.ip())
            .collect();
        let ipv4 = found.iter().find(|address| address.is_ipv4());
        ipv4.or_else(|| found.first()).copied()
    }

    fn host(&self, address: IpAddr) -> Option<String> {
        let name = dns_lookup::lookup_addr(&address).ok()?;
        (name.parse::<IpAddr>().is_err()).then_some(name)
    }

    fn port(&self, name: &str, protocol: &str) -> Option<u16> {
        LocalNames.port(name, protocol)
    }

    fn service(&self, port: u16, protocol: &str) -> Option<String> {
        LocalNames.service(port, protocol)
    }
}

/// `/etc/services` only (and a few well-known ports where that file is missing); hosts only as numbers. For machines without a
/// resolver, and for tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalNames;

impl Names for LocalNames {
    fn address(&self, host: &str) -> Option<IpAddr> {
        host.parse().ok()
    }

    fn host(&self, _address: IpAddr) -> Option<String> {
        None
    }

    fn port(&self, name: &str, protocol: &str) -> Option<u16> {
        let found = services().iter().find(|service| {
            service.protocol == protocol && service.names.iter().any(|known| known == name)
        });
        found.map(|service| service.port)
    }

    fn service(&self, port: u16, protocol: &str) -> Option<String> {
        let found = services()
            .iter()
            .find(|service| service.port == port && service.protocol == protocol);
        found.and_then(|service| service.names.first().cloned())
    }
}

struct Service {
    /// The official name, then its aliases.
    names: Vec<String>,
    port: u16,
    protocol: String,
}

/// What is assumed on a machine without `/etc/services` (IANA's registry).
const WELL_KNOWN: &str = "\
ftp 21/tcp\nssh 22/tcp\ntelnet 23/tcp\nsmtp 25/tcp mail\ndomain 53/tcp\ndomain 53/udp\nhttp 80/tcp www\npop3 110/tcp pop-3\n\
ntp 123/udp\nimap2 143/tcp imap\nsnmp 161/udp\nldap 389/tcp\nhttps 443/tcp\nhttps 443/udp\nsyslog 514/udp\nldaps 636/tcp\n\
imaps 993/tcp\npop3s 995/tcp\nmysql 3306/tcp\nsip 5060/tcp\nsip 5060/udp\nsip-tls 5061/tcp\npostgresql 5432/tcp postgres\n\
http-alt 8080/tcp webcache\n";

fn services() -> &'static [Service] {
    static SERVICES: OnceLock<Vec<Service>> = OnceLock::new();
    SERVICES.get_or_init(|| {
        let file = std::fs::read_to_string("/etc/services");
        read_services(file.as_deref().unwrap_or(WELL_KNOWN))
    })
}

/// Reads services(5).
fn read_services(text: &str) -> Vec<Service> {
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let name = words.next()?;
        let (port, protocol) = words.next()?.split_once('/')?;
        Some(Service {
            names: std::iter::once(name)
                .chain(words)
                .map(str::to_owned)
                .collect(),
            port: port.parse().ok()?,
            protocol: protocol.to_owned(),
        })
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_are_read_with_aliases_and_without_comments() {
        let read = read_services(
            "# no 1/tcp\nhttp\t80/tcp  www web # World Wide Web\nbroken\nbad x/tcp\n",
        );
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].names, ["http", "www", "web"]);
        assert_eq!((read[0].port, read[0].protocol.as_str()), (80, "tcp"));
    }

    #[test]
    fn well_known_ports_have_their_names_both_ways() {
        let known = read_services(WELL_KNOWN);
        let port = |name: &str| {
            known
                .iter()
                .find(|service| service.names[0] == name)
                .map(|service| service.port)
        };
        assert_eq!(port("http-alt"), Some(8080));
        assert_eq!(port("sip"), Some(5060));
        assert_eq!(LocalNames.port("http", "tcp"), Some(80));
        assert_eq!(LocalNames.service(443, "tcp").as_deref(), Some("https"));
        assert_eq!(LocalNames.service(9899, "sctp"), None);
        assert_eq!(LocalNames.address("300.0.0.1"), None);
    }
}
