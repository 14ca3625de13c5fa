//! DPDK, safe to use: the environment, pools of frames, and ports on NICs and virtual devices.
//!
//! All unsafe code of the data plane is in this module. What keeps it sound:
//!
//! - A `&Eal` shows that DPDK is initialised, and it stays so until the process ends: memory is never unmapped.
//! - An [`Mbuf`] is the only owner of its buffer; pools live as long as the process.
//! - A [`DpdkPort`] is the only one of its queue, and the device runs until the last of them is dropped.
//!
//! Bringing everything up:
//!
//! ```no_run
//! use sluice_dataplane::dpdk::{DpdkPort, Eal, EalConfig, EthPort, Mempool, PoolConfig, PortConfig, clock};
//! use sluice_dataplane::io::{Burst, Port};
//!
//! fn forward(mut ports: Vec<DpdkPort>) {
//!     let mut burst = Burst::new();
//!     loop {
//!         let _now = clock::now();
//!         for port in &mut ports {
//!             port.rx(&mut burst);
//!             port.tx(&mut burst);
//!             port.free(&mut burst);
//!         }
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let config = EalConfig {
//!     worker_cores: vec![1, 2],
//!     vdevs: vec!["net_tap0,iface=dt0".into(), "net_tap1,iface=dt1".into()],
//!     ..EalConfig::default()
//! };
//! let eal = Eal::start(&config)?;
//! let workers = eal.workers() as u16;
//!
//! // A pool for each worker, on its NUMA node. `PoolConfig::bytes` tells before EAL starts how much memory it takes.
//! let mut pools = Vec::new();
//! for worker in 0..eal.workers() {
//!     let mut pool = PoolConfig::new(format!("worker{worker}"), 16_384);
//!     pool.socket = eal.worker_socket(worker)?;
//!     pools.push(Mempool::new(&eal, &pool)?);
//! }
//! let ports = ["net_tap0", "net_tap1"]
//!     .map(|device| EthPort::open(&eal, &PortConfig::new(device, workers), &pools));
//! let ports = ports.into_iter().collect::<Result<Vec<_>, _>>()?;
//!
//! // Worker n has queue n of every port.
//! let mut running = Vec::new();
//! for worker in 0..workers {
//!     let queues = ports.iter().map(|port| port.queue(worker));
//!     let queues = queues.collect::<Result<Vec<_>, _>>()?;
//!     running.push(eal.launch(usize::from(worker), move || forward(queues))?);
//! }
//! for worker in running {
//!     worker.wait();
//! }
//! // Dropped in reverse order: the ports stop, then Eal removes its files.
//! # Ok(())
//! # }
//! ```

pub mod clock;
mod config;
mod device;
mod eal;
mod facts;
mod log;
mod mbuf;
mod memory;
mod mempool;
mod port;
mod queue;
mod rss;

pub use config::{Backing, EalConfig, Hugepages, Iova};
pub use eal::{Eal, EalError, RunningWorker};
pub use facts::{DeviceFacts, FlowRules};
pub use log::HeldComplaints;
pub use mbuf::Mbuf;
pub use mempool::{Mempool, MempoolError, PoolConfig, Socket};
pub use port::{DeviceStats, EthPort, Link, PortConfig, PortError};
pub use queue::DpdkPort;
