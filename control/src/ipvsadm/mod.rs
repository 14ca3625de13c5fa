//! ipvsadm 1.31, in front of sluice: its grammar, its output and its exit codes, byte for byte, answered by the daemon.
//!
//! [`run`] takes a command line apart (`popt`, `options`, `parse`), makes it calls of the daemon (`execute`) and prints what comes
//! back (`rows`, `listing`, `save`). The whole grammar of the manual page is there; what the daemon cannot do yet is refused with one line,
//! `not in this version: …`. As DPVS has them: `-b` with `-a` and `-e` for FULLNAT, and `-P`, `-Q`, `-G` with `-z` for local
//! addresses.
//!
//! The reference is `SEMANTICS.md` section 11 and every `ipvsadm` step of the recorded traces.

use std::io::Read;

use crate::client::Rpc;

mod address;
mod command;
mod everything;
mod execute;
mod hints;
mod listing;
mod names;
mod options;
mod parse;
mod popt;
mod proc;
mod rows;
mod save;
mod sync;
mod tunnel;

pub use names::{LocalNames, Names, SystemNames};

/// What a command line came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Exit code.
    pub rc: i32,
    /// Standard output.
    pub out: String,
    /// Standard error, as stock ipvsadm has it.
    pub err: String,
    /// Lines that come after it there and that stock ipvsadm does not have: how to mend a common slip, and warnings.
    pub note: String,
}

/// Runs one command line (`args` without the program's name). `stdin` is read by `-R` only. Names are looked up as the system does.
pub fn run(args: &[String], stdin: &mut dyn Read, rpc: &mut dyn Rpc) -> Outcome {
    run_with_names(args, stdin, rpc, &SystemNames)
}

/// [`run`], with another idea of host and port names.
pub fn run_with_names(
    args: &[String],
    stdin: &mut dyn Read,
    rpc: &mut dyn Rpc,
    names: &dyn Names,
) -> Outcome {
    execute::Session::new(rpc, names).run(args, stdin)
}

/// `sluice save`: the whole configuration as lines: those of `ipvsadm -S`, what they forget, settings, mark rules and daemons.
pub fn save(rpc: &mut dyn Rpc) -> Outcome {
    execute::Session::new(rpc, &SystemNames).save_all()
}

/// `sluice restore`: executes the lines that [`save`] or `ipvsadm -S` wrote; empty ones and comments are fine. If `replace`, all
/// services go first, and with lines of [`save`] mark rules and daemons. One line on standard error for each that the daemon refuses.
pub fn restore(lines: &str, replace: bool, rpc: &mut dyn Rpc) -> Outcome {
    execute::Session::new(rpc, &SystemNames).restore_all(lines, replace)
}

/// A file that a kernel with IPVS has under `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcFile {
    /// `/proc/net/ip_vs`: services and real servers.
    IpVs,
    /// `/proc/net/ip_vs_conn`: connections.
    IpVsConn,
    /// `/proc/net/ip_vs_stats`: totals and rates.
    IpVsStats,
    /// `/proc/net/ip_vs_app`: application helpers.
    IpVsApp,
    /// `/proc/sys/net/ipv4/vs`: all of its files, as `grep -r ''` shows them.
    Settings,
}

impl ProcFile {
    /// The file of that path.
    pub fn of_path(path: &str) -> Option<Self> {
        Some(match path {
            "/proc/net/ip_vs" => Self::IpVs,
            "/proc/net/ip_vs_conn" => Self::IpVsConn,
            "/proc/net/ip_vs_stats" => Self::IpVsStats,
            "/proc/net/ip_vs_app" => Self::IpVsApp,
            "/proc/sys/net/ipv4/vs" | "/proc/sys/net/ipv4/vs/" => Self::Settings,
            _ => return None,
        })
    }
}

/// `sluice proc`: what would be in a file of a kernel with IPVS.
pub fn proc(file: ProcFile, rpc: &mut dyn Rpc) -> Outcome {
    execute::Session::new(rpc, &SystemNames).proc(file)
}

#[cfg(test)]
mod execute_tests;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod listing_tests;
