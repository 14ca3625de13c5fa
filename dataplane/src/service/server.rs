//! A real server's state in one worker: whether it may be used, and how loaded it is.

use super::colleagues::Thresholds;
use super::{RealServerSpec, ServiceId};
use crate::egress::HopRef;

/// One real server. Outlives its deletion while connections refer to it.
#[derive(Clone, Copy, Debug)]
pub struct Server {
    /// Which of the successive tenants of its place this is.
    pub generation: u32,
    /// Whether it is in a service now.
    pub available: bool,
    /// The service it is in, or was in last.
    pub service: ServiceId,
    /// 0 takes no new connections.
    pub weight: u32,
    /// Connections that count as active.
    pub active: u32,
    /// All its other connections.
    pub inactive: u32,
    /// Active and inactive connections that other workers have, as last seen.
    pub(super) others: (u32, u32),
    /// Its connections are counted in what all workers share.
    pub(super) shared: bool,
    /// The way to it that a packet took last.
    pub hop: HopRef,
    overloaded: bool,
    upper: u32,
    lower: u32,
    /// Its place in its service's list.
    pub(super) place: u32,
    /// Its service's scheduler follows its counts.
    pub(super) followed: bool,
    /// They changed since the scheduler looked.
    pub(super) changed: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            generation: 0,
            available: false,
            service: ServiceId(u32::MAX),
            weight: 0,
            active: 0,
            inactive: 0,
            others: (0, 0),
            shared: false,
            hop: HopRef::NONE,
            overloaded: false,
            upper: 0,
            lower: 0,
            place: 0,
            followed: false,
            changed: false,
        }
    }
}

/// Thresholds (`SEMANTICS.md` section 3): from the upper one on a server is overloaded, until it falls below the lower.
impl Server {
    /// The next tenant of a place, not in any service yet.
    pub(super) fn new(generation: u32) -> Self {
        Self {
            generation,
            ..Self::default()
        }
    }

    /// It is in no service from now on.
    pub(super) fn leave(&mut self) {
        self.available = false;
        self.followed = false;
        self.changed = false;
    }

    /// Connections that count as active, of all workers.
    pub fn active_everywhere(&self) -> u32 {
        self.active + self.others.0
    }

    /// Connections of any kind, of all workers.
    pub fn total_everywhere(&self) -> u32 {
        self.total() + self.others.0 + self.others.1
    }

    /// Its thresholds.
    pub(super) fn thresholds(&self) -> Thresholds {
        (self.upper, self.lower)
    }

    /// Takes over what all workers together found.
    pub(super) fn set_overloaded(&mut self, overloaded: bool) {
        self.overloaded = overloaded;
    }

    /// Connections of any kind, of this worker.
    pub fn total(&self) -> u32 {
        self.active + self.inactive
    }

    /// Whether it takes no new connections because it has too many.
    pub fn overloaded(&self) -> bool {
        self.overloaded
    }

    /// Takes weight and thresholds over. Thresholds that changed set or lift the overload, or leave it as it is
    /// between the two.
    pub(super) fn set_spec(&mut self, spec: &RealServerSpec) {
        self.weight = spec.weight;
        let lower = match (spec.lower_threshold, spec.upper_threshold) {
            (0, upper) => upper - upper / 4,
            (lower, _) => lower,
        };
        let changed = (self.upper, self.lower) != (spec.upper_threshold, lower);
        (self.upper, self.lower) = (spec.upper_threshold, lower);
        if changed {
            if self.upper == 0 || self.total() < self.lower {
                self.overloaded = false;
            } else if self.total() >= self.upper {
                self.overloaded = true;
            }
        }
    }

    /// After a connection came.
    pub(super) fn reached(&mut self) {
        if self.upper != 0 && self.total() >= self.upper {
            self.overloaded = true;
        }
    }

    /// After a connection went.
    pub(super) fn fell(&mut self) {
        if self.upper == 0 || self.total() < self.lower {
            self.overloaded = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::super::{Method, RsId, Tunnel};
    use super::*;

    fn spec(upper: u32, lower: u32) -> RealServerSpec {
        RealServerSpec {
            id: RsId {
                index: 0,
                generation: 0,
            },
            addr: IpAddr::V4(Ipv4Addr::new(192, 168, 1, 1)),
            port: 80,
            method: Method::Nat,
            tunnel: Tunnel::Ipip,
            weight: 1,
            last_weight: 1,
            upper_threshold: upper,
            lower_threshold: lower,
        }
    }

    fn with_connections(upper: u32, lower: u32, count: u32) -> Server {
        let mut server = Server::default();
        server.set_spec(&spec(upper, lower));
        for _ in 0..count {
            server.inactive += 1;
            server.reached();
        }
        server
    }

    fn lose(server: &mut Server) {
        server.inactive -= 1;
        server.fell();
    }

    #[test]
    fn overload_begins_at_the_upper_threshold_and_ends_below_the_lower() {
        let mut server = with_connections(4, 2, 3);
        assert!(!server.overloaded());
        server.inactive += 1;
        server.reached();
        assert!(server.overloaded());
        lose(&mut server);
        lose(&mut server);
        assert!(server.overloaded(), "2 is not below 2");
        lose(&mut server);
        assert!(!server.overloaded());
    }

    #[test]
    fn without_a_lower_threshold_three_quarters_of_the_upper_hold() {
        let mut server = with_connections(4, 0, 4);
        lose(&mut server);
        assert!(server.overloaded(), "3 is not below 3");
        lose(&mut server);
        assert!(!server.overloaded());
    }

    #[test]
    fn raising_the_threshold_over_the_load_does_not_lift_the_overload() {
        let mut server = with_connections(4, 2, 4);
        server.set_spec(&spec(10, 2));
        assert!(server.overloaded());
        server.set_spec(&spec(10, 5));
        assert!(!server.overloaded());
        server.set_spec(&spec(4, 2));
        assert!(server.overloaded());
        server.set_spec(&spec(0, 0));
        assert!(!server.overloaded());
    }
}
