//! The options of tunnels: `--tun-type`, `--tun-port` and the three about checksums.

use super::address::number;
use super::command::{Checksum, Tunnel};
use super::options::{Class, OptId};
use super::parse::{Unusable, usage};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Type {
    #[default]
    Ipip,
    Gre,
    Gue,
}

/// What has been read of them.
#[derive(Debug, Default)]
pub(super) struct TunnelOptions {
    kind: Option<Type>,
    port: Option<u16>,
    checksums: Vec<(Class, Checksum)>,
}

impl TunnelOptions {
    /// Reads one of them.
    pub(super) fn take(&mut self, id: OptId, text: &str) -> Result<(), Unusable> {
        match id {
            OptId::TunType => {
                self.kind = Some(match text {
                    "ipip" => Type::Ipip,
                    "gre" => Type::Gre,
                    "gue" => Type::Gue,
                    _ => return Err(usage("illegal tunnel type specified")),
                });
            }
            OptId::TunPort => {
                let port = number(text, 1, 65535).and_then(|port| u16::try_from(port).ok());
                self.port = Some(port.ok_or_else(|| usage("illegal tunnel port specified"))?);
            }
            OptId::TunCsum => self.checksums.push((Class::TunCsum, Checksum::Full)),
            OptId::TunRemCsum => self.checksums.push((Class::TunRemCsum, Checksum::Remote)),
            _ => self.checksums.push((Class::TunNoCsum, Checksum::None)),
        }
        Ok(())
    }

    /// What they say together; `tunnel` if the real server is one at all.
    pub(super) fn finish(&self, tunnel: bool) -> Result<Tunnel, Unusable> {
        let any = self.kind.is_some() || self.port.is_some() || !self.checksums.is_empty();
        if any && !tunnel {
            return Err(usage("Tunnel options conflict with forward method"));
        }
        let kind = self.kind.unwrap_or_default();
        let illegal = |class: Class, kind: &str| {
            let option = class.name();
            Err(usage(format!(
                "Illegal '{option}' option with the '{kind}' tunnel type"
            )))
        };
        if let [(first, _), (second, _), ..] = self.checksums[..] {
            return Err(usage(format!(
                "The option '{}' conflicts with the '{}' option",
                second.name(),
                first.name()
            )));
        }
        let given = self.checksums.first().copied();
        let checksum = given.map_or(Checksum::None, |(_, checksum)| checksum);
        match (kind, self.port, given) {
            (Type::Ipip, Some(_), _) => illegal(Class::TunPort, "ipip"),
            (Type::Ipip, None, Some((class, _))) => illegal(class, "ipip"),
            (Type::Ipip, None, None) => Ok(Tunnel::Ipip),
            (Type::Gre, Some(_), _) => illegal(Class::TunPort, "gre"),
            (Type::Gre, None, Some((Class::TunRemCsum, _))) => illegal(Class::TunRemCsum, "gre"),
            (Type::Gre, None, _) => Ok(Tunnel::Gre { checksum }),
            (Type::Gue, None, _) => Err(usage(
                "You need to supply the 'tun-port' option for the 'gue' tunnel type",
            )),
            (Type::Gue, Some(port), _) => Ok(Tunnel::Gue { port, checksum }),
        }
    }
}
