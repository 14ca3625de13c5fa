//! What runs, and what it can be asked.

use serde::{Deserialize, Serialize};

/// `version`'s answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// sluice's version.
    pub sluice: String,
    /// The DPDK release that runs, or `none` without DPDK.
    pub dpdk: String,
}

/// `rpc_methods`' answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Methods {
    /// Every method with a line about it.
    pub methods: Vec<MethodInfo>,
}

/// A method, described.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodInfo {
    /// Its name.
    pub name: String,
    /// What it does, and its parameters.
    pub description: String,
}
