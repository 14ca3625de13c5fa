//! Ports on DPDK's devices: bring-up, and what control asks of them.

use std::sync::Arc;

use crossbeam::utils::CachePadded;
use dpdk_sys as sys;

use super::device::{self, Device, Setup};
use super::queue::{Receive, Sampler, SendQueue};
use super::{DpdkPort, Eal, Mempool, Socket, rss};
use crate::command::WorkerId;
use crate::egress::Mac;
use crate::io::Offloads;
use crate::steer::check::{RssCheck, Told};
use crate::steer::sample::{SampleCells, SampledTable};
use crate::steer::{HashTypes, PortNeeds, PortPlan, RssCapabilities, RssPlan, Spread, plan};

/// Ethernet header and a VLAN tag: what a frame is longer than its MTU.
const LINK_HEADER: u16 = 18;

/// Every link must carry IPv4 packets of so many bytes.
const IPV4_MIN_MTU: u16 = 68;

/// How to bring a port up. Start from [`PortConfig::new`] and set what differs.
#[derive(Clone, Debug)]
pub struct PortConfig {
    /// The device: a virtual one's name (`net_tap0`) or a PCI address (`0000:01:00.0`).
    pub device: String,
    /// How many workers use it. Each sends by a queue of its own, as far as the device has so many; the others have one of those send.
    pub queues: u16,
    /// Receive queues, and how to spread frames over them. `None`: as [`plan()`] says for a port alone.
    pub plan: Option<PortPlan>,
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
            plan: None,
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
    /// The device does not receive or does not send, as it is.
    #[error(
        "port {port}: the device has no receive queue, or no transmit queue; give it both by its args (net_pcap: rx_pcap= and \
         tx_pcap=)"
    )]
    DeviceWithoutQueues {
        /// Which port.
        port: String,
    },
    /// The device was given a redirection table, and has another one.
    #[error("port {port}: the device took a redirection table and has another one")]
    OtherTable {
        /// Which port.
        port: String,
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

impl PortError {
    /// What the device said when it refused a step; all of it for other errors.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Step { step, errno, .. } => format!("it could not be {step}: {errno}"),
            other => other.to_string(),
        }
    }
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
    /// Workers that send for themselves.
    senders: u16,
    rss: RssCheck,
    /// What samples are compared with beside the plan.
    table: Arc<SampledTable>,
    /// By worker.
    samples: Vec<Arc<CachePadded<SampleCells>>>,
}

