//! Changes to the rules of firewall marks.

use std::sync::Arc;

use sluice_dataplane::command::{Command, PortId};
use sluice_dataplane::service::{MarkRule, MarkRules, PortRange};

use super::{Config, Effect, words};
use crate::api::{self, ErrorKind, MarkRuleDelete, Ports};
use crate::api_error::ApiError;

/// Rules at a time: each opening packet may be held against all of them.
const MAX_RULES: usize = 1024;

impl Config {
    /// The appliance's ports have these names, by number; rules can name them.
    pub fn name_ports(&mut self, names: Vec<String>) {
        self.port_names = names.into();
    }

    /// The rules, in order.
    pub fn mark_rules(&self) -> &[api::MarkRule] {
        &self.mark_rules
    }

    /// Puts a rule at `position`, from 1, or at the end.
    pub(super) fn mark_rule_insert(
        &mut self,
        rule: &api::MarkRule,
        position: Option<usize>,
    ) -> Result<Effect, ApiError> {
        let mut rules = self.mark_rules.to_vec();
        if rules.len() >= MAX_RULES {
            let why = format!("there are {MAX_RULES} rules already, as many as there can be");
            return Err(ApiError::new(ErrorKind::Full, why));
        }
        let at = match position {
            None => rules.len(),
            Some(position) if (1..=rules.len() + 1).contains(&position) => position - 1,
            Some(position) => {
                let why = format!(
                    "position {position} is not from 1 to {}: there are {} rules",
                    rules.len() + 1,
                    rules.len()
                );
                return Err(ApiError::new(ErrorKind::OutOfRange, why).at("position"));
            }
        };
        self.compiled(rule)?;
        rules.insert(at, rule.clone());
        self.put_mark_rules(rules)
    }

    pub(super) fn mark_rule_delete(&mut self, which: &MarkRuleDelete) -> Result<Effect, ApiError> {
        let mut rules = self.mark_rules.to_vec();
        let (at, what, path) = match which {
            MarkRuleDelete {
                position: Some(position),
                rule: None,
            } => (position.checked_sub(1), format!("{position}"), "position"),
            MarkRuleDelete {
                position: None,
                rule: Some(rule),
            } => {
                let at = rules.iter().position(|known| known == rule);
                (at, rule.to_string(), "rule")
            }
            _ => {
                let why = "give the position of a rule, or the rule, not both";
                return Err(ApiError::new(ErrorKind::InvalidParams, why));
            }
        };
        let Some(at) = at.filter(|at| *at < rules.len()) else {
            let why = format!("there is no rule {what} among {} rules", rules.len());
            return Err(ApiError::new(ErrorKind::NoSuchRule, why).at(path));
        };
        rules.remove(at);
        self.put_mark_rules(rules)
    }

    fn put_mark_rules(&mut self, rules: Vec<api::MarkRule>) -> Result<Effect, ApiError> {
        let compiled = rules.iter().map(|rule| self.compiled(rule));
        let compiled = MarkRules(compiled.collect::<Result<_, _>>()?);
        self.mark_rules = rules.into();
        let compiled = Arc::new(compiled);
        let old = std::mem::replace(&mut self.compiled_rules, Arc::clone(&compiled));
        Ok(Effect {
            commands: vec![Command::MarkRules(compiled)],
            retired: vec![old],
            fresh: Vec::new(),
        })
    }

