//! The options of the synchronisation daemons: `--mcast-interface`, `--syncid` and their siblings.

use std::net::IpAddr;

use super::address::number;
use super::command::{SyncDaemonStart, SyncRole};
use super::options::OptId;
use super::parse::{Unusable, usage};

/// What has been read of them.
#[derive(Debug, Default)]
pub(super) struct SyncOptions {
    pub(super) role: Option<SyncRole>,
    interface: String,
    syncid: u32,
    maxlen: Option<u32>,
    group: Option<IpAddr>,
    port: Option<u16>,
    ttl: Option<u8>,
}

impl SyncOptions {
    /// Reads one of them.
    pub(super) fn take(&mut self, id: OptId, text: &str) -> Result<(), Unusable> {
        let in_range = |what: &str, min, max| {
            number(text, min, max).ok_or_else(|| usage(format!("illegal {what} specified")))
        };
        match id {
            OptId::SyncId => self.syncid = in_range("syncid", 0, 255)?,
            OptId::SyncMaxlen => self.maxlen = Some(in_range("sync-maxlen", 1, 65535)?),
            OptId::McastPort => self.port = u16::try_from(in_range("mcast-port", 1, 65535)?).ok(),
            OptId::McastTtl => self.ttl = u8::try_from(in_range("mcast-ttl", 1, 255)?).ok(),
            OptId::McastGroup => {
                let group = text.parse().ok().filter(IpAddr::is_multicast);
                self.group = Some(group.ok_or_else(|| usage("illegal mcast-group specified"))?);
            }
            _ => text.clone_into(&mut self.interface),
        }
        Ok(())
    }

    /// The daemon that is to be started; `None` without a role.
    pub(super) fn finish(self) -> Option<SyncDaemonStart> {
        Some(SyncDaemonStart {
            role: self.role?,
            interface: self.interface,
            syncid: self.syncid,
            maxlen: self.maxlen,
            group: self.group,
            port: self.port,
            ttl: self.ttl,
        })
    }
}
