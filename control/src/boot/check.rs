//! What a boot file must be like beyond its syntax.

use std::fmt::Display;

use tracing::subscriber::NoSubscriber;

use super::{Boot, Polling, twice};
use crate::controller::{Controller, Setup};

/// What a boot file needs to know of the machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The cores that the process may use.
    pub cores: Vec<usize>,
}

/// Longest name of an interface (`IFNAMSIZ`, without the final zero).
const INTERFACE_NAME: usize = 15;

impl Machine {
    /// The one that we run on.
    pub fn this() -> Self {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        Self {
            cores: cores.into_iter().map(|core| core.id).collect(),
        }
    }
}

impl Boot {
    /// Says what is wrong, the key in front; fills in the control core.
    pub(super) fn check(&mut self, machine: &Machine) -> Result<(), String> {
        self.check_cores(machine)?;
        self.check_numbers()?;
        self.check_ports()?;
        let statics = self.statics()?;
        // A controller without workers does all checks that a running one does.
        let mut controller = Controller::new(Setup {
            limits: self.limits.into(),
            workers: Vec::new(),
            ports: Box::new(Vec::new),
            dpdk: String::new(),
            statics,
        });
        // Only a rehearsal: the log shows what is done in earnest.
        tracing::subscriber::with_default(NoSubscriber::default(), || self.begin(&mut controller))
    }

    fn check_cores(&mut self, machine: &Machine) -> Result<(), String> {
        let workers = &mut self.workers;
        if workers.cores.is_empty() {
            return Err("workers.cores: give at least one core".to_owned());
        }
        for core in workers.cores.iter().chain(&workers.control_core) {
            if !machine.cores.contains(core) {
                return Err(format!(
                    "workers: there is no core {core} here, or this process may not use it; there are {}",
                    list(&machine.cores)
                ));
            }
        }
        let mut sorted = workers.cores.clone();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1])
            && !workers.allow_shared_cores
        {
            return Err(format!(
                "workers.cores: two workers on core {} would halve each other; give each a core of its own, or set workers.allow_shared_cores",
                pair[0]
            ));
        }
        let free = machine
            .cores
            .iter()
            .find(|core| !workers.cores.contains(core));
        let control = match workers.control_core.or(free.copied()) {
            Some(core) => core,
            None => workers.cores[0],
        };
        if workers.cores.contains(&control) && !workers.allow_shared_cores {
            return Err(format!(
                "workers.control_core: core {control} belongs to a worker; choose {}, or set workers.allow_shared_cores",
                match free {
                    Some(free) => format!("another one, such as {free}"),
                    None => "fewer workers".to_owned(),
                }
            ));
        }
        if workers.cores.contains(&control) && workers.polling == Polling::Busy {
            return Err(format!(
                "workers.polling: a busy worker leaves nothing of core {control} to control; set it to \"adaptive\""
            ));
        }
        workers.control_core = Some(control);
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), String> {
        let (workers, limits, rpc) = (&self.workers, &self.limits, &self.rpc);
        let between = |key: &str, value: usize, least: usize, most: usize| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(format!("{key}: {value} is not from {least} to {most}"))
            }
        };
        between(
            "workers.max_connections",
            workers.max_connections,
            1,
            1 << 28,
        )?;
        if let Some(memory_mb) = self.eal.memory_mb {
            between("eal.memory_mb", memory_mb as usize, 1, 1 << 26)?;
        }
        between("workers.max_held", workers.max_held, 1, 1 << 20)?;
        let extra_frames = workers.extra_frames as usize;
        between("workers.extra_frames", extra_frames, 0, 1 << 26)?;
        if let Some(frame_len) = workers.frame_len {
            between("workers.frame_len", frame_len.into(), 64, 16384)?;
        }
        between(
            "limits.max_services",
            limits.max_services as usize,
            1,
            1 << 22,
        )?;
        between(
            "limits.max_real_servers",
            limits.max_real_servers as usize,
            1,
            1 << 22,
        )?;
        between(
            "rpc.max_request_bytes",
            rpc.max_request_bytes,
            1024,
            1 << 30,
        )?;
        if rpc.mode > 0o777 {
            return Err(format!(
                "rpc.mode: {} is not an access mode; write it as in 0o660",
                rpc.mode
            ));
        }
        if rpc.socket.as_os_str().len() > 90 {
            return Err(format!(
                "rpc.socket: {} is too long: a socket's path has at most 90 bytes",
                rpc.socket.display()
            ));
        }
        Ok(())
    }

    fn check_ports(&self) -> Result<(), String> {
        if self.ports.is_empty() {
            return Err("there is no [[port]]: sluice needs at least one".to_owned());
        }
        if let Some(name) = twice(self.ports.iter().map(|port| port.name.as_str())) {
            return Err(format!("port: two ports have the name {name:?}"));
        }
        if let Some(name) = twice(self.exceptions().map(|(_, name)| name)) {
            return Err(format!(
                "port: two ports have the exception interface {name:?}"
            ));
        }
        for port in &self.ports {
            let key = format!("port {:?}", port.name);
            if port.name.is_empty() {
                return Err("port.name: a port needs a name".to_owned());
            }
            if !port.is_pci() && !is_virtual(&port.device) {
                return Err(format!(
                    "{key}: device {:?} is neither a PCI address such as 0000:01:00.0 nor a virtual device such as net_tap0",
                    port.device
                ));
            }
            if port.mtu < 68 {
                return Err(format!(
                    "{key}: mtu {} is below IPv4's minimum of 68",
                    port.mtu
                ));
            }
            if port.rx_queues == Some(0) {
                return Err(format!("{key}: rx_queues must be at least 1"));
            }
            if port.rx_descriptors == 0 || port.tx_descriptors == 0 {
                return Err(format!("{key}: a queue needs descriptors"));
            }
            if let Some(name) = &port.exception
                && !is_interface_name(name)
            {
                return Err(format!(
                    "{key}: {name:?} cannot be an interface's name: 1 to {INTERFACE_NAME} characters, no blanks, slashes or colons"
                ));
            }
        }
        self.check_devices()
    }
}

