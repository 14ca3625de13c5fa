//! A tour of LVS as a course for administrators gives it: every command is typed, and traffic shows after each what it did.

use std::net::{SocketAddr, UdpSocket};

use serde_json::json;

use crate::rig::{OWN, Rig, VIP, eventually};
use crate::shell::{Shell, run_script};
use crate::traffic::{PATIENCE, Server, http_get};
use crate::tunnel::Decapsulator;

/// A second virtual address.
const VIP2: &str = "10.0.0.3";
/// Its packets are marked.
const MARKED: &str = "10.0.0.4";

/// The class room: two real servers that can be reached by every method, and the teacher's shell.
struct Tour {
    rig: Rig,
    _servers: Vec<Server>,
}

impl Tour {
    fn begin() -> Self {
        let rig = Rig::one_arm(2);
        for vip in [VIP2, MARKED] {
            rig.appliance.ip(&format!("addr add {vip}/32 dev ex0"));
        }
        let mut servers = Vec::new();
        for (n, netns) in rig.servers.iter().enumerate() {
            // For NAT, the way back to the client leads through the balancer.
            netns.ip(&format!("route add 10.0.0.100/32 via {OWN}"));
            for vip in [VIP, VIP2, MARKED] {
                let line = format!("server setup-script --mode dr --vip {vip}");
                run_script(netns, &Shell::on(&rig).sluice(&line));
            }
            let name = format!("rs{}", n + 1);
            for port in [80, 8080] {
                servers.push(Server::http(netns, &format!("0.0.0.0:{port}"), &name));
            }
            servers.push(Server::udp_echo(netns, &format!("{VIP}:53")));
        }
        Self {
            rig,
            _servers: servers,
        }
    }

    /// Types it. Errors and complaints fail the course.
    fn type_in(&self, line: &str) -> String {
        Shell::on(&self.rig).ipvsadm(line)
    }

    /// Types it and gets this error.
    fn refused(&self, line: &str, code: i32, err: &str) {
        let said = Shell::on(&self.rig).ipvsadm_with(line, "");
        assert_eq!((said.code, said.out.as_str()), (code, ""), "ipvsadm {line}");
        assert_eq!(said.err.lines().next(), Some(err), "ipvsadm {line}");
    }

    /// Until what was typed and what the kernel has is in force.
    fn settle(&mut self) {
        let rig = &mut self.rig;
        eventually("addresses and routes are in force", || {
            let kernel = rig.rpc.call("stats", json!({}))["kernel"].take();
            let services = rig.rpc.call("service_list", json!({}))["services"].take();
            let mut services = services.as_array().expect("a list").iter();
            kernel["pending"] == json!(false)
                && services.all(|service| service["vip_local"] == json!(true))
        });
    }

    /// Who answers so many requests, one after the other.
    fn ask(&self, to: &str, times: usize) -> Vec<String> {
        let to: SocketAddr = to.parse().expect("an address");
        self.rig.client.run(|| {
            let get = |n| http_get(to).unwrap_or_else(|err| panic!("request {n} to {to}: {err:?}"));
            (0..times).map(get).collect()
        })
    }

    fn share(&self, to: &str, times: usize) -> (usize, usize) {
        let answers = self.ask(to, times);
        let of = |name: &str| answers.iter().filter(|answer| *answer == name).count();
        (of("rs1"), of("rs2"))
    }
}

