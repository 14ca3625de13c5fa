//! The interface's words in the dataplane's, and back.

use std::net::SocketAddr;

use sluice_dataplane::service::{
    Method, Protocol, RealServerSpec, SchedulerFlags, SchedulerKind, ServiceKey, Tunnel,
    TunnelChecksum,
};

use crate::api;

/// The dataplane's name of a service.
pub fn service_key(service: &api::ServiceRef) -> ServiceKey {
    ServiceKey::Address {
        protocol: protocol(service.protocol),
        addr: service.address.ip(),
        port: service.address.port(),
    }
}

/// The interface's name of a service; `None` for those that it cannot name yet (firewall marks).
pub fn service_ref(key: &ServiceKey) -> Option<api::ServiceRef> {
    match *key {
        ServiceKey::Address {
            protocol,
            addr,
            port,
        } => Some(api::ServiceRef {
            protocol: api_protocol(protocol),
            address: SocketAddr::new(addr, port),
        }),
        ServiceKey::Mark { .. } => None,
    }
}

/// The dataplane's name of a protocol.
pub fn protocol(protocol: api::Protocol) -> Protocol {
    match protocol {
        api::Protocol::Tcp => Protocol::Tcp,
        api::Protocol::Udp => Protocol::Udp,
        api::Protocol::Sctp => Protocol::Sctp,
    }
}

/// The interface's name of a protocol.
pub fn api_protocol(protocol: Protocol) -> api::Protocol {
    match protocol {
        Protocol::Tcp => api::Protocol::Tcp,
        Protocol::Udp => api::Protocol::Udp,
        Protocol::Sctp => api::Protocol::Sctp,
    }
}

/// The dataplane's name of a tunnel.
pub fn tunnel(tunnel: api::Tunnel) -> Tunnel {
    let checksum = |checksum| match checksum {
        api::TunnelChecksum::None => TunnelChecksum::None,
        api::TunnelChecksum::Full => TunnelChecksum::Full,
        api::TunnelChecksum::Remote => TunnelChecksum::Remote,
    };
    match tunnel {
        api::Tunnel::Ipip => Tunnel::Ipip,
        api::Tunnel::Gre { checksum: sum } => Tunnel::Gre {
            checksum: checksum(sum),
        },
        api::Tunnel::Gue {
            port,
            checksum: sum,
        } => Tunnel::Gue {
            port,
            checksum: checksum(sum),
        },
    }
}

/// The interface's name of a tunnel.
pub fn api_tunnel(tunnel: Tunnel) -> api::Tunnel {
    let checksum = |checksum| match checksum {
        TunnelChecksum::None => api::TunnelChecksum::None,
        TunnelChecksum::Full => api::TunnelChecksum::Full,
        TunnelChecksum::Remote => api::TunnelChecksum::Remote,
    };
    match tunnel {
        Tunnel::Ipip => api::Tunnel::Ipip,
        Tunnel::Gre { checksum: sum } => api::Tunnel::Gre {
            checksum: checksum(sum),
        },
        Tunnel::Gue {
            port,
            checksum: sum,
        } => api::Tunnel::Gue {
            port,
            checksum: checksum(sum),
        },
    }
}

/// The dataplane's name of a method.
pub fn method(method: api::Method) -> Method {
    match method {
        api::Method::Nat => Method::Nat,
        api::Method::Dr => Method::Dr,
        api::Method::Tun => Method::Tun,
        api::Method::FullNat => Method::FullNat,
    }
}

/// The interface's name of a method.
pub fn api_method(method: Method) -> api::Method {
    match method {
        Method::Nat => api::Method::Nat,
        Method::Dr => api::Method::Dr,
        Method::Tun => api::Method::Tun,
        Method::FullNat => api::Method::FullNat,
    }
}

/// The names of a scheduler's switches, the lowest bit first.
pub fn flag_names(scheduler: SchedulerKind) -> [&'static str; 3] {
    match scheduler {
        SchedulerKind::Sh => ["sh-fallback", "sh-port", "flag-3"],
        SchedulerKind::Mh => ["mh-fallback", "mh-port", "flag-3"],
        _ => ["flag-1", "flag-2", "flag-3"],
    }
}

/// The switches that are on.
pub fn scheduler_flags(scheduler: SchedulerKind, flags: SchedulerFlags) -> Vec<String> {
    let names = flag_names(scheduler).into_iter().enumerate();
    names
        .filter(|(bit, _)| flags.0 >> bit & 1 != 0)
        .map(|(_, name)| name.to_owned())
        .collect()
}

/// Address and port of a real server.
pub fn server_address(server: &RealServerSpec) -> SocketAddr {
    SocketAddr::new(server.addr, server.port)
}
