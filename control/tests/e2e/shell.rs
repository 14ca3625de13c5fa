//! The command lines that an operator types on the appliance, through the real programs and the daemon's socket.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::netns::Netns;
use crate::rig::Rig;

/// What a command came to.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// A root shell on the appliance.
pub(crate) struct Shell<'a> {
    netns: &'a Netns,
    socket: PathBuf,
}

impl<'a> Shell<'a> {
    /// On the appliance of a rig.
    pub(crate) fn on(rig: &'a Rig) -> Self {
        Self {
            netns: &rig.appliance,
            socket: rig.daemon.socket(),
        }
    }

    /// In the namespace of a daemon that listens there.
    pub(crate) fn at(netns: &'a Netns, socket: PathBuf) -> Self {
        Self { netns, socket }
    }

    /// `ipvsadm LINE`, with standard input.
    pub(crate) fn ipvsadm_with(&self, line: &str, stdin: &str) -> Said {
        self.run("ipvsadm", line, stdin)
    }

    /// `ipvsadm LINE`, which must succeed in silence; what it printed.
    pub(crate) fn ipvsadm(&self, line: &str) -> String {
        let said = self.ipvsadm_with(line, "");
        assert_eq!((said.code, said.err.as_str()), (0, ""), "ipvsadm {line}");
        said.out
    }

    /// `sluice LINE`.
    pub(crate) fn sluice_with(&self, line: &str, stdin: &str) -> Said {
        self.run("sluice", line, stdin)
    }

    /// `sluice LINE`, which must succeed in silence; what it printed.
    pub(crate) fn sluice(&self, line: &str) -> String {
        let said = self.sluice_with(line, "");
        assert_eq!(
            (said.code, said.err.as_str()),
            (0, ""),
            "sluice {line}: {}",
            said.out
        );
        said.out
    }

    fn run(&self, name: &str, line: &str, stdin: &str) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
        command.arg0(name);
        // A machine with other things to do may take longer than the ten seconds that suit a person.
        if name == "sluice" {
            command.args(["--timeout", "120"]);
        }
        command
            .args(line.split_whitespace())
            .env("SLUICE_SOCKET", &self.socket)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.netns.run(|| command.spawn()).expect("it starts");
        let mut pipe = child.stdin.take().expect("it is piped");
        // Who does not read its input may be gone already.
        let _unread = pipe.write_all(stdin.as_bytes());
        drop(pipe);
        let output = child.wait_with_output().expect("it ends");
        Said {
            code: output.status.code().expect("it ends by itself"),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        }
    }
}

/// Runs a script as root on another machine.
pub(crate) fn run_script(on: &Netns, script: &str) {
    let mut command = Command::new("sh");
    command.args(["-e", "-c", script]);
    let (done, said) = on.output(&mut command);
    assert!(done, "{script}\n{said}");
}
