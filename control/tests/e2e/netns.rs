//! A network namespace of our own: named after this process, entered by threads, gone when dropped.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, setns};

const PREFIX: &str = "sluice-e2e-";

static NEXT: AtomicU32 = AtomicU32::new(0);
static SWEPT: Once = Once::new();

/// A namespace with its loopback up.
pub(crate) struct Netns {
    name: String,
}

impl Netns {
    /// Makes one. `role` is only there for who reads `ip netns`.
    pub(crate) fn new(role: &str) -> Self {
        SWEPT.call_once(sweep);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{n}-{role}", std::process::id());
        run("ip", &["netns", "add", &name]);
        let netns = Self { name };
        netns.ip("link set lo up");
        // Where there is IPv6, duplicate address detection and router solicitation are noise on every interface.
        if Path::new("/proc/sys/net/ipv6").exists() {
            netns.sysctl("ipv6/conf/default/disable_ipv6", "1");
            netns.sysctl("ipv6/conf/all/disable_ipv6", "1");
        }
        netns
    }

    /// Its name, for `ip ... netns NAME`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` in it; the words of `args` are separated by blanks. Returns what it printed.
    pub(crate) fn ip(&self, args: &str) -> String {
        let words = ["-n", &self.name].into_iter().chain(args.split(' '));
        run("ip", &words.collect::<Vec<_>>())
    }

    /// Runs a program in it to its end. Returns whether it succeeded, and what it printed.
    pub(crate) fn output(&self, command: &mut Command) -> (bool, String) {
        let output = self.run(|| command.output()).expect("program runs");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    /// Sets `/proc/sys/net/KEY`.
    pub(crate) fn sysctl(&self, key: &str, value: &str) {
        let path = PathBuf::from("/proc/sys/net").join(key);
        self.run(|| std::fs::write(&path, value))
            .unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    }

    /// Runs `job` on a thread inside and waits for it. Sockets opened and processes started there stay there.
    pub(crate) fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&self.name);
                job()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts `job` on a thread inside.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let name = self.name.clone();
        std::thread::spawn(move || {
            enter(&name);
            job()
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // Also while a failed test unwinds: report nothing, a second panic would hide the first.
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
    }
}

/// Removes what test processes that were killed have left.
fn sweep() {
    for line in run("ip", &["netns", "list"]).lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn enter(name: &str) {
    let namespace = File::open(PathBuf::from("/run/netns").join(name)).expect("namespace exists");
    setns(namespace, CloneFlags::CLONE_NEWNET).expect("end-to-end tests run as root");
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|err| panic!("{program}: {err}"));
    assert!(
        output.status.success(),
        "{program} {}: {}(end-to-end tests run as root)",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
