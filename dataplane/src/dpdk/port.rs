//! Ports on DPDK's devices: bring-up, and what control asks of them.

use std::sync::Arc;

use dpdk_sys as sys;

use super::device::{self, Device, Setup};
use super::{DpdkPort, Eal, Mempool, Socket};
use crate::egress::Mac;
use crate::io::Offloads;

/// Ethernet header and a VLAN tag: what a frame is longer than its MTU.
const LINK_HEADER: u16 = 18;

/// Every link must carry IPv4 packets of so many bytes.
const IPV4_MIN_MTU: u16 = 68;

/// How to bring a port up. Start from [`PortConfig::new`] and set what differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortConfig {
    /// The device: a virtual one's name (`net_tap0`) or a PCI address (`0000:01:00.0`).
    pub device: String,
    /// Queue pairs: one for each worker.
    pub queues: u16,
    /// Frames that can wait in a receive queue; brought to a number that the device can do.
    pub rx_descriptors: u16,
    /// Frames that can wait in a transmit queue; brought to a number that the device can do.
    pub tx_descriptors: u16,
    /// Bytes of the longest IP packet.
    pub mtu: u16,
    /// Receive frames to any MAC.
    pub promiscuous: bool,
    /// Let the device compute checksums as far as it offers to (contract 2 of the design).
    pub checksum_offload: bool,
}

impl PortConfig {
    /// A port with the usual sizes.
    pub fn new(device: impl Into<String>, queues: u16) -> Self {
        Self {
            device: device.into(),
            queues,
            rx_descriptors: 1024,
            tx_descriptors: 1024,
            mtu: 1500,
            promiscuous: false,
            checksum_offload: true,
        }
    }
}

/// Bringing a port up, or asking it something, failed. Control thread only.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// DPDK has no such device.
    #[error(
        "port {port}: DPDK has no such device; it has: {}. Look for the NIC with `dpdk-devbind.py --status`, and bind it to \
         vfio-pci",
        if .known.is_empty() { "none" } else { .known }
    )]
    NoSuchDevice {
        /// What was asked for.
        port: String,
        /// The devices that there are.
        known: String,
    },
    /// DPDK tried to make the device, and complained.
    #[error(
        "port {port}: DPDK could not make the device; it said: {said}. Check the device's name and its args"
    )]
    NotMade {
        /// What was asked for.
        port: String,
        /// DPDK's complaints.
        said: String,
    },
    /// Too few queues for all workers.
    #[error(
        "port {port}: the device offers {have} queues and {want} workers need one each; lower the number of workers, or \
         give the device more queues"
    )]
    TooFewQueues {
        /// Which port.
        port: String,
        /// Offered.
        have: u16,
        /// Wanted.
        want: u16,
    },
    /// A port needs at least one queue and one pool.
    #[error("port {port}: at least one queue and one frame pool are needed")]
    NoQueues {
        /// Which port.
        port: String,
    },
    /// The device cannot do the MTU.
    #[error(
        "port {port}: an MTU of {want} is not possible; the device can do {min} to {max}: set the port's mtu to one of \
         those"
    )]
    BadMtu {
        /// Which port.
        port: String,
        /// Wanted.
        want: u16,
        /// Smallest.
        min: u16,
        /// Biggest.
        max: u16,
    },
    /// The pools' buffers are shorter than the frames.
    #[error(
        "port {port}: an MTU of {mtu} needs buffers for frames of {need} bytes and the pool's hold {have}; \
         raise the pool's frame length, or lower the MTU"
    )]
    BuffersTooShort {
        /// Which port.
        port: String,
        /// Wanted.
        mtu: u16,
        /// What that takes.
        need: u32,
        /// What there is.
        have: u16,
    },
    /// There is no such queue.
    #[error("port {port}: there is no queue {queue}; there are {queues}")]
    NoSuchQueue {
        /// Which port.
        port: String,
        /// Asked for.
        queue: u16,
        /// How many there are.
        queues: u16,
    },
    /// Somebody has the queue.
    #[error("port {port}: queue {queue} is in use")]
    QueueTaken {
        /// Which port.
        port: String,
        /// Which queue.
        queue: u16,
    },
    /// Somebody has the device, or a queue of it.
    #[error(
        "port {port}: it is in use; name each device once, and stop the workers before a port is closed"
    )]
    InUse {
        /// Which port.
        port: String,
    },
    /// The device refused a step.
    #[error("port {port}: it could not be {step}: {errno}")]
    Step {
        /// Which port.
        port: String,
        /// What was tried.
        step: &'static str,
        /// The error number's text.
        errno: String,
    },
}

