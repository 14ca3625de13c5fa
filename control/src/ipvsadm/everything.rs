//! `sluice save` and `sluice restore`: all of the configuration as lines, and back.
//!
//! Services are lines of `ipvsadm -S`, with the thresholds that stock forgets, and in kernel order, so that schedulers begin as they
//! are; daemons are lines of ipvsadm, too. Lines of our own are `setting NAME VALUE` and `mark mark=N …`. Comments begin with `#`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Outcome;
use super::command::Command;
use super::execute::{Done, Failure, Object, Session, refused};
use super::hints::hint;
use super::listing::Addresses;
use super::parse::parse;
use super::save::{self, Thresholds};
use crate::api;
use crate::client::ask;

/// What a line says.
enum Line {
    Ipvsadm(Command),
    Setting(String, u32),
    Mark(api::MarkRule),
}

impl Session<'_> {
    /// `sluice save`.
    pub(super) fn save_all(mut self) -> Outcome {
        let saved = self.write_all();
        let rc = saved.map_or_else(|failure| self.complain(1, &failure.text), |()| 0);
        self.outcome(rc)
    }

    fn write_all(&mut self) -> Done {
        let mut lines = format!(
            "# sluice {} saved this; `sluice restore` reads it.\n",
            env!("CARGO_PKG_VERSION")
        );
        for api::Setting { name, value, .. } in self.settings()? {
            lines += &format!("setting {name} {value}\n");
        }
        for rule in self.mark_rules()? {
            lines += &format!("mark {rule}\n");
        }
        let mut rows = self.services(None)?;
        for row in &mut rows {
            // The last added stands first.
            row.servers.reverse();
        }
        let addresses = Addresses::new(true, self.names);
        lines += &save::lines(&rows, &addresses, Thresholds::Kept);
        for daemon in self.sync_daemons()? {
            lines += &start_line(&daemon);
        }
        self.out = lines;
        Ok(())
    }

    /// `sluice restore`: all lines are understood before the first is executed; what the daemon refuses does not stop it.
    pub(super) fn restore_all(mut self, text: &str, replace: bool) -> Outcome {
        let mut lines = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            match self.understand(line) {
                Ok(Some(line)) => lines.push((number, line)),
                Ok(None) => {}
                Err(why) => {
                    let rc = self.complain(2, &format!("line {number}: {why}: nothing was done"));
                    return self.outcome(rc);
                }
            }
        }
        let everything = lines
            .iter()
            .any(|(_, line)| matches!(line, Line::Setting(..)));
        if replace && let Err(failure) = self.make_room(everything) {
            let rc = self.complain(1, &failure.text);
            return self.outcome(rc);
        }
        let mut rc = 0;
        for (number, line) in lines {
            if let Err(failure) = self.carry_out(line) {
                rc = self.complain(1, &format!("line {number}: {}", failure.text));
            }
        }
        self.outcome(rc)
    }

    /// `None` for empty lines and comments. `Err` says what is wrong.
    fn understand(&mut self, line: &str) -> Result<Option<Line>, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let words = words
            .strip_prefix(&["ipvsadm".to_owned()])
            .unwrap_or(&words);
        let line = match words {
            [] => return Ok(None),
            [first, ..] if first.starts_with('#') => return Ok(None),
            [kind, name, value] if kind == "setting" => {
                let value = value.parse();
                let value = value.map_err(|_| format!("setting {name} takes a number"))?;
                Line::Setting(name.clone(), value)
            }
            [kind, rest @ ..] if kind == "mark" => Line::Mark(mark_rule(rest)?),
            words => match parse(words, self.names) {
                Ok(Command::Restore) => return Err("-R within a restore".to_owned()),
                Ok(command) => Line::Ipvsadm(command),
                Err(unusable) => {
                    self.hint(hint(words, &unusable));
                    return Err(unusable.text);
                }
            },
        };
        Ok(Some(line))
    }

    /// Deletes all services, and what else [`Session::save_all`] writes lines of for each.
    fn make_room(&mut self, everything: bool) -> Done {
        self.flush()?;
        if !everything {
            return Ok(());
        }
        for _ in self.mark_rules()? {
            let first = api::MarkRuleDelete {
                position: Some(1),
                rule: None,
            };
            self.change("mark_rule_delete", &first, Object::Service)?;
        }
        for daemon in self.sync_daemons()? {
            let stop = api::SyncDaemonStop { role: daemon.role };
            self.change("sync_daemon_stop", &stop, Object::Sync)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, line: Line) -> Done {
        match line {
            Line::Ipvsadm(command) => self.perform(command),
            Line::Setting(name, value) => {
                let settings = BTreeMap::from([(name, value)]);
                let params = api::SettingSet { settings };
                self.change("setting_set", &params, Object::Setting)
            }
            Line::Mark(rule) => {
                let params = api::MarkRuleAdd { rule };
                self.change("mark_rule_add", &params, Object::Setting)
            }
        }
    }

    fn mark_rules(&mut self) -> Result<Vec<api::MarkRule>, Failure> {
        let list = ask::<api::MarkRuleList>(self.rpc, "mark_rule_list", Value::Null);
        let list = list.map_err(|error| refused(&error, "mark_rule_list", Object::Setting))?;
        Ok(list.rules)
    }
}

fn start_line(daemon: &api::SyncDaemon) -> String {
    let api::SyncDaemon {
        role,
        interface,
        syncid,
        maxlen,
        group,
        port,
        ttl,
    } = daemon;
    format!(
        "--start-daemon {} --mcast-interface {interface} --syncid {syncid} --sync-maxlen {maxlen} \
         --mcast-group {group} --mcast-port {port} --mcast-ttl {ttl}\n",
        role.name()
    )
}

/// A rule as it shows itself: `mark=5 destination=10.0.1.0/24 …`.
fn mark_rule(words: &[String]) -> Result<api::MarkRule, String> {
    let mut fields = serde_json::Map::new();
    for word in words {
        let Some((name, value)) = word.split_once('=') else {
            return Err(format!("mark: expected NAME=VALUE, not {word}"));
        };
        let value = match (name, value.parse::<u32>()) {
            ("mark", Ok(mark)) => mark.into(),
            _ => Value::from(value),
        };
        fields.insert(name.to_owned(), value);
    }
    serde_json::from_value(Value::Object(fields)).map_err(|error| format!("mark: {error}"))
}
