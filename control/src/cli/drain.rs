//! `sluice server drain`: no new connections, and wait for the known ones to end.

use std::io::Write;
use std::time::{Duration, Instant};

use super::args::DrainArgs;
use super::change::name;
use super::{Failure, decode, encode};
use crate::api;
use crate::client::Rpc;

/// Exit code when connections remain at the deadline.
const REMAIN: u8 = 3;
/// How often the daemon is asked.
const PERIOD: Duration = Duration::from_millis(500);

/// Sets the weight to 0 and, if asked to, waits until no connection is left or the deadline has come. Gives the exit code.
pub(super) fn drain(
    args: &DrainArgs,
    as_json: bool,
    rpc: &mut dyn Rpc,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    let (service, address) = (args.server.service.reference()?, args.server.server);
    let quiesce = api::RealServerSet {
        service,
        address,
        method: None,
        tunnel: None,
        weight: Some(0),
        upper_threshold: None,
        lower_threshold: None,
    };
    rpc.call("real_server_set", encode(&quiesce)?)?;
    let begun = Instant::now();
    let deadline = args
        .timeout
        .map(|timeout| begun + Duration::from_secs(timeout));
    let mut told = None;
    loop {
        let left = remaining(service, address, rpc)?;
        let late = args.wait && deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if told != Some(left) || late {
            told = Some(left);
            let seconds = begun.elapsed().as_secs();
            if as_json {
                let line = serde_json::json!({"connections": left, "seconds": seconds});
                writeln!(out, "{line}")?;
            } else {
                let who = format!("real server {address} of {}", name(service));
                writeln!(
                    out,
                    "{who}: weight 0, {left} connections remain after {seconds} s"
                )?;
            }
            out.flush()?;
        }
        if left == 0 || !args.wait {
            return Ok(0);
        }
        if late {
            return Ok(REMAIN);
        }
        let until = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        std::thread::sleep(until.map_or(PERIOD, |until| PERIOD.min(until)));
    }
}

/// Connections of one real server, active or not.
fn remaining(
    service: api::ServiceRef,
    address: std::net::SocketAddr,
    rpc: &mut dyn Rpc,
) -> Result<u64, Failure> {
    let method = "real_server_list";
    let answer = rpc.call(method, encode(&api::ServiceOnly { service })?)?;
    let list: api::RealServerList = decode(method, answer)?;
    let mut servers = list.real_servers.iter().map(|of| &of.real_server);
    let found = servers.find(|server| server.address == address);
    let gone = || Failure::Gone(format!("real server {address} was deleted meanwhile"));
    found
        .map(|server| server.active + server.inactive)
        .ok_or_else(gone)
}
