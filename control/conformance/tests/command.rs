//! The program itself: what it prints, and its exit code.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as the tests do")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dataplane/ipvs/golden")
}

/// A directory of this test's own, with a good trace, an altered one and two that are none.
struct Traces(PathBuf);

impl Traces {
    fn new(test: &str) -> Self {
        let dir =
            std::env::temp_dir().join(format!("sluice-conformance-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let good = std::fs::read_to_string(golden().join("udp-dr.json")).unwrap();
        std::fs::write(dir.join("good.json"), &good).unwrap();
        std::fs::write(
            dir.join("altered.json"),
            good.replace("192.168.1.1:53", "192.168.1.2:53"),
        )
        .unwrap();
        std::fs::write(dir.join("broken.json"), &good[..good.len() / 2]).unwrap();
        std::fs::write(
            dir.join("unknown.json"),
            good.replacen("\"ipvsadm\"", "\"reboot\"", 1),
        )
        .unwrap();
        std::fs::write(dir.join("notes.txt"), "no trace").unwrap();
        Self(dir)
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_sluice-conformance"))
            .arg("--traces")
            .arg(&self.0)
            .args(args)
            .output()
            .unwrap()
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn lines(output: &Output) -> Vec<&str> {
    std::str::from_utf8(&output.stdout)
        .unwrap()
        .lines()
        .collect()
}

#[test]
fn every_trace_that_differs_has_its_line_and_the_last_one_counts() {
    let traces = Traces::new("all");
    let output = traces.run(&[]);
    let lines = lines(&output);
    let failed: Vec<_> = lines
        .iter()
        .filter(|line| line.starts_with("FAIL"))
        .collect();
    assert_eq!(failed.len(), 3, "{lines:?}");
    assert!(
        failed[0].starts_with("FAIL altered: step "),
        "{}",
        failed[0]
    );
    assert!(
        failed[1].starts_with("FAIL broken: the file is not a trace: EOF"),
        "{}",
        failed[1]
    );
    assert!(
        failed[2].contains("unknown variant `reboot`"),
        "{}",
        failed[2]
    );
    assert_eq!(lines.last(), Some(&"1 passed, 3 failed"));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn traces_that_agree_say_nothing_but_their_number() {
    let output = Traces::new("only").run(&["--only", "good"]);
    assert_eq!(lines(&output), ["1 passed, 0 failed"]);
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_list_names_the_traces_and_one_that_is_missing_fails() {
    let traces = Traces::new("list");
    let list = traces.0.join("list.txt");
    std::fs::write(&list, "# must pass\ngood # since ever\n\nnowhere\n").unwrap();
    let output = traces.run(&["--list", list.to_str().unwrap()]);
    let lines = lines(&output);
    assert!(
        lines[0].starts_with("FAIL nowhere: no such trace in "),
        "{lines:?}"
    );
    assert_eq!(lines.last(), Some(&"1 passed, 1 failed"));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_directory_without_traces_is_an_error_of_its_own() {
    let traces = Traces::new("none");
    let output = Command::new(env!("CARGO_BIN_EXE_sluice-conformance"))
        .args(["--traces", traces.0.join("nowhere").to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nowhere"));
}
