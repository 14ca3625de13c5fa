//! The daemon: see `sluice_control::daemon`.

use std::process::ExitCode;

use clap::Parser;
use sluice_control::daemon::{Options, run};

fn main() -> ExitCode {
    run(&Options::parse())
}
