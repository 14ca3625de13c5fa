//! `[[service]]`: the services to begin with.

use super::{Boot, RealServer, Service};
use crate::api::{LaddrRef, RealServerAdd, ServiceAdd, ServiceRef};
use crate::api_error::ApiError;
use crate::config::Change;
use crate::controller::{Controller, Peer};

impl Boot {
    /// Adds the services to begin with, or says which will not do.
    pub fn begin(&self, controller: &mut Controller) -> Result<(), String> {
        for (i, service) in self.services.iter().enumerate() {
            let place = format!("service[{i}]");
            let mut make = |place: String, change: Change| {
                let made = controller.change(&change, &Peer::Inside("boot file"));
                made.map(drop).map_err(|error| explain(&place, &error))
            };
            make(place.clone(), service.add())?;
            for (n, address) in service.laddrs.iter().enumerate() {
                let which = LaddrRef {
                    service: service.name(),
                    address: *address,
                };
                make(format!("{place}.laddrs[{n}]"), Change::LaddrAdd(which))?;
            }
            for (n, server) in service.real_servers.iter().enumerate() {
                let place = format!("{place}.real_server[{n}]");
                make(place, server.add(service.name()))?;
            }
        }
        Ok(())
    }
}

impl Service {
    fn name(&self) -> ServiceRef {
        ServiceRef {
            protocol: self.protocol,
            address: self.address,
        }
    }

    fn add(&self) -> Change {
        Change::ServiceAdd(ServiceAdd {
            service: self.name(),
            scheduler: self.scheduler.clone(),
            scheduler_flags: self.scheduler_flags.clone(),
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
