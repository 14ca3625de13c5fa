//! A service to choose servers of, without a worker around it.

use std::net::{IpAddr, Ipv4Addr};

use sluice_dataplane::sched;
use sluice_dataplane::service::{
    Method, Protocol, RealServerSpec, RsId, SchedulerKind, ServiceId, ServiceKey, ServiceSpec,
    Tunnel,
};

use crate::scenario::VIP;

/// Service 0, of so many servers whose weights are one to five times `unit` in turn.
pub fn service(kind: SchedulerKind, servers: u32, unit: u32) -> ServiceSpec {
    let key = ServiceKey::Address {
        protocol: Protocol::Tcp,
        addr: IpAddr::V4(*VIP.ip()),
        port: VIP.port(),
    };
    let server = |index| {
        let weight = unit * (1 + index % 5);
        RealServerSpec {
            id: RsId {
                index,
                generation: 0,
            },
            addr: IpAddr::V4(Ipv4Addr::from_bits(0xc0a8_0000 + index)),
            port: 80,
            method: Method::Nat,
            tunnel: Tunnel::Ipip,
            weight,
            last_weight: weight,
            upper_threshold: 0,
            lower_threshold: 0,
        }
    };
    let real_servers: Vec<_> = (0..servers).map(server).collect();
    ServiceSpec {
        scheduler: kind,
        scheduler_table: sched::table(kind, &real_servers),
        real_servers,
        ..ServiceSpec::new(ServiceId(0), key)
    }
}
