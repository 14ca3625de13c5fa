//! The options of ipvsadm 1.31 (ipvsadm(8)), those that DPVS added for FULLNAT, and which command takes which.

/// Whether an option takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arg {
    No,
    Required,
    Optional,
}

/// One option as spelt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opt {
    pub(super) long: &'static str,
    pub(super) short: Option<char>,
    pub(super) arg: Arg,
    pub(super) id: OptId,
}

/// What an option means. The first ones are commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OptId {
    AddService,
    EditService,
    DeleteService,
    Flush,
    List,
    Zero,
    AddServer,
    EditServer,
    DeleteServer,
    Set,
    Help,
    Version,
    Restore,
    Save,
    StartDaemon,
    StopDaemon,
    AddLaddr,
    DeleteLaddr,
    ListLaddrs,
    Tcp,
    Udp,
    Sctp,
    Mark,
    Ipv6,
    Scheduler,
    Pe,
    Persistent,
    Netmask,
    RealServer,
    Masquerading,
    Tunnel,
    Gatewaying,
    FullNat,
    Weight,
    UpperThreshold,
    LowerThreshold,
    Numeric,
    Connection,
    McastInterface,
    McastGroup,
    McastPort,
    McastTtl,
    SyncId,
    SyncMaxlen,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Exact,
    Thresholds,
    PersistentConn,
    TunInfo,
    NoSort,
    Sort,
    OnePacket,
    SchedFlags,
    TunType,
    TunPort,
    TunNoCsum,
    TunCsum,
    TunRemCsum,
    Laddr,
    Ifname,
}

const COUNT: usize = 64;

/// The options to read with, once the command is known. Only `-b` depends on it: scheduler flags in stock ipvsadm,
/// FULLNAT with the commands for real servers as DPVS has it.
pub(super) fn table(command: Option<CommandId>) -> &'static [Opt] {
    static STOCK: [Opt; COUNT] = options(false);
    static SERVERS: [Opt; COUNT] = options(true);
    match command {
        Some(CommandId::AddServer | CommandId::EditServer) => &SERVERS,
        _ => &STOCK,
    }
}

