//! `sluice status`: one screen about everything.

use std::io::Write;

use serde_json::{Value, json};

use super::change::{method_name, name, scheduler};
use super::output::{self, Columns, duration, percent, short};
use super::show::drop_table;
use super::{Failure, decode};
use crate::api;
use crate::client::Rpc;

/// Prints it; as JSON it is an object of the answers of `version`, `stats`, `service_list` and `drops`.
pub(super) fn status(as_json: bool, rpc: &mut dyn Rpc, out: &mut dyn Write) -> Result<(), Failure> {
    let version = rpc.call("version", Value::Null)?;
    let stats = rpc.call("stats", Value::Null)?;
    let services = rpc.call("service_list", json!({}))?;
    let drops = rpc.call("drops", Value::Null)?;
    if as_json {
        let answer = json!({"version": version, "stats": stats, "services": services["services"], "drops": drops["drops"]});
        return Ok(output::json(out, &answer)?);
    }
    let version: api::Version = decode("version", version)?;
    let stats: api::Stats = decode("stats", stats)?;
    let api::ServiceList { services, .. } = decode("service_list", services)?;
    let api::Drops { mut drops } = decode("drops", drops)?;

    let (up, revision) = (duration(stats.uptime_s), stats.revision);
    writeln!(
        out,
        "sluice {}, DPDK {}, up {up}, revision {revision}",
        version.sluice, version.dpdk
    )?;
    let api::Rates {
        cps,
        in_pps,
        out_pps,
        in_bps,
        out_bps,
    } = stats.rates;
    writeln!(
        out,
        "now: {} connections/s; in {} packets/s, {}B/s; out {} packets/s, {}B/s\n",
        short(cps),
        short(in_pps),
        short(in_bps),
        short(out_pps),
        short(out_bps),
    )?;
    workers(&stats, out)?;
    writeln!(out)?;
    ports(&stats).print(out, "")?;
    writeln!(out)?;
    if services.is_empty() {
        writeln!(
            out,
            "no services; add one with `sluice service add tcp ADDRESS:PORT`"
        )?;
    } else {
        service_table(&services).print(out, "")?;
    }
    drops.retain(|drop| drop.packets > 0);
    if !drops.is_empty() {
        writeln!(out)?;
        drop_table(&drops).print(out, "")?;
    }
    warnings(&stats, &services, out)
}

fn workers(stats: &api::Stats, out: &mut dyn Write) -> Result<(), Failure> {
    let mut columns = Columns::new(&[
        "worker",
        ">core",
        ">connections",
        ">full",
        ">rx",
        ">tx",
        ">punted",
        ">dropped",
        ">busy",
    ]);
    for worker in &stats.workers {
        columns.row(vec![
            worker.worker.to_string(),
            worker.core.to_string(),
            worker.connections.to_string(),
            percent(worker.connections, worker.max_connections),
            short(worker.rx),
            short(worker.tx),
            short(worker.punted),
            short(worker.dropped),
            percent(worker.busy_polls, worker.polls),
        ]);
    }
    Ok(columns.print(out, "")?)
}

fn ports(stats: &api::Stats) -> Columns {
    let mut columns = Columns::new(&[
        "port",
        "link",
        ">MTU",
        "exception",
        ">rx",
        ">tx",
        ">missed",
        ">errors",
    ]);
    for port in &stats.ports {
        let link = match (port.link_up, port.speed_mbps) {
            (false, _) => "down".to_owned(),
            (true, 0) => "up".to_owned(),
            (true, speed) if speed % 1000 == 0 => format!("up {} Gbit/s", speed / 1000),
            (true, speed) => format!("up {speed} Mbit/s"),
        };
        columns.row(vec![
            port.name.clone(),
            link,
            port.mtu.to_string(),
            exception(port, stats),
            short(port.rx),
            short(port.tx),
            short(port.rx_missed),
            short(port.rx_errors + port.rx_nombuf),
        ]);
    }
    columns
}

