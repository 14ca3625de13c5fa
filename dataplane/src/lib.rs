//! The data plane of sluice: everything that a worker does. Knows no JSON, no files, no tokio.

pub mod command;
pub mod conn;
pub mod dpdk;
pub mod drop_reason;
pub mod egress;
mod forward;
pub mod io;
pub mod packet;
pub mod parse;
mod pipeline;
mod prefetch;
pub mod punt;
pub mod sched;
pub mod service;
pub mod settings;
pub mod stats;
pub mod steer;
pub mod time;
pub mod worker;
