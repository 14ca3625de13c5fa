//! A daemon for tests: it keeps services as sluiced does and forwards nothing.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sluice_dataplane::command::Settings;

use crate::api::{
    Applied, Connection, ConnectionList, Connections, Counters, Drop, Drops, ErrorData, ErrorKind,
    HandedStats, KernelStats, LaddrList, LaddrRef, MarkRule, MarkRuleAdd, MarkRuleDelete,
    MarkRuleInsert, MarkRuleList, MethodInfo, Methods, PortStats, Rates, RealServer, RealServerAdd,
    RealServerList, RealServerOf, RealServerRef, RealServerSet, RssStats, RssTable, RssTableSet,
    Service, ServiceAdd, ServiceFilter, ServiceList, ServiceOnly, ServiceRef, ServiceSet,
    SettingList, SettingSet, Stats, SyncDaemon, SyncDaemonList, SyncDaemonStart, SyncDaemonStop,
    Version, WorkerStats,
};
use crate::client::{Rpc, RpcError};
use crate::settings;

/// The state of one.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeDaemon {
    pub(crate) services: Vec<Service>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) drops: Vec<Drop>,
    pub(crate) revision: u64,
    pub(crate) settings: Settings,
    pub(crate) mark_rules: Vec<MarkRule>,
    pub(crate) sync: Vec<SyncDaemon>,
    /// VIPs of new services are no addresses of this machine.
    pub(crate) vips_elsewhere: bool,
    pub(crate) kernel: Option<KernelStats>,
    /// Every method called.
    pub(crate) calls: Vec<String>,
}

