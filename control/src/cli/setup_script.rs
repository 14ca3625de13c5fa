//! `sluice server setup-script`: the commands that make a Linux machine a real server, each with its reason.

use std::net::Ipv4Addr;

use super::Failure;
use super::args::{MethodArg, SetupArgs};

/// The whole script for `/bin/sh`, to be run as root on the real server.
pub(super) fn script(args: &SetupArgs) -> Result<String, Failure> {
    let steps = match args.mode {
        MethodArg::Dr => dr(needed(args.vip, "vip", "dr")?),
        MethodArg::Tun => tun(needed(args.vip, "vip", "tun")?, &args.tunnel),
        MethodArg::Nat => nat(needed(args.gateway, "gateway", "nat")?),
        MethodArg::Fullnat => fullnat(args),
    };
    let mode = args.mode.name();
    let mut script = format!(
        "#!/bin/sh -e\n\
         # Makes this Linux machine a real server of sluice, by {mode}. Run it as root; nothing of it outlives a reboot, so put\n\
         # the same into the network configuration of the distribution once it works.\n"
    );
    for Step { why, command } in steps {
        script.push('\n');
        for line in why.lines() {
            script.push_str(&format!("# {line}\n"));
        }
        if let Some(command) = command {
            script.push_str(&format!("{command}\n"));
        }
    }
    Ok(script)
}

struct Step {
    why: &'static str,
    command: Option<String>,
}

fn step(why: &'static str, command: impl Into<String>) -> Step {
    Step {
        why,
        command: Some(command.into()),
    }
}

fn note(why: &'static str) -> Step {
    Step { why, command: None }
}

fn needed(address: Option<Ipv4Addr>, option: &str, mode: &str) -> Result<Ipv4Addr, Failure> {
    address.ok_or_else(|| Failure::Input(format!("mode {mode} needs --{option} ADDRESS")))
}

/// Who has the VIP must not say so, or clients go to one server past the balancer.
fn silent() -> [Step; 2] {
    [
        step(
            "Answer ARP only for addresses of the interface that the question comes in by. The VIP will not be one of those:\n\
             only sluice may answer for it. This comes first, so that the server never speaks for the VIP.",
            "sysctl -w net.ipv4.conf.all.arp_ignore=1",
        ),
        step(
            "Never give the VIP as the sender of this machine's own ARP questions: neighbours would learn it from them.",
            "sysctl -w net.ipv4.conf.all.arp_announce=2",
        ),
    ]
}

fn dr(vip: Ipv4Addr) -> Vec<Step> {
    let mut steps = Vec::from(silent());
    steps.push(step(
        "Take packets that are addressed to the VIP. On lo with /32 it is an address of this machine and of no network;\n\
         the server answers clients from it, past sluice.",
        format!("ip addr replace {vip}/32 dev lo"),
    ));
    steps.push(note(
        "Now bind the service to the VIP or to all addresses, at the port that the service of sluice has: direct routing\n\
         changes neither address nor port. `sluice doctor` on the balancer checks that this machine is silent about the VIP.",
    ));
    steps
}

fn tun(vip: Ipv4Addr, tunnel: &str) -> Vec<Step> {
    let mut steps = vec![
        step(
            "The module that takes IP-in-IP packets (protocol 4) apart. It makes the interface tunl0, which accepts them from\n\
             any sender.",
            "modprobe ipip",
        ),
        step(
            "What comes out of the tunnel comes in by this interface.",
            format!("ip link set {tunnel} up"),
        ),
        step(
            "Take packets from the tunnel although the way back to the client does not lead into it: no reverse path filter\n\
             there. The larger of all.rp_filter and the interface's own counts, so both are set.",
            "sysctl -w net.ipv4.conf.all.rp_filter=0",
        ),
        step(
            "The same for the interface itself.",
            format!("sysctl -w net.ipv4.conf.{tunnel}.rp_filter=0"),
        ),
    ];
    steps.extend(silent());
    steps.push(step(
        "Take what is addressed to the VIP once it is out of the tunnel. With /32 it is of no network; the server answers\n\
         clients from it, past sluice.",
        format!("ip addr replace {vip}/32 dev {tunnel}"),
    ));
    steps.push(note(
        "The tunnel takes 20 bytes: sluice tells clients by ICMP that 1480 fit where the network carries 1500. Where such\n\
         ICMP is filtered, let the server offer less: ip route change default … advmss 1440.",
    ));
    steps
}

