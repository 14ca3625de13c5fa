//! `service`, `server`, `laddr` and `setting set`: what changes the configuration, and their lists.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::Value;

use super::args::{Entries, LaddrCommand, MarkCommand, RssCommand, ServerCommand, ServiceCommand};
use super::output::{Columns, json, short, yes_no};
use super::show;
use super::{Failure, decode, encode};
use crate::api::{self, Applied, Method, ServiceRef};
use crate::client::Rpc;

/// `sluice service …`.
pub(super) fn service(
    command: ServiceCommand,
    as_json: bool,
    rpc: &mut dyn Rpc,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut change = Change { as_json, rpc, out };
    match command {
        ServiceCommand::Add {
            service,
            scheduler,
            scheduler_flags,
            persistence,
            mask,
            engine,
            one_packet,
        } => {
            let service = service.reference()?;
            let params = api::ServiceAdd {
                service,
                scheduler,
                scheduler_flags,
                persistence_s: persistence,
                persistence_mask: mask,
                persistence_engine: engine,
                one_packet,
            };
            change.apply(
                "service_add",
                &params,
                &format!("service {} added", name(service)),
            )?;
            if !as_json {
                change.hint_at_address(service)?;
            }
            Ok(())
        }
        ServiceCommand::Set {
            service,
            change: wanted,
        } => {
            let service = service.reference()?;
            let params = api::ServiceSet {
                service,
                scheduler: wanted.scheduler,
                // What clap makes of ''.
                scheduler_flags: wanted.scheduler_flags.map(|mut flags| {
                    flags.retain(|flag| !flag.is_empty());
                    flags
                }),
                persistence_s: wanted.persistence,
                persistence_mask: wanted.mask,
                persistence_engine: wanted.engine,
                one_packet: wanted.one_packet,
            };
            change.apply(
                "service_set",
                &params,
                &format!("service {} changed", name(service)),
            )
        }
        ServiceCommand::Delete { service } => {
            let service = service.reference()?;
            let params = api::ServiceOnly { service };
            change.apply(
                "service_delete",
                &params,
                &format!("service {} deleted", name(service)),
            )
        }
        ServiceCommand::Zero { filter } => {
            let filter = filter.filter()?;
            let whose = filter.service.map_or_else(
                || "all services".to_owned(),
                |service| format!("service {}", name(service)),
            );
            change.apply(
                "service_zero",
                &filter,
                &format!("counters of {whose} start anew"),
            )
        }
        ServiceCommand::List { filter } => {
            let method = "service_list";
            let answer = change.rpc.call(method, encode(&filter.filter()?)?)?;
            if as_json {
                return Ok(json(out, &answer)?);
            }
            let list: api::ServiceList = decode(method, answer)?;
            Ok(services(&list.services).print(out, "")?)
        }
    }
}

/// `sluice server …`.
pub(super) fn server(
    command: ServerCommand,
    as_json: bool,
    rpc: &mut dyn Rpc,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut change = Change { as_json, rpc, out };
    let said = |service: ServiceRef, server, what| {
        format!("real server {server} of {} {what}", name(service))
    };
    match command {
        ServerCommand::Add {
            server,
            method,
            tunnel,
            weight,
            upper_threshold,
            lower_threshold,
        } => {
            let (service, address) = (server.service.reference()?, server.server);
            let method = method.into();
            let params = api::RealServerAdd {
                service,
                address,
                method,
                tunnel: tunnel.unwrap_or_default(),
                weight,
                upper_threshold,
                lower_threshold,
            };
            change.apply("real_server_add", &params, &said(service, address, "added"))
        }
        ServerCommand::Set {
            server,
            change: wanted,
        } => {
            let (service, address) = (server.service.reference()?, server.server);
            let params = api::RealServerSet {
                service,
                address,
                method: wanted.method.map(Into::into),
                tunnel: wanted.tunnel,
                weight: wanted.weight,
                upper_threshold: wanted.upper_threshold,
                lower_threshold: wanted.lower_threshold,
            };
            change.apply(
                "real_server_set",
                &params,
                &said(service, address, "changed"),
            )
        }
        ServerCommand::Delete { server } => {
            let (service, address) = (server.service.reference()?, server.server);
            let params = api::RealServerRef { service, address };
            change.apply(
                "real_server_delete",
                &params,
                &said(service, address, "deleted"),
            )
        }
        ServerCommand::Drain(_) | ServerCommand::SetupScript(_) => {
            unreachable!("these have modules of their own")
        }
        ServerCommand::List { filter } => {
            let method = "real_server_list";
            let answer = change.rpc.call(method, encode(&filter.filter()?)?)?;
            if as_json {
                return Ok(json(out, &answer)?);
            }
            let list: api::RealServerList = decode(method, answer)?;
            Ok(servers(&list.real_servers).print(out, "")?)
        }
    }
}

