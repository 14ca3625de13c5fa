//! testpmd between taps and memif ports: the kernel's end of a wire whose other end is memif.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::netns::Netns;

/// A memif port's args. Abstract sockets belong to a namespace, so every appliance has its own.
const SOCKET: &str = "socket=/sluice-wires";

/// As many wires as told, each tap `dtN` copied to the memif `N` and back. Ends with its owner.
pub(crate) struct Bridge(Child);

impl Bridge {
    /// Starts it in the appliance's namespace. Each port has so many queues.
    pub(crate) fn start(appliance: &Netns, wires: usize, queues: usize) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let core = core_affinity::get_core_ids().expect("the cores are known")[0].id;
        let mut arguments = vec![
            "--no-huge".to_owned(),
            "--no-pci".to_owned(),
            "--no-telemetry".to_owned(),
            format!("--file-prefix=sluice-bridge-{}-{n}", std::process::id()),
            format!("--lcores=0@{core},1@{core}"),
            "-m256".to_owned(),
        ];
        for wire in 0..wires {
            arguments.push(format!("--vdev=net_tap{wire},iface=dt{wire}"));
            let end = memif(wire, "client");
            arguments.push(format!("--vdev=net_memif{wire},{end}"));
        }
        arguments.push("--".to_owned());
        arguments.extend([format!("--rxq={queues}"), format!("--txq={queues}")]);
        arguments.extend(
            [
                "--forward-mode=io",
                "--port-topology=paired",
                "--nb-cores=1",
                "--total-num-mbufs=16384",
            ]
            .map(str::to_owned),
        );
        let mut command = Command::new("dpdk-testpmd");
        command
            .args(arguments)
            // It forwards until somebody presses a key.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(
            appliance
                .run(|| command.spawn())
                .expect("dpdk-testpmd starts"),
        )
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // Also while a failed test unwinds.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The args of a memif port, ours being the server.
pub(crate) fn memif(wire: usize, role: &str) -> String {
    format!("role={role},id={wire},{SOCKET}")
}