#[test]
fn services_servers_methods_and_weights() {
    let mut tour = Tour::begin();
    let web = format!("{VIP}:80");

    // An empty table, then a service by NAT, with another port on the servers.
    let empty = tour.type_in("-L -n");
    assert_eq!(
        empty,
        "IP Virtual Server version 1.2.1 (size=4096)\n\
         Prot LocalAddress:Port Scheduler Flags\n\
         \u{20} -> RemoteAddress:Port           Forward Weight ActiveConn InActConn\n"
    );
    tour.type_in(&format!("-A -t {web} -s rr"));
    tour.refused(&format!("-A -t {web} -s rr"), 255, "Service already exists");
    tour.type_in(&format!("-a -t {web} -r 10.0.0.11:8080 -m"));
    tour.type_in(&format!("-a -t {web} -r 10.0.0.12:8080 -m -w 1"));
    tour.settle();
    assert_eq!(tour.share(&web, 4), (2, 2));
    let listed = tour.type_in("-Ln");
    assert!(listed.contains(&format!("TCP  {web} rr\n")), "{listed}");
    assert!(
        listed.contains("  -> 10.0.0.11:8080               Masq    1      "),
        "{listed}"
    );

    // Weights.
    tour.type_in(&format!("-E -t {web} -s wrr"));
    tour.type_in(&format!("-e -t {web} -r 10.0.0.11:8080 -m -w 2"));
    assert_eq!(tour.share(&web, 6), (4, 2));
    tour.type_in(&format!("-e -t {web} -r 10.0.0.11:8080 -m -w 0"));
    assert_eq!(tour.share(&web, 3), (0, 3));

    // Direct routing to one, a tunnel to the other.
    tour.type_in(&format!("-d -t {web} -r 10.0.0.11:8080"));
    tour.refused(
        &format!("-d -t {web} -r 10.0.0.11:8080"),
        255,
        "No such destination",
    );
    tour.type_in(&format!("-d -t {web} -r 10.0.0.12:8080"));
    tour.type_in(&format!("-E -t {web} -s rr"));
    tour.type_in(&format!("-a -t {web} -r 10.0.0.11 -g"));
    let end = Decapsulator::start(&tour.rig.servers[1], "10.0.0.12");
    tour.type_in(&format!("-a -t {web} -r 10.0.0.12 -i -w 1"));
    assert_eq!(tour.share(&web, 4), (2, 2));
    assert!(end.finish() > 6, "packets came by the tunnel");
    let listed = tour.type_in(&format!("-L -n -t {web}"));
    assert!(
        listed.contains("  -> 10.0.0.11:80                 Route   1      "),
        "{listed}"
    );
    assert!(
        listed.contains("  -> 10.0.0.12:80                 Tunnel  1      "),
        "{listed}"
    );
    tour.type_in(&format!("-d -t {web} -r 10.0.0.12"));

    // UDP.
    let dns = format!("{VIP}:53");
    tour.type_in(&format!("-A -u {dns} -s rr"));
    tour.type_in(&format!("-a -u {dns} -r 10.0.0.11 -g"));
    tour.settle();
    let to: SocketAddr = dns.parse().expect("an address");
    tour.rig.client.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        socket.send_to(b"question", to).expect("sent");
        let mut buffer = [0; 64];
        let (len, from) = socket.recv_from(&mut buffer).expect("an answer");
        assert_eq!((&buffer[..len], from), (&b"question"[..], to));
    });

    // Saved to a file, cleared, restored.
    let saved = tour.type_in("-S -n");
    assert_eq!(
        saved,
        format!(
            "-A -t {web} -s rr\n-a -t {web} -r 10.0.0.11:80 -g -w 1\n\
             -A -u {dns} -s rr\n-a -u {dns} -r 10.0.0.11:53 -g -w 1\n"
        )
    );
    tour.type_in("-C");
    assert_eq!(tour.type_in("-Ln"), empty);
    let refusal = tour
        .rig
        .client
        .run(|| http_get(web.parse().expect("an address")));
    assert!(refusal.is_err(), "{refusal:?}");
    let restored = Shell::on(&tour.rig).ipvsadm_with("-R", &saved);
    assert_eq!((restored.code, restored.err.as_str()), (0, ""));
    assert_eq!(tour.type_in("-S -n"), saved);
    tour.settle();
    assert_eq!(tour.share(&web, 2), (2, 0));

    tour.type_in(&format!("-D -t {web}"));
    tour.type_in(&format!("-D -u {dns}"));
    tour.refused(&format!("-D -u {dns}"), 255, "No such service");
    tour.rig.close();
}