/// `sluice rss …`, what is about the redirection table.
pub(super) fn rss(
    command: RssCommand,
    as_json: bool,
    rpc: &mut dyn Rpc,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut request = api::RssTableSet::default();
    let said = match command {
        RssCommand::Table => return show::rss_table(as_json, rpc, out),
        RssCommand::Give {
            entries: Entries(entries),
            worker,
        } => {
            let said = format!("{} entries given to worker {worker}", entries.len());
            request.give = Some(api::RssGive { entries, worker });
            said
        }
        RssCommand::Drain { worker } => {
            request.drain = Some(worker);
            format!("entries of worker {worker} given to the others")
        }
        RssCommand::Reset => {
            request.reset = true;
            "entries shared out evenly".to_owned()
        }
    };
    Change { as_json, rpc, out }.apply("rss_table_set", &request, &said)
}

/// `sluice laddr …`.
pub(super) fn laddr(
    command: LaddrCommand,
    as_json: bool,
    rpc: &mut dyn Rpc,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut change = Change { as_json, rpc, out };
    match command {
        LaddrCommand::Add(args) => {
            let (service, address) = (args.service.reference()?, args.address);
            let said = format!("local address {address} added to {}", name(service));
            change.apply("laddr_add", &api::LaddrRef { service, address }, &said)
        }
        LaddrCommand::Delete(args) => {
            let (service, address) = (args.service.reference()?, args.address);
            let said = format!("local address {address} deleted from {}", name(service));
            change.apply("laddr_delete", &api::LaddrRef { service, address }, &said)
        }
        LaddrCommand::List { filter } => {
            let method = "laddr_list";
            let answer = change.rpc.call(method, encode(&filter.filter()?)?)?;
            if as_json {
                return Ok(json(out, &answer)?);
            }
            let list: api::LaddrList = decode(method, answer)?;
            let mut columns = Columns::new(&["service", "local address"]);
            for laddr in list.laddrs {
                columns.row(vec![name(laddr.service), laddr.address.to_string()]);
            }
            Ok(columns.print(out, "")?)
        }
    }
}

/// `sluice mark …`.
pub(super) fn mark(
    command: MarkCommand,
    as_json: bool,
    rpc: &mut dyn Rpc,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut change = Change { as_json, rpc, out };
    match command {
        MarkCommand::Add { rule, position } => {
            let rule = rule.rule();
            let said = format!("rule added: {rule}");
            match position {
                None => change.apply("mark_rule_add", &api::MarkRuleAdd { rule }, &said),
                Some(position) => {
                    let params = api::MarkRuleInsert { rule, position };
                    change.apply("mark_rule_insert", &params, &said)
                }
            }
        }
        MarkCommand::Delete { position } => {
            let params = api::MarkRuleDelete {
                position: Some(position),
                rule: None,
            };
            change.apply(
                "mark_rule_delete",
                &params,
                &format!("rule {position} deleted"),
            )
        }
        MarkCommand::List => {
            let method = "mark_rule_list";
            let answer = change.rpc.call(method, Value::Null)?;
            if as_json {
                return Ok(json(out, &answer)?);
            }
            let list: api::MarkRuleList = decode(method, answer)?;
            Ok(mark_rules(&list.rules).print(out, "")?)
        }
    }
}

fn mark_rules(rules: &[api::MarkRule]) -> Columns {
    fn any(value: Option<impl ToString>) -> String {
        value.map_or_else(|| "any".to_owned(), |value| value.to_string())
    }
    let mut columns = Columns::new(&[
        ">position",
        ">mark",
        "source",
        "destination",
        "protocol",
        "source ports",
        "destination ports",
        "port",
    ]);
    for (i, rule) in rules.iter().enumerate() {
        columns.row(vec![
            (i + 1).to_string(),
            rule.mark.to_string(),
            any(rule.source),
            any(rule.destination),
            any(rule.protocol.map(api::Protocol::name)),
            any(rule.source_ports),
            any(rule.destination_ports),
            any(rule.port.as_ref()),
        ]);
    }
    columns
}

struct Change<'a> {
    as_json: bool,
    rpc: &'a mut dyn Rpc,
    out: &'a mut dyn Write,
}

