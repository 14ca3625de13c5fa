//! Changes to services and their local addresses.

use sluice_dataplane::command::{Command, ServiceEdit};
use sluice_dataplane::service::{Method, SchedulerFlags, ServiceId, ServiceSpec};

use super::change::Name;
use super::slots::Slot;
use super::{At, Config, Effect, Fresh, valid};
use crate::api::{ErrorKind, LaddrRef, ServiceAdd, ServiceRef, ServiceSet};
use crate::api_error::ApiError;

impl Config {
    pub(super) fn service_add(&mut self, add: &ServiceAdd, at: At) -> Result<Effect, ApiError> {
        let key = valid::new_service(&add.service)?;
        let scheduler = valid::scheduler(&add.scheduler)?;
        let scheduler_flags = valid::scheduler_flags(scheduler, &add.scheduler_flags)?;
        if self.births.contains_key(&key) {
            return Err(ApiError::new(
                ErrorKind::ServiceExists,
                format!("there is a service {} already", Name(&add.service)),
            )
            .at("service"));
        }
        let slot = self.free_service_slot(at)?;
        let birth = self.next_birth;
        self.next_birth += 1;
        self.births.insert(key, birth);
        let id = ServiceId(slot.index);
        let spec = ServiceSpec {
            id,
            key,
            scheduler,
            scheduler_flags,
            scheduler_table: None,
            vip_local: self.is_local(&key),
            real_servers: Vec::new(),
            laddrs: Vec::new(),
        };
        let mut effect = self.put(birth, spec, ServiceEdit::Created);
        effect.fresh.push(Fresh::Service(id));
        Ok(effect)
    }

    pub(super) fn service_set(&mut self, set: &ServiceSet) -> Result<Effect, ApiError> {
        let (birth, spec) = self.find(&set.service)?;
        let mut spec = ServiceSpec::clone(spec);
        if let Some(name) = &set.scheduler {
            let scheduler = valid::scheduler(name)?;
            if scheduler != spec.scheduler {
                spec.scheduler_flags = SchedulerFlags::default();
            }
            spec.scheduler = scheduler;
        }
        if let Some(flags) = &set.scheduler_flags {
            spec.scheduler_flags = valid::scheduler_flags(spec.scheduler, flags)?;
        }
        valid::server_count(spec.scheduler, spec.real_servers.len(), "scheduler")?;
        Ok(self.put(birth, spec, ServiceEdit::Edited))
    }

    pub(super) fn service_delete(
        &mut self,
        service: &ServiceRef,
        at: At,
    ) -> Result<Effect, ApiError> {
        let (birth, spec) = self.find(service)?;
        let spec = spec.clone();
        self.services.remove(&birth);
        self.births.remove(&spec.key);
        for server in &spec.real_servers {
            self.bury(spec.key, birth, server, at);
        }
        let slot = Slot {
            index: spec.id.0,
            generation: 0,
        };
        self.service_slots.give(slot, at.revision);
        Ok(Effect {
            commands: vec![Command::DeleteService(spec.id)],
            retired: vec![spec],
            fresh: Vec::new(),
        })
    }

    pub(super) fn laddr_add(&mut self, which: &LaddrRef) -> Result<Effect, ApiError> {
        let (birth, spec) = self.find(&which.service)?;
        valid::laddr(which.address, &which.service)?;
        if spec.laddrs.contains(&which.address) {
            return Err(ApiError::new(
                ErrorKind::LaddrExists,
                format!(
                    "service {} has local address {} already",
                    Name(&which.service),
                    which.address
                ),
            )
            .at("address"));
        }
        let mut spec = ServiceSpec::clone(spec);
        spec.laddrs.push(which.address);
        Ok(self.put(birth, spec, ServiceEdit::Edited))
    }

    pub(super) fn laddr_delete(&mut self, which: &LaddrRef) -> Result<Effect, ApiError> {
        let (birth, spec) = self.find(&which.service)?;
        let place = spec.laddrs.iter().position(|laddr| *laddr == which.address);
        let Some(place) = place else {
            return Err(ApiError::new(
                ErrorKind::NoSuchLaddr,
                format!(
                    "service {} has no local address {}",
                    Name(&which.service),
                    which.address
                ),
            )
            .at("address"));
        };
        let needs = |method| method == Method::FullNat;
        let fullnat = spec.real_servers.iter().find(|rs| needs(rs.method));
        if let Some(server) = fullnat.filter(|_| spec.laddrs.len() == 1) {
            return Err(ApiError::new(
                ErrorKind::NeedsLaddr,
                format!(
                    "{} is the last local address of service {}, and FULLNAT real server {}:{} needs one: add another or delete the server first",
                    which.address,
                    Name(&which.service),
                    server.addr,
                    server.port
                ),
            )
            .at("address"));
        }
        let mut spec = ServiceSpec::clone(spec);
        spec.laddrs.remove(place);
        Ok(self.put(birth, spec, ServiceEdit::Edited))
    }

    fn free_service_slot(&mut self, at: At) -> Result<Slot, ApiError> {
        let max = self.limits.max_services;
        if self.services.len() >= max as usize {
            return Err(ApiError::new(
                ErrorKind::Full,
                format!(
                    "there are {max} services already, as many as limits.max_services of the boot file allows"
                ),
            ));
        }
        self.service_slots.take(at.applied).ok_or_else(|| {
            ApiError::new(
                ErrorKind::Full,
                "every place for a service is taken by deleted ones that the workers still know: try again shortly",
            )
        })
    }
}