/// `0000:01:00.0`, or `01:00.0`.
pub(super) fn is_pci(device: &str) -> bool {
    let hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let Some((slot, function)) = device.rsplit_once('.') else {
        return false;
    };
    let mut parts = slot.rsplit(':');
    let short = parts.next().is_some_and(|device| hex(device, 2))
        && parts.next().is_some_and(|bus| hex(bus, 2));
    let domain = parts.next().is_none_or(|domain| hex(domain, 4));
    short && domain && parts.next().is_none() && matches!(function.as_bytes(), [b'0'..=b'7'])
}

fn is_virtual(device: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let driver = ["net_", "eth_", "virtio_"]
        .iter()
        .any(|prefix| device.starts_with(prefix) && device.len() > prefix.len());
    driver && device.bytes().all(plain)
}

pub(super) fn is_interface_name(name: &str) -> bool {
    let odd = |c: char| c.is_whitespace() || c == '/' || c == ':' || c == '%';
    (1..=INTERFACE_NAME).contains(&name.len()) && name != "." && name != ".." && !name.contains(odd)
}

fn list(items: &[impl Display]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_and_virtual_devices_are_told_apart() {
        for pci in ["0000:01:00.0", "01:00.0", "0000:af:1f.7"] {
            assert!(is_pci(pci) && !is_virtual(pci), "{pci}");
        }
        for vdev in ["net_tap0", "net_pcap_1", "eth_af_packet0", "virtio_user0"] {
            assert!(is_virtual(vdev) && !is_pci(vdev), "{vdev}");
        }
        for neither in [
            "eth0",
            "0000:01:00",
            "0000:01:00.8",
            "1:0.0",
            "net_tap0,iface=x",
            "net_",
            "x:01:00.0",
            "0:0000:01:00.0",
        ] {
            assert!(!is_virtual(neither) && !is_pci(neither), "{neither}");
        }
    }
}
