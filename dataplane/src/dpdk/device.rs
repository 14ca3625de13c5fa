//! A device of DPDK's by its number: the steps of bringing it up, and its end.
//!
//! No policy here; that is [`super::port`]'s.

use std::ffi::{CStr, CString, c_char, c_int};
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use dpdk_sys as sys;

use super::{Eal, Mempool, PortError, Socket, log, rss};
use crate::egress::Mac;
use crate::steer::RssPlan;

/// Which devices are held: each has at most one [`Device`].
static HELD: [AtomicBool; sys::SLUICE_MAX_ETHPORTS as usize] =
    [const { AtomicBool::new(false) }; sys::SLUICE_MAX_ETHPORTS as usize];

/// A device. Nobody else configures it; it is stopped and closed when the last holder lets go.
#[derive(Debug)]
pub(super) struct Device {
    id: u16,
    name: String,
    /// Whether there is something to stop and close.
    touched: bool,
    /// Which queues are given out.
    taken: Vec<AtomicBool>,
}

/// What a device and its queues are made with.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) rx_queues: u16,
    pub(super) tx_queues: u16,
    pub(super) rx_descriptors: u16,
    pub(super) tx_descriptors: u16,
    pub(super) mtu: u16,
    pub(super) rx_offloads: u64,
    pub(super) tx_offloads: u64,
    /// How to spread frames over the receive queues.
    pub(super) rss: Option<RssPlan>,
}

impl Device {
    /// Takes the device of that name.
    pub(super) fn take(eal: &Eal, name: &str, queues: u16) -> Result<Self, PortError> {
        let id = find(eal, name)?;
        if HELD[usize::from(id)].swap(true, Ordering::Acquire) {
            return Err(PortError::InUse {
                port: name.to_owned(),
            });
        }
        Ok(Self {
            id,
            name: name.to_owned(),
            touched: false,
            taken: (0..queues).map(|_| AtomicBool::new(false)).collect(),
        })
    }

