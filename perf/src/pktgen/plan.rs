//! What is to be sent to whom: valid once it is made.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::ensure;
use ipnet::Ipv4Net;
use sluice_control::api::Method;
use sluice_dataplane::egress::Mac;

use super::pick::Spread;
use super::size::Sizes;
use super::tuple::{Clients, Endpoint};
use super::wire::Protocol;
use crate::scenario::server_mac;

/// Flows that fit what the generator knows of them.
const MOST_FLOWS: u32 = 50_000_000;

/// What flows are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// Datagrams.
    Udp,
    /// Connections that are opened, carry data both ways, and are closed.
    Tcp,
    /// SYNs, each of a connection of its own that comes to nothing more.
    Syn,
}

impl Traffic {
    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Self::Udp => Protocol::Udp,
            Self::Tcp | Self::Syn => Protocol::Tcp,
        }
    }
}

/// Who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nobody is expected to.
    Send,
    /// Something out there that gives every payload back: an echo service, or testpmd.
    Client,
    /// Our own real servers.
    Both,
}

/// All of it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Who answers.
    pub(crate) role: Role,
    /// What flows are made of.
    pub(crate) traffic: Traffic,
    /// The service.
    pub(crate) vip: SocketAddrV4,
    /// The first real server; the others follow it.
    pub(crate) first_server: SocketAddrV4,
    /// Real servers.
    pub(crate) servers: u16,
    /// How packets must come to real servers, if that matters.
    pub(crate) method: Option<Method>,
    /// Where clients are.
    pub(crate) clients: Ipv4Net,
    /// Where those of a flood are.
    pub(crate) flood_clients: Ipv4Net,
    /// The clients' MAC: that of their router.
    pub(crate) client_mac: Mac,
    /// Whom clients' frames go to.
    pub(crate) appliance_mac: Mac,
    /// Flows at a time.
    pub(crate) flows: u32,
    /// How packets spread over them.
    pub(crate) spread: Spread,
    /// Packets with data in a connection before another takes its place; `None` for no end.
    pub(crate) life: Option<u32>,
    /// Connections a second that give way to others, beside those whose life is over.
    pub(crate) churn: f64,
    /// Seconds for which the answer to a SYN or FIN is awaited before another connection takes its place.
    pub(crate) patience_s: u32,
    /// How long frames are.
    pub(crate) sizes: Sizes,
    /// Seeds all that is random.
    pub(crate) seed: u64,
}

impl Plan {
    /// `Err` says what does not go together.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (1..=MOST_FLOWS).contains(&self.flows),
            "there can be 1 to {MOST_FLOWS} flows"
        );
        ensure!(self.servers > 0, "there must be a real server");
        let last_octets = self.first_server.ip().to_bits() & 0xffff;
        ensure!(
            last_octets + u32::from(self.servers) <= 1 << 16,
            "{} real servers from {} on are more than its /16 has: their MACs would not tell them apart",
            self.servers,
            self.first_server.ip()
        );
        let tuples = Clients::new(self.clients).count();
        ensure!(
            u64::from(self.flows) <= tuples,
            "{} has {tuples} pairs of an address and a port and there are {} flows; give --clients a wider network",
            self.clients,
            self.flows
        );
        ensure!(
            self.life != Some(0),
            "a connection's life is 1 packet or longer"
        );
        let lives = self.life.is_some() || self.churn > 0.0;
        ensure!(
            !(lives && self.traffic == Traffic::Syn),
            "each SYN is a connection of its own already: --life and --churn are for udp and tcp"
        );
        ensure!(
            !(self.role == Role::Send && self.traffic == Traffic::Tcp),
            "TCP connections need somebody who answers: with role send, traffic is udp or syn"
        );
        Ok(())
    }

    /// Whether flows stay the same from the first packet to the last.
    pub(crate) fn is_steady(&self) -> bool {
        self.traffic != Traffic::Syn && self.life.is_none() && self.churn == 0.0
    }

    /// The service's end.
    pub(crate) fn vip(&self) -> Endpoint {
        self.vip.into()
    }

    /// Which real server has this address, from 0.
    #[inline]
    pub(crate) fn server_at(&self, addr: u32) -> Option<u16> {
        let place = addr.wrapping_sub(self.first_server.ip().to_bits());
        (place < u32::from(self.servers)).then_some(place as u16)
    }

    /// Which real server has this MAC, from 0.
    #[inline]
    pub(crate) fn server_with(&self, mac: Mac) -> Option<u16> {
        let [.., net, host] = mac.0;
        let low = u32::from(net) << 8 | u32::from(host);
        let addr = self.first_server.ip().to_bits() & 0xffff_0000 | low;
        let found = self.server_at(addr)?;
        (server_mac(Ipv4Addr::from_bits(addr)) == mac).then_some(found)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// UDP between 100 flows and 3 real servers.
    pub(crate) fn plan() -> Plan {
        Plan {
            role: Role::Both,
            traffic: Traffic::Udp,
            vip: "10.0.0.1:80".parse().unwrap(),
            first_server: "192.168.1.1:80".parse().unwrap(),
            servers: 3,
            method: None,
            clients: "11.0.0.0/16".parse().unwrap(),
            flood_clients: "23.0.0.0/8".parse().unwrap(),
            client_mac: Mac([2, 0, 0, 0, 0, 0xfe]),
            appliance_mac: Mac([2, 0, 0, 0, 0, 1]),
            flows: 100,
            spread: Spread::Uniform,
            life: None,
            churn: 0.0,
            patience_s: 3,
            sizes: "64".parse().unwrap(),
            seed: 1,
        }
    }

    #[test]
    fn a_server_is_known_by_its_address_and_by_its_mac() {
        let plan = plan();
        let third = Ipv4Addr::new(192, 168, 1, 3);
        assert_eq!(plan.server_at(third.to_bits()), Some(2));
        assert_eq!(plan.server_with(server_mac(third)), Some(2));
        let fourth = Ipv4Addr::new(192, 168, 1, 4);
        assert_eq!(plan.server_at(fourth.to_bits()), None);
        assert_eq!(plan.server_with(server_mac(fourth)), None);
        assert_eq!(plan.server_with(Mac([9, 9, 9, 9, 1, 1])), None);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let refused = |change: fn(&mut Plan), why: &str| {
            let mut plan = plan();
            assert!(plan.check().is_ok());
            change(&mut plan);
            let error = plan.check().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        refused(|plan| plan.flows = 0, "flows");
        refused(|plan| plan.servers = 0, "real server");
        refused(|plan| plan.servers = u16::MAX, "/16");
        refused(
            |plan| {
                plan.clients = "11.0.0.0/32".parse().unwrap();
                plan.flows = 65_000;
            },
            "wider",
        );
        refused(|plan| plan.life = Some(0), "life");
        refused(
            |plan| {
                plan.traffic = Traffic::Tcp;
                plan.role = Role::Send;
            },
            "answers",
        );
        refused(
            |plan| {
                plan.traffic = Traffic::Syn;
                plan.life = Some(1);
            },
            "--life",
        );
    }
}
