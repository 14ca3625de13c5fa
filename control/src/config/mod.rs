//! The services in memory: persistent maps, so that one change among ten thousand services costs one change.
//!
//! A [`Config`] is a value. [`Config::apply`] makes the next one out of a [`Change`] and says what the workers must be
//! told, or refuses and leaves everything as it was. The rules are those of `SEMANTICS.md`, sections 1, 3 and 11.

mod change;
mod marks;
mod servers;
mod services;
mod slots;
mod trash;
mod valid;
mod warnings;
pub mod words;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use imbl::{HashMap, OrdMap};
use sluice_dataplane::command::{Command, ServiceEdit};
use sluice_dataplane::sched;
use sluice_dataplane::service::{MarkRules, RsId, ServiceId, ServiceKey, ServiceSpec};
use sluice_dataplane::stats::WorkerCells;

use crate::api::{ErrorKind, MarkRule, ServiceRef};
use crate::api_error::ApiError;
use crate::publish::Retired;
use slots::Slots;
use trash::Trashed;

pub use change::Change;
pub use trash::TRASH_PERIOD;
pub use valid::MAX_NUMBER;

/// How much may be configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Services at a time.
    pub max_services: u32,
    /// Real servers at a time, over all services.
    pub max_real_servers: u32,
}

impl Limits {
    /// Places for services: as many again for those just deleted, which the workers may still know.
    pub fn service_slots(self) -> u32 {
        self.max_services.saturating_mul(2)
    }

    /// Places for real servers: as many again for deleted ones that connections refer to.
    pub fn server_slots(self) -> u32 {
        self.max_real_servers.saturating_mul(2)
    }

    /// Bytes that [`Limits::cells`] takes.
    pub fn cells_bytes(self) -> usize {
        WorkerCells::bytes_for(self.service_slots() as usize, self.server_slots() as usize)
    }

    /// Counters with room for all of them, for one worker.
    pub fn cells(self) -> WorkerCells {
        WorkerCells::new(self.service_slots() as usize, self.server_slots() as usize)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_services: 16_384,
            max_real_servers: 65_536,
        }
    }
}

/// All services, and the deleted real servers that are not forgotten yet. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Config {
    limits: Limits,
    /// By order of birth, which is also a service object's identity: a service deleted and added again is another one.
    services: OrdMap<u64, Arc<ServiceSpec>>,
    births: HashMap<ServiceKey, u64>,
    next_birth: u64,
    /// Real servers of all services.
    server_count: u32,
    trash: HashMap<(ServiceKey, SocketAddr), Trashed>,
    service_slots: Slots,
    server_slots: Slots,
    local: Arc<HashSet<IpAddr>>,
    mark_rules: Arc<[MarkRule]>,
    compiled_rules: Arc<MarkRules>,
    /// By port number.
    port_names: Arc<[String]>,
}

/// Where in the flow of revisions a change is made.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// The revision that the change will be.
    pub revision: u64,
    /// The revision that all workers have applied.
    pub applied: u64,
}

/// Whose statistics start at zero with a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// A service's.
    Service(ServiceId),
    /// A real server's.
    Server(RsId),
}

/// A change, made.
#[derive(Debug)]
pub struct Step {
    /// The configuration with the change in it.
    pub config: Config,
    /// What every worker must be told, in this order.
    pub commands: Vec<Command>,
    /// Whose statistics start at zero.
    pub fresh: Vec<Fresh>,
    /// What the workers stop using once they have applied the change; free it only then.
    pub retired: Vec<Retired>,
}

