//! `sluice`, the client of sluiced; called by the name `ipvsadm` it is that.

use std::ffi::OsString;
use std::io::{self, BufWriter};
use std::process::ExitCode;

use sluice_control::cli::{self, Streams};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    let mut out = BufWriter::new(io::stdout().lock());
    let mut streams = Streams {
        stdin: &mut io::stdin().lock(),
        out: &mut out,
        err: &mut io::stderr().lock(),
    };
    let code = cli::run(&args, &mut streams);
    // What is left in the buffer, a broken pipe has refused; it would refuse it again when dropped.
    let (_stdout, _unwritten) = out.into_parts();
    ExitCode::from(code)
}
