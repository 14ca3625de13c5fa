//! `sluice doctor`: looks for what keeps services from being served.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use serde_json::{Value, json};

use super::change::name;
use super::status::missing_interfaces;
use super::{Failure, decode, output};
use crate::api::{self, Method};
use crate::boot::{self, Boot};
use crate::client::Rpc;
use crate::daemon::memory_mb;
use crate::machine::Machine;
use crate::machine::advice::{Finding, findings};
use crate::machine::asked::ask;

mod arp;

use arp::{Asker, Mac};

/// Exit code when something was found.
const FOUND: u8 = 3;

/// Prints what is wrong, and what to do. Gives the exit code.
pub(super) fn doctor(as_json: bool, rpc: &mut dyn Rpc, out: &mut dyn Write) -> Result<u8, Failure> {
    let services = rpc.call("service_list", json!({}))?;
    let api::ServiceList { services, .. } = decode("service_list", services)?;
    let stats: api::Stats = decode("stats", rpc.call("stats", Value::Null)?)?;
    let mut found: Vec<String> = missing_interfaces(&stats).collect();
    found.extend(elsewhere(&services));
    let marks = rpc.call("mark_rule_list", Value::Null)?;
    found.extend(unmarked(&services, &decode("mark_rule_list", marks)?));
    found.extend(silent_neighbours(&stats));
    found.extend(odd_nics(&stats));
    let interfaces = stats
        .ports
        .iter()
        .filter_map(|port| port.exception.as_deref());
    for interface in interfaces {
        found.extend(talkers(interface, &services)?);
    }
    let code = if found.is_empty() { 0 } else { FOUND };
    if as_json {
        output::json(out, &json!({"problems": found}))?;
        out.flush()?;
        return Ok(code);
    }
    if found.is_empty() {
        let count = services.len();
        let of = if count == 1 { "service" } else { "services" };
        writeln!(out, "nothing is wrong with {count} {of}")?;
    }
    for problem in found {
        writeln!(out, "! {problem}")?;
    }
    out.flush()?;
    Ok(code)
}

/// Prints what the machine below `root` and a boot file will do together, and what to change. Gives the exit code.
pub(super) fn before_start(
    config: &Path,
    root: &Path,
    as_json: bool,
    out: &mut dyn Write,
) -> Result<u8, Failure> {
    let machine = Machine::read(root);
    let cores = boot::Machine {
        cores: machine.cores.iter().map(|core| core.id).collect(),
    };
    let text = fs::read_to_string(config)
        .map_err(|error| Failure::Input(format!("{}: {error}", config.display())))?;
    let boot =
        Boot::parse(config, &text, &cores).map_err(|error| Failure::Input(error.to_string()))?;
    let asked = if root == Path::new("/") {
        ask(config)
    } else {
        Err("these are another machine's files".to_owned())
    };
    let found = findings(&machine, &boot, u64::from(memory_mb(&boot)), &asked);
    let problems = found
        .iter()
        .filter(|finding| finding.change.is_some())
        .count();
    if as_json {
        let each = found.iter().map(
            |Finding {
                 about,
                 state,
                 change,
             }| { json!({"about": about, "state": state, "change": change}) },
        );
        output::json(out, &json!({"findings": each.collect::<Vec<_>>()}))?;
    } else {
        for Finding {
            about,
            state,
            change,
        } in &found
        {
            let mark = if change.is_some() { "!" } else { " " };
            writeln!(out, "{mark} {about}: {state}")?;
            if let Some(change) = change {
                writeln!(out, "    {change}")?;
            }
        }
    }
    out.flush()?;
    Ok(if problems == 0 { 0 } else { FOUND })
}

/// Services that match nothing.
fn elsewhere(services: &[api::Service]) -> impl Iterator<Item = String> + '_ {
    let away = services.iter().filter(|service| !service.vip_local);
    away.map(|service| {
        format!(
            "service {} matches nothing: its address is none of this machine's (ip addr add)",
            name(service.service)
        )
    })
}

