//! Waiting for who is at the other ends of the ports.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;
use sluice_dataplane::dpdk::EthPort;

use crate::interrupt;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(10);

/// Waits for the sockets of memif servers: DPDK gives up at once on one that is not there.
pub(super) fn await_sockets(ports: &[String], timeout: Duration) -> anyhow::Result<()> {
    let start = Instant::now();
    for path in ports.iter().filter_map(|port| memif_socket(port)) {
        while !Path::new(path).exists() {
            interrupt::check()?;
            if start.elapsed() > timeout {
                bail!(
                    "{path} is not there after {} s: is the program up that has role=server?",
                    timeout.as_secs()
                );
            }
            thread::sleep(LOOK);
        }
    }
    Ok(())
}

/// The socket file of a memif port that is a client.
fn memif_socket(port: &str) -> Option<&str> {
    let mut words = port.split(',');
    let memif = words.next()?.starts_with("net_memif");
    let value = |name: &str| {
        let mut words = port.split(',').filter_map(|word| word.split_once('='));
        words.find_map(|(key, value)| (key == name).then_some(value))
    };
    let client = value("role").is_none_or(|role| role == "client" || role == "slave");
    // By default it is no file.
    let file = value("socket-abstract") == Some("no");
    (memif && client && file).then(|| value("socket"))?
}

/// Waits until frames can pass.
pub(super) fn await_up(ports: &[EthPort], timeout: Duration) -> anyhow::Result<()> {
    let start = Instant::now();
    for port in ports {
        while !port.link()?.up {
            interrupt::check()?;
            if start.elapsed() > timeout {
                bail!(
                    "{}: the link is down after {} s; is the other side up? (of two memif ports, one has role=server, and both have \
                     the same id)",
                    port.name(),
                    timeout.as_secs()
                );
            }
            thread::sleep(LOOK);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_memif_client_waits_for_a_file() {
        let socket = memif_socket("net_memif0,role=client,id=0,socket=/x.sock,socket-abstract=no");
        assert_eq!(socket, Some("/x.sock"));
        assert_eq!(
            memif_socket("net_memif0,socket=/x.sock,socket-abstract=no"),
            Some("/x.sock")
        );
        for other in [
            "net_memif0,socket=/x.sock",
            "net_memif0,role=server,socket=/x.sock,socket-abstract=no",
            "net_null0,socket=/x.sock,socket-abstract=no",
            "0000:01:00.0",
        ] {
            assert_eq!(memif_socket(other), None, "{other}");
        }
        let missing = "net_memif0,socket=/nowhere/x.sock,socket-abstract=no".to_owned();
        let error = await_sockets(&[missing], Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("role=server"), "{error}");
    }
}
