//! `stats`, `drops`, `connections`, `version` and `methods`.

use std::io::Write;

use serde_json::{Value, json};

use super::args::ConnectionArgs;
use super::change::method_name;
use super::output::{self, Columns, duration, percent};
use super::status::missing_interfaces;
use super::{Failure, Streams, decode, encode};
use crate::api;
use crate::client::Rpc;

/// Connections are asked for in slices of at most so many, the daemon's own bound.
const SLICE: usize = 10_000;

/// `sluice stats`.
pub(super) fn stats(as_json: bool, rpc: &mut dyn Rpc, out: &mut dyn Write) -> Result<(), Failure> {
    let answer = rpc.call("stats", Value::Null)?;
    if as_json {
        return Ok(output::json(out, &answer)?);
    }
    let stats: api::Stats = decode("stats", answer)?;
    writeln!(
        out,
        "revision {}, up {}\n",
        stats.revision,
        duration(stats.uptime_s)
    )?;
    totals(&stats).print(out, "")?;
    writeln!(out)?;
    workers(&stats.workers).print(out, "")?;
    writeln!(out)?;
    ports(&stats.ports).print(out, "")?;
    if stats.ports.iter().any(|port| port.handed.is_some()) {
        writeln!(out)?;
        handed(&stats.ports).print(out, "")?;
    }
    for warning in missing_interfaces(&stats) {
        writeln!(out, "! {warning}")?;
    }
    Ok(())
}

fn totals(stats: &api::Stats) -> Columns {
    let mut columns = Columns::new(&["all services", ">total", ">per second"]);
    let (totals, rates) = (&stats.totals, &stats.rates);
    for (what, total, rate) in [
        ("connections", totals.conns, rates.cps),
        ("packets in", totals.in_packets, rates.in_pps),
        ("packets out", totals.out_packets, rates.out_pps),
        ("bytes in", totals.in_bytes, rates.in_bps),
        ("bytes out", totals.out_bytes, rates.out_bps),
    ] {
        columns.row(vec![what.to_owned(), total.to_string(), rate.to_string()]);
    }
    columns
}

/// One column for each worker: their books are long.
fn workers(workers: &[api::WorkerStats]) -> Columns {
    let titles: Vec<String> = workers
        .iter()
        .map(|worker| format!(">{}", worker.worker))
        .collect();
    let titles: Vec<&str> = std::iter::once("worker")
        .chain(titles.iter().map(String::as_str))
        .collect();
    let mut columns = Columns::new(&titles);
    let mut row = |name: &str, value: &dyn Fn(&api::WorkerStats) -> String| {
        let cells = std::iter::once(name.to_owned()).chain(workers.iter().map(value));
        columns.row(cells.collect());
    };
    row("core", &|worker| worker.core.to_string());
    row("revision applied", &|worker| worker.applied.to_string());
    row("connections", &|worker| worker.connections.to_string());
    row("connections at most", &|worker| {
        worker.max_connections.to_string()
    });
    row("rx", &|worker| worker.rx.to_string());
    row("rx bytes", &|worker| worker.rx_bytes.to_string());
    row("from kernel", &|worker| worker.from_kernel.to_string());
    row("handed in", &|worker| worker.handed_in.to_string());
    row("generated", &|worker| worker.generated.to_string());
    row("extra fragments", &|worker| {
        worker.extra_fragments.to_string()
    });
    row("tx", &|worker| worker.tx.to_string());
    row("tx bytes", &|worker| worker.tx_bytes.to_string());
    row("punted to kernel", &|worker| worker.punted.to_string());
    row("handed out", &|worker| worker.handed_out.to_string());
    row("merged", &|worker| worker.merged.to_string());
    row("held", &|worker| worker.held.to_string());
    row("dropped", &|worker| worker.dropped.to_string());
    row("ports passed over", &|worker| {
        worker.ports_passed_over.to_string()
    });
    row("busy", &|worker| percent(worker.busy_polls, worker.polls));
    columns
}

fn ports(ports: &[api::PortStats]) -> Columns {
    let mut columns = Columns::new(&[
        "port",
        "MAC",
        ">rx",
        ">tx",
        ">rx missed",
        ">rx errors",
        ">rx no buffer",
    ]);
    for port in ports {
        columns.row(vec![
            port.name.clone(),
            port.mac.clone(),
            port.rx.to_string(),
            port.tx.to_string(),
            port.rx_missed.to_string(),
            port.rx_errors.to_string(),
            port.rx_nombuf.to_string(),
        ]);
    }
    columns
}