/// Services of marks that no packet gets. Without `iptables` before it that is easily forgotten.
fn unmarked<'a>(
    services: &'a [api::Service],
    marks: &'a api::MarkRuleList,
) -> impl Iterator<Item = String> + 'a {
    let given = |mark| marks.rules.iter().any(|rule| rule.mark == mark);
    services.iter().filter_map(move |service| {
        let api::ServiceRef::Mark { mark, .. } = service.service else {
            return None;
        };
        let name = name(service.service);
        (!given(mark)).then(|| {
            format!(
                "service {name} matches nothing: no rule gives that mark (sluice mark add {mark} …)"
            )
        })
    })
}

/// Next hops that do not answer.
fn silent_neighbours(stats: &api::Stats) -> impl Iterator<Item = String> + '_ {
    let failed = stats.kernel.iter().flat_map(|kernel| &kernel.failed);
    failed.map(|neighbour| {
        format!(
            "{} does not answer ARP on port {}: packets to it are dropped",
            neighbour.address, neighbour.port
        )
    })
}

/// NICs that do not spread packets as they were told.
fn odd_nics(stats: &api::Stats) -> impl Iterator<Item = String> + '_ {
    stats.ports.iter().flat_map(|port| {
        let rss = port.rss.iter();
        let wrong = rss.clone().filter(|rss| rss.mismatched > 0).map(|rss| {
            format!(
                "port {}: {} of {} hashes by the NIC are not those that sluice computes: packets are handed from worker to worker",
                port.name, rss.mismatched, rss.sampled
            )
        });
        let told = rss.flat_map(|rss| &rss.differences);
        wrong.chain(told.map(|difference| format!("port {}: {difference}", port.name)))
    })
}

/// Machines that answer for a VIP on the network behind `interface`.
fn talkers(interface: &str, services: &[api::Service]) -> Result<Vec<String>, Failure> {
    let unusable = |error: std::io::Error| {
        Failure::Gone(format!(
            "cannot ask by ARP on {interface}: {error}; run it as root on the balancer, in sluiced's network namespace"
        ))
    };
    let mut found = Vec::new();
    let direct: Vec<&api::Service> = services
        .iter()
        .filter(|service| !servers(service).is_empty())
        .collect();
    if direct.is_empty() {
        return Ok(found);
    }
    let asker = Asker::new(interface).map_err(unusable)?;
    let vips: BTreeSet<Ipv4Addr> = direct.iter().copied().filter_map(vip_of).collect();
    for vip in vips {
        let macs = asker.ask(vip).map_err(unusable)?;
        if macs.is_empty() {
            continue;
        }
        let of_vip = direct.iter().filter(|service| vip_of(service) == Some(vip));
        let suspects: BTreeSet<Ipv4Addr> = of_vip.flat_map(|service| servers(service)).collect();
        let mut known: Vec<(Ipv4Addr, Vec<Mac>)> = Vec::new();
        for suspect in suspects {
            known.push((suspect, asker.ask(suspect).map_err(unusable)?));
        }
        for mac in macs {
            let who = known.iter().find(|(_, macs)| macs.contains(&mac));
            found.push(problem(
                interface,
                vip,
                mac,
                who.map(|(address, _)| *address),
            ));
        }
    }
    Ok(found)
}

fn problem(interface: &str, vip: Ipv4Addr, mac: Mac, who: Option<Ipv4Addr>) -> String {
    let mac: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
    let mac = mac.join(":");
    match who {
        Some(server) => format!(
            "real server {server} ({mac}) answers ARP for {vip} on {interface}, so clients may go to it past sluice: run there what `sluice server setup-script --mode dr --vip {vip}` prints"
        ),
        None => format!(
            "{mac}, which is no real server, answers ARP for {vip} on {interface}: another balancer or an address conflict"
        ),
    }
}

/// The IPv4 real servers that have the VIP themselves.
fn servers(service: &api::Service) -> Vec<Ipv4Addr> {
    let direct = |server: &&api::RealServer| matches!(server.method, Method::Dr | Method::Tun);
    let servers = service.real_servers.iter().filter(direct);
    servers
        .filter_map(|server| v4(server.address.ip()))
        .collect()
}

fn vip_of(service: &api::Service) -> Option<Ipv4Addr> {
    match service.service {
        api::ServiceRef::Address { address, .. } => v4(address.ip()),
        api::ServiceRef::Mark { .. } => None,
    }
}

