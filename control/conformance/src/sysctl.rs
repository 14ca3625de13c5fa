//! A trace's sysctls as settings of sluice.

use std::collections::BTreeMap;

use serde_json::Value;
use sluice_dataplane::command::Settings;

/// What the recorded kernel has where a trace says nothing: for these, sluice does the same without a setting.
const DEFAULTS: [(&str, &str); 11] = [
    ("backup_only", "0"),
    ("cache_bypass", "0"),
    ("schedule_icmp", "0"),
    ("sync_persist_mode", "0"),
    ("sync_ports", "1"),
    ("sync_qlen_max", "3613"),
    ("sync_refresh_period", "0"),
    ("sync_retries", "0"),
    ("sync_sock_size", "0"),
    ("sync_threshold", "3\t50"),
    ("sync_version", "1"),
];

/// Sets what `sysctls` (names under `net.ipv4.vs`) say. `Err` names the first that sluice does not have.
pub fn apply(sysctls: &BTreeMap<String, Value>, settings: &mut Settings) -> Result<(), String> {
    for (name, value) in sysctls {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let number = text.parse::<u32>().ok();
        match (name.as_str(), number) {
            ("expire_nodest_conn", Some(n)) => settings.expire_nodest_conn = n != 0,
            ("expire_quiescent_template", Some(n)) => settings.expire_quiescent_template = n != 0,
            ("conn_reuse_mode", Some(n @ 0..=255)) => settings.conn_reuse_mode = n as u8,
            ("sloppy_tcp", Some(n)) => settings.sloppy_tcp = n != 0,
            ("sloppy_sctp", Some(n)) => settings.sloppy_sctp = n != 0,
            ("pmtu_disc", Some(n)) => settings.pmtu_disc = n != 0,
            ("nat_icmp_send", Some(n)) => settings.nat_icmp_send = n != 0,
            ("run_estimation", Some(n)) => settings.run_estimation = n != 0,
            ("lblc_expiration", Some(s)) => settings.lblc_expiration_s = s,
            ("lblcr_expiration", Some(s)) => settings.lblcr_expiration_s = s,
            ("drop_entry", Some(n @ 0..=3)) => settings.policy.drop_entry = n as u8,
            ("drop_packet", Some(n @ 0..=3)) => settings.policy.drop_packet = n as u8,
            ("secure_tcp", Some(n @ 0..=3)) => settings.policy.secure_tcp = n as u8,
            ("amemthresh", Some(n)) => settings.policy.amemthresh = n,
            ("am_droprate", Some(n)) => settings.policy.am_droprate = n,
            // Seen in no packet here: the kernel's connection tracking, and the routing of replies by their source.
            ("conntrack" | "ignore_tunneled" | "snat_reroute", Some(_)) => {}
            (name, _) if DEFAULTS.contains(&(name, text.as_str())) => {}
            (name, _) => {
                return Err(format!(
                    "the trace needs sysctl {name}={text}, and sluice cannot be told that"
                ));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn applied(sysctls: Value) -> Result<Settings, String> {
        let mut settings = Settings::default();
        let sysctls = serde_json::from_value(sysctls).unwrap();
        apply(&sysctls, &mut settings).map(|()| settings)
    }

    #[test]
    fn what_sluice_has_is_set() {
        let settings =
            applied(json!({"conn_reuse_mode": 3, "expire_nodest_conn": 1, "pmtu_disc": 0, "lblcr_expiration": 86400}))
                .unwrap();
        assert_eq!(settings.lblcr_expiration_s, 86_400);
        assert_eq!(settings.conn_reuse_mode, 3);
        assert!(settings.expire_nodest_conn && !settings.pmtu_disc);
    }

    #[test]
    fn what_sluice_does_anyway_needs_no_setting() {
        assert_eq!(
            applied(json!({"schedule_icmp": 0, "sync_threshold": "3\t50"})).unwrap(),
            Settings::default()
        );
    }

    #[test]
    fn what_sluice_does_not_have_is_named() {
        let error = applied(json!({"schedule_icmp": 1})).unwrap_err();
        assert!(error.contains("schedule_icmp=1"), "{error}");
    }
}
