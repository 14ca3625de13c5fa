//! The kernel mirror's news, brought to the controller, the punt thread and the ports.

use std::time::Duration;

use sluice_dataplane::command::PortId;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::appliance::Appliance;
use crate::api::{FailedNeighbour, KernelStats};
use crate::kernel::{KernelMirror, KernelUpdate, MirrorError, MirrorPort, MirrorStatus};
use crate::rpc::server::Hub;

/// News that may wait for us.
const NEWS: usize = 256;

/// How long the kernel may take to tell all that it has.
const FIRST_READING: Duration = Duration::from_secs(60);

/// The kernel cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    /// The mirror did not start.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// It fell silent.
    #[error("the kernel did not tell its addresses and routes within {} s", FIRST_READING.as_secs())]
    Silent,
}

/// Follows the kernel, if any port has an exception interface. Returns when all that it has now is in force.
pub(super) async fn follow(
    hub: &Hub,
    appliance: &Appliance,
) -> Result<Option<KernelMirror>, FollowError> {
    let ports: Vec<MirrorPort> = appliance
        .exceptions()
        .map(|(port, interface)| MirrorPort {
            port,
            interface: interface.to_owned(),
        })
        .collect();
    if ports.is_empty() {
        info!(
            "no port has an exception interface: only static addresses, routes and neighbours hold"
        );
        return Ok(None);
    }
    let (sender, mut news) = mpsc::channel(NEWS);
    let mirror = KernelMirror::start(ports, sender).await?;
    let side = appliance.kernel_side();
    let first = async {
        while let Some(update) = news.recv().await {
            if matches!(update, KernelUpdate::Complete) {
                return Ok(());
            }
            apply(hub, &side, update);
        }
        Err(FollowError::Silent)
    };
    tokio::time::timeout(FIRST_READING, first)
        .await
        .unwrap_or(Err(FollowError::Silent))?;
    let report = mirror.reporter();
    hub.with(|controller| controller.kernel_reporter(move || stats(report())));
    let hub = hub.clone();
    tokio::spawn(async move {
        while let Some(update) = news.recv().await {
            apply(&hub, &side, update);
        }
        warn!("the kernel mirror has ended");
    });
    Ok(Some(mirror))
}

fn stats(status: MirrorStatus) -> KernelStats {
    let failed = |(port, address): (PortId, _)| FailedNeighbour {
        port: port.0,
        address,
    };
    KernelStats {
        neighbours: status.neighbours.usable,
        resolving: status.neighbours.resolving,
        failed: status.failed.into_iter().map(failed).collect(),
        failures: status.neighbours.failures,
        resyncs: status.resyncs,
        pending: status.pending,
        not_mirrored: status.not_mirrored,
        missing_interfaces: status.missing_interfaces,
    }
}

fn apply(hub: &Hub, side: &super::appliance::KernelSide, update: KernelUpdate) {
    match update {
        KernelUpdate::LocalAddresses(addresses) => {
            hub.with(|controller| controller.local_addresses(addresses.iter().copied()));
            side.local_addresses(addresses);
        }
        KernelUpdate::Fib(fib) => hub.with(|controller| controller.fib(&fib)),
        KernelUpdate::Neighbour { port, addr, mac } => {
            hub.with(|controller| controller.neighbour(port, addr, mac));
        }
        // An interface that is down has no routes, so nothing needs to be done about it.
        KernelUpdate::PortState {
            port,
            mac,
            mtu,
            up: _,
        } => {
            hub.with(|controller| controller.port_state(port, mac, mtu));
            side.port_state(port, mac, mtu);
        }
        KernelUpdate::Complete => {}
    }
}
