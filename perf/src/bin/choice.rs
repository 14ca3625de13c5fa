//! Nanoseconds that a scheduler's choice costs, with 10 and with 1,000 real servers. Around each choice the connection is
//! counted at its server and another one ends there, as in traffic: what schedulers that follow counts pay for that is in it.

#![expect(clippy::print_stdout, reason = "a command line tool")]

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use sluice_dataplane::command::{ServiceEdit, Settings};
use sluice_dataplane::conn::FlowKey;
use sluice_dataplane::sched::{Request, table};
use sluice_dataplane::service::{
    Method, Protocol, RealServerSpec, RsId, SchedulerKind, ServiceId, ServiceKey, ServiceSpec,
    Services, Tunnel,
};
use sluice_dataplane::stats::WorkerCells;
use sluice_dataplane::time::{TickRate, Ticks};
use sluice_perf::timing::own_cpu_ns;

const CHOICES: u32 = 200_000;
const LIVE: usize = 50_000;
const VIP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

fn main() {
    println!("{:<6} {:>12} {:>12}", "", "10 servers", "1000 servers");
    for kind in SchedulerKind::ALL {
        let [few, many] = [10, 1000].map(|servers| cost_ns(kind, servers));
        println!("{:<6} {few:>9.1} ns {many:>9.1} ns", kind.name());
    }
}

fn cost_ns(kind: SchedulerKind, servers: u32) -> f64 {
    let mut services = Services::new(Arc::new(WorkerCells::new(1, servers as usize)));
    services.put(Arc::new(service(kind, servers)), ServiceEdit::Created);
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
                dst: Ipv4Addr::from_bits(VIP.to_bits() + n % 1000),
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

fn service(kind: SchedulerKind, servers: u32) -> ServiceSpec {
    let key = ServiceKey::Address {
        protocol: Protocol::Tcp,
        addr: IpAddr::V4(VIP),
        port: 80,
    };
    // These three hold connections against weights: with small ones every server would be full.
    use SchedulerKind::{Lblc, Lblcr, Ovf};
    let unit = if matches!(kind, Ovf | Lblc | Lblcr) {
        20_000
    } else {
        1
    };
    let server = |index| RealServerSpec {
        id: RsId {
            index,
            generation: 0,
        },
        addr: IpAddr::V4(Ipv4Addr::from_bits(0xc0a8_0000 + index)),
        port: 80,
        method: Method::Nat,
        tunnel: Tunnel::Ipip,
        weight: unit * (1 + index % 5),
        last_weight: unit * (1 + index % 5),
        upper_threshold: 0,
        lower_threshold: 0,
    };
    let real_servers: Vec<_> = (0..servers).map(server).collect();
    ServiceSpec {
        scheduler: kind,
        scheduler_table: table(kind, &real_servers),
        real_servers,
        ..ServiceSpec::new(ServiceId(0), key)
    }
}
