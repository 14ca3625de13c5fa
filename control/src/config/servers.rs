//! Changes to the real servers of a service.

use std::net::SocketAddr;

use sluice_dataplane::command::ServiceEdit;
use sluice_dataplane::service::{Method, RealServerSpec, RsId, ServiceSpec, Tunnel};

use super::slots::Slot;
use super::words::{self, server_address};
use super::{At, Config, Effect, Fresh, valid};
use crate::api::{ErrorKind, RealServerAdd, RealServerRef, RealServerSet, ServiceRef};
use crate::api_error::ApiError;

impl Config {
    pub(super) fn real_server_add(
        &mut self,
        add: &RealServerAdd,
        at: At,
    ) -> Result<Effect, ApiError> {
        let (birth, spec) = self.find(&add.service)?;
        let spec = spec.clone();
        let method = words::method(add.method);
        let address = valid::server_address(add.address, method, &add.service)?;
        valid::tunnel(add.tunnel, method)?;
        valid::numbers(add.weight, add.upper_threshold, add.lower_threshold)?;
        if position(&spec, address).is_some() {
            return Err(ApiError::new(
                ErrorKind::ServerExists,
                format!("service {} has real server {address} already", add.service),
            )
            .at("address"));
        }
        laddr_for(method, &spec, &add.service)?;
        valid::server_count(spec.scheduler, spec.real_servers.len() + 1, "address")?;
        let (id, revived, continues) = self.server_id(&spec, birth, address, at)?;
        self.server_count += 1;
        let mut spec = ServiceSpec::clone(&spec);
        // The head, as in the kernel: schedulers walk the latest first (`SEMANTICS.md` section 1).
        spec.real_servers.insert(
            0,
            RealServerSpec {
                id,
                addr: address.ip(),
                port: address.port(),
                method,
                tunnel: words::tunnel(add.tunnel),
                weight: add.weight,
                last_weight: add.weight,
                upper_threshold: add.upper_threshold,
                lower_threshold: add.lower_threshold,
            },
        );
        let mut effect = self.put(birth, spec, ServiceEdit::ServerAdded { id, revived });
        if !continues {
            effect.fresh.push(Fresh::Server(id));
        }
        Ok(effect)
    }

    pub(super) fn real_server_set(&mut self, set: &RealServerSet) -> Result<Effect, ApiError> {
        let (birth, spec) = self.find(&set.service)?;
        let place = place_of(spec, set.address, &set.service)?;
        let mut spec = ServiceSpec::clone(spec);
        let mut server = spec.real_servers[place];
        if let Some(method) = set.method {
            server.method = words::method(method);
            same_port(&server, &set.service)?;
            laddr_for(server.method, &spec, &set.service)?;
            valid::same_family(server.addr, server.method, &set.service)?;
            if server.method != Method::Tun {
                server.tunnel = Tunnel::Ipip;
            }
        }
        if let Some(tunnel) = set.tunnel {
            valid::tunnel(tunnel, server.method)?;
            server.tunnel = words::tunnel(tunnel);
        }
        server.weight = set.weight.unwrap_or(server.weight);
        server.upper_threshold = set.upper_threshold.unwrap_or(server.upper_threshold);
        server.lower_threshold = set.lower_threshold.unwrap_or(server.lower_threshold);
        if server.weight > 0 {
            server.last_weight = server.weight;
        }
        valid::numbers(
            server.weight,
            server.upper_threshold,
            server.lower_threshold,
        )?;
        spec.real_servers[place] = server;
        Ok(self.put(birth, spec, ServiceEdit::ServerEdited(server.id)))
    }

    pub(super) fn real_server_delete(
        &mut self,
        which: &RealServerRef,
        at: At,
    ) -> Result<Effect, ApiError> {
        let (birth, spec) = self.find(&which.service)?;
        let place = place_of(spec, which.address, &which.service)?;
        let mut spec = ServiceSpec::clone(spec);
        let server = spec.real_servers.remove(place);
        self.bury(spec.key, birth, &server, at);
        Ok(self.put(birth, spec, ServiceEdit::ServerDeleted(server.id)))
    }

    /// The id for a server that joins, whether it is back from the trash, and whether its statistics go on.
    fn server_id(
        &mut self,
        spec: &ServiceSpec,
        birth: u64,
        address: SocketAddr,
        at: At,
    ) -> Result<(RsId, bool, bool), ApiError> {
        let max = self.limits.max_real_servers;
        if self.server_count >= max {
            return Err(ApiError::new(
                ErrorKind::Full,
                format!(
                    "there are {max} real servers already, as many as limits.max_real_servers of the boot file allows"
                ),
            ));
        }
        if let Some(trashed) = self.trash.remove(&(spec.key, address)) {
            return Ok((trashed.id, true, trashed.birth == birth));
        }
        let Slot { index, generation } = self.server_slots.take(at.applied).ok_or_else(|| {
            ApiError::new(
                ErrorKind::Full,
                format!(
                    "every place for a real server is taken: {} deleted ones wait for their connections to end, or for two minutes after that; raise limits.max_real_servers in the boot file",
                    self.trash.len()
                ),
            )
        })?;
        Ok((RsId { index, generation }, false, false))
    }
}

fn position(spec: &ServiceSpec, address: SocketAddr) -> Option<usize> {
    spec.real_servers
        .iter()
        .position(|server| server_address(server) == address)
}

fn place_of(
    spec: &ServiceSpec,
    address: SocketAddr,
    service: &ServiceRef,
) -> Result<usize, ApiError> {
    position(spec, address).ok_or_else(|| {
        let same_host = spec
            .real_servers
            .iter()
            .find(|server| server.addr == address.ip());
        let hint = same_host.map_or(String::new(), |server| {
            format!(", but {}", server_address(server))
        });
        ApiError::new(
            ErrorKind::NoSuchServer,
            format!("service {} has no real server {address}{hint}", service),
        )
        .at("address")
    })
}

fn laddr_for(method: Method, spec: &ServiceSpec, service: &ServiceRef) -> Result<(), ApiError> {
    if method == Method::FullNat && spec.laddrs.is_empty() {
        return Err(ApiError::new(
            ErrorKind::NeedsLaddr,
            format!(
                "FULLNAT without a local address: give service {} one first (laddr_add)",
                service
            ),
        )
        .at("method"));
    }
    Ok(())
}

/// DR and TUN leave the port alone, so a server on another one cannot become theirs.
fn same_port(server: &RealServerSpec, service: &ServiceRef) -> Result<(), ApiError> {
    let keeps_port = matches!(server.method, Method::Dr | Method::Tun);
    if keeps_port && server.port != service.port() {
        return Err(ApiError::new(
            ErrorKind::InvalidParams,
            format!(
                "DR and TUN cannot change the port, and real server {} has another than the service: delete it and add it anew",
                server_address(server)
            ),
        )
        .at("method"));
    }
    Ok(())
}
