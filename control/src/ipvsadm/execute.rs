//! From a [`Command`] to calls of the daemon, and from its errors to the kernel's words (`SEMANTICS.md` section 11).

use std::io::Read;
use std::net::IpAddr;

use serde::Serialize;
use serde_json::Value;

use super::command::{Command, Forward, List, Persistence, ServiceId, Tunnel, What};
use super::hints::hint;
use super::listing::{self, Addresses};
use super::names::Names;
use super::parse::parse;
use super::rows::{self, ServiceRow};
use super::save::{self, Thresholds};
use super::{Outcome, ProcFile, proc};
use crate::api::{self, ErrorKind};
use crate::client::{Rpc, RpcError, ask};

const USAGE: &str = include_str!("usage.txt");
/// Connections are asked for in slices of so many.
const SLICE: usize = 10_000;

/// Executes command lines against one daemon.
pub(super) struct Session<'a> {
    pub(super) rpc: &'a mut dyn Rpc,
    pub(super) names: &'a dyn Names,
    pub(super) out: String,
    err: String,
    note: String,
}

/// Why a command failed: its exit code and its line on standard error.
pub(super) struct Failure {
    pub(super) rc: i32,
    pub(super) text: String,
    /// The daemon's own words, where the kernel's say less.
    hint: Option<String>,
}

pub(super) type Done = Result<(), Failure>;

impl<'a> Session<'a> {
    pub(super) fn new(rpc: &'a mut dyn Rpc, names: &'a dyn Names) -> Self {
        Self {
            rpc,
            names,
            out: String::new(),
            err: String::new(),
            note: String::new(),
        }
    }

    /// Executes one command line; `-R` reads `stdin`.
    pub(super) fn run(mut self, args: &[String], stdin: &mut dyn Read) -> Outcome {
        let rc = match parse(args, self.names) {
            Ok(Command::Restore) => self.restore(stdin),
            Ok(command) => self.execute(command),
            Err(unusable) => {
                self.hint(hint(args, &unusable));
                self.complain(unusable.rc, &unusable.text)
            }
        };
        self.outcome(rc)
    }

    pub(super) fn complain(&mut self, rc: i32, text: &str) -> i32 {
        self.err.push_str(text);
        self.err.push('\n');
        rc
    }

    pub(super) fn hint(&mut self, hint: Option<String>) {
        if let Some(hint) = hint {
            self.note.push_str(&format!("hint: {hint}\n"));
        }
    }

    fn execute(&mut self, command: Command) -> i32 {
        match self.perform(command) {
            Ok(()) => 0,
            Err(failure) => {
                self.hint(failure.hint);
                self.complain(failure.rc, &failure.text)
            }
        }
    }

    /// `-R`: line by line. What the daemon refuses does not stop it; a line that is no command does.
    fn restore(&mut self, stdin: &mut dyn Read) -> i32 {
        let mut bytes = Vec::new();
        if let Err(error) = stdin.read_to_end(&mut bytes) {
            return self.complain(255, &format!("cannot read standard input: {error}"));
        }
        for (line, number) in String::from_utf8_lossy(&bytes).lines().zip(1..) {
            let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            if words.first().is_some_and(|word| word == "ipvsadm") {
                words.remove(0);
            }
            if words.is_empty() {
                continue;
            }
            match parse(&words, self.names) {
                Ok(Command::Restore) => {
                    return self.complain(2, "Illegal 'restore' command within a restore");
                }
                Ok(command) => drop(self.execute(command)),
                Err(unusable) => {
                    self.hint(Some(format!(
                        "line {number} stopped it: {line}; those before it are done. `sluice restore` knows comments"
                    )));
                    return self.complain(unusable.rc, &unusable.text);
                }
            }
        }
        0
    }

    /// `sluice proc`.
    pub(super) fn proc(mut self, file: ProcFile) -> Outcome {
        let shown = self.show_proc(file);
        let rc = shown.map_or_else(|failure| self.complain(1, &failure.text), |()| 0);
        self.outcome(rc)
    }

    fn show_proc(&mut self, file: ProcFile) -> Done {
        self.out = match file {
            ProcFile::IpVs => proc::services(&self.services(None)?),
            ProcFile::IpVsConn => proc::connections(&self.connections()?),
            ProcFile::IpVsStats => {
                let stats = ask::<api::Stats>(self.rpc, "stats", Value::Null);
                let stats = stats.map_err(|error| failure(1, error.to_string()))?;
                proc::statistics(&stats.totals, &stats.rates)
            }
            ProcFile::IpVsApp => proc::APPLICATIONS.to_owned(),
            ProcFile::Settings => {
                let files = proc::settings(&self.settings()?);
                let line = |(name, value): &(String, String)| {
                    format!("/proc/sys/net/ipv4/vs/{name}:{value}\n")
                };
                files.iter().map(line).collect()
            }
        };
        Ok(())
    }

