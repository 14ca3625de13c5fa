//! What values a configuration may have. Past this nobody checks again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use sluice_dataplane::service::{Method, SchedulerKind, ServiceKey};

use super::words;
use crate::api::{ErrorKind, ServiceRef};
use crate::api_error::ApiError;

/// The largest weight and threshold: IPVS keeps both in signed 32 bits (`SEMANTICS.md` section 3).
pub const MAX_NUMBER: u32 = i32::MAX as u32;

/// The key of a service that may be added.
pub(super) fn new_service(service: &ServiceRef) -> Result<ServiceKey, ApiError> {
    let address = service.address;
    unicast_v4(address.ip(), "service", "service.address")?;
    if address.port() == 0 {
        return Err(ApiError::new(
            ErrorKind::OutOfRange,
            "a service needs a port from 1 to 65535: port 0 (all ports) is only for persistent services",
        )
        .at("service.address"));
    }
    Ok(words::service_key(service))
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

/// The address of a real server of `service`, with the port that will be stored.
pub(super) fn server_address(
    address: SocketAddr,
    method: Method,
    service: &ServiceRef,
) -> Result<SocketAddr, ApiError> {
    unicast_v4(address.ip(), "real server", "address")?;
    Ok(match method {
        Method::Nat | Method::FullNat => address,
        Method::Dr | Method::Tun => SocketAddr::new(address.ip(), service.address.port()),
    })
}

/// A local address.
pub(super) fn laddr(address: Ipv4Addr) -> Result<(), ApiError> {
    unicast_v4(IpAddr::V4(address), "local address", "address")
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

fn unicast_v4(address: IpAddr, whose: &str, path: &str) -> Result<(), ApiError> {
    let refuse = |why: String| Err(ApiError::new(ErrorKind::InvalidParams, why).at(path));
    match address {
        IpAddr::V6(address) => refuse(format!(
            "{whose} {address} is IPv6, which sluice cannot do yet: give an IPv4 address"
        )),
        IpAddr::V4(v4) if v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast() => {
            refuse(format!("{whose} {v4} is not a unicast address"))
        }
        IpAddr::V4(_) => Ok(()),
    }
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
    fn only_unicast_ipv4_addresses_pass() {
        for bad in ["0.0.0.0", "224.0.0.1", "255.255.255.255", "2001:db8::1"] {
            let error = unicast_v4(bad.parse().unwrap(), "service", "service.address").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidParams, "{bad}");
        }
        for good in ["10.0.0.1", "127.0.0.1", "203.0.113.255"] {
            assert!(unicast_v4(good.parse().unwrap(), "service", "x").is_ok());
        }
    }
}
