//! Where clients and real servers are: behind which of the appliance's ports.

use sluice_control::api::Method;
use sluice_dataplane::command::PortId;
use sluice_dataplane::steer::Side;

use crate::scenario::{Balanced, network, surroundings};

/// Ways to cable an appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cabling {
    /// Clients behind one port, real servers behind another.
    TwoArms,
    /// Everybody behind the only port.
    OneArm,
    /// As [`Cabling::TwoArms`], but real servers answer to a third port.
    ThirdPort,
}

impl Cabling {
    /// All.
    pub const ALL: [Self; 3] = [Self::TwoArms, Self::OneArm, Self::ThirdPort];

    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::TwoArms => "two-arms",
            Self::OneArm => "one-arm",
            Self::ThirdPort => "third-port",
        }
    }

    /// How many ports there are.
    pub fn ports(self) -> usize {
        self.names().len()
    }

    /// The ports' names.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::TwoArms => &["clients", "servers"],
            Self::OneArm => &["wire"],
            Self::ThirdPort => &["clients", "servers", "replies"],
        }
    }

    /// The port that clients are behind.
    pub fn clients(self) -> PortId {
        PortId(0)
    }

    /// The port by which packets go to real servers.
    pub fn servers(self) -> PortId {
        match self {
            Self::TwoArms | Self::ThirdPort => PortId(1),
            Self::OneArm => PortId(0),
        }
    }

    /// The port by which packets come from real servers.
    pub fn replies(self) -> PortId {
        match self {
            Self::TwoArms => PortId(1),
            Self::OneArm => PortId(0),
            Self::ThirdPort => PortId(2),
        }
    }

    /// Whom a port faces.
    pub fn side(self, port: PortId) -> Side {
        match self {
            Self::OneArm => Side::Both,
            _ if port == self.clients() => Side::Clients,
            _ => Side::Servers,
        }
    }

    /// The rest of a boot file: addresses, neighbours and a service.
    pub fn network(self, method: Method, service: &Balanced) -> String {
        network(self.sides(), method, service)
    }

    /// The same without the service.
    pub fn surroundings(self) -> String {
        surroundings(self.sides())
    }

    fn sides(self) -> (&'static str, &'static str) {
        let name = |port: PortId| self.names()[usize::from(port.0)];
        (name(self.clients()), name(self.servers()))
    }
}
