//! What a refused request answers.

use serde::{Deserialize, Serialize};

/// A JSON-RPC error's `data`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorData {
    /// What kind of error; stable, for programs.
    pub kind: ErrorKind,
    /// The offending parameter, as in `service.address` or `real_servers[2].weight`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// For [`ErrorKind::AppliedPartially`]: the workers that have not applied the change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub workers: Vec<u16>,
    /// For [`ErrorKind::AppliedPartially`]: the revision they have not reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// Kinds of error. [`ErrorKind::code`] gives the JSON-RPC code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// Not JSON.
    ParseError,
    /// Not a JSON-RPC 2.0 request.
    InvalidRequest,
    /// Unknown method.
    MethodNotFound,
    /// A parameter is missing, unknown or of the wrong type or value.
    InvalidParams,
    /// Longer than the daemon reads.
    RequestTooLarge,
    /// A bug in sluice.
    Internal,
    /// There is such a service already.
    ServiceExists,
    /// There is no such service.
    NoSuchService,
    /// The service has such a real server already.
    ServerExists,
    /// The service has no such real server.
    NoSuchServer,
    /// There is no such scheduler.
    NoSuchScheduler,
    /// There is no such persistence engine.
    NoSuchEngine,
    /// There is no such rule of firewall marks.
    NoSuchRule,
    /// The service has such a local address already.
    LaddrExists,
    /// The service has no such local address.
    NoSuchLaddr,
    /// A number out of range, or contradicting another.
    OutOfRange,
    /// The configured maximum of services, real servers … is reached.
    Full,
    /// FULLNAT needs a local address first, or the last one is still needed.
    NeedsLaddr,
    /// There is no such port.
    NoSuchInterface,
    /// That synchronisation daemon has been started already.
    SyncDaemonRuns,
    /// That synchronisation daemon has not been started.
    NoSyncDaemon,
    /// Some workers have not applied the change in time; it stands, and they will.
    AppliedPartially,
    /// A worker did not answer in time.
    Timeout,
}

impl ErrorKind {
    /// The JSON-RPC error code.
    pub fn code(self) -> i64 {
        match self {
            Self::ParseError => -32700,
            Self::InvalidRequest => -32600,
            Self::MethodNotFound => -32601,
            Self::InvalidParams => -32602,
            Self::Internal => -32603,
            Self::RequestTooLarge => -32000,
            Self::ServiceExists => -32001,
            Self::NoSuchService => -32002,
            Self::ServerExists => -32003,
            Self::NoSuchServer => -32004,
            Self::NoSuchScheduler => -32005,
            Self::LaddrExists => -32006,
            Self::NoSuchLaddr => -32007,
            Self::OutOfRange => -32008,
            Self::Full => -32009,
            Self::NeedsLaddr => -32010,
            Self::AppliedPartially => -32011,
            Self::Timeout => -32012,
            Self::NoSuchInterface => -32020,
            Self::SyncDaemonRuns => -32021,
            Self::NoSyncDaemon => -32022,
            Self::NoSuchEngine => -32013,
            Self::NoSuchRule => -32014,
        }
    }
}
