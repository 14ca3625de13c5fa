//! How much of everything DPDK and the workers are given, reckoned from the boot file.

use sluice_dataplane::conn;
use sluice_dataplane::dpdk::{EalConfig, Hugepages, Iova, PoolConfig};
use sluice_dataplane::steer::ring;
use sluice_dataplane::worker::BYTES_BESIDE_OTHERS;

use crate::boot::{self, Boot};
use crate::config::Limits;

/// Frames between a worker and the kernel, each way and port.
pub(super) const PUNT_RING: usize = 1024;

/// Frames of the pool from which the kernel's packets are taken.
const PUNT_POOL: u32 = 4096;

/// Bytes that a frame has beyond its IP packet: Ethernet with two VLAN tags.
const LINK_HEADER: u16 = 22;

/// Memory for drivers and DPDK itself.
const OWN_MB: u64 = 64;

/// What DPDK is started with.
pub(super) fn eal_config(boot: &Boot) -> EalConfig {
    let (pci, virtual_ones): (Vec<_>, Vec<_>) = boot.ports.iter().partition(|port| port.is_pci());
    let devices = |ports: Vec<&boot::Port>| -> Vec<String> {
        ports
            .into_iter()
            .map(boot::Port::device_with_args)
            .collect()
    };
    EalConfig {
        file_prefix: boot.eal.file_prefix.clone(),
        main_core: boot.control_core(),
        worker_cores: boot.workers.cores.clone(),
        allow_shared_cores: boot.workers.allow_shared_cores,
        hugepages: match boot.eal.hugepages {
            boot::Hugepages::Auto => Hugepages::Auto,
            boot::Hugepages::Required => Hugepages::Required,
            boot::Hugepages::Off => Hugepages::Off,
        },
        memory_mb: boot.eal.memory_mb.unwrap_or_else(|| memory_mb(boot)),
        tables_mb: tables_mb(boot),
        iova: boot.eal.iova.map(|iova| match iova {
            boot::Iova::Pa => Iova::Physical,
            boot::Iova::Va => Iova::Virtual,
        }),
        in_memory: boot.eal.in_memory,
        vdevs: devices(virtual_ones),
        pci_allow: devices(pci),
        extra_args: boot.eal.extra_args.clone(),
        log_level: boot.eal.log_level.clone(),
    }
}

/// What the pools take, and some for drivers.
pub(crate) fn memory_mb(boot: &Boot) -> u32 {
    let workers = (0..boot.workers.cores.len()).map(|worker| worker_pool(boot, worker).bytes());
    let bytes = workers.sum::<u64>() + punt_pool(boot).bytes();
    (OWN_MB + bytes.div_ceil(1 << 20)) as u32
}

/// What the workers' tables take: connections, and counters of services and real servers.
fn tables_mb(boot: &Boot) -> u32 {
    let limits = Limits::from(boot.limits);
    let max_connections = boot.workers.max_connections;
    let beside_others = match boot.workers.cores.len() {
        1 => 0,
        _ => max_connections * BYTES_BESIDE_OTHERS,
    };
    let each = conn::bytes_for(max_connections) + beside_others + limits.cells_bytes();
    let bytes = (boot.workers.cores.len() * each) as u64;
    bytes.div_ceil(1 << 20).try_into().unwrap_or(u32::MAX)
}

/// A worker's frames: all descriptors of its queues, what it holds, and what is on the way to the kernel. What it received may lie
/// in other workers' transmit queues, or on the way to them.
pub(super) fn worker_pool(boot: &Boot, worker: usize) -> PoolConfig {
    let workers = boot.workers.cores.len() as u32;
    let queues = boot.ports.iter().map(|port| {
        let ring = if port.exception.is_some() {
            PUNT_RING as u32
        } else {
            0
        };
        let own = u32::from(port.rx_queues.unwrap_or(1)).div_ceil(workers);
        u32::from(port.rx_descriptors) * own + u32::from(port.tx_descriptors) * workers + ring
    });
    let held = boot.workers.max_held as u32 * workers;
    let handed = ring::CAPACITY as u32 * (workers - 1);
    let own = 2048 * workers;
    let frames = queues.sum::<u32>() + held + handed + own + boot.workers.extra_frames;
    PoolConfig {
        frame_len: frame_len(boot),
        ..PoolConfig::new(format!("worker{worker}"), frames)
    }
}

/// The frames of what the kernel sends.
pub(super) fn punt_pool(boot: &Boot) -> PoolConfig {
    PoolConfig {
        frame_len: frame_len(boot),
        ..PoolConfig::new("punt", PUNT_POOL)
    }
}

fn frame_len(boot: &Boot) -> u16 {
    let mtus = boot.ports.iter().map(|port| port.mtu);
    let needed = mtus.max().unwrap_or_default().saturating_add(LINK_HEADER);
    needed.max(boot.workers.frame_len.unwrap_or(2048))
}
