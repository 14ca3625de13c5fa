//! What can be configured and is listed, as ipvsadm has it, but is not forwarded by this version.

use std::net::SocketAddr;

use super::Change;
use crate::api::{ServiceRef, Tunnel};

impl Change {
    /// What the operator should know of it, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        match self {
            Self::ServiceAdd(add) => {
                let service = add.service;
                let warning = service.is_ipv6().then(|| {
                    format!(
                        "this version forwards no IPv6 packets: those to {service} go to the kernel"
                    )
                });
                warning.into_iter().collect()
            }
            Self::RealServerAdd(add) => tunnel(add.service, add.address, add.tunnel)
                .into_iter()
                .collect(),
            Self::RealServerSet(set) => {
                let tunnel = tunnel(set.service, set.address, set.tunnel.unwrap_or_default());
                tunnel.into_iter().collect()
            }
            _ => Vec::new(),
        }
    }
}

/// About a real server behind a tunnel that cannot be made. An IPv6 service was warned of itself.
fn tunnel(service: ServiceRef, server: SocketAddr, tunnel: Tunnel) -> Option<String> {
    let kind = match tunnel {
        Tunnel::Gre { .. } => "GRE tunnels",
        Tunnel::Gue { .. } => "GUE tunnels",
        Tunnel::Ipip if server.is_ipv6() => "tunnels over IPv6",
        Tunnel::Ipip => return None,
    };
    (!service.is_ipv6()).then(|| {
        format!(
            "this version makes no {kind}: new connections scheduled to {} are dropped (reason unsupported_tunnel)",
            server.ip()
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(protocol: &str, address: &str) -> Vec<String> {
        let params = json!({"service": {"protocol": protocol, "address": address}});
        Change::ServiceAdd(serde_json::from_value(params).unwrap()).warnings()
    }

    fn server(service: &str, address: &str, tunnel: &str) -> Vec<String> {
        let params = json!({
            "service": {"protocol": "tcp", "address": service},
            "address": address,
            "method": "tun",
            "tunnel": {"type": tunnel, "port": 6080},
        });
        let mut params = params;
        if tunnel != "gue" {
            params["tunnel"].as_object_mut().unwrap().remove("port");
        }
        Change::RealServerAdd(serde_json::from_value(params).unwrap()).warnings()
    }

    #[test]
    fn what_is_not_forwarded_is_warned_of_once() {
        assert!(service("tcp", "10.0.0.1:80").is_empty());
        assert!(service("tcp", "[2001:db8::1]:80")[0].contains("no IPv6 packets"));
        assert!(service("sctp", "10.0.0.1:80").is_empty());
        assert_eq!(service("sctp", "[2001:db8::1]:80").len(), 1);
        let v4 = "10.0.0.1:80";
        assert!(server(v4, "192.168.1.1:80", "ipip").is_empty());
        assert!(server(v4, "192.168.1.1:80", "gre")[0].contains("GRE"));
        assert!(server(v4, "192.168.1.1:80", "gue")[0].contains("GUE"));
        assert!(server(v4, "[2001:db8::2]:80", "ipip")[0].contains("IPv6"));
        assert!(server("[2001:db8::1]:80", "192.168.1.1:80", "gre").is_empty());
    }
}