    /// The rule as workers follow it.
    fn compiled(&self, rule: &api::MarkRule) -> Result<MarkRule, ApiError> {
        let ports = |ports: Option<Ports>| {
            ports.map_or(PortRange::ALL, |Ports { first, last }| PortRange {
                first,
                last,
            })
        };
        let ingress = match &rule.port {
            None => None,
            Some(name) => {
                let number = self.port_names.iter().position(|known| known == name);
                let number = number.and_then(|number| u16::try_from(number).ok());
                Some(PortId(number.ok_or_else(|| {
                    let names = self.port_names.join(", ");
                    let why = format!("there is no port {name:?}; there are {names}");
                    ApiError::new(ErrorKind::InvalidParams, why).at("rule.port")
                })?))
            }
        };
        Ok(MarkRule {
            source: rule.source.unwrap_or_default().trunc(),
            destination: rule.destination.unwrap_or_default().trunc(),
            protocol: rule.protocol.map(words::protocol),
            source_ports: ports(rule.source_ports),
            destination_ports: ports(rule.destination_ports),
            ingress,
            mark: rule.mark,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::{At, Change, Limits, Step};
    use super::*;

    fn apply(config: &mut Config, change: &Change) -> Result<Step, ApiError> {
        let at = At {
            revision: 1,
            applied: 0,
        };
        let step = config.apply(change, at)?;
        *config = step.config.clone();
        Ok(step)
    }

    fn add(config: &mut Config, rule: Value) -> Result<Step, ApiError> {
        let params = json!({"rule": rule});
        apply(
            config,
            &Change::MarkRuleAdd(serde_json::from_value(params).unwrap()),
        )
    }

    fn insert(config: &mut Config, rule: Value, position: usize) -> Result<Step, ApiError> {
        let params = json!({"rule": rule, "position": position});
        apply(
            config,
            &Change::MarkRuleInsert(serde_json::from_value(params).unwrap()),
        )
    }

    fn delete(config: &mut Config, params: Value) -> Result<Step, ApiError> {
        apply(
            config,
            &Change::MarkRuleDelete(serde_json::from_value(params).unwrap()),
        )
    }

    fn marks(config: &Config) -> Vec<u32> {
        config.mark_rules().iter().map(|rule| rule.mark).collect()
    }

    fn refused(result: Result<Step, ApiError>) -> (ErrorKind, Option<String>) {
        let error = result.unwrap_err();
        (error.kind(), error.data.path)
    }

    #[test]
    fn rules_keep_their_order_and_workers_get_the_whole_list() {
        let mut config = Config::new(Limits::default());
        config.name_ports(vec!["wan0".to_owned(), "lan0".to_owned()]);
        add(&mut config, json!({"mark": 1})).unwrap();
        add(
            &mut config,
            json!({"mark": 2, "port": "lan0", "destination": "10.0.1.7/24"}),
        )
        .unwrap();
        insert(&mut config, json!({"mark": 3}), 1).unwrap();
        let step = insert(&mut config, json!({"mark": 4, "protocol": "udp"}), 4).unwrap();
        assert_eq!(marks(&config), [3, 1, 2, 4]);
        let Command::MarkRules(rules) = &step.commands[0] else {
            panic!("{:?}", step.commands)
        };
        assert_eq!(rules.0[2].ingress, Some(PortId(1)));
        assert_eq!(rules.0[2].destination, "10.0.1.0/24".parse().unwrap());
        assert_eq!(
            rules.0[3].protocol,
            Some(sluice_dataplane::service::Protocol::Udp)
        );
        delete(&mut config, json!({"position": 2})).unwrap();
        delete(&mut config, json!({"rule": {"mark": 4, "protocol": "udp"}})).unwrap();
        assert_eq!(marks(&config), [3, 2]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_place() {
        let mut config = Config::new(Limits::default());
        config.name_ports(vec!["wan0".to_owned()]);
        add(&mut config, json!({"mark": 1})).unwrap();
        let place = |path: &str| Some(path.to_owned());
        let bad_port = add(&mut config, json!({"mark": 1, "port": "wan1"}));
        assert_eq!(
            refused(bad_port),
            (ErrorKind::InvalidParams, place("rule.port"))
        );
        for position in [0, 3] {
            let bad = insert(&mut config, json!({"mark": 2}), position);
            assert_eq!(refused(bad), (ErrorKind::OutOfRange, place("position")));
        }
        for position in [0, 2] {
            let bad = delete(&mut config, json!({"position": position}));
            assert_eq!(refused(bad), (ErrorKind::NoSuchRule, place("position")));
        }
        let bad = delete(&mut config, json!({"rule": {"mark": 2}}));
        assert_eq!(refused(bad), (ErrorKind::NoSuchRule, place("rule")));
        let bad = delete(&mut config, json!({}));
        assert_eq!(refused(bad), (ErrorKind::InvalidParams, None));
        for n in 1..1024 {
            add(&mut config, json!({"mark": n})).unwrap();
        }
        assert_eq!(
            refused(add(&mut config, json!({"mark": 1}))),
            (ErrorKind::Full, None)
        );
    }
}