fn v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V4(v4) => Some(v4),
        IpAddr::V6(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_talker_is_named_with_its_cure() {
        let vip = Ipv4Addr::new(10, 0, 0, 1);
        let server = Ipv4Addr::new(10, 0, 0, 11);
        let text = problem("ex0", vip, [2, 0, 0, 0, 0, 0xa], Some(server));
        assert!(
            text.starts_with("real server 10.0.0.11 (02:00:00:00:00:0a) answers ARP for 10.0.0.1")
        );
        assert!(text.contains("--mode dr --vip 10.0.0.1"));
        assert!(problem("ex0", vip, [2; 6], None).contains("no real server"));
    }

    #[test]
    fn before_a_start_the_machine_is_looked_at_without_a_daemon() {
        let made = crate::machine::tests::MadeUp::good();
        let boot = |workers: &str| {
            let text = format!(
                "[[port]]\nname = \"wan\"\ndevice = \"0000:81:00.0\"\n[workers]\ncontrol_core = 4\n{workers}"
            );
            made.file("boot.toml", &text);
            let mut out = Vec::new();
            let config = made.0.path().join("boot.toml");
            let code = before_start(&config, made.0.path(), false, &mut out);
            (code.map_err(drop), String::from_utf8(out).unwrap())
        };
        let (code, said) = boot("cores = [6, 7]");
        assert_eq!(code, Ok(0), "{said}");
        assert!(
            said.contains("  core 7: isolated, without a tick"),
            "{said}"
        );
        assert!(
            said.contains(
                "  devices: not asked what they can do (RSS, rte_flow): these are another"
            ),
            "{said}"
        );
        let (code, said) = boot("cores = [5]");
        assert_eq!(code, Ok(FOUND));
        assert!(said.contains("! core 5: not isolated"), "{said}");
        assert!(said.contains("    add isolcpus=5"), "{said}");
        assert_eq!(boot("cores = [99]").0, Err(()));
    }

    #[test]
    fn a_service_of_a_mark_that_no_rule_gives_is_found() {
        let socket =
            std::env::temp_dir().join(format!("sluice-doctor-{}.sock", std::process::id()));
        crate::fake_daemon::FakeDaemon::default().serve(&socket);
        let sluice = |line: &str| {
            let line = format!("sluice --socket {} {line}", socket.display());
            let words: Vec<_> = line.split(' ').map(std::ffi::OsString::from).collect();
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut streams = super::super::Streams {
                stdin: &mut "".as_bytes(),
                out: &mut out,
                err: &mut err,
            };
            let code = super::super::run(&words, &mut streams);
            (code, String::from_utf8(out).unwrap())
        };
        assert_eq!(sluice("service add fwmark 7 --scheduler rr").0, 0);
        assert_eq!(sluice("mark add 8 --destination-ports 80").0, 0);
        let (code, found) = sluice("doctor");
        assert_eq!(code, FOUND, "{found}");
        assert!(
            found.contains("fwmark 7 matches nothing: no rule gives that mark"),
            "{found}"
        );
        assert!(
            found.contains("port client: 2 of 10 hashes by the NIC"),
            "{found}"
        );
        assert!(
            found.contains("port client: the NIC does not tell its key"),
            "{found}"
        );
        let (code, rss) = sluice("rss");
        assert_eq!(code, 0);
        assert!(rss.contains("client: one queue for one worker"), "{rss}");
        assert!(rss.contains("  hashes compared 10, wrong 2"), "{rss}");
        assert!(rss.contains("  side clients: none is"), "{rss}");
        let (code, table) = sluice("rss table");
        assert_eq!(code, 0);
        assert!(table.contains("1-3") && table.contains("0,4"), "{table}");
        let moved = (0, "entries of worker 1 given to the others".to_owned());
        let (code, said) = sluice("rss drain 1");
        assert!((code, said.starts_with(&moved.1)) == (0, true), "{said}");
        assert_eq!(sluice("rss give 0-2,4 --worker 1").0, 0);
        assert_eq!(sluice("rss reset").0, 0);
        assert_eq!(sluice("rss give 2-1 --worker 1").0, 2);
        assert_eq!(sluice("mark add 7 --destination-ports 80").0, 0);
        assert!(
            !sluice("doctor")
                .1
                .contains("fwmark 7 matches nothing: no rule")
        );
        std::fs::remove_file(&socket).unwrap();
    }
}
