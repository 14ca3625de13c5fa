//! Replays recorded kernel traces through the real thing.

mod checksum;
pub mod compare;
pub mod decode;
pub mod director;
pub mod kernel;
pub mod trace;