const fn options(b_is_fullnat: bool) -> [Opt; COUNT] {
    use Arg::{No, Optional, Required};
    use OptId as Id;
    const fn short(long: &'static str, short: char, arg: Arg, id: OptId) -> Opt {
        let short = Some(short);
        Opt {
            long,
            short,
            arg,
            id,
        }
    }
    const fn long(long: &'static str, arg: Arg, id: OptId) -> Opt {
        let short = None;
        Opt {
            long,
            short,
            arg,
            id,
        }
    }
    let (sched_flags, fullnat) = if b_is_fullnat {
        (
            long("sched-flags", Required, Id::SchedFlags),
            short("fullnat", 'b', No, Id::FullNat),
        )
    } else {
        (
            short("sched-flags", 'b', Required, Id::SchedFlags),
            long("fullnat", No, Id::FullNat),
        )
    };
    [
        short("add-service", 'A', No, Id::AddService),
        short("edit-service", 'E', No, Id::EditService),
        short("delete-service", 'D', No, Id::DeleteService),
        short("clear", 'C', No, Id::Flush),
        short("list", 'L', No, Id::List),
        short("list", 'l', No, Id::List),
        short("zero", 'Z', No, Id::Zero),
        short("add-server", 'a', No, Id::AddServer),
        short("edit-server", 'e', No, Id::EditServer),
        short("delete-server", 'd', No, Id::DeleteServer),
        long("set", No, Id::Set),
        short("help", 'h', No, Id::Help),
        short("version", 'v', No, Id::Version),
        short("restore", 'R', No, Id::Restore),
        short("save", 'S', No, Id::Save),
        long("start-daemon", Required, Id::StartDaemon),
        long("stop-daemon", Required, Id::StopDaemon),
        short("add-laddr", 'P', No, Id::AddLaddr),
        short("del-laddr", 'Q', No, Id::DeleteLaddr),
        short("get-laddr", 'G', No, Id::ListLaddrs),
        short("tcp-service", 't', Required, Id::Tcp),
        short("udp-service", 'u', Required, Id::Udp),
        long("sctp-service", Required, Id::Sctp),
        short("fwmark-service", 'f', Required, Id::Mark),
        short("ipv6", '6', No, Id::Ipv6),
        short("scheduler", 's', Required, Id::Scheduler),
        long("pe", Required, Id::Pe),
        short("persistent", 'p', Optional, Id::Persistent),
        short("netmask", 'M', Required, Id::Netmask),
        short("real-server", 'r', Required, Id::RealServer),
        short("masquerading", 'm', No, Id::Masquerading),
        short("ipip", 'i', No, Id::Tunnel),
        short("gatewaying", 'g', No, Id::Gatewaying),
        short("weight", 'w', Required, Id::Weight),
        short("u-threshold", 'x', Required, Id::UpperThreshold),
        short("l-threshold", 'y', Required, Id::LowerThreshold),
        short("numeric", 'n', No, Id::Numeric),
        short("connection", 'c', No, Id::Connection),
        long("mcast-interface", Required, Id::McastInterface),
        long("mcast-group", Required, Id::McastGroup),
        long("mcast-port", Required, Id::McastPort),
        long("mcast-ttl", Required, Id::McastTtl),
        long("syncid", Required, Id::SyncId),
        long("sync-maxlen", Required, Id::SyncMaxlen),
        long("timeout", No, Id::Timeout),
        long("daemon", No, Id::Daemon),
        long("stats", No, Id::Stats),
        long("rate", No, Id::Rate),
        long("exact", No, Id::Exact),
        long("thresholds", No, Id::Thresholds),
        long("persistent-conn", No, Id::PersistentConn),
        long("tun-info", No, Id::TunInfo),
        long("nosort", No, Id::NoSort),
        long("sort", No, Id::Sort),
        short("ops", 'o', No, Id::OnePacket),
        sched_flags,
        fullnat,
        long("tun-type", Required, Id::TunType),
        long("tun-port", Required, Id::TunPort),
        long("tun-nocsum", No, Id::TunNoCsum),
        long("tun-csum", No, Id::TunCsum),
        long("tun-remcsum", No, Id::TunRemCsum),
        short("laddr", 'z', Required, Id::Laddr),
        short("ifname", 'F', Required, Id::Ifname),
    ]
}

/// What ipvsadm counts as one option and names in its messages: `-t`, `-u` … are all the `service-address`. In the order in which
/// it checks them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    Numeric,
    Connection,
    ServiceAddress,
    Scheduler,
    Persistent,
    Netmask,
    RealServer,
    ForwardingMethod,
    Weight,
    UpperThreshold,
    LowerThreshold,
    McastInterface,
    Timeout,
    Daemon,
    Stats,
    Rate,
    Thresholds,
    PersistentConn,
    NoSort,
    SyncId,
    Exact,
    OnePacket,
    Pe,
    SyncMaxlen,
    McastGroup,
    McastPort,
    McastTtl,
    SchedFlags,
    TunInfo,
    TunType,
    TunPort,
    TunNoCsum,
    TunCsum,
    TunRemCsum,
    Laddr,
    Ifname,
}

impl Class {
    /// All, in the order of checking, with their names.
    pub(super) const NAMES: [(Self, &'static str); 36] = [
        (Self::Numeric, "numeric"),
        (Self::Connection, "connection"),
        (Self::ServiceAddress, "service-address"),
        (Self::Scheduler, "scheduler"),
        (Self::Persistent, "persistent"),
        (Self::Netmask, "netmask"),
        (Self::RealServer, "real-server"),
        (Self::ForwardingMethod, "forwarding-method"),
        (Self::Weight, "weight"),
        (Self::UpperThreshold, "u-threshold"),
        (Self::LowerThreshold, "l-threshold"),
        (Self::McastInterface, "mcast-interface"),
        (Self::Timeout, "timeout"),
        (Self::Daemon, "daemon"),
        (Self::Stats, "stats"),
        (Self::Rate, "rate"),
        (Self::Thresholds, "thresholds"),
        (Self::PersistentConn, "persistent-conn"),
        (Self::NoSort, "nosort"),
        (Self::SyncId, "syncid"),
        (Self::Exact, "exact"),
        (Self::OnePacket, "ops"),
        (Self::Pe, "pe"),
        (Self::SyncMaxlen, "sync-maxlen"),
        (Self::McastGroup, "mcast-group"),
        (Self::McastPort, "mcast-port"),
        (Self::McastTtl, "mcast-ttl"),
        (Self::SchedFlags, "sched-flags"),
        (Self::TunInfo, "tun-info"),
        (Self::TunType, "tun-type"),
        (Self::TunPort, "tun-port"),
        (Self::TunNoCsum, "tun-nocsum"),
        (Self::TunCsum, "tun-csum"),
        (Self::TunRemCsum, "tun-remcsum"),
        (Self::Laddr, "laddr"),
        (Self::Ifname, "ifname"),
    ];

    /// As messages name it.
    pub(super) fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }
}

