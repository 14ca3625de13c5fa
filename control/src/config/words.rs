//! The interface's words in the dataplane's, and back.

use std::net::{Ipv4Addr, SocketAddr};

use sluice_dataplane::service::{
    AddressFamily, ClientMask, Method, PersistenceEngine, Protocol, RealServerSpec, SchedulerFlags,
    SchedulerKind, ServiceKey, Tunnel, TunnelChecksum,
};

use crate::api;

/// The dataplane's name of a service.
pub fn service_key(service: &api::ServiceRef) -> ServiceKey {
    match *service {
        api::ServiceRef::Address {
            protocol: given,
            address,
        } => ServiceKey::Address {
            protocol: protocol(given),
            addr: address.ip(),
            port: address.port(),
        },
        api::ServiceRef::Mark { mark, ipv6 } => ServiceKey::Mark {
            mark,
            family: if ipv6 {
                AddressFamily::V6
            } else {
                AddressFamily::V4
            },
        },
    }
}

/// The interface's name of a service.
pub fn service_ref(key: &ServiceKey) -> api::ServiceRef {
    match *key {
        ServiceKey::Address {
            protocol,
            addr,
            port,
        } => api::ServiceRef::Address {
            protocol: api_protocol(protocol),
            address: SocketAddr::new(addr, port),
        },
        ServiceKey::Mark { mark, family } => api::ServiceRef::Mark {
            mark,
            ipv6: family == AddressFamily::V6,
        },
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

/// The interface's name of a mask; `None` for one of all bits.
pub fn mask(mask: ClientMask) -> Option<String> {
    match mask {
        ClientMask::V4(Ipv4Addr::BROADCAST) | ClientMask::V6(128) => None,
        ClientMask::V4(mask) => Some(mask.to_string()),
        ClientMask::V6(length) => Some(length.to_string()),
    }
}

/// The interface's name of a persistence engine.
pub fn engine(engine: PersistenceEngine) -> &'static str {
    match engine {
        PersistenceEngine::Sip => "sip",
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
