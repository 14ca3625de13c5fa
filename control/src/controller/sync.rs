//! The synchronisation daemons' configuration: started, stopped, listed (`SEMANTICS.md` section 10). What they do on the wire
//! is not in this version.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::Value;
use sluice_dataplane::service::ServiceKey;
use tracing::{info, warn};

use super::view::to_json;
use super::{Controller, Peer};
use crate::api::{
    Applied, ErrorKind, PortStats, SyncDaemon, SyncDaemonList, SyncDaemonStart, SyncDaemonStop,
    SyncRole,
};
use crate::api_error::ApiError;
use crate::config::Change;

const GROUP: IpAddr = IpAddr::V4(Ipv4Addr::new(224, 0, 0, 81));
const PORT: u16 = 8848;
/// A master's messages fit this many bytes however much the interface could carry.
const MTU: u32 = 1500;
/// A backup reads messages at least this long.
const SHORTEST_OF_BACKUP: u32 = 1024;
const NOTHING_SENT: &str = "this version sends and reads no synchronisation messages: the daemon is configured and listed only";

/// Those that were started.
#[derive(Debug, Default)]
pub(super) struct SyncDaemons {
    master: Option<SyncDaemon>,
    backup: Option<SyncDaemon>,
}

impl SyncDaemons {
    fn place(&mut self, role: SyncRole) -> &mut Option<SyncDaemon> {
        match role {
            SyncRole::Master => &mut self.master,
            SyncRole::Backup => &mut self.backup,
        }
    }

    fn any(&self) -> bool {
        self.master.is_some() || self.backup.is_some()
    }

    /// Real servers of another address family than their service cannot be synchronised (`SEMANTICS.md` section 7).
    pub(super) fn allow(&self, change: &Change) -> Result<(), ApiError> {
        match change {
            Change::RealServerAdd(add)
                if self.any() && add.address.is_ipv6() != add.service.is_ipv6() =>
            {
                Err(ApiError::new(
                    ErrorKind::InvalidParams,
                    "while a synchronisation daemon runs, a real server must be of its service's address family",
                )
                .at("address"))
            }
            _ => Ok(()),
        }
    }
}

impl Controller {
    pub(super) fn sync_daemon_start(
        &mut self,
        start: SyncDaemonStart,
        peer: &Peer,
    ) -> Result<Value, ApiError> {
        let SyncDaemonStart {
            role, interface, ..
        } = &start;
        if self.mixes_families() {
            return Err(ApiError::new(
                ErrorKind::InvalidParams,
                "a real server is of another address family than its service, which cannot be synchronised: delete it first",
            )
            .at("address"));
        }
        let ports = (self.ports)();
        let is_it = |port: &&PortStats| {
            port.name == *interface || port.exception.as_ref() == Some(interface)
        };
        let Some(port) = ports.iter().find(is_it) else {
            let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
            return Err(ApiError::new(
                ErrorKind::NoSuchInterface,
                format!(
                    "there is no port {interface:?}; there are {}",
                    names.join(", ")
                ),
            )
            .at("interface"));
        };
        let daemon = daemon(&start, port)?;
        let place = self.sync.place(*role);
        if place.is_some() {
            return Err(ApiError::new(
                ErrorKind::SyncDaemonRuns,
                format!("the {} daemon has been started already", role.name()),
            )
            .at("role"));
        }
        info!(who = %peer, role = role.name(), interface, "sync_daemon_start");
        warn!("{NOTHING_SENT}");
        *place = Some(daemon);
        to_json(Applied {
            revision: self.revision(),
            warnings: vec![NOTHING_SENT.to_owned()],
        })
    }

    pub(super) fn sync_daemon_stop(
        &mut self,
        stop: SyncDaemonStop,
        peer: &Peer,
    ) -> Result<Value, ApiError> {
        let role = stop.role.name();
        if self.sync.place(stop.role).take().is_none() {
            return Err(ApiError::new(
                ErrorKind::NoSyncDaemon,
                format!("the {role} daemon has not been started"),
            )
            .at("role"));
        }
        info!(who = %peer, role, "sync_daemon_stop");
        to_json(Applied {
            revision: self.revision(),
            warnings: Vec::new(),
        })
    }

