//! The table of JSON-RPC methods, from which requests are dispatched and `rpc_methods` answers.

use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::info;

use super::params::parse;
use super::view::to_json;
use super::{Controller, Peer, Reply};
use crate::api::{
    ErrorKind, MarkRuleList, MethodInfo, Methods, ServiceFilter, SettingList, SettingSet, Version,
};
use crate::api_error::ApiError;
use crate::config::Change;
use crate::settings;

/// One method.
struct Method {
    name: &'static str,
    description: &'static str,
    call: fn(&mut Controller, &Call<'_>) -> Result<Reply, ApiError>,
}

/// A request to a method.
struct Call<'a> {
    method: &'static str,
    params: &'a Value,
    peer: &'a Peer,
}

/// A method without parameters.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// `service` stands for `{"protocol": "tcp", "udp" or "sctp", "address": "ADDRESS:PORT"}` or `{"fwmark": N}` throughout.
const METHODS: &[Method] = &[
    Method {
        name: "version",
        description: "The versions of sluice and DPDK. No parameters.",
        call: |controller, call| {
            call.params::<Nothing>()?;
            now(to_json(Version {
                sluice: env!("CARGO_PKG_VERSION").to_owned(),
                dpdk: controller.dpdk.clone(),
            }))
        },
    },
    Method {
        name: "rpc_methods",
        description: "This list. No parameters.",
        call: |_, call| {
            call.params::<Nothing>()?;
            let methods = METHODS.iter().map(|method| MethodInfo {
                name: method.name.to_owned(),
                description: method.description.to_owned(),
            });
            now(to_json(Methods {
                methods: methods.collect(),
            }))
        },
    },
    Method {
        name: "service_add",
        description: "Adds a service. Parameters: service (an object: protocol, tcp, udp or sctp, and address, as in 10.0.0.1:80; or fwmark, a firewall mark, and ipv6), scheduler (wlc if not given), scheduler_flags (a list: flag-1 to flag-3, sh-fallback, sh-port, mh-fallback, mh-port), persistence_s (0 for none), persistence_mask (a netmask; all bits if not given), persistence_engine (sip), one_packet (false). Answers the revision.",
        call: |controller, call| call.change(controller, Change::ServiceAdd),
    },
    Method {
        name: "service_set",
        description: "Changes a service; what is not given stays. Parameters: service, scheduler (another one starts without flags), scheduler_flags (all of them), persistence_s (0 ends it), persistence_mask, persistence_engine (empty for none), one_packet.",
        call: |controller, call| call.change(controller, Change::ServiceSet),
    },
    Method {
        name: "service_delete",
        description: "Deletes a service with its real servers; connections stay until they expire. Parameters: service.",
        call: |controller, call| call.change(controller, Change::ServiceDelete),
    },
    Method {
        name: "service_list",
        description: "The services with their real servers, counters and rates. Parameters: service (all if not given).",
        call: |controller, call| now(controller.service_list(call.params()?)),
    },
    Method {
        name: "service_zero",
        description: "Starts counters and rates anew, of a service and its real servers; of all services and the totals if none is given. Parameters: service. Answers the revision, which stays.",
        call: |controller, call| {
            let filter = call.params()?;
            now(controller.service_zero(filter, call.peer))
        },
    },
    Method {
        name: "real_server_add",
        description: "Adds a real server to a service. Parameters: service, address (as in 192.168.1.1:80), method (nat, dr, tun or fullnat; dr if not given), tunnel (of method tun, an object: type, ipip, gre or gue; checksum, none, full or remote; port, of gue), weight (1), upper_threshold (0, none), lower_threshold (0, three quarters of the upper). Answers the revision.",
        call: |controller, call| call.change(controller, Change::RealServerAdd),
    },
    Method {
        name: "real_server_set",
        description: "Changes a real server; what is not given stays. Parameters: service, address, method, tunnel, weight, upper_threshold, lower_threshold.",
        call: |controller, call| call.change(controller, Change::RealServerSet),
    },
    Method {
        name: "real_server_delete",
        description: "Deletes a real server; connections stay until they expire. Parameters: service, address.",
        call: |controller, call| call.change(controller, Change::RealServerDelete),
    },
    Method {
        name: "real_server_list",
        description: "The real servers with connections, counters and rates. Parameters: service (all if not given).",
        call: |controller, call| now(controller.real_server_list(call.params()?)),
    },
    Method {
        name: "laddr_add",
        description: "Adds a local address, from which FULLNAT speaks to a service's real servers. Parameters: service, address (IPv4).",
        call: |controller, call| call.change(controller, Change::LaddrAdd),
    },
    Method {
        name: "laddr_delete",
        description: "Deletes a local address. Parameters: service, address.",
        call: |controller, call| call.change(controller, Change::LaddrDelete),
    },
    Method {
        name: "laddr_list",
        description: "The local addresses. Parameters: service (all if not given).",
        call: |controller, call| now(controller.laddr_list(call.params::<ServiceFilter>()?)),
    },
    Method {
        name: "mark_rule_add",
        description: "Adds a rule of firewall marks at the end; the first rule that fits a packet decides. Only packets that are addressed to this machine and belong to no connection are asked about. Parameters: rule (an object: mark, 0 for none; and any of source and destination, prefixes as in 10.0.1.0/24; protocol; source_ports and destination_ports, as in 80 or 8000-8099; port, where packets come in).",
        call: |controller, call| call.change(controller, Change::MarkRuleAdd),
    },
    Method {
        name: "mark_rule_insert",
        description: "Puts a rule of firewall marks before others. Parameters: rule (as of mark_rule_add), position (from 1; 1).",
        call: |controller, call| call.change(controller, Change::MarkRuleInsert),
    },
    Method {
        name: "mark_rule_delete",
        description: "Deletes a rule of firewall marks. Parameters: position (from 1), or rule (as it was added).",
        call: |controller, call| call.change(controller, Change::MarkRuleDelete),
    },
    Method {
        name: "mark_rule_list",
        description: "The rules of firewall marks, in order. No parameters.",
        call: |controller, call| {
            call.params::<Nothing>()?;
            now(to_json(MarkRuleList {
                rules: controller.config.mark_rules().to_vec(),
            }))
        },
    },
    Method {
        name: "setting_list",
        description: "The settings, named as under net.ipv4.vs, with their values. No parameters.",
        call: |controller, call| {
            call.params::<Nothing>()?;
            now(to_json(SettingList {
                settings: settings::list(controller.settings()),
            }))
        },
    },
    Method {
        name: "setting_set",
        description: "Changes settings, all that are given or none. Parameters: settings (an object: values by name). Answers the revision.",
        call: |controller, call| {
            let SettingSet { settings: values } = call.params()?;
            let changed = settings::with(controller.settings(), &values)?;
            let revision = controller.set_settings(changed);
            info!(revision, who = %call.peer, "setting_set {values:?}");
            Ok(Controller::when_applied(revision, Vec::new()))
        },
    },
    Method {
        name: "sync_daemon_start",
        description: "Starts a connection synchronisation daemon, in name only: this version sends and reads no messages. Parameters: role (master or backup), interface (a port), syncid (0), maxlen (what fits), group (224.0.0.81), port (8848), ttl (1).",
        call: |controller, call| now(controller.sync_daemon_start(call.params()?, call.peer)),
    },
    Method {
        name: "sync_daemon_stop",
        description: "Stops a connection synchronisation daemon. Parameters: role (master or backup).",
        call: |controller, call| now(controller.sync_daemon_stop(call.params()?, call.peer)),
    },
    Method {
        name: "sync_daemon_list",
        description: "The connection synchronisation daemons that were started. No parameters.",
        call: |controller, call| {
            call.params::<Nothing>()?;
            now(controller.sync_daemon_list())
        },
    },
    Method {
        name: "stats",
        description: "Counters and rates over all services, each worker's books, each port. No parameters.",
        call: |controller, call| {
            call.params::<Nothing>()?;
            now(controller.stats())
        },
    },
    Method {
        name: "drops",
        description: "How many packets were dropped for which reason. No parameters.",
        call: |controller, call| {
            call.params::<Nothing>()?;
            now(controller.drops())
        },
    },
    Method {
        name: "rss_table_list",
        description: "Which worker owns which entry of the redirection table, and whether connections of entries that moved are still asked for. No parameters.",
        call: |controller, call| {
            call.params::<Nothing>()?;
            now(to_json(controller.rss_table_list()))
        },
    },
    Method {
        name: "rss_table_set",
        description: "Moves load between workers; connections stay where they are until they expire. Parameters, one of: give (an object: entries, a list of numbers from 0; worker, who gets them), drain (a worker, whose entries go to the others that have any), reset (true: as at start). Answers the revision.",
        call: |controller, call| {
            let revision = controller.rss_table_set(&call.params()?, call.peer)?;
            Ok(Controller::when_applied(revision, Vec::new()))
        },
    },
    Method {
        name: "connection_list",
        description: "Connections, in no particular order. Parameters: protocol, client, virtual_address, virtual_port, server (filters, all optional), limit (1 to 10000; 1000), cursor (from the last answer; an answer may be short, or empty, and still have one).",
        call: |controller, call| {
            let request = call.params()?;
            let Controller {
                listings,
                publisher,
                workers,
                now,
                ..
            } = controller;
            listings
                .begin(&request, *now, workers, publisher)
                .map(Reply::Connections)
        },
    },
];

pub(super) fn handle(controller: &mut Controller, name: &str, params: Value, peer: &Peer) -> Reply {
    let Some(method) = METHODS.iter().find(|method| method.name == name) else {
        return Reply::Now(Err(ApiError::new(
            ErrorKind::MethodNotFound,
            format!("there is no method {name:?}; rpc_methods lists them"),
        )));
    };
    let call = Call {
        method: method.name,
        params: &params,
        peer,
    };
    (method.call)(controller, &call).unwrap_or_else(|error| Reply::Now(Err(error)))
}

impl Call<'_> {
    fn params<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        parse(self.method, self.params)
    }

    fn change<T: DeserializeOwned>(
        &self,
        controller: &mut Controller,
        change: fn(T) -> Change,
    ) -> Result<Reply, ApiError> {
        let change = change(self.params()?);
        let revision = controller.change(&change, self.peer)?;
        Ok(Controller::when_applied(revision, change.warnings()))
    }
}

fn now(answer: Result<Value, ApiError>) -> Result<Reply, ApiError> {
    answer.map(|value| Reply::Now(Ok(value)))
}
