//! A trace's sysctls as settings of sluice.

use std::collections::BTreeMap;

use serde_json::Value;
use sluice_control::settings;
use sluice_dataplane::command::Settings;

/// What sluice always has where the kernel can be told otherwise.
const FIXED: [(&str, &str); 9] = [
    ("backup_only", "0"),
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
    let mut values = BTreeMap::new();
    for (name, value) in sysctls {
        let text = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let fixed = FIXED.iter().find(|(fixed, _)| fixed == name);
        match (fixed, text.parse::<u32>()) {
            (Some((_, value)), _) if *value == text => {}
            (None, Ok(number)) => {
                values.insert(name.clone(), number);
            }
            _ => {
                return Err(format!(
                    "the trace needs sysctl {name}={text}, and sluice cannot be told that"
                ));
            }
        }
    }
    *settings = settings::with(settings, &values).map_err(|err| err.message)?;
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
            applied(json!({"backup_only": 0, "sync_threshold": "3\t50"})).unwrap(),
            Settings::default()
        );
    }

    #[test]
    fn what_sluice_does_not_have_is_named() {
        let error = applied(json!({"sync_ports": 2})).unwrap_err();
        assert!(error.contains("sync_ports=2"), "{error}");
        let error = applied(json!({"no_such": 2})).unwrap_err();
        assert!(error.contains("no_such"), "{error}");
    }
}
