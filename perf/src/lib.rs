//! Measuring sluice: a rig without hardware for the whole walk, and what is measured on it.

pub mod bench_port;
pub mod rig;