impl OptId {
    /// What this option counts as; `None` for commands and the options that are never checked.
    pub(super) fn class(self) -> Option<Class> {
        Some(match self {
            Self::Tcp | Self::Udp | Self::Sctp | Self::Mark => Class::ServiceAddress,
            Self::Scheduler => Class::Scheduler,
            Self::Pe => Class::Pe,
            Self::Persistent => Class::Persistent,
            Self::Netmask => Class::Netmask,
            Self::RealServer => Class::RealServer,
            Self::Masquerading | Self::Tunnel | Self::Gatewaying | Self::FullNat => {
                Class::ForwardingMethod
            }
            Self::Weight => Class::Weight,
            Self::UpperThreshold => Class::UpperThreshold,
            Self::LowerThreshold => Class::LowerThreshold,
            Self::Numeric => Class::Numeric,
            Self::Connection => Class::Connection,
            Self::McastInterface => Class::McastInterface,
            Self::McastGroup => Class::McastGroup,
            Self::McastPort => Class::McastPort,
            Self::McastTtl => Class::McastTtl,
            Self::SyncId => Class::SyncId,
            Self::SyncMaxlen => Class::SyncMaxlen,
            Self::Timeout => Class::Timeout,
            Self::Daemon => Class::Daemon,
            Self::Stats => Class::Stats,
            Self::Rate => Class::Rate,
            Self::Exact => Class::Exact,
            Self::Thresholds => Class::Thresholds,
            Self::PersistentConn => Class::PersistentConn,
            Self::TunInfo => Class::TunInfo,
            Self::NoSort => Class::NoSort,
            Self::OnePacket => Class::OnePacket,
            Self::SchedFlags => Class::SchedFlags,
            Self::TunType => Class::TunType,
            Self::TunPort => Class::TunPort,
            Self::TunNoCsum => Class::TunNoCsum,
            Self::TunCsum => Class::TunCsum,
            Self::TunRemCsum => Class::TunRemCsum,
            Self::Laddr => Class::Laddr,
            Self::Ifname => Class::Ifname,
            _ => return None,
        })
    }

    /// The command that this option is, if it is one.
    pub(super) fn command(self) -> Option<CommandId> {
        Some(match self {
            Self::AddService => CommandId::AddService,
            Self::EditService => CommandId::EditService,
            Self::DeleteService => CommandId::DeleteService,
            Self::Flush => CommandId::Flush,
            Self::List => CommandId::List,
            Self::Zero => CommandId::Zero,
            Self::AddServer => CommandId::AddServer,
            Self::EditServer => CommandId::EditServer,
            Self::DeleteServer => CommandId::DeleteServer,
            Self::Set => CommandId::Set,
            Self::Help => CommandId::Help,
            Self::Version => CommandId::Version,
            Self::Restore => CommandId::Restore,
            Self::Save => CommandId::Save,
            Self::StartDaemon => CommandId::StartDaemon,
            Self::StopDaemon => CommandId::StopDaemon,
            Self::AddLaddr => CommandId::AddLaddr,
            Self::DeleteLaddr => CommandId::DeleteLaddr,
            Self::ListLaddrs => CommandId::ListLaddrs,
            _ => return None,
        })
    }
}

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommandId {
    AddService,
    EditService,
    DeleteService,
    Flush,
    List,
    Zero,
    AddServer,
    EditServer,
    DeleteServer,
    Set,
    Help,
    Version,
    Restore,
    Save,
    StartDaemon,
    StopDaemon,
    AddLaddr,
    DeleteLaddr,
    ListLaddrs,
}