fn service_table(services: &[api::Service]) -> Columns {
    let mut columns = Columns::new(&[
        "service",
        "scheduler",
        ">weight",
        ">active",
        ">inactive",
        ">conns",
        ">conns/s",
        ">in pkts/s",
        ">out pkts/s",
    ]);
    for service in services {
        let sum =
            |of: fn(&api::RealServer) -> u64| service.real_servers.iter().map(of).sum::<u64>();
        columns.row(vec![
            name(service.service),
            scheduler(service),
            String::new(),
            sum(|server| server.active).to_string(),
            sum(|server| server.inactive).to_string(),
            short(service.stats.conns),
            short(service.rates.cps),
            short(service.rates.in_pps),
            short(service.rates.out_pps),
        ]);
        // In the order in which they were added.
        for server in service.real_servers.iter().rev() {
            columns.row(vec![
                format!("  -> {}", server.address),
                method_name(server.method).to_owned(),
                server.weight.to_string(),
                server.active.to_string(),
                server.inactive.to_string(),
                short(server.stats.conns),
                short(server.rates.cps),
                short(server.rates.in_pps),
                short(server.rates.out_pps),
            ]);
        }
    }
    columns
}

/// A port's exception interface, as tables show it.
pub(super) fn exception(port: &api::PortStats, stats: &api::Stats) -> String {
    let kernel = stats.kernel.iter();
    let mut missing = kernel.flat_map(|kernel| &kernel.missing_interfaces);
    match &port.exception {
        Some(name) if missing.any(|gone| gone == name) => format!("{name} (gone)"),
        Some(name) => name.clone(),
        None => "-".to_owned(),
    }
}

/// A warning for each exception interface that is gone.
pub(super) fn missing_interfaces(stats: &api::Stats) -> impl Iterator<Item = String> {
    let kernel = stats.kernel.iter();
    let missing = kernel.flat_map(|kernel| &kernel.missing_interfaces);
    missing.map(|name| {
        format!("the exception interface {name} is gone: name it back, or restart sluiced if it was deleted")
    })
}

/// What an operator should know without having to look for it.
fn warnings(
    stats: &api::Stats,
    services: &[api::Service],
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut warnings = Vec::new();
    for service in services {
        let what = name(service.service);
        let usable = |server: &api::RealServer| server.weight > 0;
        if !service.vip_local {
            let address = match service.service {
                api::ServiceRef::Address { address, .. } => address.ip().to_string(),
                api::ServiceRef::Mark { .. } => "its VIP".to_owned(),
            };
            warnings.push(format!(
                "{what}: {address} is not an address of this machine; the service matches nothing"
            ));
        } else if !service.real_servers.iter().any(usable) {
            warnings.push(format!("{what}: no real server takes new connections"));
        }
        for laddr in &service.laddrs_not_local {
            warnings.push(format!(
                "{what}: the local address {laddr} is not an address of this machine; replies to it do not come here"
            ));
        }
    }
    for worker in &stats.workers {
        if worker.applied < stats.revision {
            let (worker, applied) = (worker.worker, worker.applied);
            warnings.push(format!("worker {worker} is still at revision {applied}"));
        }
    }
    for port in stats.ports.iter().filter(|port| !port.link_up) {
        warnings.push(format!("port {}: the link is down", port.name));
    }
    warnings.extend(missing_interfaces(stats));
    if let Some(kernel) = &stats.kernel {
        for failed in &kernel.failed {
            let port = stats.ports.get(usize::from(failed.port));
            let port = port.map_or("?", |port| port.name.as_str());
            let address = failed.address;
            warnings.push(format!("{address} does not answer on port {port}"));
        }
        for what in &kernel.not_mirrored {
            warnings.push(format!("the kernel has what workers do not follow: {what}"));
        }
    }
    if !warnings.is_empty() {
        writeln!(out)?;
    }
    warnings
        .iter()
        .try_for_each(|warning| writeln!(out, "! {warning}"))?;
    Ok(())
}
