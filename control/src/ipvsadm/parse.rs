//! From the words of a command line to a [`Command`], with stock ipvsadm's words for what is wrong (`SEMANTICS.md` section 11).
//!
//! In the order of stock: the first option must be a command; then option after option is read and its value checked; then words
//! that are no options; then which options the command needs and takes; last what they say together.

use std::net::{IpAddr, SocketAddr};

use super::address::{self, host_and_port, number};
use super::command::{
    Command, Forward, List, Mask, Persistence, Protocol, SchedFlags, Server, Service, ServiceId,
    SyncRole, What,
};
use super::names::Names;
use super::options::{Class, CommandId, OptId, table};
use super::popt::{Given, Popt, PoptError};
use super::sync::SyncOptions;
use super::tunnel::TunnelOptions;

/// What `-p` means without a value, in seconds. (The manual says 300.)
const DEFAULT_PERSISTENCE: u32 = 360;
/// The longest timeout, in seconds: 31 days.
const MAX_TIMEOUT: i64 = 31 * 24 * 3600;
const INT_MAX: i64 = i32::MAX as i64;

/// Why a command line was not understood: what ipvsadm says on standard error, and its exit code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unusable {
    pub(super) rc: i32,
    pub(super) text: String,
}

/// A mistake that ipvsadm itself finds.
pub(super) fn usage(text: impl Into<String>) -> Unusable {
    let text = text.into();
    Unusable { rc: 2, text }
}

fn try_help() -> Unusable {
    Unusable {
        rc: 255,
        text: "Try `ipvsadm -h' or 'ipvsadm --help' for more information.".to_owned(),
    }
}

impl From<PoptError> for Unusable {
    fn from(error: PoptError) -> Self {
        let text = format!("{}: {}", error.word, error.reason);
        Self { rc: 255, text }
    }
}

/// Reads a command line (without the program's name).
pub(super) fn parse(args: &[String], names: &dyn Names) -> Result<Command, Unusable> {
    if args.is_empty() {
        return Ok(Command::List(List::default()));
    }
    let mut popt = Popt::new(args);
    let first = match popt.option(table(None)) {
        Some(Ok(given)) => given,
        _ => return Err(try_help()),
    };
    let command = first.id.command().ok_or_else(try_help)?;
    let laddr_command = matches!(command, CommandId::AddLaddr | CommandId::DeleteLaddr);
    if laddr_command && args.len() == 1 {
        // Stock has no such command; alone it is as unknown as there.
        return Err(try_help());
    }
    let mut line = Line::default();
    line.start(command, &first)?;
    while let Some(given) = popt.option(table(Some(command))) {
        line.take(given?, names)?;
    }
    let words = popt.words();
    if command == CommandId::Set {
        return timeouts(words);
    }
    if let Some(word) = words.first() {
        return Err(usage(format!("unexpected argument {word}")));
    }
    line.check(command)?;
    line.finish(command)
}

fn timeouts(words: &[&str]) -> Result<Command, Unusable> {
    let Some((values, rest)) = words.split_at_checked(3) else {
        return Err(usage("--set option requires 3 timeout values"));
    };
    let mut seconds = [0; 3];
    for (seconds, word) in seconds.iter_mut().zip(values) {
        *seconds = timeout(word, 0)?;
    }
    match rest.first() {
        Some(word) => Err(usage(format!("unexpected argument {word}"))),
        None => Ok(Command::SetTimeouts(seconds)),
    }
}

fn timeout(word: &str, min: i64) -> Result<u32, Unusable> {
    number(word, min, MAX_TIMEOUT)
        .ok_or_else(|| usage(format!("invalid timeout value `{word}' specified")))
}

/// What has been read of a command line.
#[derive(Debug, Default)]
struct Line {
    classes: Vec<Class>,
    service: Option<(Protocol, IpAddr, u16)>,
    mark: Option<u32>,
    ipv6: bool,
    scheduler: Option<String>,
    sched_flags: Option<String>,
    engine: Option<String>,
    persistence: Option<u32>,
    mask: Option<Mask>,
    server: Option<(IpAddr, Option<u16>)>,
    forward: Option<OptId>,
    tunnel: TunnelOptions,
    weight: Option<u32>,
    upper_threshold: u32,
    lower_threshold: u32,
    laddr: Option<IpAddr>,
    sync: SyncOptions,
}

