//! The interface's words in the dataplane's, and back.

use std::net::SocketAddr;

use sluice_dataplane::service::{Method, Protocol, RealServerSpec, ServiceKey};

use crate::api;

/// The dataplane's name of a service.
pub fn service_key(service: &api::ServiceRef) -> ServiceKey {
    ServiceKey::Address {
        protocol: protocol(service.protocol),
        addr: service.address.ip(),
        port: service.address.port(),
    }
}

/// The interface's name of a service; `None` for those that it cannot name yet (firewall marks, SCTP).
pub fn service_ref(key: &ServiceKey) -> Option<api::ServiceRef> {
    match *key {
        ServiceKey::Address {
            protocol,
            addr,
            port,
        } => Some(api::ServiceRef {
            protocol: api_protocol(protocol)?,
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
    }
}

/// The interface's name of a protocol, if it has one.
pub fn api_protocol(protocol: Protocol) -> Option<api::Protocol> {
    match protocol {
        Protocol::Tcp => Some(api::Protocol::Tcp),
        Protocol::Udp => Some(api::Protocol::Udp),
        Protocol::Sctp => None,
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

/// Address and port of a real server.
pub fn server_address(server: &RealServerSpec) -> SocketAddr {
    SocketAddr::new(server.addr, server.port)
}
