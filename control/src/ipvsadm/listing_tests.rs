//! The listings of text-all and text-hugenum, from rows made by hand.

use std::net::IpAddr;

use sluice_dataplane::command::Settings;

use super::command::{
    Checksum, Command, Forward, List, Mask, Persistence, Protocol, SchedFlags, ServiceId, Tunnel,
};
use super::golden_tests::{Step, recorded_file, steps};
use super::listing::{self, Addresses};
use super::names::Names;
use super::parse::parse;
use super::proc;
use super::rows::{ServerRow, ServiceRow, sort};
use super::save;
use crate::api::{self, Connection, Counters, Method, Rates};
use crate::settings;

/// The port names of the machine that made the recording.
struct RecordedNames;

impl Names for RecordedNames {
    fn address(&self, host: &str) -> Option<IpAddr> {
        host.parse().ok()
    }

    fn host(&self, _address: IpAddr) -> Option<String> {
        None
    }

    fn port(&self, _name: &str, _protocol: &str) -> Option<u16> {
        None
    }

    fn service(&self, port: u16, _protocol: &str) -> Option<String> {
        let name = match port {
            21 => "ftp",
            53 => "domain",
            80 => "http",
            443 => "https",
            5060 => "sip",
            8080 => "http-alt",
            _ => return None,
        };
        Some(name.to_owned())
    }
}

fn service(id: ServiceId, scheduler: &str, servers: Vec<ServerRow>) -> ServiceRow {
    ServiceRow {
        id,
        scheduler: scheduler.to_owned(),
        sched_flags: SchedFlags::default(),
        persistence: None,
        one_packet: false,
        engine: None,
        laddrs: Vec::new(),
        stats: Counters::default(),
        rates: Rates::default(),
        servers,
    }
}

fn server(address: &str, forward: Forward, weight: u32) -> ServerRow {
    ServerRow {
        address: address.parse().unwrap(),
        forward,
        weight,
        upper_threshold: 0,
        lower_threshold: 0,
        active: 0,
        inactive: 0,
        templates: 0,
        stats: Counters::default(),
        rates: Rates::default(),
    }
}

fn of(protocol: Protocol, address: &str) -> ServiceId {
    ServiceId::Address {
        protocol,
        address: address.parse().unwrap(),
    }
}

/// One connection and what it counted.
fn busy(mut server: ServerRow, active: u64, packets: u64, bytes: u64, in_bps: u64) -> ServerRow {
    server.active = active;
    server.stats = Counters {
        conns: 1,
        in_packets: packets,
        in_bytes: bytes,
        ..Counters::default()
    };
    server.rates = Rates {
        in_bps,
        ..Rates::default()
    };
    server
}

/// The services of text-all in the kernel's (hash) order, as `--nosort` recorded it.
fn text_all() -> Vec<ServiceRow> {
    let gue = Tunnel::Gue {
        port: 6080,
        checksum: Checksum::Full,
    };
    let gre = Tunnel::Gre {
        checksum: Checksum::None,
    };
    let persist = |timeout_s, mask| Some(Persistence { timeout_s, mask });
    let template = |mut server: ServerRow| {
        server.templates = 1;
        server
    };
    let bounded = |mut server: ServerRow| {
        (server.upper_threshold, server.lower_threshold) = (100, 50);
        server
    };
    let tcp = |address| of(Protocol::Tcp, address);
    let mut services = vec![
        service(
            tcp("10.0.0.1:443"),
            "wlc",
            vec![
                template(busy(
                    server("192.168.1.5:443", Forward::Tunnel(gre), 1),
                    1,
                    1,
                    40,
                    2,
                )),
                server("192.168.1.3:443", Forward::Tunnel(gue), 1),
                server("192.168.1.4:443", Forward::Tunnel(Tunnel::Ipip), 0),
            ],
        ),
        service(
            of(Protocol::Udp, "10.0.0.9:5060"),
            "rr",
            vec![server("192.168.1.9:5060", Forward::Masq, 1)],
        ),
        service(
            tcp("[2001:db8:c::1]:80"),
            "sed",
            vec![template(busy(
                server("[2001:db8:5::2]:80", Forward::Masq, 7),
                1,
                1,
                60,
                2,
            ))],
        ),
        service(of(Protocol::Sctp, "10.0.0.1:9899"), "nq", vec![]),
        service(tcp("10.0.0.1:21"), "lblc", vec![]),
        service(
            of(Protocol::Udp, "10.0.0.1:53"),
            "rr",
            vec![busy(
                server("192.168.1.3:53", Forward::Route, 2),
                0,
                1,
                33,
                1,
            )],
        ),
        service(
            tcp("10.0.0.1:80"),
            "wrr",
            vec![
                busy(server("192.168.1.2:8080", Forward::Masq, 1), 1, 2, 80, 3),
                bounded(server("192.168.1.1:80", Forward::Masq, 3)),
            ],
        ),
        service(
            ServiceId::Mark {
                mark: 5,
                ipv6: false,
            },
            "sh",
            vec![server("192.168.1.1:0", Forward::Route, 1)],
        ),
        service(
            ServiceId::Mark {
                mark: 6,
                ipv6: true,
            },
            "mh",
            vec![server("[2001:db8:5::1]:0", Forward::Route, 1)],
        ),
    ];
    services[0].persistence = persist(600, Some(Mask::V4([255, 255, 255, 0].into())));
    services[1].persistence = persist(60, None);
    services[1].engine = Some("sip".to_owned());
    services[2].persistence = persist(300, Some(Mask::V6(64)));
    services[4].persistence = persist(360, None);
    services[5].one_packet = true;
    services[7].sched_flags = SchedFlags(3);
    services[8].sched_flags = SchedFlags(2);
    for service in &mut services {
        let busy = service.servers.iter().find(|server| server.stats.conns > 0);
        if let Some(server) = busy {
            (service.stats, service.rates) = (server.stats, server.rates);
        }
    }
    services
}

