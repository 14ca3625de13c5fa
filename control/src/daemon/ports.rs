//! The ports: brought up as the boot file says, and asked how they are.

use std::sync::Arc;

use sluice_dataplane::command::PortId;
use sluice_dataplane::dpdk::{Eal, EthPort, Mempool, PortConfig, PortError};
use sluice_dataplane::punt::thread::PuntThread;
use sluice_dataplane::steer::{self, PortNeeds, PortPlan, Steering};

use crate::api::{PortStats, RssStats};
use crate::boot::{self, Boot};
use crate::spreading;

/// All ports, told to spread what they receive over the workers as far as they can.
pub(super) fn open_ports(
    boot: &Boot,
    eal: &Eal,
    pools: &[Mempool],
) -> Result<Vec<EthPort>, PortError> {
    let workers = eal.workers() as u16;
    let can = boot
        .ports
        .iter()
        .map(|port| EthPort::capabilities(eal, &port.device));
    let can = can.collect::<Result<Vec<_>, PortError>>()?;
    let needs = boot.ports.iter().zip(can);
    let needs: Vec<PortNeeds> = needs.map(|(port, can)| port.needs(can)).collect();
    let plans = steer::plan(&needs, workers);
    let open = |(port, plan)| EthPort::open(eal, &port_config(port, workers, plan), pools);
    let ports = boot.ports.iter().zip(plans).map(open);
    ports.collect()
}

fn port_config(port: &boot::Port, workers: u16, plan: PortPlan) -> PortConfig {
    PortConfig {
        plan: Some(plan),
        rx_descriptors: port.rx_descriptors,
        tx_descriptors: port.tx_descriptors,
        mtu: port.mtu,
        promiscuous: port.promiscuous,
        checksum_offload: port.checksum_offload,
        ..PortConfig::new(port.device.as_str(), workers)
    }
}

/// Asks the ports how they are; what a device does not tell is 0.
pub(super) fn port_reporter(
    boot: &Boot,
    ports: Arc<Vec<EthPort>>,
    punt: Option<&PuntThread>,
) -> Box<dyn FnMut() -> Vec<PortStats> + Send> {
    let configured: Vec<boot::Port> = boot.ports.clone();
    let nat = nat(boot, &ports);
    let punted = punt.map(|punt| punt.cells().to_vec()).unwrap_or_default();
    Box::new(move || {
        let each = (0..).zip(configured.iter().zip(ports.iter()));
        each.map(|(id, (port, device))| {
            let mut stats = port_stats(port, device);
            if let Some(rss) = &mut stats.rss {
                rss.nat = nat.get(usize::from(id)).cloned().flatten();
            }
            if let Some((_, cells)) = punted.iter().find(|(punted, _)| *punted == PortId(id)) {
                stats.to_kernel_dropped = cells.dropped_to_kernel();
                stats.from_kernel_dropped = cells.dropped_from_kernel();
            }
            stats
        })
        .collect()
    })
}

/// What becomes of NAT's packets, by what the NICs really took.
fn nat(boot: &Boot, ports: &[EthPort]) -> Vec<Option<String>> {
    let spreads = ports.iter().map(|port| port.rss().spread.clone());
    let steering = Steering::new(boot.workers.cores.len() as u16, spreads.collect());
    let each = boot.ports.iter().zip(ports);
    let each = each.map(|(port, device)| port.spreading(device.rss().can));
    spreading::nat(&each.collect::<Vec<_>>(), &steering)
}

fn port_stats(port: &boot::Port, device: &EthPort) -> PortStats {
    let link = device.link().ok();
    let stats = device.stats().unwrap_or_default();
    // The driver of taps asks the interface for its state, by name and in our network namespace: one that was moved to
    // another would seem down for ever. We hold its other end, so it is up.
    let up = port.device.starts_with("net_tap") || link.is_some_and(|link| link.up);
    PortStats {
        name: port.name.clone(),
        mac: device.mac().to_string(),
        link_up: up,
        speed_mbps: link.map_or(0, |link| link.speed_mbps),
        mtu: device.mtu().unwrap_or_default(),
        exception: port.exception.clone(),
        rx: stats.rx,
        tx: stats.tx,
        rx_missed: stats.rx_missed,
        rx_errors: stats.rx_errors,
        rx_nombuf: stats.rx_nombuf,
        to_kernel_dropped: 0,
        from_kernel_dropped: 0,
        rss: Some(rss_stats(port, device)),
        handed: None,
    }
}

fn rss_stats(port: &boot::Port, device: &EthPort) -> RssStats {
    let check = device.rss();
    let (sampled, mismatched) = device.samples();
    RssStats {
        queues: check.queues,
        summary: check.summary(),
        differences: check.differences.iter().map(ToString::to_string).collect(),
        sampled,
        mismatched,
        side: port.side.name().to_owned(),
        nat: None,
    }
}
