//! End to end: real clients, a real `sluiced` on net_tap ports, real servers, each in a namespace of its own.
//!
//! Run as root, one at a time (`.config/nextest.toml` sees to that). [`rig`] builds the wiring of [`netns`] and [`daemon`],
//! [`traffic`] sends and answers; each other file is one theme. What a test has made goes when the test ends, however
//! it ends.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a broken rig is a failed test"
)]

mod bridge;
mod bulk;
mod daemon;
mod doctor;
mod kernel;
mod lifecycle;
mod load;
mod methods;
mod modes;
mod netns;
mod operator;
mod pcap;
mod refusals;
mod replayed;
mod rig;
mod several;
mod shell;
mod tour;
mod traffic;
mod tunnel;
