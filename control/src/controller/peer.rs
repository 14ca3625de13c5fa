//! Who asks.

use std::fmt;

/// Who made a request, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process on this machine.
    Process {
        /// Its program's name.
        name: String,
        /// Its id, if the kernel told.
        pid: Option<i32>,
        /// Its user.
        uid: u32,
    },
    /// Somebody within sluice.
    Inside(&'static str),
}

impl Peer {
    /// A process by its id; asks `/proc` for the name.
    pub fn process(pid: Option<i32>, uid: u32) -> Self {
        let name = pid.and_then(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).ok());
        Self::Process {
            // A process names itself: keep control characters out of the log.
            name: name.map_or_else(
                || "?".to_owned(),
                |name| name.trim().escape_default().to_string(),
            ),
            pid,
            uid,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process {
                name,
                pid: Some(pid),
                uid,
            } => write!(f, "{name} (pid {pid}, uid {uid})"),
            Self::Process {
                name,
                pid: None,
                uid,
            } => write!(f, "{name} (uid {uid})"),
            Self::Inside(part) => f.write_str(part),
        }
    }
}
