//! What values a configuration may have. Past this nobody checks again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use sluice_dataplane::sched::MH_MAX_SERVERS;
use sluice_dataplane::service::{
    ClientMask, Method, Persistence, PersistenceEngine, SchedulerFlags, SchedulerKind, ServiceKey,
};

use super::words;
use crate::api::{ErrorKind, Protocol, ServiceRef, Tunnel, TunnelChecksum};
use crate::api_error::ApiError;

/// The largest weight and threshold: IPVS keeps both in signed 32 bits (`SEMANTICS.md` section 3).
pub const MAX_NUMBER: u32 = i32::MAX as u32;

/// The longest persistence: 31 days, as ipvsadm has it.
const MAX_PERSISTENCE_S: u32 = 31 * 24 * 3600;

/// The key of a service that may be added.
pub(super) fn new_service(service: &ServiceRef, persistent: bool) -> Result<ServiceKey, ApiError> {
    let address = match service {
        ServiceRef::Address { address, .. } => address,
        ServiceRef::Mark { mark: 0, .. } => {
            let why = "a service needs a firewall mark from 1 to 4294967295: 0 is no mark";
            return Err(ApiError::new(ErrorKind::OutOfRange, why).at("service.fwmark"));
        }
        ServiceRef::Mark { .. } => return Ok(words::service_key(service)),
    };
    unicast(address.ip(), "service", "service.address")?;
    // No client ever sends to these from elsewhere.
    let vip = address.ip();
    let reserved = matches!(vip, IpAddr::V4(vip) if vip.octets()[0] >= 240);
    if vip.is_loopback() || reserved {
        let why = format!("service {vip} is not a unicast address that clients can reach");
        return Err(ApiError::new(ErrorKind::InvalidParams, why).at("service.address"));
    }
    if address.port() == 0 && !persistent {
        return Err(ApiError::new(
            ErrorKind::OutOfRange,
            "a service needs a port from 1 to 65535: port 0 (all ports) is only for persistent services",
        )
        .at("service.address"));
    }
    Ok(words::service_key(service))
}

/// Persistence of `service`; none for 0 seconds.
pub(super) fn persistence(
    service: &ServiceRef,
    timeout_s: u32,
    mask: Option<&str>,
) -> Result<Option<Persistence>, ApiError> {
    let ipv6 = service.is_ipv6();
    let mask = mask.filter(|mask| !mask.is_empty());
    let read = match mask {
        None if ipv6 => Some(ClientMask::V6(128)),
        None => Some(ClientMask::V4(Ipv4Addr::BROADCAST)),
        Some(text) if ipv6 => {
            let length = text
                .parse()
                .ok()
                .filter(|length| (1..=128).contains(length));
            length.map(ClientMask::V6)
        }
        Some(text) => text.parse().ok().map(ClientMask::V4),
    };
    let Some(read) = read else {
        let expected = if ipv6 {
            "a prefix length from 1 to 128"
        } else {
            "a netmask such as 255.255.255.0"
        };
        let why = format!(
            "persistence_mask {:?} is not {expected}",
            mask.unwrap_or("")
        );
        return Err(ApiError::new(ErrorKind::InvalidParams, why).at("persistence_mask"));
    };
    if timeout_s > MAX_PERSISTENCE_S {
        return Err(ApiError::new(
            ErrorKind::OutOfRange,
            format!(
                "persistence_s {timeout_s} is above the maximum of {MAX_PERSISTENCE_S} (31 days)"
            ),
        )
        .at("persistence_s"));
    }
    Ok((timeout_s > 0).then_some(Persistence {
        timeout_s,
        mask: read,
    }))
}

/// A persistence engine by its name; none for the empty one.
pub(super) fn engine(name: Option<&str>) -> Result<Option<PersistenceEngine>, ApiError> {
    match name {
        None | Some("") => Ok(None),
        Some("sip") => Ok(Some(PersistenceEngine::Sip)),
        Some(name) => Err(ApiError::new(
            ErrorKind::NoSuchEngine,
            format!("there is no persistence engine {name:?}; there is sip"),
        )
        .at("persistence_engine")),
    }
}