impl Line {
    fn start(&mut self, command: CommandId, first: &Given) -> Result<(), Unusable> {
        let daemon = match command {
            CommandId::StartDaemon => "start-daemon",
            CommandId::StopDaemon => "stop-daemon",
            _ => return Ok(()),
        };
        self.sync.role = Some(match first.value.as_deref() {
            Some("master") => SyncRole::Master,
            Some("backup") => SyncRole::Backup,
            _ => return Err(usage(format!("illegal {daemon} parameter specified"))),
        });
        Ok(())
    }

    /// Notes an option and reads its value.
    fn take(&mut self, given: Given, names: &dyn Names) -> Result<(), Unusable> {
        if given.id.command().is_some() {
            return Err(usage(format!("invalid option `{}'", given.word)));
        }
        if let Some(class) = given.id.class() {
            if self.has(class) {
                return Err(usage(format!(
                    "multiple '{}' options specified",
                    class.name()
                )));
            }
            self.classes.push(class);
        }
        let value = given.value.as_deref();
        let text = value.unwrap_or_default();
        let in_range = |what: &str, min, max| {
            number(text, min, max).ok_or_else(|| usage(format!("illegal {what} specified")))
        };
        match given.id {
            OptId::Tcp => self.take_service(Protocol::Tcp, text, names)?,
            OptId::Udp => self.take_service(Protocol::Udp, text, names)?,
            OptId::Sctp => self.take_service(Protocol::Sctp, text, names)?,
            OptId::Mark => {
                let mark = number(text, 1, i64::from(u32::MAX));
                self.mark =
                    Some(mark.ok_or_else(|| {
                        usage(format!("invalid fwmark value `{text}' specified"))
                    })?);
            }
            OptId::Ipv6 => self.ipv6 = true,
            OptId::Scheduler => self.scheduler = value.map(str::to_owned),
            OptId::SchedFlags => self.sched_flags = value.map(str::to_owned),
            OptId::Pe => self.engine = value.map(str::to_owned),
            OptId::Persistent => {
                self.persistence = Some(match value {
                    Some(word) => timeout(word, 1)?,
                    None => DEFAULT_PERSISTENCE,
                });
            }
            OptId::Netmask => self.mask = Some(self.read_mask(text)?),
            OptId::RealServer => self.take_server(text, names)?,
            OptId::Masquerading | OptId::Tunnel | OptId::Gatewaying | OptId::FullNat => {
                self.forward = Some(given.id)
            }
            OptId::Weight => self.weight = Some(in_range("weight", 0, INT_MAX)?),
            OptId::UpperThreshold => self.upper_threshold = in_range("u_threshold", 0, INT_MAX)?,
            OptId::LowerThreshold => self.lower_threshold = in_range("l_threshold", 0, INT_MAX)?,
            OptId::TunType
            | OptId::TunPort
            | OptId::TunNoCsum
            | OptId::TunCsum
            | OptId::TunRemCsum => {
                self.tunnel.take(given.id, text)?;
            }
            OptId::McastInterface
            | OptId::SyncId
            | OptId::SyncMaxlen
            | OptId::McastPort
            | OptId::McastTtl
            | OptId::McastGroup => self.sync.take(given.id, text)?,
            OptId::Laddr => {
                let laddr = text
                    .parse()
                    .map_err(|_| usage("illegal local address specified"))?;
                self.laddr = Some(laddr);
            }
            _ => {}
        }
        Ok(())
    }

    fn has(&self, class: Class) -> bool {
        self.classes.contains(&class)
    }

