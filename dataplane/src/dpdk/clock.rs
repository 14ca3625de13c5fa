//! The clock of the packet path: the TSC (contract 6 of the design).

use dpdk_sys as sys;

use super::Eal;
use crate::time::{TickRate, Ticks};

/// Now. A few nanoseconds; read it once a burst.
#[inline]
pub fn now() -> Ticks {
    // SAFETY: reads a register.
    Ticks(unsafe { sys::sluice_rdtsc() })
}

/// Ticks a second, as EAL measured or read them at start.
pub fn rate(_eal: &Eal) -> TickRate {
    // SAFETY: EAL is initialised, as the reference shows, and the value is fixed since.
    TickRate::new(unsafe { sys::rte_get_tsc_hz() })
}
