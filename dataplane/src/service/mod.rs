//! Services and real servers: what control says of them, and a worker's view.

mod colleagues;
mod marks;
mod server;
mod spec;
mod table;

pub use colleagues::Colleagues;
pub use marks::{MarkRule, MarkRules, PortRange};
pub use server::Server;
pub use spec::{
    AddressFamily, ClientMask, Method, Persistence, PersistenceEngine, Protocol, RealServerSpec,
    RsId, SchedulerFlags, SchedulerKind, ServiceId, ServiceKey, ServiceSpec, Tunnel,
    TunnelChecksum,
};
pub use table::Services;
pub(crate) use table::{FTP, FTP_DATA};