    pub(super) fn outcome(self, rc: i32) -> Outcome {
        Outcome {
            rc,
            out: self.out,
            err: self.err,
            note: self.note,
        }
    }

    pub(super) fn perform(&mut self, command: Command) -> Done {
        match command {
            Command::Help => self.out.push_str(USAGE),
            Command::Version => {
                // What stock prints before its usage.
                let version = USAGE.lines().next().unwrap_or_default();
                self.out.push_str(version);
                self.out.push('\n');
            }
            Command::AddService(service) => {
                let params = api::ServiceAdd {
                    service: reference(service.id),
                    scheduler: service.scheduler,
                    scheduler_flags: service.sched_flags.numbered(),
                    persistence_s: service.persistence.map_or(0, |given| given.timeout_s),
                    persistence_mask: mask(service.persistence),
                    persistence_engine: service.engine,
                    one_packet: service.one_packet,
                };
                self.change("service_add", &params, Object::Service)?;
            }
            Command::EditService(service) => {
                let params = api::ServiceSet {
                    service: reference(service.id),
                    scheduler: Some(service.scheduler),
                    scheduler_flags: Some(service.sched_flags.numbered()),
                    persistence_s: Some(service.persistence.map_or(0, |given| given.timeout_s)),
                    persistence_mask: Some(mask(service.persistence).unwrap_or_default()),
                    persistence_engine: Some(service.engine.unwrap_or_default()),
                    one_packet: Some(service.one_packet),
                };
                self.change("service_set", &params, Object::Service)?;
            }
            Command::DeleteService(id) => {
                let service = reference(id);
                self.change(
                    "service_delete",
                    &api::ServiceOnly { service },
                    Object::Service,
                )?;
            }
            Command::Flush => self.flush()?,
            Command::AddServer(server) => {
                let params = api::RealServerAdd {
                    service: reference(server.service),
                    address: server.address,
                    method: method(server.forward),
                    tunnel: tunnel(server.forward),
                    weight: server.weight,
                    upper_threshold: server.upper_threshold,
                    lower_threshold: server.lower_threshold,
                };
                self.change("real_server_add", &params, Object::Server)?;
            }
            Command::EditServer(server) => {
                let params = api::RealServerSet {
                    service: reference(server.service),
                    address: server.address,
                    method: Some(method(server.forward)),
                    tunnel: Some(tunnel(server.forward)),
                    weight: Some(server.weight),
                    upper_threshold: Some(server.upper_threshold),
                    lower_threshold: Some(server.lower_threshold),
                };
                self.change("real_server_set", &params, Object::Server)?;
            }
            Command::DeleteServer { service, address } => {
                let service = reference(service);
                let params = api::RealServerRef { service, address };
                self.change("real_server_delete", &params, Object::Server)?;
            }
            Command::List(list) => self.list(&list)?,
            Command::Zero(id) => {
                let service = id.map(reference);
                self.change(
                    "service_zero",
                    &api::ServiceFilter { service },
                    Object::Service,
                )?;
            }
            Command::Save { numeric } => {
                let mut rows = self.services(None)?;
                rows::sort(&mut rows);
                let addresses = Addresses::new(numeric, self.names);
                let lines = save::lines(&rows, &addresses, Thresholds::Forgotten);
                self.out.push_str(&lines);
                let mut servers = rows.iter().flat_map(|row| &row.servers);
                if servers.any(|server| server.upper_threshold > 0) {
                    self.note.push_str(
                        "warning: -S forgets thresholds (-x, -y), as stock ipvsadm does; `sluice save` keeps them\n",
                    );
                }
            }
            Command::AddLaddr { service, address } => self.laddr("laddr_add", service, address)?,
            Command::DeleteLaddr { service, address } => {
                self.laddr("laddr_delete", service, address)?
            }
            Command::ListLaddrs(id) => self.list_laddrs(id)?,
            Command::SetTimeouts(seconds) => {
                let given = TIMEOUTS.iter().zip(seconds).filter(|(_, s)| *s > 0);
                let params = api::SettingSet {
                    settings: given.map(|(name, s)| ((*name).to_owned(), s)).collect(),
                };
                self.change("setting_set", &params, Object::Service)?;
            }
            Command::StartSync(start) => self.change("sync_daemon_start", &start, Object::Sync)?,
            Command::StopSync(role) => {
                let stop = api::SyncDaemonStop { role };
                self.change("sync_daemon_stop", &stop, Object::Sync)?;
            }
            Command::Restore => unreachable!("-R is taken apart into lines before"),
        }
        Ok(())
    }

