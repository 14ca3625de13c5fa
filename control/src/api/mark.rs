//! Firewall marks: the rules that give them.

use std::fmt;
use std::str::FromStr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::Protocol;

/// Packets that fit all that is given get the mark. The first rule that fits decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkRule {
    /// The sender's address is in this prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Ipv4Net>,
    /// The destination's address is in this prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<Ipv4Net>,
    /// Only this protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// The sender's port is one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ports: Option<Ports>,
    /// The destination's port is one of these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_ports: Option<Ports>,
    /// Only packets that came in by this port of the appliance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The mark; 0 exempts from later rules.
    pub mark: u32,
}

impl MarkRule {
    /// A rule that every packet fits.
    pub fn of(mark: u32) -> Self {
        Self {
            source: None,
            destination: None,
            protocol: None,
            source_ports: None,
            destination_ports: None,
            port: None,
            mark,
        }
    }
}

impl fmt::Display for MarkRule {
    /// `mark=5 destination=10.0.1.0/24 protocol=tcp destination_ports=80-89`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn given(
            f: &mut fmt::Formatter<'_>,
            name: &str,
            value: Option<impl fmt::Display>,
        ) -> fmt::Result {
            value.map_or(Ok(()), |value| write!(f, " {name}={value}"))
        }
        write!(f, "mark={}", self.mark)?;
        given(f, "source", self.source)?;
        given(f, "destination", self.destination)?;
        given(f, "protocol", self.protocol.map(Protocol::name))?;
        given(f, "source_ports", self.source_ports)?;
        given(f, "destination_ports", self.destination_ports)?;
        given(f, "port", self.port.as_ref())
    }
}

/// One port or a range of them: `80`, `8000-8099`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "String")]
pub struct Ports {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl FromStr for Ports {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let ports = first.parse().ok().zip(last.parse().ok());
        ports
            .map(|(first, last)| Self { first, last })
            .filter(|ports| ports.first <= ports.last)
            .ok_or_else(|| {
                format!("{text:?} is no port such as 80, and no range such as 8000-8099")
            })
    }
}

impl From<Ports> for String {
    fn from(ports: Ports) -> Self {
        ports.to_string()
    }
}

/// [`Ports`] as JSON has it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Text {
    One(u16),
    Text(String),
}

impl TryFrom<Text> for Ports {
    type Error = String;

    fn try_from(text: Text) -> Result<Self, String> {
        match text {
            Text::One(port) => Ok(Self {
                first: port,
                last: port,
            }),
            Text::Text(text) => text.parse(),
        }
    }
}

/// `mark_rule_add`: at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkRuleAdd {
    /// The rule.
    pub rule: MarkRule,
}

/// `mark_rule_insert`: before others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkRuleInsert {
    /// The rule.
    pub rule: MarkRule,
    /// Its place afterwards, from 1.
    #[serde(default = "first")]
    pub position: usize,
}

fn first() -> usize {
    1
}

/// `mark_rule_delete`: by its place or by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkRuleDelete {
    /// Its place, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<usize>,
    /// The rule, as it was added; the first of several that are equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<MarkRule>,
}

/// `mark_rule_list`'s answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkRuleList {
    /// The rules in order.
    pub rules: Vec<MarkRule>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_a_number_or_a_range() {
        for (given, shown) in [
            (json!(80), "80"),
            (json!("80"), "80"),
            (json!("80-89"), "80-89"),
        ] {
            let ports: Ports = serde_json::from_value(given).unwrap();
            assert_eq!(ports.to_string(), shown);
            let again: Ports =
                serde_json::from_value(serde_json::to_value(ports).unwrap()).unwrap();
            assert_eq!(again, ports);
        }
        for bad in [
            json!("89-80"),
            json!(""),
            json!("80-"),
            json!(65536),
            json!(-1),
        ] {
            assert!(
                serde_json::from_value::<Ports>(bad.clone()).is_err(),
                "{bad}"
            );
        }
    }
}
