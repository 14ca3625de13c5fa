//! The client as a process: the name by which it is called, exit codes, and a reader that goes away.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use serde_json::{Value, json};

fn socket(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("sluice-binary-{}-{name}.sock", std::process::id()))
}

/// Answers every call at `path` with `result`.
fn serve(path: &Path, result: Value) {
    let _stale = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let lines = BufReader::new(stream.try_clone().unwrap()).lines();
            // A client may go away with our last newline unread, which reads as a reset.
            for line in lines.map_while(Result::ok) {
                let request: Value = serde_json::from_str(&line).unwrap();
                let response = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
                stream
                    .write_all(format!("{response}\n").as_bytes())
                    .unwrap();
            }
        }
    });
}

fn sluice(socket: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.env("SLUICE_SOCKET", socket);
    command
}

#[test]
fn called_ipvsadm_it_is_ipvsadm() {
    let path = socket("name");
    serve(&path, json!({"revision": 1, "services": []}));
    let output = sluice(&path)
        .arg0("/sbin/ipvsadm")
        .arg("-Ln")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "IP Virtual Server version 1.2.1 (size=4096)\n\
         Prot LocalAddress:Port Scheduler Flags\n  \
         -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
    );
    let output = sluice(&path)
        .arg0("ipvsadm")
        .arg("--bogus")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(255));
    assert!(output.stderr.starts_with(b"Try `ipvsadm -h'"));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn exit_codes_tell_usage_from_refusal() {
    let path = socket("codes");
    let code = |args: &[&str]| sluice(&path).args(args).output().unwrap().status.code();
    assert_eq!(code(&["version"]), Some(1));
    assert_eq!(code(&["no-such-command"]), Some(2));
    serve(&path, json!({"sluice": "0.1.0", "dpdk": "none"}));
    assert_eq!(code(&["version"]), Some(0));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let path = socket("pipe");
    let drop = json!({"reason": "some_reason", "description": "x".repeat(1000), "packets": 1});
    serve(&path, json!({"drops": vec![drop; 1000]}));
    let mut child = sluice(&path)
        .arg("drops")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One byte, and the pipe is closed with most of the answer unread.
    child.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(0));
    std::fs::remove_file(&path).unwrap();
}
