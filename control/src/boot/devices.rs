//! Devices and their arguments, as far as DPDK would take nonsense for sense.

use super::{Boot, Port, check, twice};

/// What the tap driver of DPDK 22.11 understands. Given anything else it ignores all that it was given, without a word.
const TAP_ARGS: [&str; 3] = ["iface", "mac", "remote"];

/// Arguments of EAL that end the process, as if all were well.
const ENDING: [&str; 4] = ["-h", "--help", "-v", "--version"];

impl Boot {
    pub(super) fn check_devices(&self) -> Result<(), String> {
        let devices: Vec<String> = self.ports.iter().map(device).collect();
        if let Some(device) = twice(devices.iter().map(String::as_str)) {
            return Err(format!("port: two ports have the device {device:?}"));
        }
        for port in &self.ports {
            check_args(port)?;
        }
        let interfaces = self.ports.iter().filter_map(tap_interface);
        if let Some(interface) = twice(interfaces.chain(self.exceptions().map(|(_, name)| name))) {
            return Err(format!(
                "port: two interfaces would have the name {interface:?}; give each iface= and exception a name of its own"
            ));
        }
        match self
            .eal
            .extra_args
            .iter()
            .find(|arg| ENDING.contains(&arg.as_str()))
        {
            Some(arg) => Err(format!(
                "eal.extra_args: with {arg:?} DPDK prints something and ends the process"
            )),
            None => Ok(()),
        }
    }
}

/// One spelling for each device: `01:00.0` is `0000:01:00.0`.
fn device(port: &Port) -> String {
    let lower = port.device.to_ascii_lowercase();
    if check::is_pci(&lower) && lower.matches(':').count() == 1 {
        format!("0000:{lower}")
    } else if port.is_pci() {
        lower
    } else {
        port.device.clone()
    }
}

fn check_args(port: &Port) -> Result<(), String> {
    let key = format!("port {:?}", port.name);
    let unknown = args(port).find(|(name, _)| is_tap(port) && !TAP_ARGS.contains(name));
    if let Some((name, _)) = unknown {
        return Err(format!(
            "{key}: args: {} knows {}, but no {name:?}",
            port.device,
            TAP_ARGS.join(", ")
        ));
    }
    match tap_interface(port) {
        Some(interface) if !check::is_interface_name(interface) => Err(format!(
            "{key}: args: {interface:?} cannot be an interface's name"
        )),
        _ => Ok(()),
    }
}

/// The arguments by name; the value of one without is empty.
fn args(port: &Port) -> impl Iterator<Item = (&str, &str)> {
    let all = port.args.as_deref().unwrap_or_default().split(',');
    let given = all.filter(|arg| !arg.is_empty());
    given.map(|arg| arg.split_once('=').unwrap_or((arg, "")))
}

fn is_tap(port: &Port) -> bool {
    port.device.starts_with("net_tap")
}

/// The interface that a tap will make.
fn tap_interface(port: &Port) -> Option<&str> {
    let mut args = args(port).filter(|_| is_tap(port));
    args.find_map(|(name, value)| (name == "iface").then_some(value))
}
