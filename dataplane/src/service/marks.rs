//! Firewall marks: an ordered list of rules, the replacement for `iptables -t mangle … -j MARK --set-mark`.
//!
//! Only packets that may open a connection are asked about, and only while there are rules and services of marks. Cost: one
//! look at each rule up to the first that fits.

use ipnet::Ipv4Net;

use super::Protocol;
use crate::command::PortId;
use crate::conn::FlowKey;

/// Packets that fit all of this get a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkRule {
    /// The sender's address is in here.
    pub source: Ipv4Net,
    /// The destination's address is in here.
    pub destination: Ipv4Net,
    /// Only this protocol.
    pub protocol: Option<Protocol>,
    /// The sender's port is one of these.
    pub source_ports: PortRange,
    /// The destination's port is one of these.
    pub destination_ports: PortRange,
    /// Only packets that came in here.
    pub ingress: Option<PortId>,
    /// The mark; 0 is none, and keeps later rules from giving one.
    pub mark: u32,
}

/// Ports from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl PortRange {
    /// Every port.
    pub const ALL: Self = Self {
        first: 0,
        last: u16::MAX,
    };

    /// Whether it is one of these.
    #[inline]
    pub fn contains(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }
}

impl MarkRule {
    /// A rule that every packet fits.
    pub fn of(mark: u32) -> Self {
        Self {
            source: Ipv4Net::default(),
            destination: Ipv4Net::default(),
            protocol: None,
            source_ports: PortRange::ALL,
            destination_ports: PortRange::ALL,
            ingress: None,
            mark,
        }
    }

    fn fits(&self, flow: &FlowKey, ingress: PortId) -> bool {
        self.destination.contains(&flow.dst)
            && self.destination_ports.contains(flow.dst_port)
            && self
                .protocol
                .is_none_or(|protocol| protocol == flow.protocol)
            && self.source.contains(&flow.src)
            && self.source_ports.contains(flow.src_port)
            && self.ingress.is_none_or(|port| port == ingress)
    }
}

/// The rules in order: the first that fits decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MarkRules(pub Vec<MarkRule>);

impl MarkRules {
    /// The mark of a packet that came in on `ingress`; 0 for none.
    pub fn mark(&self, flow: &FlowKey, ingress: PortId) -> u32 {
        let mut rules = self.0.iter();
        rules
            .find(|rule| rule.fits(flow, ingress))
            .map_or(0, |rule| rule.mark)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const FLOW: FlowKey = FlowKey {
        src: Ipv4Addr::new(198, 51, 100, 7),
        src_port: 34567,
        dst: Ipv4Addr::new(10, 0, 1, 1),
        dst_port: 80,
        protocol: Protocol::Tcp,
    };

    fn ports(first: u16, last: u16) -> PortRange {
        PortRange { first, last }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let narrow = MarkRule {
            destination: "10.0.1.0/24".parse().unwrap(),
            ..MarkRule::of(5)
        };
        let rules = MarkRules(vec![narrow, MarkRule::of(6)]);
        assert_eq!(rules.mark(&FLOW, PortId(0)), 5);
        let elsewhere = FlowKey {
            dst: Ipv4Addr::new(10, 0, 2, 1),
            ..FLOW
        };
        assert_eq!(rules.mark(&elsewhere, PortId(0)), 6);
        assert_eq!(MarkRules(vec![narrow]).mark(&elsewhere, PortId(0)), 0);
        let exempt = MarkRule { mark: 0, ..narrow };
        assert_eq!(
            MarkRules(vec![exempt, MarkRule::of(6)]).mark(&FLOW, PortId(0)),
            0
        );
    }

    #[test]
    fn each_condition_is_needed() {
        let whole = MarkRule {
            source: "198.51.100.0/24".parse().unwrap(),
            destination: "10.0.1.1/32".parse().unwrap(),
            protocol: Some(Protocol::Tcp),
            source_ports: ports(34567, 34567),
            destination_ports: ports(80, 81),
            ingress: Some(PortId(1)),
            mark: 7,
        };
        let mark = |rule: MarkRule| MarkRules(vec![rule]).mark(&FLOW, PortId(1));
        assert_eq!(mark(whole), 7);
        let misfits = [
            MarkRule {
                source: "198.51.101.0/24".parse().unwrap(),
                ..whole
            },
            MarkRule {
                destination: "10.0.1.2/32".parse().unwrap(),
                ..whole
            },
            MarkRule {
                protocol: Some(Protocol::Udp),
                ..whole
            },
            MarkRule {
                source_ports: ports(34568, 65535),
                ..whole
            },
            MarkRule {
                destination_ports: ports(81, 90),
                ..whole
            },
            MarkRule {
                destination_ports: ports(0, 79),
                ..whole
            },
            MarkRule {
                ingress: Some(PortId(0)),
                ..whole
            },
        ];
        for misfit in misfits {
            assert_eq!(mark(misfit), 0, "{misfit:?}");
        }
    }
}
