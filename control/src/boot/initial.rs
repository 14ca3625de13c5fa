//! `[[service]]`: the services to begin with.

use super::{Boot, RealServer, Service};
use crate::api::{LaddrRef, MarkRuleAdd, RealServerAdd, ServiceAdd, ServiceRef};
use crate::api_error::ApiError;
use crate::config::Change;
use crate::controller::{Controller, Peer};

impl Boot {
    /// Adds the services to begin with, or says which will not do.
    pub fn begin(&self, controller: &mut Controller) -> Result<(), String> {
        for (i, rule) in self.mark_rules.iter().enumerate() {
            let change = Change::MarkRuleAdd(MarkRuleAdd { rule: rule.clone() });
            let made = controller.change(&change, &Peer::Inside("boot file"));
            made.map_err(|error| explain(&format!("mark_rule[{i}]"), &error))?;
        }
        for (i, service) in self.services.iter().enumerate() {
            let place = format!("service[{i}]");
            let mut make = |place: String, change: Change| {
                let made = controller.change(&change, &Peer::Inside("boot file"));
                made.map(drop).map_err(|error| explain(&place, &error))
            };
            let name = service
                .name()
                .map_err(|error| format!("{place}: {error}"))?;
            make(place.clone(), service.add(name))?;
            for (n, address) in service.laddrs.iter().enumerate() {
                let which = LaddrRef {
                    service: name,
                    address: *address,
                };
                make(format!("{place}.laddrs[{n}]"), Change::LaddrAdd(which))?;
            }
            for (n, server) in service.real_servers.iter().enumerate() {
                let place = format!("{place}.real_server[{n}]");
                make(place, server.add(name))?;
            }
        }
        Ok(())
    }
}

impl Service {
    fn name(&self) -> Result<ServiceRef, &'static str> {
        match (self.protocol, self.address, self.fwmark) {
            (Some(protocol), Some(address), None) => Ok(ServiceRef::Address { protocol, address }),
            (None, None, Some(mark)) => Ok(ServiceRef::Mark { mark, ipv6: false }),
            _ => Err("give protocol and address, or else fwmark"),
        }
    }

    fn add(&self, service: ServiceRef) -> Change {
        Change::ServiceAdd(ServiceAdd {
            service,
            scheduler: self.scheduler.clone(),
            scheduler_flags: self.scheduler_flags.clone(),
            persistence_s: self.persistence_s,
            persistence_mask: self.persistence_mask.clone(),
            persistence_engine: self.persistence_engine.clone(),
            one_packet: self.one_packet,
        })
    }
}

impl RealServer {
    fn add(&self, service: ServiceRef) -> Change {
        Change::RealServerAdd(RealServerAdd {
            service,
            address: self.address,
            method: self.method,
            tunnel: self.tunnel,
            weight: self.weight,
            upper_threshold: self.upper_threshold,
            lower_threshold: self.lower_threshold,
        })
    }
}

fn explain(place: &str, error: &ApiError) -> String {
    format!("{place}: {error}")
}
