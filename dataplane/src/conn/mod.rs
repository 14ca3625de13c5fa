//! Connections: their key, this worker's table of them, their states and timers, FULLNAT's local ports.

pub mod state;
