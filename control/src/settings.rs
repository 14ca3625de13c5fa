//! The settings by name: what `setting_list` lists and `setting_set` sets. Names and defaults are those of `net.ipv4.vs`
//! (`SEMANTICS.md` section 8); the three timeouts are those of `ipvsadm --set`.

use std::collections::BTreeMap;

use sluice_dataplane::command::Settings;

use crate::api::{ErrorKind, Setting};
use crate::api_error::ApiError;

/// One setting.
struct Entry {
    name: &'static str,
    description: &'static str,
    min: u32,
    max: u32,
    read: fn(&Settings) -> u32,
    write: fn(&mut Settings, u32),
}

/// The longest time that can be set: what 31 bits of the kernel's ticks, of 4 ms, can express.
const MAX_SECONDS: u32 = i32::MAX as u32 / 250;

/// The largest number that the kernel keeps.
const MAX_COUNT: u32 = i32::MAX as u32;

/// An entry of the table: how its field is read and written follows from its kind.
macro_rules! entry {
    ($name:literal, $($field:ident).+: switch, $description:literal) => {
        Entry {
            name: $name,
            description: $description,
            min: 0,
            max: 1,
            read: |settings| settings.$($field).+.into(),
            write: |settings, value| settings.$($field).+ = value != 0,
        }
    };
    ($name:literal, $($field:ident).+: mode, $description:literal) => {
        Entry {
            name: $name,
            description: $description,
            min: 0,
            max: 3,
            read: |settings| settings.$($field).+.into(),
            write: |settings, value| settings.$($field).+ = value as u8,
        }
    };
    ($name:literal, $($field:ident).+: $min:literal to $max:ident, $description:literal) => {
        Entry {
            name: $name,
            description: $description,
            min: $min,
            max: $max,
            read: |settings| settings.$($field).+,
            write: |settings, value| settings.$($field).+ = value,
        }
    };
}

const ENTRIES: &[Entry] = &[
    entry!("am_droprate", policy.am_droprate: 0 to MAX_COUNT, "With drop_packet 3: every so many-th opening packet is dropped; 0 none"),
    entry!("amemthresh", policy.amemthresh: 0 to MAX_COUNT, "Free pages of memory below which automatic defences go up"),
    entry!("backup_only", kept.backup_only: switch, "Kept, without effect: there is no backup daemon yet"),
    entry!("cache_bypass", kept.cache_bypass: switch, "Kept, without effect: services of marks match only what is addressed to this machine"),
    entry!("conn_reuse_mode", conn_reuse_mode: mode, "When a SYN starts a connection anew: 0 never, 1 in TIME_WAIT or CLOSE, 2 or 3 also in FIN_WAIT when only the client is seen"),
    entry!("conntrack", kept.conntrack: switch, "Kept, without effect: the kernel's connection tracking sees no packet of sluice's"),
    entry!("drop_entry", policy.drop_entry: mode, "End connections that look unused, a sample each second: 0 never, 1 or 2 while memory is short, 3 always"),
    entry!("drop_packet", policy.drop_packet: mode, "Drop some of the packets that would open a connection: 0 never, 1 or 2 while memory is short, 3 always"),
    entry!("expire_nodest_conn", expire_nodest_conn: switch, "Packets of a connection whose real server was deleted: 0 drop them, 1 end it and schedule anew"),
    entry!("expire_quiescent_template", expire_quiescent_template: switch, "1 sends persistent clients of a real server with weight 0 to others"),
    entry!("ignore_tunneled", kept.ignore_tunneled: switch, "Kept, without effect: nothing here depends on it"),
    entry!("lblc_expiration", lblc_expiration_s: 0 to MAX_SECONDS, "Seconds after which lblc forgets a destination that nobody asked for"),
    entry!("lblcr_expiration", lblcr_expiration_s: 0 to MAX_SECONDS, "Seconds after which lblcr forgets a destination, or takes one real server out of its set"),
    entry!("nat_icmp_send", nat_icmp_send: switch, "1 answers a NAT server's packet of no connection with ICMP port unreachable"),
    entry!("pmtu_disc", pmtu_disc: switch, "1 answers packets too long for a tunnel with ICMP, 0 cuts them"),
    entry!("run_estimation", run_estimation: switch, "0 stops the estimation of rates"),
    entry!("schedule_icmp", schedule_icmp: switch, "1 schedules ICMP errors of no connection by the packet that they quote"),
    entry!("secure_tcp", policy.secure_tcp: mode, "State tables that trust clients less: 0 never, 1 or 2 while memory is short, 3 always"),
    entry!("sloppy_sctp", sloppy_sctp: switch, "1 schedules SCTP packets that do not open an association, too"),
    entry!("sloppy_tcp", sloppy_tcp: switch, "1 schedules TCP packets that do not open a connection, too"),
    entry!("snat_reroute", kept.snat_reroute: switch, "Kept, without effect: replies are routed to the client in any case"),
    entry!("timeout_tcp", timeouts.established_s: 1 to MAX_SECONDS, "Seconds that an idle connection in ESTABLISHED lives"),
    entry!("timeout_tcp_fin", timeouts.fin_wait_s: 1 to MAX_SECONDS, "Seconds that a connection in FIN_WAIT lives"),
    entry!("timeout_udp", timeouts.udp_s: 1 to MAX_SECONDS, "Seconds that an idle UDP connection lives"),
];

