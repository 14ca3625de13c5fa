//! Addresses, ports and numbers as ipvsadm reads them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::names::Names;

/// Reads `host`, `host:port`, `[ipv6]`, `[ipv6]:port` or a bare IPv6 address; host and port may be names.
pub(super) fn host_and_port(
    text: &str,
    protocol: &str,
    names: &dyn Names,
) -> Option<(IpAddr, Option<u16>)> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        let address = IpAddr::V6(host.parse().ok()?);
        return match rest.strip_prefix(':') {
            Some(port) => Some((address, Some(self::port(port, protocol, names)?))),
            None => rest.is_empty().then_some((address, None)),
        };
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Some((address.into(), None));
    }
    match text.split_once(':') {
        Some((host, port)) => {
            let address = self::host(host, names)?;
            Some((address, Some(self::port(port, protocol, names)?)))
        }
        None => Some((host(text, names)?, None)),
    }
}

fn host(text: &str, names: &dyn Names) -> Option<IpAddr> {
    if text.is_empty() {
        return None;
    }
    match inet_aton(text) {
        Some(address) => Some(address.into()),
        None => names.address(text),
    }
}

fn port(text: &str, protocol: &str, names: &dyn Names) -> Option<u16> {
    match text.parse::<i64>() {
        Ok(number) => u16::try_from(number).ok(),
        Err(_) => names.port(text, protocol),
    }
}

/// Reads an IPv4 address as inet_aton(3): one to four parts, each decimal, octal or hexadecimal, the last one filling the
/// rest (`33` is 0.0.0.33).
pub(super) fn inet_aton(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u32> = text.split('.').map(part).collect::<Option<_>>()?;
    let (last, leading) = parts.split_last()?;
    if leading.len() > 3 {
        return None;
    }
    let mut address = 0u32;
    for part in leading {
        address = address << 8 | u32::from(u8::try_from(*part).ok()?);
    }
    let bits = 32 - 8 * leading.len() as u32;
    let fits = bits == 32 || *last < 1 << bits;
    let shifted = if leading.is_empty() {
        0
    } else {
        address << bits
    };
    fits.then(|| Ipv4Addr::from(shifted | last))
}

fn part(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix('0') {
        None | Some("") => (text, 10),
        Some(rest) => match rest.strip_prefix(['x', 'X']) {
            Some(hex) => (hex, 16),
            None => (rest, 8),
        },
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    u32::from_str_radix(digits, radix).ok()
}

/// Reads a decimal number of the range `min..=max`.
pub(super) fn number(text: &str, min: i64, max: i64) -> Option<u32> {
    let number = text.parse::<i64>().ok()?;
    let number = (min..=max).contains(&number).then_some(number)?;
    u32::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::super::names::LocalNames;
    use super::*;

    fn read(text: &str) -> Option<(String, Option<u16>)> {
        let (address, port) = host_and_port(text, "tcp", &LocalNames)?;
        Some((address.to_string(), port))
    }

    #[test]
    fn host_and_port_come_in_every_notation() {
        let found = |address: &str, port| Some((address.to_owned(), port));
        assert_eq!(read("10.0.0.1:80"), found("10.0.0.1", Some(80)));
        assert_eq!(read("10.0.0.1:http"), found("10.0.0.1", Some(80)));
        assert_eq!(read("10.0.0.1"), found("10.0.0.1", None));
        assert_eq!(read("[2001:db8::1]:80"), found("2001:db8::1", Some(80)));
        assert_eq!(read("[2001:db8::1]"), found("2001:db8::1", None));
        assert_eq!(read("2001:db8::1"), found("2001:db8::1", None));
        for wrong in [
            "",
            ":80",
            "10.0.0.1:",
            "10.0.0.1:70000",
            "10.0.0.1:-1",
            "10.0.0.1:abc",
            "300.0.0.1",
            "[::1",
            "[::1]80",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn inet_aton_takes_one_to_four_parts_of_three_radices() {
        let read = |text| inet_aton(text).map(|address| address.to_string());
        assert_eq!(read("33").as_deref(), Some("0.0.0.33"));
        assert_eq!(read("10.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(read("10.1.258").as_deref(), Some("10.1.1.2"));
        assert_eq!(read("0x7f.0.0.010").as_deref(), Some("127.0.0.8"));
        assert_eq!(read("4294967295").as_deref(), Some("255.255.255.255"));
        for wrong in [
            "",
            "1.2.3.4.5",
            "256.1.1.1",
            "1.2.3.256",
            "1..2",
            "a",
            "4294967296",
            "+1.2.3.4",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn numbers_keep_to_their_range() {
        assert_eq!(
            number("2147483647", 0, i64::from(i32::MAX)),
            Some(2_147_483_647)
        );
        assert_eq!(number("2147483648", 0, i64::from(i32::MAX)), None);
        assert_eq!(number("-1", 0, 5), None);
        assert_eq!(number("abc", 0, 5), None);
    }
}