type Answer = Result<Value, (ErrorKind, Option<&'static str>, String)>;

impl Rpc for FakeDaemon {
    fn call(&mut self, method: &str, params: Value) -> Result<Value, RpcError> {
        self.calls.push(method.to_owned());
        let answer = self.answer(method, params);
        answer.map_err(|(kind, path, message)| RpcError::Refused {
            code: kind.code(),
            message,
            data: Some(ErrorData {
                kind,
                path: path.map(str::to_owned),
                workers: Vec::new(),
                revision: None,
            }),
        })
    }
}

impl FakeDaemon {
    /// Serves connections to a socket at `path`, one after the other, for as long as the process lives.
    pub(crate) fn serve(mut self, path: &Path) {
        let _stale = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let lines = BufReader::new(stream.try_clone().unwrap()).lines();
                // A client may go away with our last newline unread, which reads as a reset.
                for line in lines.map_while(Result::ok) {
                    let request: Value = serde_json::from_str(&line).unwrap();
                    let params = request.get("params").cloned().unwrap_or_default();
                    let mut response = json!({"jsonrpc": "2.0", "id": request["id"]});
                    match self.call(request["method"].as_str().unwrap(), params) {
                        Ok(result) => response["result"] = result,
                        Err(RpcError::Refused {
                            code,
                            message,
                            data,
                        }) => {
                            response["error"] =
                                json!({"code": code, "message": message, "data": data});
                        }
                        Err(other) => panic!("{other}"),
                    }
                    stream
                        .write_all(format!("{response}\n").as_bytes())
                        .unwrap();
                }
            }
        });
    }

    fn answer(&mut self, method: &str, params: Value) -> Answer {
        match method {
            "service_add" => self.service_add(read(params)?),
            "service_set" => self.service_set(read(params)?),
            "service_delete" => {
                let ServiceOnly { service } = read(params)?;
                let at = self.position(service)?;
                self.services.remove(at);
                self.applied()
            }
            "service_list" => {
                let ServiceFilter { service } = read(params)?;
                let services = match service {
                    Some(service) => vec![self.services[self.position(service)?].clone()],
                    None => self.services.clone(),
                };
                write(&ServiceList {
                    revision: self.revision,
                    services,
                })
            }
            "service_zero" => {
                let ServiceFilter { service } = read(params)?;
                let only = service.map(|service| self.position(service)).transpose()?;
                for (at, service) in self.services.iter_mut().enumerate() {
                    if only.is_none_or(|only| only == at) {
                        service.stats = Counters::default();
                        service
                            .real_servers
                            .iter_mut()
                            .for_each(|server| server.stats = Counters::default());
                    }
                }
                self.applied()
            }
            "real_server_add" => self.real_server_add(read(params)?),
            "real_server_set" => self.real_server_set(read(params)?),
            "real_server_delete" => {
                let RealServerRef { service, address } = read(params)?;
                let at = self.position(service)?;
                let server = server_position(&self.services[at], address)?;
                self.services[at].real_servers.remove(server);
                self.applied()
            }
            "real_server_list" => {
                let ServiceFilter { service } = read(params)?;
                let all = self
                    .services
                    .iter()
                    .filter(|known| service.is_none_or(|only| only == known.service));
                let of = |known: &Service| {
                    let service = known.service;
                    let of = move |real_server: &RealServer| RealServerOf {
                        service,
                        real_server: *real_server,
                    };
                    known.real_servers.iter().map(of).collect::<Vec<_>>()
                };
                let real_servers = all.flat_map(of).collect();
                write(&RealServerList {
                    revision: self.revision,
                    real_servers,
                })
            }
            "laddr_add" => {
                let LaddrRef { service, address } = read(params)?;
                let at = self.position(service)?;
                if self.services[at].laddrs.contains(&address) {
                    return Err((
                        ErrorKind::LaddrExists,
                        Some("address"),
                        format!("{address} is there already"),
                    ));
                }
                self.services[at].laddrs.push(address);
                self.applied()
            }
            "laddr_delete" => {
                let LaddrRef { service, address } = read(params)?;
                let at = self.position(service)?;
                let laddrs = &mut self.services[at].laddrs;
                let missing = || {
                    (
                        ErrorKind::NoSuchLaddr,
                        Some("address"),
                        format!("there is no {address}"),
                    )
                };
                let laddr = laddrs
                    .iter()
                    .position(|known| *known == address)
                    .ok_or_else(missing)?;
                laddrs.remove(laddr);
                self.applied()
            }
            "laddr_list" => {
                let ServiceFilter { service } = read(params)?;
                let all = self
                    .services
                    .iter()
                    .filter(|known| service.is_none_or(|only| only == known.service));
                let of = |known: &Service| {
                    let service = known.service;
                    let of = move |address: &_| LaddrRef {
                        service,
                        address: *address,
                    };
                    known.laddrs.iter().map(of).collect::<Vec<_>>()
                };
                write(&LaddrList {
                    laddrs: all.flat_map(of).collect(),
                })
            }
            "mark_rule_add" => {
                let MarkRuleAdd { rule } = read(params)?;
                self.mark_rules.push(rule);
                self.applied()
            }
            "mark_rule_insert" => {
                let MarkRuleInsert { rule, position } = read(params)?;
                self.mark_rules.insert(position - 1, rule);
                self.applied()
            }
            "mark_rule_delete" => {
                let MarkRuleDelete { position, .. } = read(params)?;
                self.mark_rules.remove(position.unwrap() - 1);
                self.applied()
            }
            "mark_rule_list" => write(&MarkRuleList {
                rules: self.mark_rules.clone(),
            }),
            "setting_list" => write(&SettingList {
                settings: settings::list(&self.settings),
            }),
            "setting_set" => {
                let SettingSet { settings: values } = read(params)?;
                let changed = settings::with(&self.settings, &values);
                self.settings = changed.map_err(|error| (error.kind(), None, error.message))?;
                self.applied()
            }
            "sync_daemon_list" => write(&SyncDaemonList {
                daemons: self.sync.clone(),
            }),
            "sync_daemon_start" => {
                let start: SyncDaemonStart = read(params)?;
                if !["ex0", "ex1", "sv0"].contains(&start.interface.as_str()) {
                    let said = "there is no such port".to_owned();
                    return Err((ErrorKind::NoSuchInterface, Some("interface"), said));
                }
                if self.sync.iter().any(|daemon| daemon.role == start.role) {
                    let said = "it runs".to_owned();
                    return Err((ErrorKind::SyncDaemonRuns, Some("role"), said));
                }
                self.sync.push(SyncDaemon {
                    role: start.role,
                    interface: start.interface,
                    syncid: start.syncid as u8,
                    maxlen: start.maxlen.unwrap_or(1472),
                    group: start.group.unwrap_or([224, 0, 0, 81].into()),
                    port: start.port.unwrap_or(8848),
                    ttl: start.ttl.unwrap_or(1),
                });
                self.applied()
            }
            "sync_daemon_stop" => {
                let SyncDaemonStop { role } = read(params)?;
                let before = self.sync.len();
                self.sync.retain(|daemon| daemon.role != role);
                if self.sync.len() < before {
                    return self.applied();
                }
                let said = "no daemon runs".to_owned();
                Err((ErrorKind::NoSyncDaemon, Some("role"), said))
            }
            "connection_list" => self.connection_list(&read(params)?),
            "version" => write(&Version {
                sluice: "0.1.0".to_owned(),
                dpdk: "22.11.7".to_owned(),
            }),
            "rpc_methods" => write(&Methods {
                methods: vec![MethodInfo {
                    name: "version".to_owned(),
                    description: "What runs. No parameters.".to_owned(),
                }],
            }),
            "stats" => write(&self.stats()),
            "rss_table_list" => write(&RssTable {
                owners: vec![0, 1, 1, 1, 0],
                moving: true,
                left: Some(12),
                refused: vec!["lan: the NIC takes no table while it runs".to_owned()],
            }),
            "rss_table_set" => {
                let asked: RssTableSet = read(params)?;
                assert!(asked.drain != Some(7), "{asked:?}");
                self.applied()
            }
            "drops" => write(&Drops {
                drops: self.drops.clone(),
            }),
            _ => Err((
                ErrorKind::MethodNotFound,
                None,
                format!("there is no method {method}"),
            )),
        }
    }

    fn service_add(&mut self, params: ServiceAdd) -> Answer {
        if self.position(params.service).is_ok() {
            return Err((
                ErrorKind::ServiceExists,
                Some("service"),
                "there is such a service already".to_owned(),
            ));
        }
        known_scheduler(&params.scheduler)?;
        if params
            .persistence_engine
            .as_deref()
            .is_some_and(|engine| engine != "sip")
        {
            let said = "there is no such engine".to_owned();
            return Err((ErrorKind::NoSuchEngine, Some("persistence_engine"), said));
        }
        self.services.push(Service {
            service: params.service,
            scheduler: params.scheduler,
            scheduler_flags: params.scheduler_flags,
            persistence_s: params.persistence_s,
            persistence_mask: params.persistence_mask,
            persistence_engine: params.persistence_engine,
            one_packet: params.one_packet,
            vip_local: !self.vips_elsewhere,
            laddrs: Vec::new(),
            laddrs_not_local: Vec::new(),
            stats: Counters::default(),
            rates: Rates::default(),
            real_servers: Vec::new(),
        });
        self.applied()
    }

    fn service_set(&mut self, params: ServiceSet) -> Answer {
        let at = self.position(params.service)?;
        if let Some(scheduler) = params.scheduler {
            known_scheduler(&scheduler)?;
            self.services[at].scheduler = scheduler;
            self.services[at].scheduler_flags = Vec::new();
        }
        if let Some(flags) = params.scheduler_flags {
            self.services[at].scheduler_flags = flags;
        }
        let service = &mut self.services[at];
        service.persistence_s = params.persistence_s.unwrap_or(service.persistence_s);
        service.one_packet = params.one_packet.unwrap_or(service.one_packet);
        if let Some(mask) = params.persistence_mask {
            service.persistence_mask = Some(mask).filter(|mask| !mask.is_empty());
        }
        if let Some(engine) = params.persistence_engine {
            service.persistence_engine = Some(engine).filter(|engine| !engine.is_empty());
        }
        self.applied()
    }

    fn real_server_add(&mut self, params: RealServerAdd) -> Answer {
        let at = self.position(params.service)?;
        let address = params.address;
        if matches!(address.ip(), IpAddr::V4(ip) if ip.is_multicast() || ip.is_broadcast()) {
            return Err((
                ErrorKind::InvalidParams,
                Some("address"),
                format!("{} is not unicast", address.ip()),
            ));
        }
        if params.lower_threshold > params.upper_threshold {
            let message = "the lower threshold is above the upper one".to_owned();
            return Err((ErrorKind::OutOfRange, Some("lower_threshold"), message));
        }
        if server_position(&self.services[at], address).is_ok() {
            return Err((
                ErrorKind::ServerExists,
                Some("address"),
                format!("{address} is there already"),
            ));
        }
        let server = RealServer {
            address,
            method: params.method,
            tunnel: params.tunnel,
            weight: params.weight,
            upper_threshold: params.upper_threshold,
            lower_threshold: params.lower_threshold,
            active: 0,
            inactive: 0,
            templates: 0,
            local_ports_free: None,
            stats: Counters::default(),
            rates: Rates::default(),
        };
        self.services[at].real_servers.insert(0, server);
        self.applied()
    }

    fn real_server_set(&mut self, params: RealServerSet) -> Answer {
        let at = self.position(params.service)?;
        let server = server_position(&self.services[at], params.address)?;
        let server = &mut self.services[at].real_servers[server];
        server.method = params.method.unwrap_or(server.method);
        server.tunnel = params.tunnel.unwrap_or(server.tunnel);
        server.weight = params.weight.unwrap_or(server.weight);
        server.upper_threshold = params.upper_threshold.unwrap_or(server.upper_threshold);
        server.lower_threshold = params.lower_threshold.unwrap_or(server.lower_threshold);
        self.applied()
    }

    /// In slices of two at most, so that clients must follow the cursor.
    fn connection_list(&self, params: &ConnectionList) -> Answer {
        let start: usize = params
            .cursor
            .as_deref()
            .map_or(0, |cursor| cursor.parse().unwrap());
        let limit = params.limit.unwrap_or(1000).min(2);
        let wanted = |known: &&Connection| {
            params
                .protocol
                .is_none_or(|protocol| known.protocol == protocol.into())
        };
        let wanted: Vec<_> = self.connections.iter().filter(wanted).cloned().collect();
        let end = wanted.len().min(start + limit);
        write(&Connections {
            connections: wanted[start..end].to_vec(),
            cursor: (end < wanted.len()).then(|| end.to_string()),
        })
    }

    fn stats(&self) -> Stats {
        Stats {
            revision: self.revision,
            uptime_s: 3725,
            totals: Counters::default(),
            rates: Rates {
                cps: 1500,
                ..Rates::default()
            },
            workers: vec![WorkerStats {
                core: 1,
                max_connections: 1_048_576,
                polls: 1000,
                busy_polls: 250,
                ..WorkerStats::default()
            }],
            kernel: self.kernel.clone(),
            ports: vec![PortStats {
                name: "client".to_owned(),
                mac: "02:00:00:00:00:01".to_owned(),
                link_up: true,
                speed_mbps: 10_000,
                mtu: 1500,
                exception: Some("sl-client".to_owned()),
                rx: 12_345,
                tx: 0,
                rx_missed: 0,
                rx_errors: 0,
                rx_nombuf: 0,
                to_kernel_dropped: 0,
                from_kernel_dropped: 0,
                rss: Some(RssStats {
                    queues: 1,
                    summary: "one queue for one worker: nothing to spread".to_owned(),
                    differences: vec!["the NIC does not tell its key: it is believed".to_owned()],
                    sampled: 10,
                    mismatched: 2,
                    side: "clients".to_owned(),
                    nat: Some("none is handed over".to_owned()),
                }),
                handed: Some(HandedStats {
                    nat: 617,
                    to_send: 3,
                    share_ppm: 49_979,
                    ..HandedStats::default()
                }),
            }],
        }
    }

    fn position(
        &self,
        service: ServiceRef,
    ) -> Result<usize, (ErrorKind, Option<&'static str>, String)> {
        let found = self
            .services
            .iter()
            .position(|known| known.service == service);
        found.ok_or((
            ErrorKind::NoSuchService,
            Some("service"),
            "there is no such service".to_owned(),
        ))
    }

    fn applied(&mut self) -> Answer {
        self.revision += 1;
        write(&Applied {
            revision: self.revision,
            warnings: Vec::new(),
        })
    }
}

fn server_position(
    service: &Service,
    address: SocketAddr,
) -> Result<usize, (ErrorKind, Option<&'static str>, String)> {
    let found = service
        .real_servers
        .iter()
        .position(|known| known.address == address);
    found.ok_or((
        ErrorKind::NoSuchServer,
        Some("address"),
        format!("the service has no {address}"),
    ))
}

fn known_scheduler(name: &str) -> Result<(), (ErrorKind, Option<&'static str>, String)> {
    const KNOWN: &[&str] = &[
        "rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh",
        "twos",
    ];
    match KNOWN.contains(&name) {
        true => Ok(()),
        false => Err((
            ErrorKind::NoSuchScheduler,
            Some("scheduler"),
            format!("there is no scheduler {name}"),
        )),
    }
}

fn read<T: DeserializeOwned>(
    params: Value,
) -> Result<T, (ErrorKind, Option<&'static str>, String)> {
    serde_json::from_value(params)
        .map_err(|error| (ErrorKind::InvalidParams, None, error.to_string()))
}

fn write(answer: &impl serde::Serialize) -> Answer {
    Ok(serde_json::to_value(answer).unwrap())
}
