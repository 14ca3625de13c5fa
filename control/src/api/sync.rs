//! The connection synchronisation daemons, as ipvsadm's `--start-daemon` has them.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncRole {
    /// Sends its connections.
    Master,
    /// Takes those of a master.
    Backup,
}

impl SyncRole {
    /// In lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Backup => "backup",
        }
    }
}

/// `sync_daemon_start`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncDaemonStart {
    /// Which daemon.
    pub role: SyncRole,
    /// The port, by its name or its exception interface's.
    #[serde(default)]
    pub interface: String,
    /// 0 to 255; a backup of 0 takes all.
    #[serde(default)]
    pub syncid: u32,
    /// Bytes of a message, at most 65535; what fits the interface if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maxlen: Option<u32>,
    /// Multicast group; 224.0.0.81 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<IpAddr>,
    /// UDP port; 8848 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Time to live, 1 to 255; 1 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u8>,
}

/// `sync_daemon_stop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncDaemonStop {
    /// Which daemon.
    pub role: SyncRole,
}

/// A daemon that was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncDaemon {
    /// Which.
    pub role: SyncRole,
    /// The interface, as it was named.
    pub interface: String,
    /// Its synchronisation id.
    pub syncid: u8,
    /// Bytes of a message at most.
    pub maxlen: u32,
    /// Multicast group.
    pub group: IpAddr,
    /// UDP port.
    pub port: u16,
    /// Time to live.
    pub ttl: u8,
}

/// `sync_daemon_list`'s answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncDaemonList {
    /// The master, then the backup, as far as they were started.
    pub daemons: Vec<SyncDaemon>,
}