/// All settings, by name.
pub fn list(settings: &Settings) -> Vec<Setting> {
    let setting = |entry: &Entry| Setting {
        name: entry.name.to_owned(),
        value: (entry.read)(settings),
        description: entry.description.to_owned(),
    };
    ENTRIES.iter().map(setting).collect()
}

/// The settings with these values for those names. All or none: `Err` names the first that will not do.
pub fn with(settings: &Settings, values: &BTreeMap<String, u32>) -> Result<Settings, ApiError> {
    let mut changed = settings.clone();
    for (name, value) in values {
        let path = format!("settings.{name}");
        let Some(entry) = ENTRIES.iter().find(|entry| entry.name == name) else {
            let names: Vec<&str> = ENTRIES.iter().map(|entry| entry.name).collect();
            return Err(ApiError::new(
                ErrorKind::InvalidParams,
                format!(
                    "there is no setting {name:?}; there are {}",
                    names.join(", ")
                ),
            )
            .at(path));
        };
        let Entry { min, max, .. } = entry;
        if !(min..=max).contains(&value) {
            return Err(ApiError::new(
                ErrorKind::OutOfRange,
                format!("setting {name} takes {min} to {max}, not {value}"),
            )
            .at(path));
        }
        (entry.write)(&mut changed, *value);
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, u32)]) -> BTreeMap<String, u32> {
        let owned = |(name, value): &(&str, u32)| ((*name).to_owned(), *value);
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn every_setting_reads_as_it_was_written_and_changes_no_other() {
        let defaults = Settings::default();
        for entry in ENTRIES {
            for value in [entry.min, entry.max] {
                let changed = with(&defaults, &values(&[(entry.name, value)])).unwrap();
                for (now, before) in list(&changed).iter().zip(list(&defaults)) {
                    let expected = if now.name == entry.name {
                        value
                    } else {
                        before.value
                    };
                    assert_eq!(now.value, expected, "{} after {}", now.name, entry.name);
                }
            }
            let error = with(&defaults, &values(&[(entry.name, entry.max + 1)])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutOfRange);
        }
    }

    #[test]
    fn defaults_are_the_kernels() {
        let all: Vec<(String, u32)> = list(&Settings::default())
            .into_iter()
            .map(|setting| (setting.name, setting.value))
            .collect();
        assert_eq!(
            all.iter()
                .map(|(name, value)| (name.as_str(), *value))
                .collect::<Vec<_>>(),
            [
                ("am_droprate", 10),
                ("amemthresh", 1024),
                ("backup_only", 0),
                ("cache_bypass", 0),
                ("conn_reuse_mode", 1),
                ("conntrack", 0),
                ("drop_entry", 0),
                ("drop_packet", 0),
                ("expire_nodest_conn", 0),
                ("expire_quiescent_template", 0),
                ("ignore_tunneled", 0),
                ("lblc_expiration", 86_400),
                ("lblcr_expiration", 86_400),
                ("nat_icmp_send", 0),
                ("pmtu_disc", 1),
                ("run_estimation", 1),
                ("schedule_icmp", 0),
                ("secure_tcp", 0),
                ("sloppy_sctp", 0),
                ("sloppy_tcp", 0),
                ("snat_reroute", 1),
                ("timeout_tcp", 900),
                ("timeout_tcp_fin", 120),
                ("timeout_udp", 300),
            ]
        );
    }

    #[test]
    fn one_wrong_name_changes_nothing() {
        let error = with(&Settings::default(), &values(&[("a", 1), ("pmtu_disc", 0)])).unwrap_err();
        assert_eq!(error.data.path.as_deref(), Some("settings.a"));
        assert!(error.message.contains("lblcr_expiration"));
    }
}
