//! Many workers as one appliance: what holds of them together, whoever of them a packet reaches.
//!
//! Four workers on NICs in process, of which the first gets most. Beside them one worker alone, which is the measure.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod control;
mod crowd;
mod persistence;
mod shares;
mod thresholds;