fn recorded(trace: &str, command: &str) -> Step {
    let found = steps(trace)
        .into_iter()
        .find(|step| step.op == "ipvsadm" && step.args.join(" ") == command);
    found.unwrap_or_else(|| panic!("no `{command}` in {trace}"))
}

fn list(args: &[String]) -> List {
    match parse(args, &RecordedNames) {
        Ok(Command::List(list)) => list,
        other => panic!("{args:?}: {other:?}"),
    }
}

#[test]
fn the_tables_of_text_all_come_out_byte_for_byte() {
    let commands = [
        "-Ln",
        "-l -n",
        "",
        "-L",
        "-Ln --nosort",
        "-Ln --sort",
        "-Ln --stats",
        "-Ln --stats --exact",
        "-Ln --rate",
        "-Ln --rate --exact",
        "-Ln --thresholds",
        "-Ln --persistent-conn",
        "-Ln --tun-info",
        "-Ln -t 10.0.0.1:80",
        "-Ln -f 5",
        "-Ln -f 6 -6",
        "-Ln -u 10.0.0.1:53 --stats",
    ];
    for command in commands {
        let step = recorded("text-all", command);
        let list = list(&step.args);
        let mut services = text_all();
        services.retain(|service| list.service.is_none_or(|only| only == service.id));
        if !list.unsorted {
            sort(&mut services);
        }
        assert_eq!(
            listing::services(&services, &list, &RecordedNames),
            step.out,
            "ipvsadm {command}"
        );
    }
}

#[test]
fn the_saved_lines_of_text_all_come_out_byte_for_byte() {
    let mut services = text_all();
    sort(&mut services);
    for (command, numeric) in [("-S", false), ("-S -n", true)] {
        let addresses = Addresses::new(numeric, &RecordedNames);
        assert_eq!(
            save::lines(&services, &addresses, save::Thresholds::Forgotten),
            recorded("text-all", command).out,
            "ipvsadm {command}"
        );
    }
}

/// A connection like the line that a listing shows (with a state that it names).
fn connection(line: &str) -> Connection {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (minutes, seconds) = words[1].split_once(':').unwrap();
    Connection {
        protocol: api::FlowProtocol::Tcp,
        template: false,
        state: words[2].to_owned(),
        expires_ms: (minutes.parse::<u64>().unwrap() * 60 + seconds.parse::<u64>().unwrap()) * 1000
            + 999,
        client: words[3].parse().unwrap(),
        virtual_address: words[4].parse().unwrap(),
        server: words[5].parse().unwrap(),
        local: None,
        method: Method::Nat,
        worker: 0,
    }
}

