//! Each trace of `must-pass.txt` is one test.

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use sluice_conformance::replay::{Verdict, replay};
use sluice_conformance::suite::{self, SuiteError};
use sluice_conformance::trace::Trace;

fn main() -> Result<ExitCode, SuiteError> {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = crate_dir.join("../../dataplane/ipvs/golden");
    let names = suite::list(&crate_dir.join("must-pass.txt"))?;
    let trials = names.into_iter().map(|name| {
        let path = golden.join(format!("{name}.json"));
        Trial::test(name, move || agrees(&path))
    });
    Ok(libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code())
}

fn agrees(path: &Path) -> Result<(), Failed> {
    match replay(&Trace::read(path)?) {
        Verdict::Passed { .. } => Ok(()),
        Verdict::Failed(failure) => Err(failure.to_string().into()),
    }
}
