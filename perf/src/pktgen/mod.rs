//! `sluice-pktgen`: a generator of packets for load balancers, and a sink that checks what comes back.
//!
//! [`Options`] is the command line; a [`Session`] has the ports; a [`Report`] is what a run comes to. Inside, one `engine` runs on
//! each core, with `client` (which draws flows, sends, and checks answers) or `servers` (which check and answer) or both. What is
//! on its way is in `flight`, where whoever meets a packet finds what it was when it left; `wire` writes and reads frames. The
//! parts up to `engine` know no DPDK: tests run them against the appliance's worker in memory.

mod client;
mod engine;
mod fault;
mod flight;
mod flow;
mod latency;
mod links;
mod options;
mod outcome;
mod pick;
mod plan;
mod progress;
mod rate;
mod report;
mod search;
mod servers;
mod session;
mod shared;
mod size;
#[cfg(test)]
mod tests;
mod tuple;
mod wire;

pub use fault::{Fault, Faults};
pub use latency::{LatencySummary, Percentiles};
pub use options::Options;
pub use outcome::Outcome;
pub use report::Report;
pub use search::{Found, Tried};
pub use session::Session;

use engine::{Run, Task};

impl Session {
    /// One as the command line wants it. `Err` says what does not go together, or what could not be brought up.
    pub fn of(options: &Options) -> anyhow::Result<Self> {
        options.course()?;
        Self::open(options.plan(), options.place())
    }
}
