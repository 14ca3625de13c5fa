//! Frames in, frames out, through a whole worker on in-memory ports.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on has failed"
)]

mod advice;
mod defences;
mod endurance;
mod hand_off;
mod methods;
mod moves;
mod no_allocation;
mod openings;
mod persistence;
mod port;
mod refusals;
mod related;
mod rig;
mod robust;
mod sctp;
mod shares;
mod short_way;
mod slow_path;
mod team;
mod threads;