    #[inline]
    pub(super) fn id(&self) -> u16 {
        self.id
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn queues(&self) -> u16 {
        self.taken.len() as u16
    }

    /// Takes queue `queue`, if it is there and free.
    pub(super) fn claim(&self, queue: u16) -> Result<(), PortError> {
        let port = || self.name.clone();
        let flag = self
            .taken
            .get(usize::from(queue))
            .ok_or_else(|| PortError::NoSuchQueue {
                port: port(),
                queue,
                queues: self.queues(),
            })?;
        if flag.swap(true, Ordering::Acquire) {
            return Err(PortError::QueueTaken {
                port: port(),
                queue,
            });
        }
        Ok(())
    }

    pub(super) fn release(&self, queue: u16) {
        if let Some(flag) = self.taken.get(usize::from(queue)) {
            flag.store(false, Ordering::Release);
        }
    }

    pub(super) fn info(&self) -> Result<sys::rte_eth_dev_info, PortError> {
        // SAFETY: all zeroes is a value of this structure of numbers and pointers.
        let mut info: sys::rte_eth_dev_info = unsafe { mem::zeroed() };
        // SAFETY: fills the structure.
        self.check("asked what it can do", unsafe {
            sys::rte_eth_dev_info_get(self.id, &mut info)
        })?;
        Ok(info)
    }

    /// Configures the device and its queues, queue `i` with pool `i` (round again if there are fewer). Not while it runs.
    pub(super) fn configure(&mut self, setup: &Setup, pools: &[Mempool]) -> Result<(), PortError> {
        self.touched = true;
        // SAFETY: all zeroes is a value of this structure, and means DPDK's defaults.
        let mut conf: sys::rte_eth_conf = unsafe { mem::zeroed() };
        conf.rxmode.mtu = u32::from(setup.mtu);
        conf.txmode.offloads = setup.tx_offloads;
        conf.rxmode.offloads = setup.rx_offloads;
        let mut key = Vec::new();
        if let Some(rss) = &setup.rss {
            key.extend_from_slice(rss.toeplitz().key().bytes());
            conf.rxmode.mq_mode = sys::SLUICE_MQ_RX_RSS;
            conf.rx_adv_conf.rss_conf = rss::conf(&mut key, rss.types());
        }
        // SAFETY: the configuration is copied, and so is the key, which lives until then; `self` is borrowed exclusively, so
        // nobody polls the device.
        self.check("configured", unsafe {
            sys::rte_eth_dev_configure(self.id, setup.rx_queues, setup.tx_queues, &conf)
        })?;
        let (mut rx, mut tx) = (setup.rx_descriptors, setup.tx_descriptors);
        // SAFETY: changes the two numbers to ones that the device can do.
        self.check("asked for its queue sizes", unsafe {
            sys::rte_eth_dev_adjust_nb_rx_tx_desc(self.id, &mut rx, &mut tx)
        })?;
        let node = self.socket().0 as u32;
        for (queue, pool) in (0..setup.rx_queues).zip(pools.iter().cycle()) {
            // SAFETY: the pool lives as long as the process; null asks for the device's default thresholds.
            self.check("given a receive queue", unsafe {
                sys::rte_eth_rx_queue_setup(self.id, queue, rx, node, ptr::null(), pool.as_ptr())
            })?;
        }
        for queue in 0..setup.tx_queues {
            // SAFETY: null asks for the device's defaults, with the offloads just configured.
            self.check("given a transmit queue", unsafe {
                sys::rte_eth_tx_queue_setup(self.id, queue, tx, node, ptr::null())
            })?;
        }
        Ok(())
    }

    /// Configures so many receive and transmit queues, and nothing else: for who only asks. Not while it runs.
    pub(super) fn configure_queues(&mut self, [rx, tx]: [u16; 2]) -> Result<(), PortError> {
        self.touched = true;
        // SAFETY: all zeroes is a value of this structure, and means DPDK's defaults.
        let conf: sys::rte_eth_conf = unsafe { mem::zeroed() };
        // SAFETY: the configuration is copied; `self` is borrowed exclusively, so nobody polls the device.
        self.check("configured", unsafe {
            sys::rte_eth_dev_configure(self.id, rx, tx, &conf)
        })
    }

    /// Devices without the notion of an MTU are left alone.
    pub(super) fn set_mtu(&self, mtu: u16) -> Result<(), PortError> {
        // SAFETY: takes numbers.
        let error = unsafe { sys::rte_eth_dev_set_mtu(self.id, mtu) };
        if error == -libc::ENOTSUP {
            tracing::debug!(port = self.name, mtu, "the device has no MTU to set");
            return Ok(());
        }
        self.check("given its MTU", error)
    }

    pub(super) fn start(&self) -> Result<(), PortError> {
        // SAFETY: the device is configured.
        self.check("started", unsafe { sys::rte_eth_dev_start(self.id) })
    }

    fn stop(&mut self) -> Result<(), PortError> {
        // SAFETY: `self` is borrowed exclusively, so no queue of it exists.
        self.check("stopped", unsafe { sys::rte_eth_dev_stop(self.id) })
    }

    /// Devices that cannot are left alone: most virtual ones see every frame anyway.
    pub(super) fn enable_promiscuous(&self) -> Result<(), PortError> {
        // SAFETY: takes a number.
        match unsafe { sys::rte_eth_promiscuous_enable(self.id) } {
            error if error == -libc::ENOTSUP => Ok(()),
            error => self.check("made promiscuous", error),
        }
    }

    pub(super) fn mac(&self) -> Result<Mac, PortError> {
        let mut address = sys::rte_ether_addr { addr_bytes: [0; 6] };
        // SAFETY: fills the address.
        self.check("asked for its MAC", unsafe {
            sys::rte_eth_macaddr_get(self.id, &mut address)
        })?;
        Ok(Mac(address.addr_bytes))
    }

    pub(super) fn add_mac(&self, mac: Mac) -> Result<(), PortError> {
        let mut address = sys::rte_ether_addr { addr_bytes: mac.0 };
        // SAFETY: the address is copied; pool 0 is the only one without VMDq.
        self.check("given another MAC", unsafe {
            sys::rte_eth_dev_mac_addr_add(self.id, &mut address, 0)
        })
    }

    pub(super) fn remove_mac(&self, mac: Mac) -> Result<(), PortError> {
        let mut address = sys::rte_ether_addr { addr_bytes: mac.0 };
        // SAFETY: the address is only read.
        self.check("relieved of a MAC", unsafe {
            sys::rte_eth_dev_mac_addr_remove(self.id, &mut address)
        })
    }

    pub(super) fn mtu(&self) -> Result<u16, PortError> {
        let mut mtu = 0;
        // SAFETY: writes the number.
        self.check("asked for its MTU", unsafe {
            sys::rte_eth_dev_get_mtu(self.id, &mut mtu)
        })?;
        Ok(mtu)
    }

    /// Whether the link is up, and its speed in Mbit/s.
    pub(super) fn link(&self) -> Result<(bool, u32), PortError> {
        let (mut up, mut speed) = (false, 0);
        // SAFETY: writes both.
        self.check("asked for its link", unsafe {
            sys::sluice_link(self.id, &mut up, &mut speed)
        })?;
        Ok((up, speed))
    }

    pub(super) fn stats(&self) -> Result<sys::rte_eth_stats, PortError> {
        // SAFETY: all zeroes is a value of this structure of numbers.
        let mut stats: sys::rte_eth_stats = unsafe { mem::zeroed() };
        // SAFETY: fills the structure.
        self.check("asked for its counters", unsafe {
            sys::rte_eth_stats_get(self.id, &mut stats)
        })?;
        Ok(stats)
    }

    /// The NUMA node that it is attached to.
    pub(super) fn socket(&self) -> Socket {
        // SAFETY: takes a number.
        Socket(unsafe { sys::rte_eth_dev_socket_id(self.id) })
    }

    pub(super) fn check(&self, step: &'static str, error: c_int) -> Result<(), PortError> {
        if error == 0 {
            return Ok(());
        }
        Err(PortError::Step {
            port: self.name.clone(),
            step,
            errno: super::eal::errno_text(-error),
        })
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if self.touched {
            if let Err(error) = self.stop() {
                tracing::warn!("{error}");
            }
            // SAFETY: the last holder is gone, so nobody polls the device.
            let error = unsafe { sys::rte_eth_dev_close(self.id) };
            if let Err(error) = self.check("closed", error) {
                tracing::warn!("{error}");
            }
        }
        HELD[usize::from(self.id)].store(false, Ordering::Release);
    }
}

/// The number of the device of that name.
fn find(eal: &Eal, name: &str) -> Result<u16, PortError> {
    let mut id = 0;
    let found = CString::new(name).is_ok_and(|name| {
        // SAFETY: EAL is initialised, the name is terminated, and `id` is written.
        unsafe { sys::rte_eth_dev_get_port_by_name(name.as_ptr(), &mut id) == 0 }
    });
    if found {
        return Ok(id);
    }
    let (port, said) = (name.to_owned(), log::take_complaints());
    if said.is_empty() {
        let known = names(eal).join(", ");
        return Err(PortError::NoSuchDevice { port, known });
    }
    Err(PortError::NotMade { port, said })
}

/// The NUMA node of the device of that name.
pub(super) fn socket(eal: &Eal, name: &str) -> Result<Socket, PortError> {
    let id = find(eal, name)?;
    // SAFETY: takes a number.
    Ok(Socket(unsafe { sys::rte_eth_dev_socket_id(id) }))
}

/// The names of all devices that DPDK has.
pub(super) fn names(_eal: &Eal) -> Vec<String> {
    let mut names = Vec::new();
    let mut id = 0;
    loop {
        // SAFETY: EAL is initialised; any number may be asked.
        id = unsafe { sys::rte_eth_find_next(id) };
        if i32::from(id) >= sys::SLUICE_MAX_ETHPORTS {
            return names;
        }
        let mut name: [c_char; sys::SLUICE_ETH_NAME_SIZE as usize] = [0; _];
        // SAFETY: the buffer has the size that DPDK demands of it.
        if unsafe { sys::rte_eth_dev_get_name_by_port(id, name.as_mut_ptr()) } == 0 {
            // SAFETY: DPDK wrote a terminated string.
            let name = unsafe { CStr::from_ptr(name.as_ptr()) };
            names.push(name.to_string_lossy().into_owned());
        }
        id += 1;
    }
}
