//! Every `ipvsadm` command of the recorded traces, against the grammar and against a daemon that knows all schedulers.

use std::path::PathBuf;

use serde_json::Value;

use super::names::LocalNames;
use super::parse::parse;
use super::run_with_names;
use crate::fake_daemon::FakeDaemon;

/// A recorded step.
pub(super) struct Step {
    pub(super) op: String,
    pub(super) args: Vec<String>,
    pub(super) stdin: String,
    pub(super) rc: i32,
    pub(super) out: String,
    pub(super) err: String,
}

/// The steps of a trace; of all of them `rc`, `out` and the like are there only for `ipvsadm`.
pub(super) fn steps(name: &str) -> Vec<Step> {
    let text = std::fs::read_to_string(golden().join(format!("{name}.json"))).unwrap();
    let trace: Value = serde_json::from_str(&text).unwrap();
    let text = |step: &Value, key: &str| step[key].as_str().unwrap_or_default().to_owned();
    let step = |step: &Value| Step {
        op: text(step, "op"),
        args: text(step, "args")
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
        stdin: text(step, "stdin"),
        rc: step["rc"].as_i64().unwrap_or_default() as i32,
        out: text(step, "out"),
        err: text(step, "err"),
    };
    trace["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(step)
        .collect()
}

/// What a `read` step of a trace recorded of a file.
pub(super) fn recorded_file(name: &str, path: &str) -> String {
    let text = std::fs::read_to_string(golden().join(format!("{name}.json"))).unwrap();
    let trace: Value = serde_json::from_str(&text).unwrap();
    let mut steps = trace["steps"].as_array().unwrap().iter();
    let read = steps.find(|step| step["op"] == "read" && step["arg"] == path);
    read.unwrap()["result"].as_str().unwrap().to_owned()
}

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../dataplane/ipvs/golden")
}

fn traces() -> Vec<String> {
    let files = std::fs::read_dir(golden())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let traces = files.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    traces
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect()
}

/// Errors that ipvsadm finds itself, before it asks the kernel.
fn is_usage_error(step: &Step) -> bool {
    let popt = [": unknown option\n", ": missing argument\n"]
        .iter()
        .any(|end| step.err.ends_with(end));
    step.rc == 2 || popt || step.err.starts_with("Try `ipvsadm -h'")
}

#[test]
fn every_usage_error_has_its_text_and_everything_else_parses() {
    let (mut errors, mut fine) = (0, 0);
    for name in traces() {
        for step in steps(&name).iter().filter(|step| step.op == "ipvsadm") {
            let line = step.args.join(" ");
            let parsed = parse(&step.args, &LocalNames);
            if is_usage_error(step) && step.stdin.is_empty() {
                let unusable = parsed.expect_err(&line);
                assert_eq!(
                    (unusable.rc, unusable.text + "\n"),
                    (step.rc, step.err.clone()),
                    "{name}: {line}"
                );
                errors += 1;
            } else {
                parsed.unwrap_or_else(|unusable| panic!("{name}: {line}: {}", unusable.text));
                fine += 1;
            }
        }
    }
    assert!(errors >= 48 && fine > 1000, "{errors} errors, {fine} fine");
}

/// Replays the commands of a trace and compares what does not depend on packets, until the first command that this version does
/// not have. Gives the number of commands compared.
fn replay(name: &str) -> usize {
    let mut daemon = FakeDaemon::default();
    let mut compared = 0;
    let mut packets = false;
    for step in steps(name) {
        if step.op != "ipvsadm" {
            packets = true;
            continue;
        }
        let line = step.args.join(" ");
        let outcome = run_with_names(
            &step.args,
            &mut step.stdin.as_bytes(),
            &mut daemon,
            &LocalNames,
        );
        if outcome.err.starts_with("not in this version: ") {
            assert_eq!(
                (outcome.rc, outcome.out.as_str()),
                (255, ""),
                "{name}: {line}"
            );
            break;
        }
        let lists = line.is_empty() || line.starts_with("-L") || line.starts_with("-l");
        let of_packets = packets && lists;
        if !of_packets {
            let recorded = (step.rc, step.out, step.err);
            assert_eq!(
                (outcome.rc, outcome.out, outcome.err),
                recorded,
                "{name}: {line}"
            );
            compared += 1;
        }
    }
    compared
}

#[test]
fn replayed_commands_answer_as_recorded() {
    let compared: usize = traces().iter().map(|name| replay(name)).sum();
    assert!(compared > 500, "{compared}");
}

#[test]
fn save_and_restore_answer_as_recorded_to_the_end() {
    let commands = steps("text-save-restore").len();
    assert_eq!(replay("text-save-restore"), commands);
}