    pub(super) fn change(&mut self, method: &str, params: &impl Serialize, object: Object) -> Done {
        let params = encode(params)?;
        let done = ask::<api::Applied>(self.rpc, method, params);
        let applied = done.map_err(|error| refused(&error, method, object))?;
        for warning in applied.warnings {
            self.note.push_str(&format!("warning: {warning}\n"));
        }
        Ok(())
    }

    /// `-C`: one service after the other.
    pub(super) fn flush(&mut self) -> Done {
        for row in self.services(None)? {
            let service = reference(row.id);
            let params = encode(&api::ServiceOnly { service })?;
            match ask::<Value>(self.rpc, "service_delete", params) {
                // Somebody else was faster.
                Err(error) if error.kind() == Some(ErrorKind::NoSuchService) => {}
                done => {
                    drop(done.map_err(|error| refused(&error, "service_delete", Object::Service))?)
                }
            }
        }
        Ok(())
    }

    fn laddr(&mut self, method: &str, service: ServiceId, address: IpAddr) -> Done {
        let service = reference(service);
        match address {
            IpAddr::V4(address) => {
                self.change(method, &api::LaddrRef { service, address }, Object::Laddr)
            }
            IpAddr::V6(_) => Err(not_yet("IPv6 local addresses")),
        }
    }

    fn list_laddrs(&mut self, id: Option<ServiceId>) -> Done {
        let rows = match id {
            Some(id) => self.one_service(id)?,
            None => self.services(None)?,
        };
        self.out.push_str("VIP:VPORT            TOTAL    SNAT_IP\n");
        for row in rows {
            if let ServiceId::Address { address, .. } = row.id {
                self.out.push_str(&format!(
                    "{:<20} {}\n",
                    address.to_string(),
                    row.laddrs.len()
                ));
                for laddr in row.laddrs {
                    self.out.push_str(&format!("{:<29} {laddr}\n", ""));
                }
            }
        }
        Ok(())
    }

    fn list(&mut self, list: &List) -> Done {
        match list.what {
            What::Timeouts => return self.list_timeouts(),
            What::SyncDaemon => return self.list_sync_daemons(),
            What::Connections => {
                let connections = self.connections()?;
                let lines = listing::connections(&connections, list, self.names);
                self.out.push_str(&lines);
                return Ok(());
            }
            _ => {}
        }
        let mut rows = match list.service {
            Some(id) => self.one_service(id)?,
            None => self.services(None)?,
        };
        if !list.unsorted {
            rows::sort(&mut rows);
        }
        self.out
            .push_str(&listing::services(&rows, list, self.names));
        Ok(())
    }

    pub(super) fn settings(&mut self) -> Result<Vec<api::Setting>, Failure> {
        let list = ask::<api::SettingList>(self.rpc, "setting_list", Value::Null);
        let list = list.map_err(|error| refused(&error, "setting_list", Object::Service))?;
        Ok(list.settings)
    }

    fn list_timeouts(&mut self) -> Done {
        let settings = self.settings()?;
        let value = |name: &str| {
            let mut settings = settings.iter();
            settings
                .find(|setting| setting.name == name)
                .map_or(0, |setting| setting.value)
        };
        let [tcp, tcp_fin, udp] = TIMEOUTS.map(value);
        self.out.push_str(&format!(
            "Timeout (tcp tcpfin udp): {tcp} {tcp_fin} {udp}\n"
        ));
        Ok(())
    }

    pub(super) fn sync_daemons(&mut self) -> Result<Vec<api::SyncDaemon>, Failure> {
        let list = ask::<api::SyncDaemonList>(self.rpc, "sync_daemon_list", Value::Null);
        let list = list.map_err(|error| refused(&error, "sync_daemon_list", Object::Sync))?;
        Ok(list.daemons)
    }

    fn list_sync_daemons(&mut self) -> Done {
        for daemon in self.sync_daemons()? {
            let api::SyncDaemon {
                interface,
                syncid,
                maxlen,
                group,
                port,
                ttl,
                ..
            } = daemon;
            self.out.push_str(&format!(
                "{} sync daemon (mcast={interface}, syncid={syncid}, maxlen={maxlen}, group={group}, port={port}, ttl={ttl})\n",
                daemon.role.name()
            ));
        }
        Ok(())
    }

    fn connections(&mut self) -> Result<Vec<api::Connection>, Failure> {
        let mut params = api::ConnectionList {
            limit: Some(SLICE),
            ..api::ConnectionList::default()
        };
        let mut connections = Vec::new();
        loop {
            let slice = ask::<api::Connections>(self.rpc, "connection_list", encode(&params)?);
            let slice = slice.map_err(|error| failure(255, error.to_string()))?;
            connections.extend(slice.connections);
            params.cursor = slice.cursor;
            if params.cursor.is_none() {
                return Ok(connections);
            }
        }
    }