impl EthPort {
    /// What a device that is not up yet can do for steering: from it and its likes comes [`PortConfig::plan`].
    pub fn capabilities(eal: &Eal, device: &str) -> Result<RssCapabilities, PortError> {
        Ok(rss::capabilities(&Device::take(eal, device, 0)?.info()?))
    }

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
        let can = rss::capabilities(&info);
        let steering = config.plan.clone().unwrap_or_else(|| alone(can, config));
        let mut setup = setup(config, &steering, offloads, &info);
        let mut told = Told {
            refused: bring_up_as_told(&mut device, &mut setup, pools)?,
            ..Told::default()
        };
        if let Some(plan) = &setup.rss {
            told = device.program(plan)?;
            // What it took it does, where it does not say.
            told.hash_types = told.hash_types.or(Some(plan.types()).filter(|took| {
                let asked = steering.rss.as_ref().map(RssPlan::types);
                asked != Some(*took)
            }));
        }
        if config.promiscuous {
            device.enable_promiscuous()?;
        }
        let mac = device.mac()?;
        let rss = RssCheck::new(can, setup.rx_queues, config.queues, steering.rss, told);
        let port = config.device.as_str();
        tracing::info!(port, rx_queues = setup.rx_queues, tx_queues = setup.tx_queues, %mac, ?offloads, "port is up: {}", rss.summary());
        for difference in &rss.differences {
            tracing::warn!(port, "{difference}");
        }
        Ok(Self {
            device: Arc::new(device),
            pools: pools.to_vec(),
            mac,
            offloads,
            senders: config.queues.min(setup.tx_queues),
            table: Arc::new(SampledTable::new(match &rss.spread {
                Spread::Rss(plan) => plan.table(),
                Spread::One(_) | Spread::Unknown => &[],
            })),
            rss,
            samples: (0..config.queues).map(|_| Arc::default()).collect(),
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

    /// A worker's end, to be moved to the worker: the transmit queue of that number, if there is one, and the receive queues that are its own, which may be
    /// none. `Err` when there are not so many workers or somebody has it.
    pub fn queue(&self, queue: u16) -> Result<DpdkPort, PortError> {
        self.device.claim(queue)?;
        let pool = self.pools[usize::from(queue) % self.pools.len()];
        let own = (queue..self.rss.queues).step_by(usize::from(self.queues()));
        let sampler = match &self.rss.spread {
            Spread::Rss(plan) => {
                let cells = Arc::clone(&self.samples[usize::from(queue)]);
                let table = Arc::clone(&self.table);
                Some(Sampler::new(plan.clone(), table, cells))
            }
            Spread::One(_) | Spread::Unknown => None,
        };
        Ok(DpdkPort::new(
            Arc::clone(&self.device),
            Receive::new(own.collect(), sampler),
            self.send_queue(queue),
            pool,
            self.offloads,
        ))
    }

    fn send_queue(&self, number: u16) -> SendQueue {
        SendQueue {
            number,
            sent_by: (number >= self.senders).then(|| WorkerId(number % self.senders)),
        }
    }

    /// The device's name.
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// How many workers may have a queue of it.
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

    /// How it spreads frames over the receive queues: what it was told and what it does.
    pub fn rss(&self) -> &RssCheck {
        &self.rss
    }

    /// Gives the NIC another redirection table while it runs, a queue for each entry, and reads it back. `Err` when it does not take
    /// it, or says that it has another one.
    pub fn set_table(&self, queues: &[u16]) -> Result<(), PortError> {
        self.table.replace(queues);
        self.device.set_table(queues)?;
        match self.device.told_table(queues.len() as u16) {
            Some(found) if found != queues => Err(PortError::OtherTable {
                port: self.name().to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// How many of the NIC's hashes were compared with ours since the start, and how many were wrong.
    pub fn samples(&self) -> (u64, u64) {
        let each = self.samples.iter();
        each.fold((0, 0), |(compared, wrong), cells| {
            (compared + cells.compared.read(), wrong + cells.wrong.read())
        })
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
    if info.max_tx_queues == 0 || info.max_rx_queues == 0 {
        return Err(PortError::DeviceWithoutQueues { port: port() });
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

/// The plan of a port whose configuration brings none.
fn alone(can: RssCapabilities, config: &PortConfig) -> PortPlan {
    let needs = PortNeeds {
        can,
        ..PortNeeds::default()
    };
    let [plan] = plan(&[needs], config.queues)
        .try_into()
        .unwrap_or_else(|_| unreachable!("one plan for one port"));
    plan
}

fn setup(
    config: &PortConfig,
    steering: &PortPlan,
    offloads: Offloads,
    info: &sys::rte_eth_dev_info,
) -> Setup {
    let rx_queues = steering.queues.clamp(1, info.max_rx_queues);
    let gives_hash =
        steering.rss.is_some() && info.rx_offload_capa & sys::SLUICE_RX_OFFLOAD_RSS_HASH != 0;
    Setup {
        rx_queues,
        // Some devices have pairs of queues only.
        tx_queues: rx_queues.max(config.queues).min(info.max_tx_queues),
        rx_descriptors: config.rx_descriptors,
        tx_descriptors: config.tx_descriptors,
        mtu: config.mtu,
        rx_offloads: if gives_hash {
            sys::SLUICE_RX_OFFLOAD_RSS_HASH
        } else {
            0
        },
        tx_offloads: offload_bits(offloads),
        rss: steering.rss.clone(),
    }
}

/// Fast free is not among them: it wants all frames of a queue from one pool, and those from the kernel have another.
fn offload_bits(offloads: Offloads) -> u64 {
    let bit = |wanted, bit| if wanted { bit } else { 0 };
    bit(offloads.ipv4_checksum, sys::SLUICE_TX_OFFLOAD_IPV4_CKSUM)
        | bit(offloads.udp_checksum, sys::SLUICE_TX_OFFLOAD_UDP_CKSUM)
}

/// Brings the device up to spread frames as it is told; where it does not take that, by both ends where one alone was wanted, and else not
/// at all. Returns why not, and leaves in `setup` what it took.
fn bring_up_as_told(
    device: &mut Device,
    setup: &mut Setup,
    pools: &[Mempool],
) -> Result<Option<String>, PortError> {
    let Err(error) = bring_up(device, setup, pools) else {
        return Ok(None);
    };
    let Some(plan) = setup.rss.take() else {
        return Err(error);
    };
    let one_end = HashTypes::SOURCE | HashTypes::DESTINATION;
    if plan.types().intersects(one_end) {
        setup.rss = Some(plan.hashing(plan.types().without(one_end)));
        if bring_up(device, setup, pools).is_ok() {
            return Ok(None);
        }
        setup.rss = None;
    }
    bring_up(device, setup, pools)?;
    Ok(Some(error.reason()))
}

fn bring_up(device: &mut Device, setup: &Setup, pools: &[Mempool]) -> Result<(), PortError> {
    device.configure(setup, pools)?;
    device.set_mtu(setup.mtu)?;
    device.start()
}
