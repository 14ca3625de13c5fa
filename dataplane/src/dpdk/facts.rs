//! What a device can do, asked before anybody uses it.

use std::ffi::{CStr, c_char};
use std::ptr;

use dpdk_sys as sys;

use super::device::Device;
use super::{Eal, EthPort, PortError, rss};
use crate::steer::RssCapabilities;

/// What a device told of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// DPDK's driver of it.
    pub driver: String,
    /// Transmit queues that it can have.
    pub tx_queues: u16,
    /// Its receive queues, and what it can do for spreading frames over them.
    pub rss: RssCapabilities,
    /// The NUMA node that it is attached to; `None` if it does not say.
    pub node: Option<u32>,
    /// What it says to a rule of rte_flow.
    pub flow_rules: FlowRules,
}

/// What a device says to the rule "IPv4 goes to queue 0". sluice sets no rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FlowRules {
    /// It would do that.
    Taken,
    /// It takes no rules at all.
    None,
    /// It takes rules, but not this one, or not in this state, for this reason.
    Refused(String),
}

impl EthPort {
    /// Asks a device that is not up what it can do. It is configured with a queue each way, never started, and closed: afterwards this
    /// process can use it no more.
    pub fn facts(eal: &Eal, device: &str) -> Result<DeviceFacts, PortError> {
        let mut device = Device::take(eal, device, 0)?;
        let info = device.info()?;
        Ok(DeviceFacts {
            driver: text(info.driver_name).unwrap_or_default(),
            tx_queues: info.max_tx_queues,
            rss: rss::capabilities(&info),
            node: u32::try_from(device.socket().0).ok(),
            flow_rules: flow_rules(&mut device, &info),
        })
    }
}

fn flow_rules(device: &mut Device, info: &sys::rte_eth_dev_info) -> FlowRules {
    // Most drivers look at a rule only when the queue that it names is there.
    let queues = [info.max_rx_queues.min(1), info.max_tx_queues.min(1)];
    if let Err(error) = device.configure_queues(queues) {
        return FlowRules::Refused(error.reason());
    }
    let mut message = ptr::null();
    // SAFETY: the device is configured, and `message` is written.
    let error = unsafe { sys::sluice_flow_validate(device.id(), &mut message) };
    match -error {
        0 => FlowRules::Taken,
        libc::ENOSYS => FlowRules::None,
        errno => FlowRules::Refused(text(message).unwrap_or_else(|| super::eal::errno_text(errno))),
    }
}

/// A string of a driver's, which lives as long as the device at least.
fn text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: drivers give terminated strings, and this one is not null.
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_string_lossy().into_owned())
}
