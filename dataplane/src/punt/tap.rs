//! A port's exception interface: a kernel tap that the punt thread holds open.
//!
//! No offload is on (no `IFF_VNET_HDR`, `TUNSETOFFLOAD` 0), so what the kernel sends is at most one MTU long and has all its
//! checksums, also when it comes from a veth or another tap with partial ones.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::egress::Mac;

/// Longest name that the kernel takes (`IFNAMSIZ` less the final zero).
const MAX_NAME: usize = 15;

/// Bringing up an exception interface failed.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The kernel would not take the name.
    #[error(
        "`{name}` cannot be the name of an exception interface: use 1 to 15 characters without spaces, `/`, `:` or `%`"
    )]
    BadName {
        /// As given.
        name: String,
    },
    /// Something else has that name.
    #[error(
        "the exception interface `{name}` exists already and is not a plain tap; choose another name, or remove it with \
         `ip link delete {name}` (a persistent one is made by `ip tuntap add {name} mode tap`, without multi_queue)"
    )]
    NotATap {
        /// Its name.
        name: String,
    },
    /// Another process holds the tap.
    #[error(
        "the exception interface `{name}` is in use by another process (another sluiced?); stop that one or choose \
         another name"
    )]
    Busy {
        /// Its name.
        name: String,
    },
    /// Not allowed.
    #[error(
        "no permission to make the exception interface `{name}`: run as root or with CAP_NET_ADMIN, and in a container \
         allow the device /dev/net/tun"
    )]
    NoPermission {
        /// Its name.
        name: String,
    },
    /// The kernel offers no taps here.
    #[error(
        "the exception interface `{name}` needs /dev/net/tun, which is missing or has no driver: load it with `modprobe \
         tun`, and in a container pass the device on"
    )]
    NoDriver {
        /// Its name.
        name: String,
    },
    /// The MAC, the MTU or a flag could not be set.
    #[error("the exception interface `{name}`: setting its {what} failed: {source}")]
    Setting {
        /// Its name.
        name: String,
        /// What was to be set.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Anything else.
    #[error("the exception interface `{name}` could not be opened: {source}")]
    Open {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
}

/// An open tap. Closing it (by dropping) removes the interface, unless it was made persistent before.
pub struct Tap {
    device: SyncDevice,
    name: String,
    mtu: u16,
}

impl Tap {
    /// Makes the interface in the calling thread's network namespace, or attaches to a persistent tap of that name, and
    /// gives it `mac` and `mtu`. It is left down (or as it was): the kernel mirror brings it up.
    pub fn open(name: &str, mac: Mac, mtu: u16) -> Result<Self, TapError> {
        if !is_interface_name(name) {
            return Err(TapError::BadName {
                name: name.to_owned(),
            });
        }
        // `default`, not `new`: that one would also switch the interface up.
        let device = DeviceBuilder::default()
            .name(name)
            .layer(Layer::L2)
            .build_sync()
            .map_err(|source| open_error(name, source))?;
        let setting = |what| {
            move |source| TapError::Setting {
                name: name.to_owned(),
                what,
                source,
            }
        };
        device
            .set_nonblocking(true)
            .map_err(setting("non-blocking mode"))?;
        device.set_mac_address(mac.0).map_err(setting("MAC"))?;
        device.set_mtu(mtu).map_err(setting("MTU"))?;
        Ok(Self {
            device,
            name: name.to_owned(),
            mtu,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The MTU that it was given.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// Takes the next frame that the kernel sent; a longer one is cut to `buffer`. `WouldBlock` when none waits.
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.device.recv(buffer)
    }

    /// Gives the kernel a frame.
    pub(crate) fn write(&self, frame: &[u8]) -> io::Result<()> {
        self.device.send(frame).map(drop)
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

fn is_interface_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && name != "."
        && name != ".."
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"/:%".contains(&b))
}

fn open_error(name: &str, source: io::Error) -> TapError {
    let name = name.to_owned();
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => TapError::NoPermission { name },
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => TapError::NoDriver { name },
        Some(Errno::EBUSY) => TapError::Busy { name },
        Some(Errno::EINVAL) if if_nametoindex(name.as_str()).is_ok() => TapError::NotATap { name },
        _ => TapError::Open { name, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_would_refuse_or_expand_are_refused_first() {
        for bad in [
            "",
            "tap%d",
            "a b",
            "..",
            "x/y",
            "a:1",
            "sixteen-bytes-xx",
            "ü",
        ] {
            let error = Tap::open(bad, Mac([2, 0, 0, 0, 0, 1]), 1500).err().unwrap();
            assert!(matches!(error, TapError::BadName { .. }), "{bad}: {error}");
        }
    }

    #[test]
    fn an_errno_becomes_advice() {
        let error = |errno: Errno| open_error("cl0", io::Error::from(errno)).to_string();
        assert!(error(Errno::EPERM).contains("CAP_NET_ADMIN"));
        assert!(error(Errno::ENOENT).contains("modprobe tun"));
        assert!(error(Errno::EBUSY).contains("another process"));
        let error = open_error("lo", io::Error::from(Errno::EINVAL)).to_string();
        assert!(error.contains("not a plain tap"), "{error}");
    }
}
