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

const ENTRIES: &[Entry] = &[
    Entry {
        name: "am_droprate",
        description: "With drop_packet 3: every so many-th opening packet is dropped; 0 none",
        min: 0,
        max: MAX_COUNT,
        read: |settings| settings.policy.am_droprate,
        write: |settings, value| settings.policy.am_droprate = value,
    },
    Entry {
        name: "amemthresh",
        description: "Free pages of memory below which automatic defences go up",
        min: 0,
        max: MAX_COUNT,
        read: |settings| settings.policy.amemthresh,
        write: |settings, value| settings.policy.amemthresh = value,
    },
    Entry {
        name: "backup_only",
        description: "Kept, without effect: there is no backup daemon yet",
        min: 0,
        max: 1,
        read: |settings| settings.kept.backup_only.into(),
        write: |settings, value| settings.kept.backup_only = value != 0,
    },
    Entry {
        name: "cache_bypass",
        description: "Kept, without effect: services of marks match only what is addressed to this machine",
        min: 0,
        max: 1,
        read: |settings| settings.kept.cache_bypass.into(),
        write: |settings, value| settings.kept.cache_bypass = value != 0,
    },
    Entry {
        name: "conn_reuse_mode",
        description: "When a SYN starts a connection anew: 0 never, 1 in TIME_WAIT or CLOSE, 2 or 3 also in FIN_WAIT when only the client is seen",
        min: 0,
        max: 3,
        read: |settings| settings.conn_reuse_mode.into(),
        write: |settings, value| settings.conn_reuse_mode = value as u8,
    },
    Entry {
        name: "conntrack",
        description: "Kept, without effect: the kernel's connection tracking sees no packet of sluice's",
        min: 0,
        max: 1,
        read: |settings| settings.kept.conntrack.into(),
        write: |settings, value| settings.kept.conntrack = value != 0,
    },
    Entry {
        name: "drop_entry",
        description: "End connections that look unused, a sample each second: 0 never, 1 or 2 while memory is short, 3 always",
        min: 0,
        max: 3,
        read: |settings| settings.policy.drop_entry.into(),
        write: |settings, value| settings.policy.drop_entry = value as u8,
    },
    Entry {
        name: "drop_packet",
        description: "Drop some of the packets that would open a connection: 0 never, 1 or 2 while memory is short, 3 always",
        min: 0,
        max: 3,
        read: |settings| settings.policy.drop_packet.into(),
        write: |settings, value| settings.policy.drop_packet = value as u8,
    },
    Entry {
        name: "expire_nodest_conn",
        description: "Packets of a connection whose real server was deleted: 0 drop them, 1 end it and schedule anew",
        min: 0,
        max: 1,
        read: |settings| settings.expire_nodest_conn.into(),
        write: |settings, value| settings.expire_nodest_conn = value != 0,
    },
    Entry {
        name: "expire_quiescent_template",
        description: "1 sends persistent clients of a real server with weight 0 to others",
        min: 0,
        max: 1,
        read: |settings| settings.expire_quiescent_template.into(),
        write: |settings, value| settings.expire_quiescent_template = value != 0,
    },
    Entry {
        name: "ignore_tunneled",
        description: "Kept, without effect: nothing here depends on it",
        min: 0,
        max: 1,
        read: |settings| settings.kept.ignore_tunneled.into(),
        write: |settings, value| settings.kept.ignore_tunneled = value != 0,
    },
    Entry {
        name: "lblc_expiration",
        description: "Seconds after which lblc forgets a destination that nobody asked for",
        min: 0,
        max: MAX_SECONDS,
        read: |settings| settings.lblc_expiration_s,
        write: |settings, value| settings.lblc_expiration_s = value,
    },
    Entry {
        name: "lblcr_expiration",
        description: "Seconds after which lblcr forgets a destination, or takes one real server out of its set",
        min: 0,
        max: MAX_SECONDS,
        read: |settings| settings.lblcr_expiration_s,
        write: |settings, value| settings.lblcr_expiration_s = value,
    },
    Entry {
        name: "nat_icmp_send",
        description: "1 answers a NAT server's packet of no connection with ICMP port unreachable",
        min: 0,
        max: 1,
        read: |settings| settings.nat_icmp_send.into(),
        write: |settings, value| settings.nat_icmp_send = value != 0,
    },
    Entry {
        name: "pmtu_disc",
        description: "1 answers packets too long for a tunnel with ICMP, 0 cuts them",
        min: 0,
        max: 1,
        read: |settings| settings.pmtu_disc.into(),
        write: |settings, value| settings.pmtu_disc = value != 0,
    },
    Entry {
        name: "run_estimation",
        description: "0 stops the estimation of rates",
        min: 0,
        max: 1,
        read: |settings| settings.run_estimation.into(),
        write: |settings, value| settings.run_estimation = value != 0,
    },
    Entry {
        name: "schedule_icmp",
        description: "1 schedules ICMP errors of no connection by the packet that they quote",
        min: 0,
        max: 1,
        read: |settings| settings.schedule_icmp.into(),
        write: |settings, value| settings.schedule_icmp = value != 0,
    },
    Entry {
        name: "secure_tcp",
        description: "State tables that trust clients less: 0 never, 1 or 2 while memory is short, 3 always",
        min: 0,
        max: 3,
        read: |settings| settings.policy.secure_tcp.into(),
        write: |settings, value| settings.policy.secure_tcp = value as u8,
    },
    Entry {
        name: "sloppy_sctp",
        description: "1 schedules SCTP packets that do not open an association, too",
        min: 0,
        max: 1,
        read: |settings| settings.sloppy_sctp.into(),
        write: |settings, value| settings.sloppy_sctp = value != 0,
    },
    Entry {
        name: "sloppy_tcp",
        description: "1 schedules TCP packets that do not open a connection, too",
        min: 0,
        max: 1,
        read: |settings| settings.sloppy_tcp.into(),
        write: |settings, value| settings.sloppy_tcp = value != 0,
    },
    Entry {
        name: "snat_reroute",
        description: "Kept, without effect: replies are routed to the client in any case",
        min: 0,
        max: 1,
        read: |settings| settings.kept.snat_reroute.into(),
        write: |settings, value| settings.kept.snat_reroute = value != 0,
    },
    Entry {
        name: "timeout_tcp",
        description: "Seconds that an idle connection in ESTABLISHED lives",
        min: 1,
        max: MAX_SECONDS,
        read: |settings| settings.timeouts.established_s,
        write: |settings, value| settings.timeouts.established_s = value,
    },
    Entry {
        name: "timeout_tcp_fin",
        description: "Seconds that a connection in FIN_WAIT lives",
        min: 1,
        max: MAX_SECONDS,
        read: |settings| settings.timeouts.fin_wait_s,
        write: |settings, value| settings.timeouts.fin_wait_s = value,
    },
    Entry {
        name: "timeout_udp",
        description: "Seconds that an idle UDP connection lives",
        min: 1,
        max: MAX_SECONDS,
        read: |settings| settings.timeouts.udp_s,
        write: |settings, value| settings.timeouts.udp_s = value,
    },
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