impl Config {
    /// No services.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            services: OrdMap::new(),
            births: HashMap::new(),
            next_birth: 0,
            server_count: 0,
            trash: HashMap::new(),
            service_slots: Slots::new(limits.service_slots()),
            server_slots: Slots::new(limits.server_slots()),
            local: Arc::default(),
            mark_rules: Arc::default(),
            compiled_rules: Arc::default(),
            port_names: Arc::default(),
        }
    }

    /// Makes the change, or says why not. `self` stays as it is either way.
    pub fn apply(&self, change: &Change, at: At) -> Result<Step, ApiError> {
        let mut next = self.clone();
        let effect = match change {
            Change::ServiceAdd(add) => next.service_add(add, at),
            Change::ServiceSet(set) => next.service_set(set),
            Change::ServiceDelete(only) => next.service_delete(&only.service, at),
            Change::RealServerAdd(add) => next.real_server_add(add, at),
            Change::RealServerSet(set) => next.real_server_set(set),
            Change::RealServerDelete(which) => next.real_server_delete(which, at),
            Change::LaddrAdd(which) => next.laddr_add(which),
            Change::LaddrDelete(which) => next.laddr_delete(which),
            Change::MarkRuleAdd(add) => next.mark_rule_insert(&add.rule, None),
            Change::MarkRuleInsert(add) => next.mark_rule_insert(&add.rule, Some(add.position)),
            Change::MarkRuleDelete(which) => next.mark_rule_delete(which),
        }?;
        Ok(effect.into_step(next))
    }

    /// The addresses of this machine are these. No commands when that changes no service.
    pub fn with_local_addresses(&self, local: HashSet<IpAddr>) -> Step {
        let mut next = self.clone();
        next.local = Arc::new(local);
        let moved: Vec<(u64, ServiceSpec)> = next
            .services
            .iter()
            .filter(|(_, spec)| next.is_local(&spec.key) != spec.vip_local)
            .map(|(birth, spec)| (*birth, ServiceSpec::clone(spec)))
            .collect();
        let mut effect = Effect::default();
        for (birth, mut spec) in moved {
            spec.vip_local = !spec.vip_local;
            effect.absorb(next.put(birth, spec, ServiceEdit::Edited));
        }
        effect.into_step(next)
    }

    /// The services, as added.
    pub fn services(&self) -> impl Iterator<Item = &Arc<ServiceSpec>> {
        self.services.values()
    }

    /// One service.
    pub fn service(&self, service: &ServiceRef) -> Result<&Arc<ServiceSpec>, ApiError> {
        self.find(service).map(|(_, spec)| spec)
    }

    /// How much may be configured.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// How many services there are.
    pub fn service_count(&self) -> usize {
        self.services.len()
    }

    fn find(&self, service: &ServiceRef) -> Result<(u64, &Arc<ServiceSpec>), ApiError> {
        self.births
            .get(&words::service_key(service))
            .and_then(|birth| Some((*birth, self.services.get(birth)?)))
            .ok_or_else(|| {
                ApiError::new(
                    ErrorKind::NoSuchService,
                    format!("there is no service {}", service),
                )
                .at("service")
            })
    }

    /// Stores a service, and says what that does.
    fn put(&mut self, birth: u64, mut spec: ServiceSpec, edit: ServiceEdit) -> Effect {
        let old = self.services.get(&birth);
        let same_scheduler = old.is_some_and(|old| old.scheduler == spec.scheduler);
        if !same_scheduler || edit != ServiceEdit::Edited {
            spec.scheduler_table = sched::table(spec.scheduler, &spec.real_servers);
        }
        let service = Arc::new(spec);
        let old = self.services.insert(birth, Arc::clone(&service));
        Effect {
            commands: vec![Command::PutService { service, edit }],
            retired: old.into_iter().map(|old| old as Retired).collect(),
            fresh: Vec::new(),
        }
    }

    /// Those of `addresses` that are none of this machine.
    pub fn not_local(&self, addresses: &[Ipv4Addr]) -> Vec<Ipv4Addr> {
        let away = |address: &&Ipv4Addr| !self.local.contains(&IpAddr::V4(**address));
        addresses.iter().filter(away).copied().collect()
    }

    fn is_local(&self, key: &ServiceKey) -> bool {
        match key {
            ServiceKey::Address { addr, .. } => self.local.contains(addr),
            ServiceKey::Mark { .. } => true,
        }
    }
}

/// What a change does beside the new configuration.
#[derive(Debug, Default)]
struct Effect {
    commands: Vec<Command>,
    retired: Vec<Retired>,
    fresh: Vec<Fresh>,
}

impl Effect {
    fn absorb(&mut self, other: Self) {
        self.commands.extend(other.commands);
        self.retired.extend(other.retired);
        self.fresh.extend(other.fresh);
    }

    fn into_step(self, config: Config) -> Step {
        Step {
            config,
            commands: self.commands,
            fresh: self.fresh,
            retired: self.retired,
        }
    }
}

#[cfg(test)]
mod tests;