/// How a device spreads frames over queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rss {
    /// The Toeplitz key.
    pub key: Vec<u8>,
    /// `RTE_ETH_RSS_*` bits that are in force.
    pub hash_types: u64,
    /// Queue by the hash's lowest bits; empty when the device does not tell.
    pub table: Vec<u16>,
}

/// The state of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Whether frames can pass.
    pub up: bool,
    /// Mbit/s; 0 if unknown.
    pub speed_mbps: u32,
}

/// A device's own counters, since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceStats {
    /// Frames received.
    pub rx: u64,
    /// Frames sent.
    pub tx: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Frames that were dropped for want of a free descriptor.
    pub rx_missed: u64,
    /// Frames that were received broken.
    pub rx_errors: u64,
    /// Frames that could not be sent.
    pub tx_errors: u64,
    /// Receptions that failed for want of a buffer.
    pub rx_nombuf: u64,
}

/// A port, up. Control's handle: the workers get [`EthPort::queue`]. When the handle and all queues are dropped,
/// the device is stopped and closed.
#[derive(Debug)]
pub struct EthPort {
    device: Arc<Device>,
    pools: Vec<Mempool>,
    mac: Mac,
    offloads: Offloads,
    rss: Option<Rss>,
}

impl EthPort {
    /// Brings the device up and starts it. Queue `i` receives into `pools[i]`, or round again if there are fewer.
    pub fn open(eal: &Eal, config: &PortConfig, pools: &[Mempool]) -> Result<Self, PortError> {
        let port = || config.device.clone();
        if config.queues == 0 || pools.is_empty() {
            return Err(PortError::NoQueues { port: port() });
        }
        let mut device = Device::take(eal, &config.device, config.queues)?;
        let info = device.info()?;
        check_limits(config, &info, pools)?;
        let offered = |bit| config.checksum_offload && info.tx_offload_capa & bit != 0;
        let offloads = Offloads {
            ipv4_checksum: offered(sys::SLUICE_TX_OFFLOAD_IPV4_CKSUM),
            udp_checksum: offered(sys::SLUICE_TX_OFFLOAD_UDP_CKSUM),
        };
        let mut setup = Setup {
            queues: config.queues,
            rx_descriptors: config.rx_descriptors,
            tx_descriptors: config.tx_descriptors,
            mtu: config.mtu,
            tx_offloads: offload_bits(offloads),
            rss: hash_types(config, &info),
        };
        if let Err(error) = bring_up(&mut device, &setup, pools) {
            if setup.rss == 0 {
                return Err(error);
            }
            tracing::warn!("{error}; once more without spreading frames over queues");
            setup.rss = 0;
            bring_up(&mut device, &setup, pools)?;
        }
        if config.promiscuous {
            device.enable_promiscuous()?;
        }
        let mac = device.mac()?;
        let rss = (setup.rss != 0).then(|| device.rss(&info)).flatten();
        tracing::info!(port = config.device, queues = config.queues, %mac, ?offloads, rss = rss.is_some(), "port is up");
        Ok(Self {
            device: Arc::new(device),
            pools: pools.to_vec(),
            mac,
            offloads,
            rss,
        })
    }

    /// The names of all devices that DPDK has: what [`PortConfig::device`] may be.
    pub fn devices(eal: &Eal) -> Vec<String> {
        device::names(eal)
    }

    /// The NUMA node of a device that is not up yet, to place its pools.
    pub fn device_socket(eal: &Eal, device: &str) -> Result<Socket, PortError> {
        device::socket(eal, device)
    }

