//! Nanoseconds that a scheduler's choice costs, with 10 and with 1,000 real servers. Around each choice the connection is
//! counted at its server and another one ends there, as in traffic: what schedulers that follow counts pay for that is in it.

#![expect(clippy::print_stdout, reason = "a command line tool")]

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;

use sluice_dataplane::command::{ServiceEdit, Settings};
use sluice_dataplane::conn::FlowKey;
use sluice_dataplane::sched::Request;
use sluice_dataplane::service::{Protocol, SchedulerKind, ServiceId, Services};
use sluice_dataplane::stats::WorkerCells;
use sluice_dataplane::time::{TickRate, Ticks};
use sluice_perf::choice::service;
use sluice_perf::scenario::VIP;
use sluice_perf::timing::own_cpu_ns;

const CHOICES: u32 = 200_000;
const LIVE: usize = 50_000;

fn main() {
    println!("{:<6} {:>12} {:>12}", "", "10 servers", "1000 servers");
    for kind in SchedulerKind::ALL {
        let [few, many] = [10, 1000].map(|servers| cost_ns(kind, servers));
        println!("{:<6} {few:>9.1} ns {many:>9.1} ns", kind.name());
    }
}

fn cost_ns(kind: SchedulerKind, servers: u32) -> f64 {
    let mut services = Services::new(Arc::new(WorkerCells::new(1, servers as usize)));
    services.put(
        Arc::new(service(kind, servers, unit(kind))),
        ServiceEdit::Created,
    );
    let settings = Settings::default();
    let mut live = VecDeque::with_capacity(LIVE + 1);
    let mut best = u64::MAX;
    for _ in 0..4 {
        let start = own_cpu_ns();
        for n in 0..CHOICES {
            let spread = n.wrapping_mul(2_654_435_761);
            let flow = FlowKey {
                protocol: Protocol::Tcp,
                src: Ipv4Addr::from_bits(0xac10_0000 | spread >> 12),
                src_port: spread as u16,
                dst: Ipv4Addr::from_bits(VIP.ip().to_bits() + n % 1000),
                dst_port: 80,
            };
            let request = Request {
                flow: &flow,
                now: Ticks(u64::from(n)),
                rate: TickRate::NANOSECONDS,
                settings: &settings,
            };
            let Some(server) = services.schedule(ServiceId(0), &request) else {
                continue;
            };
            services.bind(server.id.index);
            services.set_active(server.id.index, true);
            live.push_back(server.id.index);
            if live.len() > LIVE
                && let Some(ended) = live.pop_front()
            {
                services.unbind(ended, true);
            }
        }
        best = best.min(own_cpu_ns() - start);
    }
    best as f64 / f64::from(CHOICES)
}

/// What a weight of one becomes: three schedulers hold connections against weights, and with small ones every server would be full.
fn unit(kind: SchedulerKind) -> u32 {
    use SchedulerKind::{Lblc, Lblcr, Ovf};
    if matches!(kind, Ovf | Lblc | Lblcr) {
        20_000
    } else {
        1
    }
}