    fn take_service(
        &mut self,
        protocol: Protocol,
        text: &str,
        names: &dyn Names,
    ) -> Result<(), Unusable> {
        let read = host_and_port(text, protocol.name(), names);
        let (address, port) =
            read.ok_or_else(|| usage("illegal virtual server address[:port] specified"))?;
        self.service = Some((protocol, address, port.unwrap_or(0)));
        Ok(())
    }

    fn take_server(&mut self, text: &str, names: &dyn Names) -> Result<(), Unusable> {
        let protocol = self.service.map_or("tcp", |(protocol, ..)| protocol.name());
        let read = host_and_port(text, protocol, names);
        self.server =
            Some(read.ok_or_else(|| usage("illegal real server address[:port] specified"))?);
        Ok(())
    }

    fn read_mask(&self, text: &str) -> Result<Mask, Unusable> {
        let ipv6 = self.ipv6
            || self
                .service
                .is_some_and(|(_, address, _)| address.is_ipv6());
        let mask = if ipv6 {
            number(text, 1, 128)
                .and_then(|length| u8::try_from(length).ok())
                .map(Mask::V6)
        } else {
            address::inet_aton(text).map(Mask::V4)
        };
        mask.ok_or_else(|| usage("invalid netmask specified"))
    }

    /// Whether the options are those that `command` needs and takes.
    fn check(&self, command: CommandId) -> Result<(), Unusable> {
        for (class, name) in Class::NAMES {
            let required = command.required().contains(&class);
            let optional = command.optional().contains(&class);
            match self.has(class) {
                false if required => {
                    let command = command.name();
                    return Err(usage(format!(
                        "You need to supply the '{name}' option for the '{command}' command"
                    )));
                }
                true if !required && !optional => {
                    let command = command.name();
                    return Err(usage(format!(
                        "Illegal '{name}' option with the '{command}' command"
                    )));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn finish(self, command: CommandId) -> Result<Command, Unusable> {
        let id = self.id();
        let needed = || id.ok_or_else(try_help);
        let laddr = || self.laddr.ok_or_else(try_help);
        Ok(match command {
            CommandId::Help => Command::Help,
            CommandId::Version => Command::Version,
            CommandId::AddService => Command::AddService(self.finish_service(needed()?)?),
            CommandId::EditService => Command::EditService(self.finish_service(needed()?)?),
            CommandId::DeleteService => Command::DeleteService(needed()?),
            CommandId::Flush => Command::Flush,
            CommandId::Restore => Command::Restore,
            CommandId::Save => Command::Save {
                numeric: self.has(Class::Numeric),
            },
            CommandId::AddServer => Command::AddServer(self.finish_server(needed()?)?),
            CommandId::EditServer => Command::EditServer(self.finish_server(needed()?)?),
            CommandId::DeleteServer => Command::DeleteServer {
                service: needed()?,
                address: self.server_address(needed()?)?,
            },
            CommandId::List => Command::List(self.finish_list(id)?),
            CommandId::Zero => Command::Zero(id),
            CommandId::Set => unreachable!("its three words were read before"),
            CommandId::StartDaemon => Command::StartSync(self.sync.finish().ok_or_else(try_help)?),
            CommandId::StopDaemon => Command::StopSync(self.sync.role.ok_or_else(try_help)?),
            CommandId::AddLaddr => Command::AddLaddr {
                service: needed()?,
                address: laddr()?,
            },
            CommandId::DeleteLaddr => Command::DeleteLaddr {
                service: needed()?,
                address: laddr()?,
            },
            CommandId::ListLaddrs => Command::ListLaddrs(id),
        })
    }

    fn id(&self) -> Option<ServiceId> {
        if let Some(mark) = self.mark {
            let ipv6 = self.ipv6;
            return Some(ServiceId::Mark { mark, ipv6 });
        }
        self.service
            .map(|(protocol, address, port)| ServiceId::Address {
                protocol,
                address: SocketAddr::new(address, port),
            })
    }

    fn finish_service(self, id: ServiceId) -> Result<Service, Unusable> {
        let scheduler = self.scheduler.unwrap_or_else(|| "wlc".to_owned());
        if let ServiceId::Address { protocol, address } = id {
            if address.port() == 0 && self.persistence.is_none() {
                return Err(usage("Zero port specified for non-persistent service"));
            }
            if self.classes.contains(&Class::OnePacket) && protocol != Protocol::Udp {
                return Err(usage(
                    "One-Packet Scheduling is only for UDP virtual services",
                ));
            }
        }
        let full =
            |mask: &Mask| matches!(mask, Mask::V6(128)) || *mask == Mask::V4([255; 4].into());
        let mask = self.mask.filter(|mask| !full(mask));
        Ok(Service {
            id,
            persistence: self
                .persistence
                .map(|timeout_s| Persistence { timeout_s, mask }),
            one_packet: self.classes.contains(&Class::OnePacket),
            engine: self.engine,
            sched_flags: sched_flags(self.sched_flags.as_deref(), &scheduler)?,
            scheduler,
        })
    }

    /// The real server with the port given, or else the service's.
    fn server_address(&self, service: ServiceId) -> Result<SocketAddr, Unusable> {
        let (address, port) = self.server.ok_or_else(try_help)?;
        Ok(SocketAddr::new(address, port.unwrap_or(service.port())))
    }

    fn finish_server(self, service: ServiceId) -> Result<Server, Unusable> {
        let mut address = self.server_address(service)?;
        let tunnel = self.tunnel.finish(self.forward == Some(OptId::Tunnel))?;
        let forward = match self.forward {
            Some(OptId::Masquerading) => Forward::Masq,
            Some(OptId::FullNat) => Forward::FullNat,
            Some(OptId::Tunnel) => Forward::Tunnel(tunnel),
            _ => Forward::Route,
        };
        if address.is_ipv6() != service.is_ipv6() && !matches!(forward, Forward::Tunnel(_)) {
            return Err(usage(
                "Different address family is allowed only for tunneling servers",
            ));
        }
        if matches!(forward, Forward::Route | Forward::Tunnel(_)) {
            // Neither can change the port of a packet.
            address.set_port(service.port());
        }
        Ok(Server {
            service,
            address,
            forward,
            weight: self.weight.unwrap_or(1),
            upper_threshold: self.upper_threshold,
            lower_threshold: self.lower_threshold,
        })
    }

    fn finish_list(&self, service: Option<ServiceId>) -> Result<List, Unusable> {
        // Of these only one at a time; messages name the later of the fixed order first.
        let exclusive = [
            Class::Connection,
            Class::ServiceAddress,
            Class::Timeout,
            Class::Daemon,
        ];
        let mut given = exclusive.into_iter().filter(|class| self.has(*class));
        if let (Some(first), Some(second)) = (given.next(), given.next()) {
            return Err(usage(format!(
                "The option '{}' conflicts with the '{}' option in the 'list' command",
                second.name(),
                first.name()
            )));
        }
        let table = [Class::Stats, Class::Rate, Class::Thresholds]
            .iter()
            .any(|class| self.has(*class));
        let other = [Class::Connection, Class::Timeout, Class::Daemon]
            .iter()
            .any(|class| self.has(*class));
        if table && other {
            return Err(usage("options conflicts in the list command"));
        }
        let kinds = [
            (Class::Connection, What::Connections),
            (Class::Timeout, What::Timeouts),
            (Class::Daemon, What::SyncDaemon),
            (Class::Stats, What::Stats),
            (Class::Rate, What::Rates),
            (Class::Thresholds, What::Thresholds),
            (Class::PersistentConn, What::PersistentConn),
            (Class::TunInfo, What::TunInfo),
        ];
        let kind = kinds.iter().find(|(class, _)| self.has(*class));
        Ok(List {
            service,
            what: kind.map_or(What::Servers, |(_, what)| *what),
            numeric: self.has(Class::Numeric),
            exact: self.has(Class::Exact),
            unsorted: self.has(Class::NoSort),
            persistent_conn: self.has(Class::PersistentConn),
        })
    }
}

fn sched_flags(text: Option<&str>, scheduler: &str) -> Result<SchedFlags, Unusable> {
    let mut flags = SchedFlags::default();
    for name in text.into_iter().flat_map(|text| text.split(',')) {
        let (owner, bit) = match name {
            "flag-1" => (scheduler, 1),
            "flag-2" => (scheduler, 2),
            "flag-3" => (scheduler, 4),
            "sh-fallback" => ("sh", 1),
            "sh-port" => ("sh", 2),
            "mh-fallback" => ("mh", 1),
            "mh-port" => ("mh", 2),
            _ => return Err(usage(format!("invalid scheduler flag `{name}'"))),
        };
        if owner != scheduler {
            return Err(usage(format!("incompatible scheduler flag `{name}'")));
        }
        flags.0 |= bit;
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::names::LocalNames;
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn mistake(line: &str) -> (i32, String) {
        let unusable = parse(&words(line), &LocalNames).expect_err(line);
        (unusable.rc, unusable.text)
    }

    #[test]
    fn mistakes_that_no_trace_has_are_told_as_well() {
        for (line, text) in [
            (
                "-A -t 10.0.0.1:80 -n",
                "Illegal 'numeric' option with the 'add-service' command",
            ),
            ("-C -n", "Illegal 'numeric' option with the 'flush' command"),
            ("-Z -n", "Illegal 'numeric' option with the 'zero' command"),
            (
                "-d -t 10.0.0.1:80 -r 192.168.1.1 -m",
                "Illegal 'forwarding-method' option with the 'delete-server' command",
            ),
            (
                "-a -t 10.0.0.1:80 -r 192.168.1.1 -m -g",
                "multiple 'forwarding-method' options specified",
            ),
            ("-L -nn", "multiple 'numeric' options specified"),
            ("-A -t 10.0.0.1:80 -p -M x", "invalid netmask specified"),
            (
                "-A -t [2001:db8::1]:80 -p -M 129",
                "invalid netmask specified",
            ),
            (
                "-a -t 10.0.0.1:80 -r 192.168.1.1:x",
                "illegal real server address[:port] specified",
            ),
            (
                "-a -t 10.0.0.1:80 -r 192.168.1.1 -y -1",
                "illegal l_threshold specified",
            ),
            ("--set 1 2 3 4", "unexpected argument 4"),
            (
                "-P -t 10.0.0.1:80 -z nowhere",
                "illegal local address specified",
            ),
        ] {
            assert_eq!(mistake(line), (2, text.to_owned()), "ipvsadm {line}");
        }
    }

    #[test]
    fn a_mask_without_persistence_is_ignored_and_a_full_one_is_none() {
        let service = |line| match parse(&words(line), &LocalNames) {
            Ok(Command::AddService(service)) => service.persistence,
            other => panic!("{other:?}"),
        };
        assert_eq!(service("-A -t 10.0.0.1:80 -M 33"), None);
        let full = service("-A -t 10.0.0.1:80 -p -M 255.255.255.255").unwrap();
        assert_eq!((full.timeout_s, full.mask), (360, None));
        let odd = service("-A -t 10.0.0.1:80 -p 60 -M 33").unwrap();
        assert_eq!(
            (odd.timeout_s, odd.mask),
            (60, Some(Mask::V4([0, 0, 0, 33].into())))
        );
    }

    proptest! {
        #[test]
        fn no_command_line_panics(
            args in prop::collection::vec(
                prop_oneof![
                    "-[A-Za-z0-9=]{0,4}",
                    "--[a-z-]{0,16}(=[!-~]{0,8})?",
                    "[ -~é]{0,20}",
                    (0..table(None).len()).prop_map(|at| format!("--{}", table(None)[at].long)),
                    Just("10.0.0.1:80".to_owned()),
                    Just("-A".to_owned()),
                    Just("-a".to_owned()),
                    Just("-L".to_owned()),
                ],
                0..8,
            )
        ) {
            if let Err(unusable) = parse(&args, &LocalNames) {
                prop_assert!(unusable.rc == 2 || unusable.rc == 255);
                prop_assert!(!unusable.text.is_empty());
            }
        }
    }
}
