//! The control plane of sluice: JSON-RPC, configuration, publishing to the workers, kernel mirror, clients.

pub mod api;
pub mod client;
pub mod ipvsadm;

#[cfg(test)]
mod fake_daemon;
