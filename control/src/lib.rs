//! The control plane of sluice: JSON-RPC, configuration, publishing to the workers, kernel mirror, clients.

pub mod api;
pub mod api_error;
pub mod boot;
pub mod cli;
pub mod client;
pub mod config;
pub mod controller;
pub mod daemon;
pub mod ipvsadm;
pub mod kernel;
pub mod machine;
mod plain;
pub mod publish;
pub mod rpc;
pub mod settings;
mod spreading;

#[cfg(test)]
mod fake_daemon;
