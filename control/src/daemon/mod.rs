//! `sluiced`: everything put together, started, and stopped cleanly.
//!
//! Threads: the control thread (this one, a tokio runtime of its own: JSON-RPC, controller, kernel mirror), one lcore for
//! each worker, the punt thread, DPDK's main lcore. Start in the order: signals, boot file, socket (so that a second daemon
//! stops before it touches anything), DPDK, ports, workers, mirror; stop in the reverse one. A signal while it starts ends
//! it as cleanly, after the step that is on.

mod appliance;
mod ending;
mod follow;
mod log;
mod memory;
mod ports;
mod probe;
mod sizes;
mod stop;
mod turn;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use core_affinity::CoreId;
use sd_notify::NotifyState;
use tokio::runtime::Runtime;
use tracing::{error, info, warn};

use crate::boot::{Boot, BootError};
use crate::controller::{Controller, Setup};
use crate::rpc::server::Hub;
use crate::rpc::socket::{self, Socket, SocketError};
use appliance::{Appliance, ApplianceError};
use ending::Ending;
use follow::{FollowError, follow};
pub(crate) use sizes::memory_mb;
use stop::StopSignals;

/// The daemon's exit code for what the operator can mend: bad configuration, missing resources.
const REFUSED: u8 = 2;

/// sluice's load balancer daemon: serves packets as the boot file says, until SIGTERM.
///
/// Services are added while it runs, with `sluice` or by JSON-RPC.
///
/// Exit status: 0 after SIGTERM or SIGINT; 2 if it cannot start, with a sentence that says why; 1 if something did not stop
/// in time after a signal (--stop-timeout).
#[derive(Debug, clap::Parser)]
#[command(name = "sluiced", version)]
pub struct Options {
    /// The boot file: ports, worker cores, memory, RPC socket (TOML; configs/ has examples).
    #[arg(long, short, value_name = "FILE", env = "SLUICE_CONFIG")]
    config: PathBuf,

    /// Only check the boot file: exit 0 if it will do, else say why not and exit 2.
    ///
    /// Checks all that the file and this machine's cores tell. What only a start finds out it cannot see: devices that are not there
    /// or not bound to DPDK, their limits and their args, free memory and hugepages, names of interfaces that are taken, a
    /// socket that another daemon has.
    #[arg(long)]
    check: bool,

    /// Only ask the devices of the boot file what they can do: print that as JSON, for `sluice doctor --config`, and exit 0.
    ///
    /// Nothing is received or sent. Virtual devices are made so that nobody notices: taps by other names, captures into nowhere; those
    /// that need a peer are not asked. It refuses while a daemon runs with the same boot file.
    #[arg(long, conflicts_with = "check")]
    probe: bool,

    /// What to log, to stderr: error, warn, info, debug, trace, or as RUST_LOG takes it (sluice_control::rpc=debug,info).
    /// [default: $RUST_LOG, or info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,

    /// How long stopping may take; then sluiced ends without what has not stopped.
    ///
    /// The default is less than the 90 s after which systemd kills. The kernel takes most of it, to remove taps: on a machine where
    /// the processor is scarce 49 s were seen.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 60,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    stop_timeout: u32,
}

/// Why the daemon did not start, in one sentence.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error(transparent)]
    Log(#[from] log::LogError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Appliance(#[from] ApplianceError),
    #[error(transparent)]
    Follow(#[from] FollowError),
    #[error("the boot file's services: {0}")]
    Services(String),
    #[error("the control thread cannot run on core {0}: the process may not use it")]
    ControlCore(usize),
    #[error("the control thread's runtime: {0}")]
    Runtime(std::io::Error),
    #[error("the devices' answers cannot be written: {0}")]
    Answer(std::io::Error),
}

/// The daemon's life. Says on stderr why, if it cannot start.
pub fn run(options: &Options) -> ExitCode {
    match start(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "sluiced: {error}");
            ExitCode::from(REFUSED)
        }
    }
}