#[test]
fn connections_come_out_byte_for_byte() {
    let numeric = recorded("text-all", "-Lnc");
    let connections: Vec<_> = numeric.out.lines().skip(2).map(connection).collect();
    assert_eq!(connections.len(), 5);
    assert_eq!(
        listing::connections(&connections, &list(&numeric.args), &RecordedNames),
        numeric.out
    );

    for command in ["-Lc", "-Lnc --persistent-conn"] {
        let step = recorded("text-all", command);
        // The same connections two seconds later.
        let mut connections = connections.clone();
        connections
            .iter_mut()
            .for_each(|connection| connection.expires_ms -= 2000);
        let out = listing::connections(&connections, &list(&step.args), &RecordedNames);
        assert_eq!(out, step.out, "ipvsadm {command}");
    }
}

/// The five numbers of the last line of a listing.
fn numbers(listing: &str) -> [u64; 5] {
    let words = listing.lines().last().unwrap().split_whitespace().skip(2);
    let numbers: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

#[test]
fn big_numbers_are_shortened_as_recorded_and_exact_when_asked() {
    let steps = steps("text-hugenum");
    let listings: Vec<&Step> = steps
        .iter()
        .filter(|step| step.op == "ipvsadm" && step.args[0] == "-Ln")
        .collect();
    let mut checked = 0;
    // Each listing is followed by the same one with --exact.
    for pair in listings.chunks(2) {
        let [conns, in_packets, out_packets, in_bytes, out_bytes] = numbers(&pair[1].out);
        let mut row = service(
            of(Protocol::Udp, "10.0.0.1:53"),
            "rr",
            vec![server("192.168.1.1:53", Forward::Route, 1)],
        );
        row.stats = Counters {
            conns,
            in_packets,
            out_packets,
            in_bytes,
            out_bytes,
        };
        row.rates = Rates {
            cps: conns,
            in_pps: in_packets,
            out_pps: out_packets,
            in_bps: in_bytes,
            out_bps: out_bytes,
        };
        (row.servers[0].stats, row.servers[0].rates) = (row.stats, row.rates);
        for step in pair {
            let out = listing::services(
                std::slice::from_ref(&row),
                &list(&step.args),
                &RecordedNames,
            );
            assert_eq!(out, step.out, "ipvsadm {}", step.args.join(" "));
            checked += 1;
        }
    }
    assert_eq!(checked, 28);
}

#[test]
fn names_longer_than_the_column_are_cut_to_it_and_numbers_never() {
    struct LongNames;
    impl Names for LongNames {
        fn address(&self, _host: &str) -> Option<IpAddr> {
            None
        }
        fn host(&self, _address: IpAddr) -> Option<String> {
            Some("a-rather-long-name.of.a.server.example".to_owned())
        }
        fn port(&self, _name: &str, _protocol: &str) -> Option<u16> {
            None
        }
        fn service(&self, _port: u16, _protocol: &str) -> Option<String> {
            None
        }
    }
    let address = "[2001:db8:1111:2222:3333:4444:5555:6666]:80";
    let rows = [service(
        of(Protocol::Tcp, "10.0.0.1:80"),
        "rr",
        vec![server(address, Forward::Route, 1)],
    )];
    let last = |list: &List| {
        let out = listing::services(&rows, list, &LongNames);
        out.lines().last().unwrap().to_owned()
    };
    assert_eq!(
        last(&List::default()),
        "  -> [a-rather-long-name.of.a.ser Route   1      0          0         "
    );
    let numeric = List {
        numeric: true,
        ..List::default()
    };
    assert_eq!(
        last(&numeric),
        format!("  -> {address} Route   1      0          0         ")
    );
}

#[test]
fn the_proc_files_are_as_recorded() {
    let net = |file: &str| recorded_file("text-all", &format!("/proc/net/{file}"));
    assert_eq!(proc::services(&text_all()), net("ip_vs"));
    // Zeroed just before.
    let nothing = proc::statistics(&Counters::default(), &Rates::default());
    assert_eq!(nothing, net("ip_vs_stats"));
    assert_eq!(proc::APPLICATIONS, net("ip_vs_app"));
    let tree: String = proc::settings(&settings::list(&Settings::default()))
        .iter()
        .map(|(name, value)| format!("/proc/sys/net/ipv4/vs/{name}:{value}\n"))
        .collect();
    assert_eq!(tree, steps("text-all").last().unwrap().out);
}