/// What workers handed to each other, by port.
fn handed(ports: &[api::PortStats]) -> Columns {
    let mut columns = Columns::new(&[
        "handed over",
        ">of rx",
        ">nat",
        ">fullnat",
        ">dr",
        ">tun",
        ">other",
        ">to be sent",
    ]);
    for port in ports {
        let Some(handed) = &port.handed else {
            continue;
        };
        let each = [
            handed.nat,
            handed.fullnat,
            handed.dr,
            handed.tun,
            handed.other,
            handed.to_send,
        ];
        let share = format!(
            "{}.{:02} %",
            handed.share_ppm / 10_000,
            handed.share_ppm % 10_000 / 100
        );
        let cells = [port.name.clone(), share].into_iter();
        columns.row(cells.chain(each.map(|n| n.to_string())).collect());
    }
    columns
}

/// `sluice rss`.
pub(super) fn rss(as_json: bool, rpc: &mut dyn Rpc, out: &mut dyn Write) -> Result<(), Failure> {
    let stats: api::Stats = decode("stats", rpc.call("stats", Value::Null)?)?;
    let ports = stats.ports.iter();
    let each = ports.filter_map(|port| Some((port.name.as_str(), port.rss.as_ref()?)));
    if as_json {
        let each: serde_json::Map<String, Value> = each
            .map(|(name, rss)| (name.to_owned(), serde_json::json!(rss)))
            .collect();
        return Ok(output::json(out, &each.into())?);
    }
    for (name, rss) in each {
        writeln!(out, "{name}: {}", rss.summary)?;
        if let Some(nat) = &rss.nat {
            writeln!(out, "  side {}: {nat}", rss.side)?;
        }
        writeln!(
            out,
            "  hashes compared {}, wrong {}",
            rss.sampled, rss.mismatched
        )?;
        for difference in &rss.differences {
            writeln!(out, "  ! {difference}")?;
        }
    }
    Ok(())
}

/// `sluice rss table`.
pub(super) fn rss_table(
    as_json: bool,
    rpc: &mut dyn Rpc,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let answer = rpc.call("rss_table_list", Value::Null)?;
    if as_json {
        return Ok(output::json(out, &answer)?);
    }
    let table: api::RssTable = decode("rss_table_list", answer)?;
    let workers = table.owners.iter().max().map_or(0, |last| last + 1);
    let mut columns = Columns::new(&["worker", ">entries", "which"]);
    for worker in 0..workers {
        let own = (0u16..)
            .zip(&table.owners)
            .filter(|(_, owner)| **owner == worker);
        let own: Vec<u16> = own.map(|(entry, _)| entry).collect();
        columns.row(vec![
            worker.to_string(),
            own.len().to_string(),
            ranges(&own),
        ]);
    }
    columns.print(out, "")?;
    if table.moving {
        let count = table
            .left
            .map(|left| format!("{left} "))
            .unwrap_or_default();
        writeln!(
            out,
            "{count}connections of entries that moved are still with the workers that had them"
        )?;
    }
    for refused in &table.refused {
        writeln!(
            out,
            "! {refused}; packets arrive there as before, and are handed over"
        )?;
    }
    Ok(())
}

/// Numbers in order, as in `0-15,64`.
fn ranges(numbers: &[u16]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b);
    let each = runs.map(|run| match run {
        [one] => one.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    });
    each.collect::<Vec<_>>().join(",")
}

/// `sluice setting list`.
pub(super) fn settings(
    as_json: bool,
    rpc: &mut dyn Rpc,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let answer = rpc.call("setting_list", Value::Null)?;
    if as_json {
        return Ok(output::json(out, &answer)?);
    }
    let api::SettingList { settings } = decode("setting_list", answer)?;
    let mut columns = Columns::new(&["setting", ">value", "what it does"]);
    for setting in settings {
        let value = setting.value.to_string();
        columns.row(vec![setting.name, value, setting.description]);
    }
    Ok(columns.print(out, "")?)
}

/// `sluice drops`.
pub(super) fn drops(
    all: bool,
    as_json: bool,
    rpc: &mut dyn Rpc,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let answer = rpc.call("drops", Value::Null)?;
    if as_json {
        return Ok(output::json(out, &answer)?);
    }
    let api::Drops { mut drops } = decode("drops", answer)?;
    if !all {
        drops.retain(|drop| drop.packets > 0);
    }
    if drops.is_empty() {
        return Ok(writeln!(out, "no packet was dropped")?);
    }
    Ok(drop_table(&drops).print(out, "")?)
}

