//! `[static]` in the workers' terms.

use std::net::IpAddr;

use ipnet::Ipv4Net;
use sluice_dataplane::command::PortId;
use sluice_dataplane::egress::{Mac, Route};

use super::{Boot, StaticRoute};
use crate::controller::Statics;

impl Boot {
    /// The static entries, or what is wrong with them.
    pub fn statics(&self) -> Result<Statics, String> {
        let mut statics = Statics::default();
        for (i, entry) in self.statics.addresses.iter().enumerate() {
            let port = self.port_id(&entry.port, "address", i)?;
            let address = entry.address.addr();
            statics.local.insert(IpAddr::V4(address));
            let on_link = Route::Via {
                port,
                gateway: None,
                source: address,
                mtu: None,
            };
            if entry.address.prefix_len() < 32 {
                statics.routes.push((entry.address.trunc(), on_link));
            }
        }
        for (i, entry) in self.statics.routes.iter().enumerate() {
            let port = self.port_id(&entry.port, "route", i)?;
            let route = Route::Via {
                port,
                gateway: entry.gateway,
                source: self.source(entry, i)?,
                mtu: entry.mtu,
            };
            statics.routes.push((entry.prefix.trunc(), route));
        }
        // Last, so that no route hides an address of ours.
        for entry in &self.statics.addresses {
            let own = Ipv4Net::from(entry.address.addr());
            statics.routes.push((own, Route::Local));
        }
        for (i, entry) in self.statics.neighbours.iter().enumerate() {
            let port = self.port_id(&entry.port, "neighbour", i)?;
            let mac = parse_mac(&entry.mac).ok_or_else(|| {
                format!(
                    "static.neighbour[{i}].mac: {:?} is not the MAC of a station, such as 02:00:00:00:00:01",
                    entry.mac
                )
            })?;
            statics.neighbours.push((port, entry.address, mac));
        }
        Ok(statics)
    }

    fn port_id(&self, name: &str, kind: &str, i: usize) -> Result<PortId, String> {
        let place = self.ports.iter().position(|port| port.name == name);
        place.map(|place| PortId(place as u16)).ok_or_else(|| {
            let names: Vec<&str> = self.ports.iter().map(|port| port.name.as_str()).collect();
            format!(
                "static.{kind}[{i}].port: there is no port {name:?}; there are {}",
                names.join(", ")
            )
        })
    }

    fn source(&self, route: &StaticRoute, i: usize) -> Result<std::net::Ipv4Addr, String> {
        let first = self
            .statics
            .addresses
            .iter()
            .find(|entry| entry.port == route.port)
            .map(|entry| entry.address.addr());
        route.source.or(first).ok_or_else(|| {
            format!(
                "static.route[{i}]: give it a source, or port {:?} a static.address: packets of our own need one",
                route.port
            )
        })
    }
}

/// A station's MAC: not a group's, not zero.
fn parse_mac(text: &str) -> Option<Mac> {
    let mut parts = text.split(':');
    let mut bytes = [0; 6];
    for byte in &mut bytes {
        let hex =
            |part: &&str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let part = parts.next().filter(hex)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    let station = parts.next().is_none() && bytes[0] & 1 == 0 && bytes != [0; 6];
    station.then_some(Mac(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stations_mac_is_taken() {
        assert_eq!(
            parse_mac("02:00:00:00:aB:01"),
            Some(Mac([2, 0, 0, 0, 0xab, 1]))
        );
        for bad in [
            "",
            "02:00:00:00:00",
            "02:00:00:00:00:01:02",
            "2:0:0:0:0:1",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "+2:00:00:00:00:01",
        ] {
            assert_eq!(parse_mac(bad), None, "{bad}");
        }
    }
}
