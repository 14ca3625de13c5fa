//! The JSON-RPC interface as types, for the daemon and its clients alike.
//!
//! Every method takes named parameters and refuses unknown ones. Lists come in kernel order (`SEMANTICS.md` section
//! 1): services as added, real servers with the latest added first; who prints them sorts.

mod about;
mod change;
mod connection;
mod error;
mod listing;
mod mark;
mod name;
mod setting;
mod stats;
mod steering;
mod sync;

pub use about::{MethodInfo, Methods, Version};
pub use change::{
    Applied, RealServerAdd, RealServerRef, RealServerSet, ServiceAdd, ServiceOnly, ServiceSet,
    SettingSet,
};
pub(crate) use change::{default_scheduler, default_weight};
pub use connection::{Connection, ConnectionList, Connections};
pub use error::{ErrorData, ErrorKind};
pub use listing::{
    LaddrList, RealServer, RealServerList, RealServerOf, Service, ServiceFilter, ServiceList,
};
pub use mark::{MarkRule, MarkRuleAdd, MarkRuleDelete, MarkRuleInsert, MarkRuleList, Ports};
pub use name::{FlowProtocol, LaddrRef, Method, Protocol, ServiceRef, Tunnel, TunnelChecksum};
pub use setting::{Setting, SettingList};
pub use stats::{
    Counters, Drop, Drops, FailedNeighbour, HandedStats, KernelStats, PortStats, Rates, RssStats,
    Stats, WorkerStats,
};
pub use steering::{RssGive, RssTable, RssTableSet};
pub use sync::{SyncDaemon, SyncDaemonList, SyncDaemonStart, SyncDaemonStop, SyncRole};

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/sluice/rpc.sock";