/// Whether `service` has one-packet scheduling.
pub(super) fn one_packet(service: &ServiceRef, wanted: bool) -> Result<bool, ApiError> {
    let can = match service {
        ServiceRef::Address { protocol, .. } => *protocol == Protocol::Udp,
        ServiceRef::Mark { .. } => true,
    };
    if wanted && !can {
        return Err(ApiError::new(
            ErrorKind::InvalidParams,
            format!("one-packet scheduling is for UDP, and service {service} is not"),
        )
        .at("one_packet"));
    }
    Ok(wanted)
}

/// A scheduler by its name.
pub(super) fn scheduler(name: &str) -> Result<SchedulerKind, ApiError> {
    SchedulerKind::from_name(name).ok_or_else(|| {
        let known: Vec<&str> = SchedulerKind::ALL.iter().map(|kind| kind.name()).collect();
        ApiError::new(
            ErrorKind::NoSuchScheduler,
            format!(
                "there is no scheduler {name:?}; there are {}",
                known.join(", ")
            ),
        )
        .at("scheduler")
    })
}

/// A scheduler's switches by their names, its own or `flag-1` to `flag-3`.
pub(super) fn scheduler_flags(
    scheduler: SchedulerKind,
    names: &[String],
) -> Result<SchedulerFlags, ApiError> {
    let own = words::flag_names(scheduler);
    let mut flags = SchedulerFlags::default();
    for (i, name) in names.iter().enumerate() {
        let is_it = |known: &&str| *known == name;
        let bit = own
            .iter()
            .position(is_it)
            .or_else(|| ["flag-1", "flag-2", "flag-3"].iter().position(is_it));
        let Some(bit) = bit else {
            return Err(ApiError::new(
                ErrorKind::InvalidParams,
                format!(
                    "scheduler {} has no flag {name:?}; it has {}",
                    scheduler.name(),
                    own.join(", ")
                ),
            )
            .at(format!("scheduler_flags[{i}]")));
        };
        flags.0 |= 1 << bit;
    }
    Ok(flags)
}

/// Whether a service of this scheduler may have so many real servers.
pub(super) fn server_count(
    scheduler: SchedulerKind,
    count: usize,
    path: &str,
) -> Result<(), ApiError> {
    if scheduler == SchedulerKind::Mh && count > MH_MAX_SERVERS {
        return Err(ApiError::new(
            ErrorKind::InvalidParams,
            format!("scheduler mh takes no more than {MH_MAX_SERVERS} real servers"),
        )
        .at(path));
    }
    Ok(())
}

/// The address of a real server of `service`, with the port that will be stored.
pub(super) fn server_address(
    address: SocketAddr,
    method: Method,
    service: &ServiceRef,
) -> Result<SocketAddr, ApiError> {
    unicast(address.ip(), "real server", "address")?;
    same_family(address.ip(), method, service)?;
    Ok(match method {
        Method::Nat | Method::FullNat => address,
        Method::Dr | Method::Tun => SocketAddr::new(address.ip(), service.port()),
    })
}

/// Only a tunnel takes packets of one family to a server of the other.
pub(super) fn same_family(
    server: IpAddr,
    method: Method,
    service: &ServiceRef,
) -> Result<(), ApiError> {
    if server.is_ipv6() != service.is_ipv6() && method != Method::Tun {
        return Err(ApiError::new(
            ErrorKind::InvalidParams,
            format!("real server {server} is of another address family than its service, which only a tunnel (method tun) can reach"),
        )
        .at("address"));
    }
    Ok(())
}

/// What a tunnel is made of, with the method that it belongs to.
pub(super) fn tunnel(tunnel: Tunnel, method: Method) -> Result<(), ApiError> {
    let refuse = |why: &str| Err(ApiError::new(ErrorKind::InvalidParams, why).at("tunnel"));
    match tunnel {
        Tunnel::Ipip => Ok(()),
        _ if method != Method::Tun => refuse("only a real server of method tun has a tunnel"),
        Tunnel::Gre {
            checksum: TunnelChecksum::Remote,
        } => refuse("remote checksum offload is for gue, not gre"),
        Tunnel::Gue { port: 0, .. } => refuse("a gue tunnel needs a port from 1 to 65535"),
        Tunnel::Gre { .. } | Tunnel::Gue { .. } => Ok(()),
    }
}

