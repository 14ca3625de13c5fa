//! What cannot work is refused before anything is touched: exit 2, and one sentence that helps.

use crate::daemon::Daemon;
use crate::netns::Netns;
use crate::rig::boot;

#[test]
fn a_boot_file_with_an_unknown_key_names_its_line() {
    let boot = boot(&["lan"]).replace("polling = ", "poling = ");
    let line = 1 + boot
        .lines()
        .position(|line| line.starts_with("poling"))
        .expect("it is there");
    let said = refused(&boot);
    assert!(said.contains(&format!("boot.toml:{line}:")), "{said}");
    assert!(said.contains("poling"), "{said}");
}

#[test]
fn a_boot_file_with_a_wrong_type_names_its_line() {
    let boot = boot(&["lan"]).replace("memory_mb = 128", "memory_mb = \"128 MB\"");
    let line = 1 + boot
        .lines()
        .position(|line| line.starts_with("memory_mb"))
        .expect("it is there");
    let said = refused(&boot);
    assert!(said.contains(&format!("boot.toml:{line}:")), "{said}");
}

#[test]
fn a_virtual_port_that_cannot_exist_is_named() {
    let said = refused(&boot(&["lan"]).replace("net_tap0", "net_nonsense0"));
    assert!(said.contains("net_nonsense0"), "{said}");
}

#[test]
fn a_pci_port_that_is_not_there_is_named() {
    let boot = boot(&["lan"])
        .replace("net_tap0", "0000:ff:1f.7")
        .replace("args = \"iface=dt0\"\n", "");
    let said = refused(&boot);
    assert!(said.contains("0000:ff:1f.7"), "{said}");
}

#[test]
fn hugepages_that_are_not_there_are_counted() {
    let boot = boot(&["lan"])
        .replace("hugepages = \"off\"", "hugepages = \"required\"")
        .replace("memory_mb = 128", "memory_mb = 3000000");
    let said = refused(&boot);
    assert!(
        said.contains("hugepages") && said.contains("too few"),
        "{said}"
    );
}

#[test]
fn memory_that_is_not_there_is_counted() {
    let said = refused(&boot(&["lan"]).replace("memory_mb = 128", "memory_mb = 3000000"));
    assert!(
        said.contains("memory") && said.contains("too few"),
        "{said}"
    );
}

#[test]
fn memory_that_is_too_little_for_the_ports_is_refused() {
    let said = refused(&boot(&["lan"]).replace("memory_mb = 128", "memory_mb = 8"));
    assert!(said.contains("MB") || said.contains("memory"), "{said}");
}

#[test]
fn connections_that_do_not_fit_into_memory_are_refused() {
    let said =
        refused(&boot(&["lan"]).replace("max_connections = 16384", "max_connections = 268435456"));
    assert!(
        said.contains("MB for tables of connections") && said.contains("MB too few"),
        "{said}"
    );
}

#[test]
fn what_dpdk_says_of_a_device_is_passed_on() {
    let device = |device: &str, args: &str| {
        boot(&["lan"])
            .replace("net_tap0", device)
            .replace("iface=dt0", args)
            .replace("exception = \"ex0\"\n", "")
    };
    let said = refused(&device("net_pcap0", "rx_pcap=/nonexistent/in.pcap"));
    assert!(
        said.contains("/nonexistent/in.pcap: No such file"),
        "{said}"
    );
    let said = refused(&device("net_pcap0", "bogus=1"));
    assert!(said.contains("could not make the device"), "{said}");
}

#[test]
fn an_mtu_beyond_the_devices_is_refused_with_its_limit() {
    let said = refused(&boot(&["lan"]).replace("exception = ", "mtu = 2000\nexception = "));
    assert!(
        said.contains("an MTU of 2000 is not possible") && said.contains("68 to 1504"),
        "{said}"
    );
}

#[test]
fn arguments_that_dpdk_does_not_know_are_named() {
    let said =
        refused(&boot(&["lan"]).replace("[workers]", "extra_args = [\"--bogus\"]\n\n[workers]"));
    assert!(said.contains("--bogus"), "{said}");
}

#[test]
fn two_workers_on_one_core_are_refused() {
    let boot = boot(&["lan"]);
    let cores = boot
        .lines()
        .find(|line| line.starts_with("cores"))
        .expect("it is there");
    let core = cores.trim_matches(|c: char| !c.is_ascii_digit());
    let said = refused(
        &boot
            .replace(cores, &format!("cores = [{core}, {core}]"))
            .replace("allow_shared_cores = true", "allow_shared_cores = false"),
    );
    assert!(said.contains(&format!("core {core}")), "{said}");
}

#[test]
fn a_core_that_does_not_exist_is_refused() {
    let boot = boot(&["lan"]);
    let cores = boot
        .lines()
        .find(|line| line.starts_with("cores"))
        .expect("it is there");
    let said = refused(&boot.replace(cores, "cores = [4000]"));
    assert!(said.contains("4000"), "{said}");
}

#[test]
fn an_exception_interface_that_is_taken_is_named() {
    let netns = Netns::new("refused");
    netns.ip("link add ex0 type bridge");
    let (code, said) = Daemon::spawn(&netns, &boot(&["lan"])).refused();
    assert_eq!(code, Some(2), "{said}");
    assert!(sentence(&said).contains("ex0"), "{said}");
}

#[test]
fn a_boot_file_that_is_not_there_is_named() {
    let netns = Netns::new("refused");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_sluiced"));
    let output = netns.run(|| {
        command
            .args(["--config", "/nonexistent/boot.toml"])
            .output()
    });
    let output = output.expect("sluiced starts");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(sentence(&said).contains("/nonexistent/boot.toml"), "{said}");
}

/// Starts on a boot file that must be refused; the sentence that says why.
fn refused(boot: &str) -> String {
    let netns = Netns::new("refused");
    let before = netns.ip("-br link");
    let (code, said) = Daemon::spawn(&netns, boot).refused();
    assert_eq!(code, Some(2), "{boot}\n{said}");
    assert_eq!(netns.ip("-br link"), before, "something is left behind");
    sentence(&said)
}

/// The refusal is the last line, said once, under the daemon's own name.
fn sentence(said: &str) -> String {
    let last = said.lines().next_back().unwrap_or_default();
    assert!(last.starts_with("sluiced: "), "{said}");
    assert_eq!(said.matches("sluiced: ").count(), 1, "{said}");
    // What DPDK complains of is in the sentence, and nowhere else.
    assert!(
        !said.contains(" ERROR ") && !said.contains("FATAL"),
        "{said}"
    );
    last.to_owned()
}
