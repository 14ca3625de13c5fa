//! Generates the bindings from the installed DPDK's headers and compiles the shim for its inline functions.
//!
//! Where something is missing, the build stops with one sentence that names the Debian packages.

use std::env;
use std::path::Path;
use std::process::{Command, exit};

/// The oldest DPDK whose interface is used here.
const FLOOR: &str = "22.11";

/// Functions that are called by name; the types they need come with them. What `shim.h` declares is taken whole.
const FUNCTIONS: [&str; 8] = [
    "rte_eal_(init|remote_launch|wait_lcore)",
    "rte_(version|strerror|get_tsc_hz|lcore_to_socket_id|pdump_init|log_cur_msg_loglevel)",
    "rte_mempool_(avail_count|calc_obj_size|create_empty|free|obj_iter|populate_default|set_ops_byname)",
    "rte_(pktmbuf_(pool_init|init|free_bulk)|mbuf_best_mempool_ops|malloc_get_socket_stats)",
    "rte_eth_(find_next|stats_get|macaddr_get|promiscuous_enable|[rt]x_queue_setup)",
    "rte_eth_dev_(info_get|configure|adjust_nb_rx_tx_desc|start|stop|close|[sg]et_mtu)",
    "rte_eth_dev_(get_port_by_name|get_name_by_port|socket_id|mac_addr_(add|remove))",
    "rte_eth_dev_rss_(reta_(query|update)|hash_(conf_get|update))",
];

/// Structures that pass through as they are: nobody looks inside.
const OPAQUE: &str =
    "rte_(mbuf_.*|mempool_.*__.*|eth_(rxseg.*|switch_info|dcb_.*|vmdq_.*|thresh|intr_conf))";

/// Structures only ever pointed at.
const POINTED_AT: [&str; 3] = ["rte_device", "rte_mbuf", "rte_mempool"];

fn main() {
    for input in ["build.rs", "src/shim.h", "src/shim.c"] {
        println!("cargo::rerun-if-changed={input}");
    }
    // This prints what to link with; the linker leaves out the libraries that nobody calls.
    if let Err(error) = pkg_config::Config::new()
        .atleast_version(FLOOR)
        .probe("libdpdk")
    {
        stop("libdpdk", &reason(&error));
    }
    if let Err(error) = clang_sys::load() {
        stop("libclang", &error);
    }
    let flags = compiler_flags();
    compile_shim(&flags);
    generate(&flags);
}

/// pkg-config's own flags: `-include rte_config.h` and `-march=…` must reach both compilers, and the crate drops them.
fn compiler_flags() -> Vec<String> {
    let tool = env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".into());
    let output = Command::new(tool)
        .args(["--cflags", "libdpdk"])
        .output()
        .unwrap_or_else(|error| stop("pkg-config", &error));
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// The shim is the hot path's door to DPDK, so it is optimised in every profile.
fn compile_shim(flags: &[String]) {
    let mut build = cc::Build::new();
    build.file("src/shim.c").opt_level(3);
    // DPDK's headers warn when compiled by other compilers than its own build knew.
    build.warnings(false);
    for flag in flags {
        build.flag(flag);
    }
    if let Err(error) = build.try_compile("sluice_dpdk_shim") {
        stop("a C compiler that can compile DPDK's headers", &error);
    }
}

fn generate(flags: &[String]) {
    let out = env::var("OUT_DIR").unwrap_or_else(|error| stop("OUT_DIR", &error));
    let mut builder = bindgen::Builder::default();
    for name in POINTED_AT {
        builder = builder
            .blocklist_type(format!("{name}(__bindgen_ty.*)?"))
            .raw_line(format!(
                "#[repr(C)] pub struct {name} {{ _opaque: [u8; 0] }}"
            ));
    }
    for functions in FUNCTIONS {
        builder = builder.allowlist_function(functions);
    }
    let bindings = builder
        .header("src/shim.h")
        .clang_args(flags)
        .allowlist_item("(sluice|SLUICE)_.*|rte_pktmbuf_pool_private")
        .opaque_type(OPAQUE)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_debug(false)
        .derive_default(false)
        .generate_comments(false)
        .layout_tests(false)
        .use_core()
        .parse_callbacks(Box::new(bindgen::CargoCallbacks::new()))
        .generate()
        .unwrap_or_else(|error| stop("C headers that libclang can read", &error));
    if let Err(error) = bindings.write_to_file(Path::new(&out).join("bindings.rs")) {
        stop("a writable OUT_DIR", &error);
    }
}

/// What pkg-config itself said, which knows whether DPDK is missing or too old.
fn reason(error: &pkg_config::Error) -> String {
    match error {
        pkg_config::Error::Failure { output, .. }
        | pkg_config::Error::ProbeFailure { output, .. } => {
            String::from_utf8_lossy(&output.stderr).into_owned()
        }
        other => other.to_string(),
    }
}

/// One sentence, and the build is over. Cargo fails by the error; by a status it would print all of our output.
fn stop(missing: &str, error: &dyn std::fmt::Display) -> ! {
    let cause = error.to_string();
    let cause = cause
        .lines()
        .map(str::trim)
        .find(|line| !line.is_empty())
        .unwrap_or("no reason given");
    // Compilers quote whole command lines; what they complain about is on stderr.
    let cause: String = cause.chars().take(120).collect();
    println!(
        "cargo::error={missing} is missing or not usable ({cause}): sluice is built with DPDK {FLOOR} or newer, libclang, \
         pkg-config and a C compiler; on Debian install them with \
         `apt-get install libdpdk-dev libclang-dev pkg-config gcc`."
    );
    exit(0)
}