    pub(super) fn sync_daemon_list(&self) -> Result<Value, ApiError> {
        let daemons = self.sync.master.iter().chain(&self.sync.backup);
        to_json(SyncDaemonList {
            daemons: daemons.cloned().collect(),
        })
    }

    fn mixes_families(&self) -> bool {
        self.config.services().any(|spec| {
            let ServiceKey::Address { addr, .. } = spec.key else {
                return false;
            };
            let mut servers = spec.real_servers.iter();
            servers.any(|server| server.addr.is_ipv4() != addr.is_ipv4())
        })
    }
}

/// The daemon with the defaults filled in.
fn daemon(start: &SyncDaemonStart, port: &PortStats) -> Result<SyncDaemon, ApiError> {
    let refuse = |path: &str, why: String| Err(ApiError::new(ErrorKind::OutOfRange, why).at(path));
    let Ok(syncid) = u8::try_from(start.syncid) else {
        return refuse("syncid", format!("syncid {} is above 255", start.syncid));
    };
    let group = start.group.unwrap_or(GROUP);
    if !group.is_multicast() {
        return refuse("group", format!("group {group} is not a multicast address"));
    }
    let ttl = start.ttl.unwrap_or(1);
    if ttl == 0 {
        return refuse("ttl", "ttl 0 leaves no machine".to_owned());
    }
    let headers = if group.is_ipv4() { 28 } else { 48 };
    let (shortest, mtu) = match start.role {
        SyncRole::Master => (1, MTU),
        SyncRole::Backup => (SHORTEST_OF_BACKUP, MTU.max(port.mtu.into())),
    };
    let maxlen = match start.maxlen {
        None | Some(0) => mtu - headers,
        Some(given) => given.clamp(shortest, 65_535 - headers),
    };
    Ok(SyncDaemon {
        role: start.role,
        interface: start.interface.clone(),
        syncid,
        maxlen,
        group,
        port: start.port.filter(|port| *port != 0).unwrap_or(PORT),
        ttl,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn port(mtu: u16) -> PortStats {
        PortStats {
            mtu,
            ..PortStats::default()
        }
    }

    fn made(params: Value, mtu: u16) -> Result<SyncDaemon, ApiError> {
        daemon(&serde_json::from_value(params).unwrap(), &port(mtu))
    }

    #[test]
    fn messages_are_as_long_as_the_interface_carries_but_a_masters_never_over_1472() {
        let maxlen = |params: Value, mtu| made(params, mtu).unwrap().maxlen;
        assert_eq!(maxlen(json!({"role": "master"}), 1500), 1472);
        assert_eq!(maxlen(json!({"role": "master"}), 9000), 1472);
        assert_eq!(maxlen(json!({"role": "backup"}), 9000), 8972);
        assert_eq!(maxlen(json!({"role": "backup"}), 1400), 1472);
        assert_eq!(
            maxlen(json!({"role": "master", "group": "ff05::1"}), 1500),
            1452
        );
        assert_eq!(maxlen(json!({"role": "master", "maxlen": 100}), 1500), 100);
        assert_eq!(maxlen(json!({"role": "backup", "maxlen": 100}), 1500), 1024);
        assert_eq!(
            maxlen(json!({"role": "master", "maxlen": 65535}), 1500),
            65507
        );
    }

    #[test]
    fn what_no_daemon_could_use_is_refused() {
        for (params, path) in [
            (json!({"role": "master", "syncid": 256}), "syncid"),
            (json!({"role": "master", "group": "10.0.0.1"}), "group"),
            (json!({"role": "master", "ttl": 0}), "ttl"),
        ] {
            let error = made(params, 1500).unwrap_err();
            assert_eq!(error.data.path.as_deref(), Some(path));
        }
    }
}