#[test]
fn persistence_marks_and_every_listing() {
    let mut tour = Tour::begin();
    let (web, all, mark) = (format!("{VIP}:80"), format!("{VIP2}:0"), "5");

    // By client, for a service; then for all ports of an address.
    tour.type_in(&format!("-A -t {web} -s rr -p 300"));
    tour.refused(
        &format!("-A -t {all} -s rr"),
        2,
        "Zero port specified for non-persistent service",
    );
    tour.type_in(&format!("-A -t {all} -s rr -p"));
    for server in ["10.0.0.11", "10.0.0.12"] {
        tour.type_in(&format!("-a -t {web} -r {server} -g -x 100 -y 50"));
        tour.type_in(&format!("-a -t {all} -r {server} -g"));
    }
    tour.settle();
    let (first, second) = tour.share(&web, 4);
    assert!(first == 4 || second == 4, "{first} {second}");
    let one = tour.ask(&format!("{VIP2}:80"), 2);
    let other = tour.ask(&format!("{VIP2}:8080"), 2);
    assert!(one[0] == one[1] && one == other, "{one:?} {other:?}");

    let listed = tour.type_in("-Ln");
    assert!(
        listed.contains(&format!("TCP  {web} rr persistent 300\n")),
        "{listed}"
    );
    assert!(
        listed.contains(&format!("TCP  {all} rr persistent 360\n")),
        "{listed}"
    );
    let connections = tour.type_in("-L -n -c");
    let templates = connections
        .lines()
        .filter(|line| line.contains("10.0.0.100:0 "));
    assert_eq!(templates.count(), 2, "{connections}");
    let persistent = tour.type_in("-Ln --persistent-conn");
    assert!(
        persistent.contains("Weight    PersistConn ActiveConn InActConn"),
        "{persistent}"
    );
    let column = |line: &str| {
        line.split_whitespace()
            .nth(3)
            .and_then(|word| word.parse::<u64>().ok())
    };
    let servers = persistent.lines().filter(|line| line.starts_with("  -> 1"));
    assert_eq!(servers.filter_map(column).sum::<u64>(), 2, "{persistent}");

    // By firewall mark.
    tour.type_in(&format!("-A -f {mark} -s wlc -p 300 -M 255.255.255.0"));
    tour.type_in(&format!("-a -f {mark} -r 10.0.0.11 -g"));
    let listed = tour.type_in(&format!("-Ln -f {mark}"));
    assert!(
        listed.contains("FWM  5 wlc persistent 300 mask 255.255.255.0\n"),
        "{listed}"
    );
    Shell::on(&tour.rig).sluice(&format!("mark add {mark} --destination {MARKED}/32"));
    tour.type_in(&format!("-a -f {mark} -r 10.0.0.12 -g"));
    tour.settle();
    let one = tour.ask(&format!("{MARKED}:80"), 2);
    let other = tour.ask(&format!("{MARKED}:8080"), 2);
    assert!(one[0] == one[1] && one == other, "{one:?} {other:?}");
    let connections = tour.type_in("-Lnc");
    let template = |line: &&str| line.starts_with("IP ") && line.contains("10.0.0.0:0 ");
    let templates = connections.lines().filter(template);
    assert_eq!(templates.count(), 1, "{connections}");
    tour.type_in(&format!("-E -f {mark} -s rr"));
    tour.type_in(&format!("-e -f {mark} -r 10.0.0.11 -g -w 3"));
    tour.type_in(&format!("-d -f {mark} -r 10.0.0.11"));
    tour.type_in(&format!("-D -f {mark}"));

    // Statistics, zeroed.
    let conns = |listing: &str| -> u64 {
        let line = listing
            .lines()
            .find(|line| line.contains(&web))
            .expect("it is listed");
        line.split_whitespace()
            .nth(2)
            .expect("a column")
            .parse()
            .expect("a number")
    };
    assert_eq!(conns(&tour.type_in("-Ln --stats")), 4);
    assert_eq!(conns(&tour.type_in("-Ln --stats --exact")), 4);
    assert!(
        tour.type_in("-Ln --rate")
            .contains("CPS    InPPS   OutPPS    InBPS   OutBPS")
    );
    tour.type_in(&format!("-Z -t {web}"));
    tour.type_in("-Z");
    assert_eq!(conns(&tour.type_in("-Ln --stats")), 0);

    // What is left of the manual page.
    assert!(
        tour.type_in("-Ln --thresholds")
            .contains("  -> 10.0.0.11:80                 100        50         ")
    );
    assert_eq!(
        tour.type_in("-L --timeout"),
        "Timeout (tcp tcpfin udp): 900 120 300\n"
    );
    tour.type_in("--set 600 0 250");
    assert_eq!(
        tour.type_in("-L --timeout"),
        "Timeout (tcp tcpfin udp): 600 120 250\n"
    );
    assert_eq!(tour.type_in("-L --daemon"), "");
    let started = Shell::on(&tour.rig)
        .ipvsadm_with("--start-daemon master --mcast-interface ex0 --syncid 7", "");
    assert_eq!((started.code, started.out.as_str()), (0, ""));
    assert!(started.err.starts_with("warning: "), "{}", started.err);
    assert_eq!(
        tour.type_in("-L --daemon"),
        "master sync daemon (mcast=ex0, syncid=7, maxlen=1472, group=224.0.0.81, port=8848, ttl=1)\n"
    );
    // All of it saved by sluice, which keeps more than -S, and restored.
    let shell = Shell::on(&tour.rig);
    tour.type_in(&format!("-A -f {mark} -s rr"));
    let saved = shell.sluice("save");
    for line in [
        "setting timeout_tcp 600\n",
        "mark mark=5 destination=10.0.0.4/32\n",
        " -x 100 -y 50\n",
        "--start-daemon master --mcast-interface ex0 --syncid 7 ",
    ] {
        assert!(saved.contains(line), "{line} in {saved}");
    }
    tour.type_in("--set 0 0 100");
    shell.sluice("mark add 6 --destination 10.0.0.9/32");
    let restored = shell.sluice_with("restore --replace -", &saved);
    assert_eq!((restored.code, restored.out.as_str()), (0, ""));
    assert!(restored.err.starts_with("warning: ") && restored.err.lines().count() == 1);
    assert_eq!(shell.sluice("save"), saved);
    tour.type_in("--stop-daemon master");
    assert_eq!(tour.type_in("-Ln --sort"), tour.type_in("-l -n"));
    let order = |listing: &str| -> Vec<String> {
        let lines = listing.lines().filter(|line| line.starts_with("TCP"));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(order(&tour.type_in("-Ln --nosort")).len(), 2);
    assert!(order(&tour.type_in("-Ln"))[0].contains(&web));

    // The mistakes that everybody makes once.
    for (line, hint) in [
        (
            format!("-a -t {web} -r 10.0.0.13 -I"),
            "hint: a tunnel is -i",
        ),
        (format!("-A -t {VIP}:0"), "hint: port 0"),
        (
            format!("-t {web} -A"),
            "hint: the command comes first: ipvsadm -A",
        ),
    ] {
        let said = Shell::on(&tour.rig).ipvsadm_with(&line, "");
        assert_ne!(said.code, 0);
        let lines: Vec<&str> = said.err.lines().collect();
        assert!(
            lines.len() == 2 && lines[1].starts_with(hint),
            "ipvsadm {line}: {}",
            said.err
        );
    }
    let totals = Shell::on(&tour.rig).sluice("proc ip_vs");
    assert!(
        totals.contains("TCP  0A000001:0050 rr  persistent 75000 FFFFFFFF\n"),
        "{totals}"
    );
    tour.rig.close();
}