pub(super) fn drop_table(drops: &[api::Drop]) -> Columns {
    let mut columns = Columns::new(&["dropped because", ">packets", "which means"]);
    for drop in drops {
        columns.row(vec![
            drop.reason.clone(),
            drop.packets.to_string(),
            drop.description.clone(),
        ]);
    }
    columns
}

/// `sluice connections`: slice after slice, each printed as it comes.
pub(super) fn connections(
    args: &ConnectionArgs,
    as_json: bool,
    rpc: &mut dyn Rpc,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    let method = "connection_list";
    let mut params = args.filter();
    let mut left = if args.limit == 0 {
        usize::MAX
    } else {
        args.limit
    };
    let mut all = Vec::new();
    if !as_json {
        line(
            streams.out,
            [
                "proto", "state", "expires", "client", "virtual", "server", "local", "method",
                "worker",
            ],
        )?;
    }
    loop {
        params.limit = Some(left.min(SLICE));
        let mut answer = rpc.call(method, encode(&params)?)?;
        let entries = answer.get("connections").and_then(Value::as_array);
        left = left.saturating_sub(entries.map_or(0, Vec::len));
        params.cursor = answer
            .get("cursor")
            .and_then(Value::as_str)
            .map(str::to_owned);
        if as_json {
            if let Some(Value::Array(entries)) = answer.get_mut("connections") {
                all.append(entries);
            }
        } else {
            let slice: api::Connections = decode(method, answer)?;
            slice
                .connections
                .iter()
                .try_for_each(|connection| connection_line(streams.out, connection))?;
        }
        if left == 0 || params.cursor.is_none() {
            break;
        }
    }
    if as_json {
        let mut answer = json!({"connections": all});
        if let Some(cursor) = params.cursor {
            answer["cursor"] = cursor.into();
        }
        return Ok(output::json(streams.out, &answer)?);
    }
    if params.cursor.is_some() {
        streams.out.flush()?;
        writeln!(
            streams.err,
            "the first {} are shown; --limit N shows more, --limit 0 all",
            args.limit
        )?;
    }
    Ok(())
}

fn connection_line(out: &mut dyn Write, connection: &api::Connection) -> Result<(), Failure> {
    let seconds = connection.expires_ms / 1000;
    let expires = format!("{:02}:{:02}", seconds / 60, seconds % 60);
    let local = connection
        .local
        .map_or_else(|| "-".to_owned(), |local| local.to_string());
    let cells = [
        connection.protocol.name(),
        &connection.state,
        &expires,
        &connection.client.to_string(),
        &connection.virtual_address.to_string(),
        &connection.server.to_string(),
        &local,
        method_name(connection.method),
        &connection.worker.to_string(),
    ];
    line(out, cells)
}

/// Fixed columns, since the list may be too long to be measured first.
fn line(out: &mut dyn Write, cells: [&str; 9]) -> Result<(), Failure> {
    let [
        proto,
        state,
        expires,
        client,
        virtual_address,
        server,
        local,
        method,
        worker,
    ] = cells;
    writeln!(
        out,
        "{proto:<5}  {state:<11}  {expires:>7}  {client:<21}  {virtual_address:<21}  {server:<21}  {local:<21}  {method:<7}  {worker}"
    )?;
    Ok(())
}

/// `sluice version`.
pub(super) fn version(
    as_json: bool,
    rpc: &mut dyn Rpc,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let answer = rpc.call("version", Value::Null)?;
    if as_json {
        return Ok(output::json(out, &answer)?);
    }
    let version: api::Version = decode("version", answer)?;
    writeln!(out, "sluiced {}", version.sluice)?;
    writeln!(out, "DPDK    {}", version.dpdk)?;
    Ok(writeln!(out, "sluice  {}", env!("CARGO_PKG_VERSION"))?)
}

/// `sluice methods`.
pub(super) fn methods(
    as_json: bool,
    rpc: &mut dyn Rpc,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let answer = rpc.call("rpc_methods", Value::Null)?;
    if as_json {
        return Ok(output::json(out, &answer)?);
    }
    let api::Methods { methods } = decode("rpc_methods", answer)?;
    let mut columns = Columns::new(&["method", "what it does"]);
    for method in methods {
        columns.row(vec![method.name, method.description]);
    }
    Ok(columns.print(out, "")?)
}
