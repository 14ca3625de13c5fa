//! Changes to services and their local addresses.

use sluice_dataplane::command::{Command, ServiceEdit};
use sluice_dataplane::service::{Method, SchedulerFlags, ServiceId, ServiceSpec};

use super::slots::Slot;
use super::{At, Config, Effect, Fresh, valid, words};
use crate::api::{ErrorKind, LaddrRef, ServiceAdd, ServiceRef, ServiceSet};
use crate::api_error::ApiError;

impl Config {
    pub(super) fn service_add(&mut self, add: &ServiceAdd, at: At) -> Result<Effect, ApiError> {
        let persistence = valid::persistence(
            &add.service,
            add.persistence_s,
            add.persistence_mask.as_deref(),
        )?;
        let key = valid::new_service(&add.service, persistence.is_some())?;
        let scheduler = valid::scheduler(&add.scheduler)?;
        let scheduler_flags = valid::scheduler_flags(scheduler, &add.scheduler_flags)?;
        let engine = valid::engine(add.persistence_engine.as_deref())?;
        let one_packet = valid::one_packet(&add.service, add.one_packet)?;
        if self.births.contains_key(&key) {
            return Err(ApiError::new(
                ErrorKind::ServiceExists,
                format!("there is a service {} already", add.service),
            )
            .at("service"));
        }
        let slot = self.free_service_slot(at)?;
        let birth = self.next_birth;
        self.next_birth += 1;
        self.births.insert(key, birth);
        let id = ServiceId(slot.index);
        let spec = ServiceSpec {
            scheduler,
            scheduler_flags,
            vip_local: self.is_local(&key),
            persistence,
            one_packet,
            engine,
            ..ServiceSpec::new(id, key)
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
        if set.persistence_s.is_some() || set.persistence_mask.is_some() {
            let now = spec.persistence;
            let timeout_s = set
                .persistence_s
                .unwrap_or(now.map_or(0, |now| now.timeout_s));
            let now = now.and_then(|now| words::mask(now.mask));
            let mask = set.persistence_mask.clone().or(now);
            spec.persistence = valid::persistence(&set.service, timeout_s, mask.as_deref())?;
            valid::new_service(&set.service, spec.persistence.is_some())?;
        }
        if let Some(engine) = &set.persistence_engine {
            spec.engine = valid::engine(Some(engine))?;
        }
        if let Some(one_packet) = set.one_packet {
            spec.one_packet = valid::one_packet(&set.service, one_packet)?;
        }
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
                    which.service, which.address
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
                    which.service, which.address
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
                    which.service,
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
