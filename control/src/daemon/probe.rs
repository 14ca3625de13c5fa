//! `sluiced --probe`: asks the devices of a boot file what they can do, so that nothing changes by it, and prints that as JSON.

use std::process;

use sluice_dataplane::dpdk::{
    self, DeviceFacts, Eal, EalConfig, EthPort, HeldComplaints, Hugepages,
};

use super::sizes::eal_config;
use crate::boot::{Boot, Port};
use crate::machine::asked::{Answer, Asked, Device, FlowRules};

/// Memory for drivers: nothing is received.
const MEMORY_MB: u32 = 64;

/// Asks all of them. Takes about as long as DPDK's start; can be done once a process.
pub(super) fn probe(boot: &Boot) -> Asked {
    let _complaints = HeldComplaints::hold();
    let eal = match Eal::start(&config(boot)) {
        Ok(eal) => eal,
        Err(error) => {
            let why = error.to_string();
            let ports = boot.ports.iter().map(|_| Answer::NotAsked(why.clone()));
            return Asked {
                ports: ports.collect(),
            };
        }
    };
    let ask = |(id, port): (usize, &Port)| match harmless(id, port) {
        Err(why) => Answer::NotAsked(why.to_owned()),
        Ok(_) => match EthPort::facts(&eal, &port.device) {
            Ok(facts) => Answer::Device(facts.into()),
            Err(error) => Answer::Failed(error.to_string()),
        },
    };
    Asked {
        ports: (0..).zip(&boot.ports).map(ask).collect(),
    }
}

/// A DPDK beside whatever others run, without files.
fn config(boot: &Boot) -> EalConfig {
    let own = eal_config(boot);
    let vdevs = (0..).zip(&boot.ports).filter(|(_, port)| !port.is_pci());
    EalConfig {
        file_prefix: format!("{}-probe-{}", own.file_prefix, process::id()),
        worker_cores: own.worker_cores.iter().copied().take(1).collect(),
        allow_shared_cores: true,
        hugepages: match own.hugepages {
            Hugepages::Off => Hugepages::Off,
            Hugepages::Auto | Hugepages::Required => Hugepages::Auto,
        },
        memory_mb: MEMORY_MB,
        tables_mb: 0,
        in_memory: true,
        vdevs: vdevs
            .filter_map(|(id, port)| harmless(id, port).ok())
            .collect(),
        extra_args: Vec::new(),
        ..own
    }
}

/// The device, with arguments by which nobody notices that it is made; `Err` says why there are none.
fn harmless(id: usize, port: &Port) -> Result<String, &'static str> {
    let is = |driver: &str| port.device.starts_with(driver);
    let all = port.device_with_args();
    if port.is_pci() || is("net_null") || is("net_ring") || is("net_af_packet") {
        Ok(all)
    } else if is("net_tap") {
        // An interface of another name: the real one may be there already.
        Ok(format!("{},iface=slp{:x}n{id}", port.device, process::id()))
    } else if is("net_memif") {
        // Without its socket.
        Ok(port.device.clone())
    } else if is("net_pcap") {
        // A file that is written to would be emptied.
        let args = all.split(',').map(|arg| match arg.split_once('=') {
            Some(("tx_pcap", _)) => "tx_pcap=/dev/null",
            _ => arg,
        });
        Ok(args.collect::<Vec<_>>().join(","))
    } else {
        Err("a device of its kind cannot be made without its peer's noticing")
    }
}

impl From<DeviceFacts> for Device {
    fn from(facts: DeviceFacts) -> Self {
        let DeviceFacts {
            driver,
            tx_queues,
            rss,
            node,
            flow_rules,
        } = facts;
        Self {
            driver,
            rx_queues: rss.queues,
            tx_queues,
            rss_table: rss.table,
            rss_key: rss.key_len,
            rss_types: rss.hash_types.to_string(),
            node,
            flow_rules: match flow_rules {
                dpdk::FlowRules::Taken => FlowRules::Taken,
                dpdk::FlowRules::None => FlowRules::None,
                dpdk::FlowRules::Refused(why) => FlowRules::Refused(why),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::boot::Machine;

    fn made(device: &str, args: &str) -> Result<String, &'static str> {
        let text = format!(
            "[[port]]\nname = \"wan\"\ndevice = {device:?}\nargs = {args:?}\n[workers]\ncores = [1]\n"
        );
        let machine = Machine { cores: vec![0, 1] };
        let boot = Boot::parse(Path::new("boot.toml"), &text, &machine).unwrap();
        harmless(0, &boot.ports[0])
    }

    #[test]
    fn nothing_is_made_that_others_would_notice() {
        let tap = made("net_tap0", "iface=wan0,mac=02:00:00:00:00:01").unwrap();
        assert!(tap.starts_with("net_tap0,iface=slp") && !tap.contains("wan0"));
        assert!(tap.split('=').nth(1).unwrap().len() <= 15, "{tap}");
        assert_eq!(
            made(
                "net_pcap0",
                "rx_pcap=/a,tx_pcap=/b,tx_pcap=/c,infinite_rx=1"
            )
            .unwrap(),
            "net_pcap0,rx_pcap=/a,tx_pcap=/dev/null,tx_pcap=/dev/null,infinite_rx=1"
        );
        assert_eq!(
            made("net_memif0", "role=server,socket=/run/x").unwrap(),
            "net_memif0"
        );
        assert_eq!(made("net_null0", "size=64").unwrap(), "net_null0,size=64");
        assert_eq!(made("0000:01:00.0", "x=1").unwrap(), "0000:01:00.0,x=1");
        assert!(made("net_virtio_user0", "path=/run/vhost").is_err());
    }
}
