//! Raw bindings to the installed DPDK, generated at build time: only what sluice calls, and no policy.
//!
//! Names are DPDK's. `sluice_*` and `SLUICE_*` are the shim's (`src/shim.h`): inline functions, thread-locals, flags
//! of one width, and where the fields of a mbuf are, so that no release's layout is written down here.
//! Everything is unsafe to call; the safe layer is `sluice_dataplane::dpdk`.

#[allow(
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    unreachable_pub,
    clippy::all,
    clippy::undocumented_unsafe_blocks,
    reason = "generated: which of these apply depends on the DPDK release and on bindgen"
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use bindings::*;
