//! Services and real servers: what control says of them, and a worker's view.

mod server;
mod spec;
mod table;

pub use server::Server;
pub use spec::{
    AddressFamily, Method, Protocol, RealServerSpec, RsId, SchedulerFlags, SchedulerKind,
    ServiceId, ServiceKey, ServiceSpec, Tunnel, TunnelChecksum,
};
pub use table::Services;