fn start(options: &Options) -> Result<(), StartError> {
    log::start(options.log_level.as_deref())?;
    if options.probe {
        return ask_devices(options);
    }
    // First, while nothing has been touched: the runtime may fail, and from here on a signal must find us cleaning up.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Runtime)?;
    let mut signals = StopSignals::catch(&runtime).map_err(StartError::Runtime)?;
    let boot = Boot::load(&options.config)?;
    if options.check {
        info!("{}: all is well", options.config.display());
        return Ok(());
    }
    info!(version = env!("CARGO_PKG_VERSION"), config = %options.config.display(), "sluiced starts");
    let socket = Socket::claim(&boot.rpc.socket, boot.rpc.mode)?;
    let core = boot.control_core();
    if !core_affinity::set_for_current(CoreId { id: core }) {
        return Err(StartError::ControlCore(core));
    }
    if !signals.came(&runtime) {
        let (mut appliance, setup) = Appliance::start(&boot)?;
        let outcome = work(&boot, &runtime, &mut signals, &mut appliance, setup, socket);
        let ending = Ending::watch(Duration::from_secs(options.stop_timeout.into()));
        // Tasks go before what they use; the appliance goes last.
        runtime.shutdown_background();
        appliance.stop(&ending);
        drop(ending);
        outcome?;
    }
    info!("sluiced has stopped");
    Ok(())
}

/// `--probe`.
fn ask_devices(options: &Options) -> Result<(), StartError> {
    use std::io::Write;
    let boot = Boot::load(&options.config)?;
    socket::check_free(&boot.rpc.socket)?;
    let asked = probe::probe(&boot);
    let text = serde_json::to_string(&asked).map_err(|error| StartError::Answer(error.into()))?;
    writeln!(std::io::stdout(), "{text}").map_err(StartError::Answer)
}

/// From an appliance at rest to the signal that ends it.
fn work(
    boot: &Boot,
    runtime: &Runtime,
    signals: &mut StopSignals,
    appliance: &mut Appliance,
    setup: Setup,
    socket: Socket,
) -> Result<(), StartError> {
    if signals.came(runtime) {
        return Ok(());
    }
    let mut controller = Controller::new(setup);
    controller.memory_reporter(memory::free_pages);
    appliance.introduce_ports(&mut controller);
    boot.begin(&mut controller).map_err(StartError::Services)?;
    if signals.came(runtime) {
        return Ok(());
    }
    appliance.launch_workers()?;
    runtime.block_on(async {
        let ended = tokio::select! {
            ended = serve(boot, controller, appliance, socket) => ended,
            () = signals.wait() => Ok(()),
        };
        tell_systemd(&[NotifyState::Stopping]);
        ended
    })
}

/// Serves until it is dropped.
async fn serve(
    boot: &Boot,
    controller: Controller,
    appliance: &Appliance,
    socket: Socket,
) -> Result<(), StartError> {
    let (listener, _file) = socket.into_parts();
    listener
        .set_nonblocking(true)
        .map_err(StartError::Runtime)?;
    let listener = tokio::net::UnixListener::from_std(listener).map_err(StartError::Runtime)?;
    let hub = Hub::new(controller, boot.rpc.max_request_bytes);
    let mirror = follow(&hub, appliance).await?;
    workers_ready(&hub).await;
    info!(socket = %boot.rpc.socket.display(), "sluiced serves");
    tell_systemd(&[NotifyState::Ready]);
    let turn = hub.run(|controller| {
        // Nobody to ask without a mirror: static neighbours are all there are.
        for event in controller.take_neighbour_events() {
            if let Some(mirror) = &mirror {
                mirror.event(&event);
            }
        }
    });
    tokio::select! {
        () = hub.serve(listener) => error!("the RPC server has ended"),
        () = turn => {}
    }
    Ok(())
}

/// Waits until the workers, which first allocate their tables, have all that was said so far.
async fn workers_ready(hub: &Hub) {
    let wanted = hub.with(|controller| controller.revision());
    let ready = |controller: &mut Controller| {
        controller.progress();
        controller.applied() >= wanted
    };
    while !hub.with(ready) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "systemd cannot be told how we are");
    }
}
