//! Services and real servers: what control says of them, and a worker's view.

mod spec;

pub use spec::{
    AddressFamily, Method, Protocol, RealServerSpec, RsId, SchedulerKind, ServiceId, ServiceKey,
    ServiceSpec,
};
