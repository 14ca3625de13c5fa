//! A `sluiced` of our own: started in a namespace, spoken to over its raw socket, ended with SIGTERM.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::netns::Netns;

/// Loading every driver and making the pools takes a second or two here, more while compilers run beside.
const START: Duration = Duration::from_secs(240);

/// What the daemon gives itself to stop. The kernel alone was seen to take 49 s to remove a tap while compilers ran.
const STOP_TIMEOUT: &str = "480";

/// Longer than [`STOP_TIMEOUT`].
const STOP: Duration = Duration::from_secs(510);

/// For one answer.
const ANSWER: Duration = Duration::from_secs(120);

/// A running daemon, or one that has refused to run.
pub(crate) struct Daemon {
    child: Child,
    home: TempDir,
}

impl Daemon {
    /// Starts it on a boot file. `SOCKET` in the text becomes a socket of its own, `PREFIX` a file-prefix.
    pub(crate) fn spawn(netns: &Netns, boot: &str) -> Self {
        let home = TempDir::with_prefix("sluice-e2e-").expect("a temporary directory");
        Self::spawn_at(netns, boot, home)
    }

    /// As [`Daemon::spawn`], with a home that may hold things already.
    pub(crate) fn spawn_at(netns: &Netns, boot: &str, home: TempDir) -> Self {
        let prefix = home.path().file_name().expect("it has one");
        let boot = boot
            .replace("SOCKET", &socket_in(home.path()).to_string_lossy())
            .replace("PREFIX", &prefix.to_string_lossy());
        let config = home.path().join("boot.toml");
        fs::write(&config, boot).expect("a place for the boot file");
        let log = fs::File::create(home.path().join("log")).expect("a place for the log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluiced"));
        command
            .arg("--config")
            .arg(&config)
            .args(["--stop-timeout", STOP_TIMEOUT])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file descriptor"))
            .stderr(log);
        let child = netns.run(|| command.spawn()).expect("sluiced starts");
        Self { child, home }
    }

    /// Waits until it answers.
    pub(crate) fn ready(mut self) -> Self {
        let deadline = Instant::now() + START;
        // The socket is there before the rest is, but answers only then.
        while !answers(&self.socket()) {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                panic!("sluiced ended with {status}:\n{}", self.log());
            }
            assert!(
                Instant::now() < deadline,
                "sluiced does not come up:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(self.home.path())
    }

    /// What it has written to standard output and error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// A connection to its socket.
    pub(crate) fn rpc(&self) -> Rpc {
        Rpc::connect(&self.socket())
    }

    /// Waits for it to end by itself; the exit code and what it said.
    pub(crate) fn refused(mut self) -> (Option<i32>, String) {
        let status = self.wait(START);
        (status.code(), self.log())
    }

    /// Ends it as an init system does, and holds it to what the manual says: exit 0, socket gone. Its home, with what it
    /// has left there.
    pub(crate) fn stop(mut self) -> TempDir {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, Signal::SIGTERM).expect("it is running");
        let status = self.wait(STOP);
        assert!(status.success(), "{status} after SIGTERM:\n{}", self.log());
        assert!(!self.socket().exists(), "the socket is left behind");
        self.into_home()
    }

    /// Ends it as nothing should end; its home, with what it has left there.
    pub(crate) fn kill(mut self) -> TempDir {
        self.child.kill().expect("it is running");
        self.child.wait().expect("it is our child");
        self.into_home()
    }

    fn into_home(mut self) -> TempDir {
        let empty = TempDir::new().expect("a temporary directory");
        std::mem::replace(&mut self.home, empty)
    }

    fn wait(&mut self, patience: Duration) -> ExitStatus {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "sluiced does not end:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail, as they should, when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // What EAL keeps of an instance, a killed one leaves.
        if let Some(prefix) = self.home.path().file_name() {
            let _ = fs::remove_dir_all(Path::new("/var/run/dpdk").join(prefix));
        }
        if std::thread::panicking() {
            eprintln!("sluiced said:\n{}", self.log());
        }
    }
}

fn answers(socket: &Path) -> bool {
    let ask = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(START))?;
        stream.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"version\"}\n")?;
        BufReader::new(stream).read_line(&mut String::new())
    };
    ask().is_ok_and(|len| len > 0)
}

fn socket_in(home: &Path) -> PathBuf {
    home.join("rpc.sock")
}

/// JSON-RPC over the raw socket, a line for each message.
pub(crate) struct Rpc {
    stream: BufReader<UnixStream>,
    next_id: u64,
}

impl Rpc {
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).expect("sluiced listens");
        stream.set_read_timeout(Some(ANSWER)).expect("not zero");
        Self {
            stream: BufReader::new(stream),
            next_id: 1,
        }
    }

    /// Calls a method that shall succeed; its result.
    pub(crate) fn call(&mut self, method: &str, params: Value) -> Value {
        let mut answer = self.ask(method, params);
        if answer["error"]["data"]["kind"] == "applied_partially" {
            return self.await_application(&answer["error"]["data"]["revision"]);
        }
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].take()
    }

    /// Waits until workers that the machine has kept from running for two seconds have applied `revision`.
    fn await_application(&mut self, revision: &Value) -> Value {
        let deadline = Instant::now() + ANSWER;
        loop {
            let stats = self.ask("stats", json!({}))["result"].take();
            let workers = stats["workers"].as_array().expect("a list of workers");
            if workers
                .iter()
                .all(|worker| worker["applied"].as_u64() >= revision.as_u64())
            {
                return json!({"revision": revision});
            }
            assert!(
                Instant::now() < deadline,
                "{revision} is never applied: {stats}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Calls a method that shall fail; its error.
    pub(crate) fn fail(&mut self, method: &str, params: Value) -> Value {
        let mut answer = self.ask(method, params);
        assert!(answer.get("result").is_none(), "{method}: {answer}");
        answer["error"].take()
    }

    /// The connections that `filter` lets through, page by page.
    pub(crate) fn connections(&mut self, mut filter: Value) -> Vec<Value> {
        let mut all = Vec::new();
        loop {
            let mut page = self.call("connection_list", filter.clone());
            all.extend(
                page["connections"]
                    .as_array()
                    .expect("a list")
                    .iter()
                    .cloned(),
            );
            match page["cursor"].take() {
                Value::Null => return all,
                cursor => filter["cursor"] = cursor,
            }
        }
    }

    /// Writes bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream
            .get_mut()
            .write_all(bytes)
            .expect("sluiced reads");
    }

    /// Whether the daemon has closed the connection, after it has said all that was received.
    pub(crate) fn has_ended(&mut self) -> bool {
        let mut rest = String::new();
        match self.stream.read_line(&mut rest) {
            Ok(len) => len == 0,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// The next line, as JSON.
    pub(crate) fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("sluiced answers");
        serde_json::from_str(&line).unwrap_or_else(|err| panic!("{err}: {line:?}"))
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.send(format!("{request}\n").as_bytes());
        let answer = self.receive();
        assert_eq!(answer["jsonrpc"], "2.0");
        assert_eq!(answer["id"], id, "{answer}");
        answer
    }
}
