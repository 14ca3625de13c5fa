//! The boot files in `configs/` are what people copy: each is read and checked as `sluiced` would.

use std::fs;
use std::path::Path;

use sluice_control::boot::{Boot, Machine};

#[test]
fn every_example_is_a_boot_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs");
    // As many cores as the examples speak of, whatever this machine has.
    let machine = Machine {
        cores: (0..8).collect(),
    };
    let mut seen = Vec::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let boot = Boot::parse(&path, &text, &machine).unwrap_or_else(|error| panic!("{error}"));
        assert!(!boot.ports.is_empty());
        seen.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    seen.sort();
    assert_eq!(seen, ["bare-metal.toml", "demo.toml", "pcap.toml"]);
}