impl Change<'_> {
    fn apply(
        &mut self,
        method: &str,
        params: &impl serde::Serialize,
        said: &str,
    ) -> Result<(), Failure> {
        let answer = self.rpc.call(method, encode(params)?)?;
        if self.as_json {
            return Ok(json(self.out, &answer)?);
        }
        let Applied { revision, warnings } = decode(method, answer)?;
        writeln!(self.out, "{said} (revision {revision})")?;
        for warning in warnings {
            writeln!(self.out, "! {warning}")?;
        }
        Ok(())
    }

    /// Says so if the service that was just added matches nothing yet.
    fn hint_at_address(&mut self, service: ServiceRef) -> Result<(), Failure> {
        let method = "service_list";
        let answer = self
            .rpc
            .call(method, encode(&api::ServiceOnly { service })?)?;
        let list: api::ServiceList = decode(method, answer)?;
        if list.services.iter().all(|service| service.vip_local) {
            return Ok(());
        }
        let stats: api::Stats = decode("stats", self.rpc.call("stats", Value::Null)?)?;
        let interface = stats.ports.into_iter().find_map(|port| port.exception);
        // Marks are everywhere.
        let ServiceRef::Address { address, .. } = service else {
            return Ok(());
        };
        let vip = address.ip();
        let hint = interface.map_or_else(String::new, |interface| {
            format!(": ip addr add {vip}/32 dev {interface}")
        });
        Ok(writeln!(
            self.out,
            "{vip} is not an address of this machine yet{hint}"
        )?)
    }
}

/// A service as people say it: `tcp 10.0.0.1:80`, `fwmark 5`.
pub(super) fn name(service: ServiceRef) -> String {
    service.to_string()
}

pub(super) fn method_name(method: Method) -> &'static str {
    match method {
        Method::Nat => "nat",
        Method::Dr => "dr",
        Method::Tun => "tun",
        Method::FullNat => "fullnat",
    }
}

/// `sluice setting set`.
pub(super) fn settings(
    settings: Vec<(String, u32)>,
    as_json: bool,
    rpc: &mut dyn Rpc,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut change = Change { as_json, rpc, out };
    let settings: BTreeMap<String, u32> = settings.into_iter().collect();
    let names: Vec<String> = settings
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    change.apply(
        "setting_set",
        &api::SettingSet { settings },
        &format!("set {}", names.join(" ")),
    )
}

/// `rr`, `sh (sh-port)`.
pub(super) fn scheduler(service: &api::Service) -> String {
    let name = &service.scheduler;
    match service.scheduler_flags.join(",") {
        flags if flags.is_empty() => name.clone(),
        flags => format!("{name} ({flags})"),
    }
}

fn services(services: &[api::Service]) -> Columns {
    let mut columns = Columns::new(&[
        "service",
        "scheduler",
        "VIP local",
        ">servers",
        ">active",
        ">inactive",
        ">conns",
        ">conns/s",
        ">in pkts/s",
        ">out pkts/s",
        "local addresses",
    ]);
    for service in services {
        let sum =
            |of: fn(&api::RealServer) -> u64| service.real_servers.iter().map(of).sum::<u64>();
        let laddrs: Vec<String> = service.laddrs.iter().map(ToString::to_string).collect();
        columns.row(vec![
            name(service.service),
            scheduler(service),
            yes_no(service.vip_local),
            service.real_servers.len().to_string(),
            sum(|server| server.active).to_string(),
            sum(|server| server.inactive).to_string(),
            service.stats.conns.to_string(),
            short(service.rates.cps),
            short(service.rates.in_pps),
            short(service.rates.out_pps),
            laddrs.join(" "),
        ]);
    }
    columns
}

fn servers(servers: &[api::RealServerOf]) -> Columns {
    let mut columns = Columns::new(&[
        "service",
        "real server",
        "method",
        ">weight",
        ">upper",
        ">lower",
        ">active",
        ">inactive",
        ">conns",
        ">conns/s",
        ">in pkts/s",
        ">out pkts/s",
    ]);
    let bound = |threshold: u32| match threshold {
        0 => "-".to_owned(),
        threshold => threshold.to_string(),
    };
    // In the order in which they were added, as in `status`.
    let services = servers.chunk_by(|a, b| a.service == b.service);
    for of in services.flat_map(|servers| servers.iter().rev()) {
        let server = of.real_server;
        columns.row(vec![
            name(of.service),
            server.address.to_string(),
            method_name(server.method).to_owned(),
            server.weight.to_string(),
            bound(server.upper_threshold),
            bound(server.lower_threshold),
            server.active.to_string(),
            server.inactive.to_string(),
            server.stats.conns.to_string(),
            short(server.rates.cps),
            short(server.rates.in_pps),
            short(server.rates.out_pps),
        ]);
    }
    columns
}