/// A local address.
pub(super) fn laddr(address: Ipv4Addr, service: &ServiceRef) -> Result<(), ApiError> {
    if service.is_ipv6() {
        let why =
            format!("FULLNAT is for IPv4: local address {address} is of no use to an IPv6 service");
        return Err(ApiError::new(ErrorKind::InvalidParams, why).at("address"));
    }
    unicast(IpAddr::V4(address), "local address", "address")
}

/// A real server's weight and thresholds together.
pub(super) fn numbers(weight: u32, upper: u32, lower: u32) -> Result<(), ApiError> {
    for (name, value) in [
        ("weight", weight),
        ("upper_threshold", upper),
        ("lower_threshold", lower),
    ] {
        if value > MAX_NUMBER {
            return Err(ApiError::new(
                ErrorKind::OutOfRange,
                format!("{name} {value} is above the maximum of {MAX_NUMBER}"),
            )
            .at(name));
        }
    }
    if lower > upper {
        return Err(ApiError::new(
            ErrorKind::OutOfRange,
            format!(
                "lower_threshold {lower} is above upper_threshold {upper}: it says when a full server takes connections again"
            ),
        )
        .at("lower_threshold"));
    }
    Ok(())
}

fn unicast(address: IpAddr, whose: &str, path: &str) -> Result<(), ApiError> {
    let refuse = |why: String| Err(ApiError::new(ErrorKind::InvalidParams, why).at(path));
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || broadcast {
        return refuse(format!("{whose} {address} is not a unicast address"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_bounded_as_the_kernel_bounds_them() {
        assert!(numbers(MAX_NUMBER, MAX_NUMBER, MAX_NUMBER).is_ok());
        for (weight, upper, lower, path) in [
            (MAX_NUMBER + 1, 0, 0, "weight"),
            (0, u32::MAX, 0, "upper_threshold"),
            (0, 3, 4, "lower_threshold"),
            (0, 0, 1, "lower_threshold"),
        ] {
            let error = numbers(weight, upper, lower).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutOfRange);
            assert_eq!(error.data.path.as_deref(), Some(path));
        }
    }

    #[test]
    fn flags_have_their_schedulers_names_or_numbers() {
        let flags = |scheduler, names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            scheduler_flags(scheduler, &names)
        };
        let named = flags(SchedulerKind::Sh, &["sh-port", "flag-1"]).unwrap();
        assert_eq!(named, SchedulerFlags(3));
        assert_eq!(
            words::scheduler_flags(SchedulerKind::Sh, named),
            ["sh-fallback", "sh-port"]
        );
        let numbered = flags(SchedulerKind::Wlc, &["flag-3"]).unwrap();
        assert_eq!(
            words::scheduler_flags(SchedulerKind::Wlc, numbered),
            ["flag-3"]
        );
        for (scheduler, name) in [
            (SchedulerKind::Mh, "sh-port"),
            (SchedulerKind::Sh, "flag-4"),
        ] {
            let error = flags(scheduler, &["flag-1", name]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidParams);
            assert_eq!(error.data.path.as_deref(), Some("scheduler_flags[1]"));
        }
    }

    #[test]
    fn maglev_has_a_bound_on_servers() {
        assert!(server_count(SchedulerKind::Mh, 4093, "address").is_ok());
        assert!(server_count(SchedulerKind::Mh, 4094, "address").is_err());
        assert!(server_count(SchedulerKind::Sh, 4094, "address").is_ok());
    }

    #[test]
    fn loopback_and_reserved_addresses_are_no_vips() {
        let check = |address: &str| {
            let service = ServiceRef::Address {
                protocol: Protocol::Tcp,
                address: address.parse().unwrap(),
            };
            new_service(&service, false)
        };
        for bad in ["127.0.0.1:80", "127.255.0.1:80", "240.0.0.1:80", "[::1]:80"] {
            let error = check(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidParams, "{bad}");
            assert_eq!(error.data.path.as_deref(), Some("service.address"));
        }
        assert!(check("126.255.255.255:80").is_ok() && check("128.0.0.1:80").is_ok());
    }

    #[test]
    fn only_unicast_addresses_pass() {
        for bad in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "::", "ff02::1"] {
            let error = unicast(bad.parse().unwrap(), "service", "service.address").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidParams, "{bad}");
        }
        for good in ["10.0.0.1", "127.0.0.1", "203.0.113.255", "2001:db8::1"] {
            assert!(unicast(good.parse().unwrap(), "service", "x").is_ok());
        }
    }
}
