//! A change that somebody asks for, not yet checked against anything.

use std::fmt;

use crate::api::{
    LaddrRef, MarkRuleAdd, MarkRuleDelete, MarkRuleInsert, Method, RealServerAdd, RealServerRef,
    RealServerSet, ServiceAdd, ServiceOnly, ServiceSet, Tunnel,
};

/// One wish of an operator, with the parameters of the JSON-RPC method of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new service.
    ServiceAdd(ServiceAdd),
    /// Other attributes for a service.
    ServiceSet(ServiceSet),
    /// A service goes, and its real servers with it.
    ServiceDelete(ServiceOnly),
    /// A new real server.
    RealServerAdd(RealServerAdd),
    /// Other attributes for a real server.
    RealServerSet(RealServerSet),
    /// A real server goes.
    RealServerDelete(RealServerRef),
    /// A new local address.
    LaddrAdd(LaddrRef),
    /// A local address goes.
    LaddrDelete(LaddrRef),
    /// A rule of firewall marks at the end.
    MarkRuleAdd(MarkRuleAdd),
    /// A rule of firewall marks before others.
    MarkRuleInsert(MarkRuleInsert),
    /// A rule of firewall marks goes.
    MarkRuleDelete(MarkRuleDelete),
}

impl fmt::Display for Change {
    /// As the log shows it: `real_server_set tcp 10.0.0.1:80 192.168.1.2:80 weight=0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceAdd(p) => {
                write!(f, "service_add {} scheduler={}", p.service, p.scheduler)?;
                let flags = Some(p.scheduler_flags.join(","));
                given(
                    f,
                    "scheduler_flags",
                    flags.filter(|flags| !flags.is_empty()),
                )?;
                given(f, "persistence_s", Some(p.persistence_s).filter(|s| *s > 0))?;
                given(f, "persistence_mask", p.persistence_mask.as_ref())?;
                given(f, "persistence_engine", p.persistence_engine.as_ref())?;
                given(f, "one_packet", p.one_packet.then_some(true))
            }
            Self::ServiceSet(p) => {
                write!(f, "service_set {}", p.service)?;
                given(f, "scheduler", p.scheduler.as_ref())?;
                let flags = p.scheduler_flags.as_ref();
                given(f, "scheduler_flags", flags.map(|flags| flags.join(",")))?;
                given(f, "persistence_s", p.persistence_s)?;
                given(f, "persistence_mask", p.persistence_mask.as_ref())?;
                given(f, "persistence_engine", p.persistence_engine.as_ref())?;
                given(f, "one_packet", p.one_packet)
            }
            Self::ServiceDelete(p) => write!(f, "service_delete {}", p.service),
            Self::RealServerAdd(p) => {
                write!(f, "real_server_add {} {}", p.service, p.address)?;
                write!(f, " method={} weight={}", method(p.method), p.weight)?;
                given(
                    f,
                    "tunnel",
                    Some(p.tunnel)
                        .filter(|tunnel| !tunnel.is_ipip())
                        .map(tunnel),
                )?;
                given(f, "upper_threshold", Some(p.upper_threshold))?;
                given(f, "lower_threshold", Some(p.lower_threshold))
            }
            Self::RealServerSet(p) => {
                write!(f, "real_server_set {} {}", p.service, p.address)?;
                given(f, "method", p.method.map(method))?;
                given(f, "tunnel", p.tunnel.map(tunnel))?;
                given(f, "weight", p.weight)?;
                given(f, "upper_threshold", p.upper_threshold)?;
                given(f, "lower_threshold", p.lower_threshold)
            }
            Self::RealServerDelete(p) => {
                write!(f, "real_server_delete {} {}", p.service, p.address)
            }
            Self::LaddrAdd(p) => write!(f, "laddr_add {} {}", p.service, p.address),
            Self::LaddrDelete(p) => write!(f, "laddr_delete {} {}", p.service, p.address),
            Self::MarkRuleAdd(p) => write!(f, "mark_rule_add {}", p.rule),
            Self::MarkRuleInsert(p) => {
                write!(f, "mark_rule_insert {} position={}", p.rule, p.position)
            }
            Self::MarkRuleDelete(p) => {
                write!(f, "mark_rule_delete")?;
                given(f, "position", p.position)?;
                given(f, "rule", p.rule.as_ref())
            }
        }
    }
}

fn method(method: Method) -> &'static str {
    match method {
        Method::Nat => "nat",
        Method::Dr => "dr",
        Method::Tun => "tun",
        Method::FullNat => "fullnat",
    }
}

fn tunnel(tunnel: Tunnel) -> String {
    match tunnel {
        Tunnel::Ipip => "ipip".to_owned(),
        Tunnel::Gre { checksum } => format!("gre/{checksum:?}").to_lowercase(),
        Tunnel::Gue { port, checksum } => format!("gue:{port}/{checksum:?}").to_lowercase(),
    }
}

fn given(f: &mut fmt::Formatter<'_>, name: &str, value: Option<impl fmt::Display>) -> fmt::Result {
    match value {
        Some(value) => write!(f, " {name}={value}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_shows_what_was_given_and_nothing_else() {
        let change = Change::RealServerSet(RealServerSet {
            service: crate::api::ServiceRef::Address {
                protocol: crate::api::Protocol::Tcp,
                address: "10.0.0.1:80".parse().unwrap(),
            },
            address: "192.168.1.2:80".parse().unwrap(),
            method: None,
            tunnel: None,
            weight: Some(0),
            upper_threshold: None,
            lower_threshold: None,
        });
        assert_eq!(
            change.to_string(),
            "real_server_set tcp 10.0.0.1:80 192.168.1.2:80 weight=0"
        );
    }
}
