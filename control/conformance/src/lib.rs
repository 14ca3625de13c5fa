//! Replays recorded kernel traces through the real thing, and says readably what differs.
//!
//! [`trace`] is the format, [`director`] what a header says of the machine, [`rig`] that machine built from sluice with
//! [`kernel`] played beside it. [`replay`] takes a trace through a rig step by step; [`compare`] judges with the masks
//! of the traces' README, [`decode`] shows packets, [`choices`] weighs what was left to chance. Nothing depends on a trace's name.

mod checksum;
pub mod choices;
pub mod compare;
pub mod decode;
pub mod director;
pub mod kernel;
pub mod replay;
pub mod rig;
pub mod suite;
pub mod sysctl;
pub mod trace;
pub mod wire;
