//! The appliance's settings.

use serde::{Deserialize, Serialize};

/// A setting of the appliance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// As under `net.ipv4.vs`.
    pub name: String,
    /// Its value now.
    pub value: u32,
    /// What it does.
    pub description: String,
}

/// `setting_list`'s answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingList {
    /// All settings, by name.
    pub settings: Vec<Setting>,
}