    pub(super) fn services(
        &mut self,
        service: Option<api::ServiceRef>,
    ) -> Result<Vec<ServiceRow>, Failure> {
        let params = encode(&api::ServiceFilter { service })?;
        let list = ask::<api::ServiceList>(self.rpc, "service_list", params);
        let list = list.map_err(|error| match error.kind() {
            Some(ErrorKind::NoSuchService) => failure(1, NO_SERVICE),
            _ => failure(255, error.to_string()),
        })?;
        Ok(list.services.into_iter().map(Into::into).collect())
    }

    fn one_service(&mut self, id: ServiceId) -> Result<Vec<ServiceRow>, Failure> {
        let rows = self.services(Some(reference(id)))?;
        if rows.is_empty() {
            Err(failure(1, NO_SERVICE))
        } else {
            Ok(rows)
        }
    }
}

/// The settings that `--set` sets, in its order.
const TIMEOUTS: [&str; 3] = ["timeout_tcp", "timeout_tcp_fin", "timeout_udp"];

const NO_SERVICE: &str = "No such service";

/// What a command is about; the same error has other words for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Object {
    Service,
    Server,
    Laddr,
    Sync,
    /// What a kernel has no words for.
    Setting,
}

impl Object {
    fn no_service(self) -> &'static str {
        match self {
            Self::Service | Self::Sync | Self::Setting => NO_SERVICE,
            Self::Server | Self::Laddr => "Service not defined",
        }
    }
}

/// The kernel's words for an error of the daemon; its own where the kernel has none.
pub(super) fn refused(error: &RpcError, method: &str, object: Object) -> Failure {
    const INVALID: &str =
        "Invalid operation.  Possibly wrong module version, address not unicast, ...";
    let text = match (error.kind(), object) {
        (_, Object::Setting) => return failure(255, error.to_string()),
        (Some(ErrorKind::ServiceExists), _) => "Service already exists",
        (Some(ErrorKind::ServerExists), _) => "Destination already exists",
        (Some(ErrorKind::NoSuchService), object) => object.no_service(),
        (Some(ErrorKind::NoSuchServer), _) => "No such destination",
        (Some(ErrorKind::NoSuchScheduler | ErrorKind::NoSuchEngine), _) => {
            "Scheduler or persistence engine not found"
        }
        (Some(ErrorKind::NoSuchInterface), _) => "No such device",
        (Some(ErrorKind::SyncDaemonRuns), _) => "Daemon has already run",
        (Some(ErrorKind::NoSyncDaemon), _) => "No daemon is running",
        (Some(ErrorKind::OutOfRange), _) => "Numerical result out of range",
        (Some(ErrorKind::InvalidParams), Object::Service | Object::Server | Object::Sync)
            if is_bad_address(error) =>
        {
            INVALID
        }
        (Some(ErrorKind::MethodNotFound), _) => {
            return not_yet(&format!("the daemon has no {method}"));
        }
        _ => return failure(255, error.to_string()),
    };
    let says_more = [
        ErrorKind::NoSuchScheduler,
        ErrorKind::NoSuchInterface,
        ErrorKind::NoSuchServer,
        ErrorKind::OutOfRange,
        ErrorKind::InvalidParams,
    ];
    let hint = error.kind().filter(|kind| says_more.contains(kind));
    Failure {
        hint: hint.map(|_| error.to_string()),
        ..failure(255, text)
    }
}

/// Whether the daemon objects to an address as the kernel would.
fn is_bad_address(error: &RpcError) -> bool {
    let about_address = |path: &str| path.rsplit('.').next() == Some("address");
    error.path().is_some_and(about_address)
}

fn failure(rc: i32, text: impl Into<String>) -> Failure {
    let text = text.into();
    Failure {
        rc,
        text,
        hint: None,
    }
}

fn not_yet(what: &str) -> Failure {
    failure(255, format!("not in this version: {what}"))
}

fn encode(params: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(params).map_err(|error| failure(255, error.to_string()))
}

fn reference(id: ServiceId) -> api::ServiceRef {
    match id {
        ServiceId::Address { protocol, address } => api::ServiceRef::Address { protocol, address },
        ServiceId::Mark { mark, ipv6 } => api::ServiceRef::Mark { mark, ipv6 },
    }
}

fn mask(persistence: Option<Persistence>) -> Option<String> {
    Some(persistence?.mask?.to_string())
}

fn method(forward: Forward) -> api::Method {
    match forward {
        Forward::Masq => api::Method::Nat,
        Forward::Route => api::Method::Dr,
        Forward::FullNat => api::Method::FullNat,
        Forward::Tunnel(_) => api::Method::Tun,
    }
}

fn tunnel(forward: Forward) -> Tunnel {
    match forward {
        Forward::Tunnel(tunnel) => tunnel,
        _ => Tunnel::Ipip,
    }
}
