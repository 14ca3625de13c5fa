//! Ten thousand services with a hundred real servers each, beside one.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use sluice_control::api::Method;
use toml::Table;

use super::rig::{Boot, Rig, window};
use crate::daemon::Daemon;
use crate::report::experiment::{Better, Experiment};
use crate::scenario::{SERVERS, Scenario, VIP, server};
use crate::traffic::Traffic;

/// Services.
pub const MANY: u32 = 10_000;

/// Connections, spread evenly over the services. Replies do not come by here: nobody need know who serves whom.
const SCENARIO: Scenario = Scenario {
    method: Method::Dr,
    flows: 100_000,
};

/// How long it may take to open all connections once the services are there.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs it.
pub fn run(rig: &Rig<'_>, rounds: usize, cpu: Duration) -> anyhow::Result<Experiment> {
    let mut experiment = Experiment {
        title: "10,000 services × 100 servers".to_owned(),
        how: "A million real servers, added by JSON-RPC in batches of a service each under load; then 100 k connections over all services evenly, opened by ACKs (sloppy_tcp), 64-byte frames, DR.".to_owned(),
        axis: "services".to_owned(),
        unit: "Mpps".to_owned(),
        better: Better::Higher,
        lines: Vec::new(),
    };
    for services in [1, MANY] {
        eprintln!("{services} services");
        let mut daemon = start(rig, services)?;
        for _ in 0..rounds {
            let window = window(&mut daemon, cpu, &[])?;
            experiment.push("DR", &services.to_string(), window.mpps());
        }
        rig.stop(daemon)?;
    }
    Ok(experiment)
}

/// Starts the appliance with so many services under load.
pub fn start(rig: &Rig<'_>, services: u32) -> anyhow::Result<Daemon> {
    let traffic = Traffic::of_clients(&SCENARIO, |flow| vip(flow % services));
    rig.write(traffic.opening_file(), traffic.steady.iter())?;
    let mut daemon = rig.start(&boot(rig, services)?, 0)?;
    let socket = rig.place().socket;
    fill(&socket, services).context("adding services")?;
    let wanted = u64::from(SCENARIO.connections());
    daemon
        .await_worker(PATIENCE, |_, worker| worker.connections == wanted)
        .with_context(|| format!("{wanted} connections are awaited"))?;
    Ok(daemon)
}

/// The address of a service, from 0.
pub fn vip(service: u32) -> SocketAddrV4 {
    let Some(above) = service.checked_sub(1) else {
        return VIP;
    };
    SocketAddrV4::new(Ipv4Addr::from_bits(0x0a01_0000 + above), VIP.port())
}

/// A service as a call's parameter.
pub fn name_of(service: u32) -> Value {
    json!({"protocol": "tcp", "address": vip(service).to_string()})
}

/// The addresses of so many services, and none of the services.
fn boot(rig: &Rig<'_>, services: u32) -> anyhow::Result<Boot> {
    let mut boot = Boot::of(&SCENARIO, &rig.place())?;
    boot.0.remove("service");
    boot.set("limits", "max_services", i64::from(services));
    let servers = services * u32::from(SERVERS);
    boot.set("limits", "max_real_servers", i64::from(servers));
    let known = boot.0.get("static").and_then(|table| table.get("address"));
    let known = known.and_then(toml::Value::as_array);
    let mut addresses = known.context("no addresses")?.clone();
    addresses.extend((1..services).map(|service| {
        let address = format!("{}/32", vip(service).ip());
        let entry = [("port", "wire".to_owned()), ("address", address)];
        let entry = entry.map(|(key, value)| (key.to_owned(), value.into()));
        toml::Value::Table(Table::from_iter(entry))
    }));
    boot.set("static", "address", addresses);
    Ok(boot)
}

/// Adds the services, a batch each, and then lets ACKs open connections.
fn fill(socket: &Path, services: u32) -> anyhow::Result<()> {
    let mut stream = BufReader::new(UnixStream::connect(socket)?);
    for service in 0..services {
        let add = call(
            "service_add",
            json!({"service": name_of(service), "scheduler": "rr"}),
        );
        let servers = (0..SERVERS).map(|n| {
            let address = format!("{}:80", server(n));
            let params = json!({"service": name_of(service), "address": address, "method": "dr"});
            call("real_server_add", params)
        });
        let batch: Vec<Value> = std::iter::once(add).chain(servers).collect();
        exchange(&mut stream, &batch)?;
    }
    let sloppy = json!({"settings": {"sloppy_tcp": 1}});
    exchange(&mut stream, &[call("setting_set", sloppy)])
}

fn call(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
}

/// Sends a batch and waits for its answers. `Err` with the first that is an error.
fn exchange(stream: &mut BufReader<UnixStream>, batch: &[Value]) -> anyhow::Result<()> {
    let mut line = serde_json::to_string(batch)?;
    line.push('\n');
    stream.get_mut().write_all(line.as_bytes())?;
    line.clear();
    stream.read_line(&mut line)?;
    let answers: Vec<Value> = serde_json::from_str(&line).with_context(|| line.clone())?;
    ensure!(answers.len() == batch.len(), "answers are missing: {line}");
    let refused = answers.iter().find(|answer| answer.get("error").is_some());
    ensure!(refused.is_none(), "{refused:?}");
    Ok(())
}