    /// A worker's queue pair, to be moved to the worker. `Err` when there is no such queue or somebody has it.
    pub fn queue(&self, queue: u16) -> Result<DpdkPort, PortError> {
        self.device.claim(queue)?;
        let pool = self.pools[usize::from(queue) % self.pools.len()];
        Ok(DpdkPort::new(
            Arc::clone(&self.device),
            queue,
            pool,
            self.offloads,
        ))
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// How many queue pairs it has.
    pub fn queues(&self) -> u16 {
        self.device.queues()
    }

    /// Its MAC, as it was when the port came up.
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// What it can do when it sends.
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// How it spreads frames over its queues; `None` when it does not, or does not tell.
    pub fn rss(&self) -> Option<&Rss> {
        self.rss.as_ref()
    }

    /// Bytes of the longest IP packet, as the device says.
    pub fn mtu(&self) -> Result<u16, PortError> {
        self.device.mtu()
    }

    /// The link's state. Does not wait for it to come up.
    pub fn link(&self) -> Result<Link, PortError> {
        let (up, speed_mbps) = self.device.link()?;
        Ok(Link { up, speed_mbps })
    }

    /// The device's counters.
    pub fn stats(&self) -> Result<DeviceStats, PortError> {
        let stats = self.device.stats()?;
        Ok(DeviceStats {
            rx: stats.ipackets,
            tx: stats.opackets,
            rx_bytes: stats.ibytes,
            tx_bytes: stats.obytes,
            rx_missed: stats.imissed,
            rx_errors: stats.ierrors,
            tx_errors: stats.oerrors,
            rx_nombuf: stats.rx_nombuf,
        })
    }

    /// Receives frames to `mac` as well (contract 5d of the design: VRRP).
    pub fn add_mac(&self, mac: Mac) -> Result<(), PortError> {
        self.device.add_mac(mac)
    }

    /// Undoes [`EthPort::add_mac`].
    pub fn remove_mac(&self, mac: Mac) -> Result<(), PortError> {
        self.device.remove_mac(mac)
    }

    /// Stops and closes the device now. `Err` while somebody has a queue: then it happens when the last one is dropped.
    pub fn close(self) -> Result<(), PortError> {
        let port = self.device.name().to_owned();
        Arc::try_unwrap(self.device)
            .map(drop)
            .map_err(|_| PortError::InUse { port })
    }
}

fn check_limits(
    config: &PortConfig,
    info: &sys::rte_eth_dev_info,
    pools: &[Mempool],
) -> Result<(), PortError> {
    let port = || config.device.clone();
    let have = info.max_rx_queues.min(info.max_tx_queues);
    if have < config.queues {
        return Err(PortError::TooFewQueues {
            port: port(),
            have,
            want: config.queues,
        });
    }
    // Some devices say that they can do less than IPv4 allows (RFC 791, section 3.2).
    let min = info.min_mtu.max(IPV4_MIN_MTU);
    let max = longest_packet(info);
    if !(min..=max).contains(&config.mtu) {
        return Err(PortError::BadMtu {
            port: port(),
            want: config.mtu,
            min,
            max,
        });
    }
    let need = u32::from(config.mtu) + u32::from(LINK_HEADER);
    match pools.iter().find(|pool| u32::from(pool.frame_len()) < need) {
        Some(pool) => Err(PortError::BuffersTooShort {
            port: port(),
            mtu: config.mtu,
            need,
            have: pool.frame_len(),
        }),
        None => Ok(()),
    }
}

/// The longest IP packet that the device takes: some tell its MTU, some only the longest frame.
fn longest_packet(info: &sys::rte_eth_dev_info) -> u16 {
    // As DPDK reckons: a device that tells both tells what its link header takes.
    let tells_mtu = info.max_mtu != u16::MAX && info.max_rx_pktlen > u32::from(info.max_mtu);
    let header = if tells_mtu {
        info.max_rx_pktlen - u32::from(info.max_mtu)
    } else {
        u32::from(LINK_HEADER)
    };
    let by_frame = info.max_rx_pktlen.saturating_sub(header);
    info.max_mtu.min(by_frame.try_into().unwrap_or(u16::MAX))
}

/// The hash types to ask for: addresses and ports, as far as the device knows them.
fn hash_types(config: &PortConfig, info: &sys::rte_eth_dev_info) -> u64 {
    if config.queues > 1 {
        info.flow_type_rss_offloads
            & (sys::SLUICE_RSS_IP | sys::SLUICE_RSS_TCP | sys::SLUICE_RSS_UDP)
    } else {
        0
    }
}

/// Fast free is not among them: it wants all frames of a queue from one pool, and those from the kernel have another.
fn offload_bits(offloads: Offloads) -> u64 {
    let bit = |wanted, bit| if wanted { bit } else { 0 };
    bit(offloads.ipv4_checksum, sys::SLUICE_TX_OFFLOAD_IPV4_CKSUM)
        | bit(offloads.udp_checksum, sys::SLUICE_TX_OFFLOAD_UDP_CKSUM)
}

fn bring_up(device: &mut Device, setup: &Setup, pools: &[Mempool]) -> Result<(), PortError> {
    device.configure(setup, pools)?;
    device.set_mtu(setup.mtu)?;
    device.start()
}