impl CommandId {
    /// As messages name it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AddService => "add-service",
            Self::EditService => "edit-service",
            Self::DeleteService => "delete-service",
            Self::Flush => "flush",
            Self::List => "list",
            Self::Zero => "zero",
            Self::AddServer => "add-server",
            Self::EditServer => "edit-server",
            Self::DeleteServer => "delete-server",
            Self::Set => "set",
            Self::Help => "help",
            Self::Version => "version",
            Self::Restore => "restore",
            Self::Save => "save",
            Self::StartDaemon => "start-daemon",
            Self::StopDaemon => "stop-daemon",
            Self::AddLaddr => "add-laddr",
            Self::DeleteLaddr => "del-laddr",
            Self::ListLaddrs => "get-laddr",
        }
    }

    /// The options it cannot do without.
    pub(super) fn required(self) -> &'static [Class] {
        match self {
            Self::AddService | Self::EditService | Self::DeleteService => &[Class::ServiceAddress],
            Self::AddServer | Self::EditServer | Self::DeleteServer => {
                &[Class::ServiceAddress, Class::RealServer]
            }
            Self::AddLaddr | Self::DeleteLaddr => &[Class::ServiceAddress, Class::Laddr],
            _ => &[],
        }
    }

    /// The further options it takes.
    pub(super) fn optional(self) -> &'static [Class] {
        match self {
            Self::AddService | Self::EditService => &[
                Class::Scheduler,
                Class::Persistent,
                Class::Netmask,
                Class::OnePacket,
                Class::Pe,
                Class::SchedFlags,
            ],
            Self::AddServer | Self::EditServer => &[
                Class::ForwardingMethod,
                Class::Weight,
                Class::UpperThreshold,
                Class::LowerThreshold,
                Class::TunType,
                Class::TunPort,
                Class::TunNoCsum,
                Class::TunCsum,
                Class::TunRemCsum,
            ],
            Self::List => &[
                Class::Numeric,
                Class::Connection,
                Class::ServiceAddress,
                Class::Timeout,
                Class::Daemon,
                Class::Stats,
                Class::Rate,
                Class::Thresholds,
                Class::PersistentConn,
                Class::NoSort,
                Class::Exact,
                Class::TunInfo,
            ],
            Self::StartDaemon => &[
                Class::McastInterface,
                Class::SyncId,
                Class::SyncMaxlen,
                Class::McastGroup,
                Class::McastPort,
                Class::McastTtl,
            ],
            Self::StopDaemon => &[Class::SyncId],
            Self::Save => &[Class::Numeric],
            Self::Zero => &[Class::ServiceAddress],
            Self::AddLaddr | Self::DeleteLaddr => &[Class::Ifname],
            Self::ListLaddrs => &[Class::Numeric, Class::ServiceAddress],
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_stands_at_its_own_place_in_the_order() {
        for (place, (class, name)) in Class::NAMES.into_iter().enumerate() {
            assert_eq!(class as usize, place, "{name}");
            assert_eq!(class.name(), name);
        }
    }

    #[test]
    fn no_spelling_means_two_things() {
        for command in [None, Some(CommandId::AddServer)] {
            for (at, opt) in table(command).iter().enumerate() {
                for other in &table(command)[at + 1..] {
                    assert!(
                        opt.short.is_none() || opt.short != other.short,
                        "{opt:?} {other:?}"
                    );
                    assert!(
                        opt.long != other.long || opt.id == other.id,
                        "{opt:?} {other:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn b_is_fullnat_with_servers_and_scheduler_flags_elsewhere() {
        let b = |command| {
            let table = table(command);
            table.iter().find(|opt| opt.short == Some('b')).unwrap().id
        };
        assert_eq!(b(Some(CommandId::AddServer)), OptId::FullNat);
        assert_eq!(b(Some(CommandId::AddService)), OptId::SchedFlags);
    }
}