fn nat(gateway: Ipv4Addr) -> Vec<Step> {
    vec![
        step(
            "Send all that leaves this network to sluice, which turns the server's address back into the VIP: replies that\n\
             take another way reach the client from an address that it never spoke to. This is sluice's address on the\n\
             servers' network.",
            format!("ip route replace default via {gateway}"),
        ),
        step(
            "Do not learn shorter ways past sluice.",
            "sysctl -w net.ipv4.conf.all.accept_redirects=0",
        ),
        note(
            "Clients on this very network get their replies directly, past sluice, and do not understand them: for them use\n\
             fullnat. The service may listen on any port; give it as the real server's.",
        ),
    ]
}

fn fullnat(args: &SetupArgs) -> Vec<Step> {
    let mut steps = vec![note(
        "The server sees a local address of sluice as its client, so nothing has to be set as long as its replies find the\n\
         way there.",
    )];
    if let Some(gateway) = args.gateway {
        for laddr in &args.laddrs {
            steps.push(step(
                "The way to a local address of sluice.",
                format!("ip route replace {laddr}/32 via {gateway}"),
            ));
        }
    }
    for laddr in &args.laddrs {
        steps.push(step(
            "Shows the way to a local address of sluice; fails if there is none.",
            format!("ip route get {laddr}"),
        ));
    }
    steps.push(note(
        "Logs and access rules of the server see the local address, not the client's.",
    ));
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(mode: MethodArg) -> SetupArgs {
        SetupArgs {
            mode,
            vip: Some(Ipv4Addr::new(10, 0, 0, 1)),
            gateway: Some(Ipv4Addr::new(192, 168, 1, 254)),
            laddrs: vec![Ipv4Addr::new(192, 168, 1, 253)],
            tunnel: "tunl0".to_owned(),
        }
    }

    fn commands(mode: MethodArg) -> Vec<String> {
        let script = script(&args(mode)).unwrap();
        let commands = script
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        commands.map(str::to_owned).collect()
    }

    #[test]
    fn a_dr_server_is_silent_before_it_has_the_vip() {
        assert_eq!(
            commands(MethodArg::Dr),
            [
                "sysctl -w net.ipv4.conf.all.arp_ignore=1",
                "sysctl -w net.ipv4.conf.all.arp_announce=2",
                "ip addr replace 10.0.0.1/32 dev lo",
            ]
        );
    }

    #[test]
    fn every_command_has_its_reason_just_above() {
        for mode in [
            MethodArg::Dr,
            MethodArg::Tun,
            MethodArg::Nat,
            MethodArg::Fullnat,
        ] {
            let script = script(&args(mode)).unwrap();
            let lines: Vec<&str> = script.lines().collect();
            for (at, line) in lines.iter().enumerate().skip(1) {
                if !line.is_empty() && !line.starts_with('#') {
                    assert!(lines[at - 1].starts_with("# "), "{line}");
                }
            }
        }
    }

    #[test]
    fn what_a_mode_cannot_do_without_is_asked_for() {
        for (mode, option) in [
            (MethodArg::Dr, "--vip"),
            (MethodArg::Tun, "--vip"),
            (MethodArg::Nat, "--gateway"),
        ] {
            let without = SetupArgs {
                vip: None,
                gateway: None,
                ..args(mode)
            };
            let Err(Failure::Input(text)) = script(&without) else {
                panic!("{mode:?} needs {option}");
            };
            assert!(text.contains(option), "{text}");
        }
    }
}
