use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};
use sluice_dataplane::service::{Tunnel, TunnelChecksum};

use super::*;
use crate::api::{LaddrRef, RealServerAdd, RealServerRef, RealServerSet, ServiceAdd, ServiceOnly};

/// A configuration driven as the controller drives it, with workers that are always up to date.
struct Driver {
    config: Config,
    revision: u64,
    applied: u64,
}

impl Driver {
    fn new(limits: Limits) -> Self {
        Self {
            config: Config::new(limits),
            revision: 0,
            applied: 0,
        }
    }

    fn small() -> Self {
        Self::new(Limits {
            max_services: 8,
            max_real_servers: 4,
        })
    }

    fn apply(&mut self, change: &Change) -> Result<Step, ApiError> {
        let at = At {
            revision: self.revision + 1,
            applied: self.applied,
        };
        let step = self.config.apply(change, at)?;
        self.revision += 1;
        self.applied = self.revision;
        self.config = step.config.clone();
        Ok(step)
    }

    fn ok(&mut self, change: Change) -> Step {
        self.apply(&change).unwrap()
    }

    fn refused(&mut self, change: Change) -> ApiError {
        let before = format!("{:?}", self.config);
        let error = self.apply(&change).unwrap_err();
        assert_eq!(
            before,
            format!("{:?}", self.config),
            "a refusal changed something"
        );
        error
    }

    fn servers(&self, service: &str) -> Vec<String> {
        let spec = self.config.service(&tcp(service)).unwrap();
        spec.real_servers
            .iter()
            .map(|server| words::server_address(server).to_string())
            .collect()
    }
}

fn tcp(address: &str) -> ServiceRef {
    ServiceRef::Address {
        protocol: crate::api::Protocol::Tcp,
        address: address.parse().unwrap(),
    }
}

fn add_service(address: &str) -> Change {
    Change::ServiceAdd(ServiceAdd::new(tcp(address), "rr"))
}

fn delete_service(address: &str) -> Change {
    Change::ServiceDelete(ServiceOnly {
        service: tcp(address),
    })
}

/// `real_server_add`, with more parameters in `more`.
fn add(service: &str, address: &str, more: Value) -> Change {
    let mut params = json!({"service": tcp(service), "address": address});
    let object = params.as_object_mut().unwrap();
    object.extend(more.as_object().unwrap().clone());
    Change::RealServerAdd(serde_json::from_value::<RealServerAdd>(params).unwrap())
}

fn set(service: &str, address: &str, more: Value) -> Change {
    let mut params = json!({"service": tcp(service), "address": address});
    let object = params.as_object_mut().unwrap();
    object.extend(more.as_object().unwrap().clone());
    Change::RealServerSet(serde_json::from_value::<RealServerSet>(params).unwrap())
}

fn delete(service: &str, address: &str) -> Change {
    Change::RealServerDelete(RealServerRef {
        service: tcp(service),
        address: address.parse().unwrap(),
    })
}

fn laddr(service: &str, address: &str) -> LaddrRef {
    LaddrRef {
        service: tcp(service),
        address: address.parse().unwrap(),
    }
}

fn added(step: &Step) -> (RsId, bool) {
    match &step.commands[..] {
        [
            Command::PutService {
                edit: ServiceEdit::ServerAdded { id, revived },
                ..
            },
        ] => (*id, *revived),
        other => panic!("expected one added server, not {other:?}"),
    }
}

const WEB: &str = "10.0.0.1:80";
const RS1: &str = "192.168.1.1:80";
const RS2: &str = "192.168.1.2:80";

#[test]
fn real_servers_stand_in_kernel_order_and_an_edit_moves_none() {
    let mut driver = Driver::small();
    driver.ok(add_service(WEB));
    for server in [RS1, RS2, "192.168.1.3:80"] {
        driver.ok(add(WEB, server, json!({"method": "nat"})));
    }
    driver.ok(set(WEB, RS1, json!({"weight": 9})));
    assert_eq!(driver.servers(WEB), ["192.168.1.3:80", RS2, RS1]);
    driver.ok(delete(WEB, RS1));
    driver.ok(add(WEB, RS1, json!({"method": "nat"})));
    assert_eq!(driver.servers(WEB), [RS1, "192.168.1.3:80", RS2]);
}

#[test]
fn an_edit_changes_what_was_given_and_nothing_else() {
    let mut driver = Driver::small();
    driver.ok(add_service(WEB));
    let first = json!({"method": "nat", "weight": 3, "upper_threshold": 8, "lower_threshold": 2});
    driver.ok(add(WEB, RS1, first));
    driver.ok(set(WEB, RS1, json!({"weight": 0})));
    let server = driver.config.service(&tcp(WEB)).unwrap().real_servers[0];
    assert_eq!(
        (
            server.weight,
            server.upper_threshold,
            server.lower_threshold
        ),
        (0, 8, 2)
    );
    let error = driver.refused(set(WEB, RS1, json!({"upper_threshold": 1})));
    assert_eq!(error.kind(), ErrorKind::OutOfRange);
}

#[test]
fn dr_and_tun_keep_the_services_port() {
    let mut driver = Driver::small();
    driver.ok(add_service(WEB));
    driver.ok(add(WEB, "192.168.1.1:8080", json!({"method": "dr"})));
    driver.ok(add(WEB, "192.168.1.2:8080", json!({"method": "tun"})));
    driver.ok(add(WEB, "192.168.1.3:8080", json!({"method": "nat"})));
    assert_eq!(driver.servers(WEB), ["192.168.1.3:8080", RS2, RS1]);
    assert_eq!(
        driver
            .refused(add(WEB, "192.168.1.1:81", json!({"method": "dr"})))
            .kind(),
        ErrorKind::ServerExists
    );
    let error = driver.refused(delete(WEB, "192.168.1.1:8080"));
    assert!(
        error
            .message
            .ends_with("has no real server 192.168.1.1:8080, but 192.168.1.1:80"),
        "{error}"
    );
    assert_eq!(
        driver
            .refused(set(WEB, "192.168.1.3:8080", json!({"method": "tun"})))
            .kind(),
        ErrorKind::InvalidParams
    );
}

#[test]
fn a_deleted_server_that_returns_is_the_same_one() {
    let mut driver = Driver::small();
    driver.ok(add_service(WEB));
    let step = driver.ok(add(WEB, RS1, json!({})));
    let (first, revived) = added(&step);
    assert!(!revived);
    assert!(step.fresh.contains(&Fresh::Server(first)));
    driver.ok(delete(WEB, RS1));
    let (other, _) = added(&driver.ok(add(WEB, RS2, json!({}))));
    assert_ne!(other.index, first.index, "the trash holds the place");
    let step = driver.ok(add(WEB, RS1, json!({})));
    assert_eq!(added(&step), (first, true));
    assert_eq!(step.fresh, [], "its statistics go on");
}

#[test]
fn a_server_survives_its_services_deletion_but_its_statistics_do_not() {
    let mut driver = Driver::small();
    driver.ok(add_service(WEB));
    let (first, _) = added(&driver.ok(add(WEB, RS1, json!({}))));
    driver.ok(delete_service(WEB));
    assert_eq!(driver.config.trash_len(), 1);
    driver.ok(add_service(WEB));
    let step = driver.ok(add(WEB, RS1, json!({})));
    assert_eq!(added(&step), (first, true));
    assert_eq!(step.fresh, [Fresh::Server(first)]);
    // Another service of the same address knows nothing of it.
    driver.ok(delete(WEB, RS1));
    driver.ok(add_service("10.0.0.1:81"));
    assert!(!added(&driver.ok(add("10.0.0.1:81", RS1, json!({"method": "nat"})))).1);
}

#[test]
fn the_trash_is_emptied_when_idle_for_two_minutes() {
    let seconds = Duration::from_secs;
    let mut driver = Driver::small();
    driver.ok(add_service(WEB));
    let (first, _) = added(&driver.ok(add(WEB, RS1, json!({}))));
    driver.ok(delete(WEB, RS1));
    let (config, applied) = (&mut driver.config, driver.applied);
    assert_eq!(config.collect_trash(seconds(60), applied, |_| true), 0);
    assert_eq!(
        config.collect_trash(seconds(120), applied - 1, |_| false),
        0
    );
    assert_eq!(config.collect_trash(seconds(180), applied, |_| false), 0);
    assert_eq!(
        config.collect_trash(seconds(240), applied, |id| id == first),
        0
    );
    assert_eq!(config.collect_trash(seconds(300), applied, |_| false), 0);
    assert_eq!(config.collect_trash(seconds(360), applied, |_| false), 0);
    assert_eq!(config.collect_trash(seconds(420), applied, |_| false), 1);
    let (again, revived) = added(&driver.ok(add(WEB, RS1, json!({}))));
    assert!(!revived);
    assert_eq!(again.index, first.index);
    assert_eq!(again.generation, first.generation + 1);
}

#[test]
fn fullnat_and_its_local_addresses_need_each_other() {
    let mut driver = Driver::small();
    driver.ok(add_service(WEB));
    let fullnat = add(WEB, RS1, json!({"method": "fullnat"}));
    let error = driver.refused(fullnat.clone());
    assert_eq!(error.kind(), ErrorKind::NeedsLaddr);
    assert!(error.message.contains("laddr_add"));
    driver.ok(add(WEB, RS2, json!({"method": "nat"})));
    assert_eq!(
        driver
            .refused(set(WEB, RS2, json!({"method": "fullnat"})))
            .kind(),
        ErrorKind::NeedsLaddr
    );
    driver.ok(Change::LaddrAdd(laddr(WEB, "10.1.0.1")));
    driver.ok(fullnat);
    assert_eq!(
        driver
            .refused(Change::LaddrAdd(laddr(WEB, "10.1.0.1")))
            .kind(),
        ErrorKind::LaddrExists
    );
    assert_eq!(
        driver
            .refused(Change::LaddrAdd(laddr(WEB, "224.0.0.1")))
            .kind(),
        ErrorKind::InvalidParams
    );
    assert_eq!(
        driver
            .refused(Change::LaddrDelete(laddr(WEB, "10.1.0.9")))
            .kind(),
        ErrorKind::NoSuchLaddr
    );
    assert_eq!(
        driver
            .refused(Change::LaddrDelete(laddr(WEB, "10.1.0.1")))
            .kind(),
        ErrorKind::NeedsLaddr
    );
    driver.ok(Change::LaddrAdd(laddr(WEB, "10.1.0.2")));
    driver.ok(Change::LaddrDelete(laddr(WEB, "10.1.0.1")));
    driver.ok(delete(WEB, RS1));
    driver.ok(Change::LaddrDelete(laddr(WEB, "10.1.0.2")));
}

#[test]
fn refusals_name_their_kind_and_their_parameter() {
    let mut driver = Driver::small();
    driver.ok(add_service(WEB));
    driver.ok(add(WEB, RS1, json!({})));
    let v6 = "[2001:db8::1]:80";
    driver.ok(add_service(v6));
    let unknown = Change::ServiceAdd(ServiceAdd::new(tcp("10.0.0.2:80"), "best"));
    let cases = [
        (add_service(WEB), ErrorKind::ServiceExists, "service"),
        (
            add_service("10.0.0.1:0"),
            ErrorKind::OutOfRange,
            "service.address",
        ),
        (
            add_service("239.0.0.1:80"),
            ErrorKind::InvalidParams,
            "service.address",
        ),
        (unknown, ErrorKind::NoSuchScheduler, "scheduler"),
        (
            delete_service("10.0.0.9:80"),
            ErrorKind::NoSuchService,
            "service",
        ),
        (
            add("10.0.0.9:80", RS1, json!({})),
            ErrorKind::NoSuchService,
            "service",
        ),
        (add(WEB, RS1, json!({})), ErrorKind::ServerExists, "address"),
        (add(WEB, v6, json!({})), ErrorKind::InvalidParams, "address"),
        (
            add(WEB, "255.255.255.255:80", json!({})),
            ErrorKind::InvalidParams,
            "address",
        ),
        (
            add(WEB, RS2, json!({"weight": u32::MAX})),
            ErrorKind::OutOfRange,
            "weight",
        ),
        (set(WEB, RS2, json!({})), ErrorKind::NoSuchServer, "address"),
        (delete(WEB, RS2), ErrorKind::NoSuchServer, "address"),
    ];
    for (change, kind, path) in cases {
        let error = driver.refused(change.clone());
        assert_eq!(error.kind(), kind, "{change}");
        assert_eq!(error.data.path.as_deref(), Some(path), "{change}");
    }
}

#[test]
fn tunnels_belong_to_tun_and_reach_the_other_address_family() {
    let mut driver = Driver::small();
    driver.ok(add_service(WEB));
    let gue = json!({"type": "gue", "port": 6080, "checksum": "full"});
    driver.ok(add(WEB, RS1, json!({"method": "tun", "tunnel": gue})));
    let stored = |driver: &Driver| driver.config.service(&tcp(WEB)).unwrap().real_servers[0].tunnel;
    let expected = Tunnel::Gue {
        port: 6080,
        checksum: TunnelChecksum::Full,
    };
    assert_eq!(stored(&driver), expected);
    driver.ok(set(WEB, RS1, json!({"weight": 5})));
    assert_eq!(stored(&driver), expected);
    driver.ok(set(WEB, RS1, json!({"method": "dr"})));
    assert_eq!(stored(&driver), Tunnel::Ipip);

    let v6 = "[2001:db8::2]:80";
    driver.ok(add(WEB, v6, json!({"method": "tun"})));
    let cases = [
        (set(WEB, RS1, json!({"tunnel": gue})), "tunnel"),
        (set(WEB, v6, json!({"method": "nat"})), "address"),
        (
            add(
                WEB,
                RS2,
                json!({"method": "tun", "tunnel": {"type": "gre", "checksum": "remote"}}),
            ),
            "tunnel",
        ),
        (
            add(
                WEB,
                RS2,
                json!({"method": "tun", "tunnel": {"type": "gue", "port": 0}}),
            ),
            "tunnel",
        ),
    ];
    for (change, path) in cases {
        let error = driver.refused(change);
        assert_eq!(error.kind(), ErrorKind::InvalidParams);
        assert_eq!(error.data.path.as_deref(), Some(path));
    }
}

#[test]
fn the_configured_maxima_hold() {
    let mut driver = Driver::new(Limits {
        max_services: 2,
        max_real_servers: 2,
    });
    driver.ok(add_service(WEB));
    driver.ok(add_service("10.0.0.2:80"));
    assert_eq!(
        driver.refused(add_service("10.0.0.3:80")).kind(),
        ErrorKind::Full
    );
    driver.ok(add(WEB, RS1, json!({})));
    driver.ok(add(WEB, RS2, json!({})));
    assert_eq!(
        driver.refused(add(WEB, "192.168.1.3:80", json!({}))).kind(),
        ErrorKind::Full
    );
    // Two more may be in the trash; then its places are short, but a server that is in there may return.
    driver.ok(delete(WEB, RS1));
    driver.ok(delete(WEB, RS2));
    driver.ok(add(WEB, "192.168.1.3:80", json!({})));
    driver.ok(add(WEB, "192.168.1.4:80", json!({})));
    driver.ok(delete(WEB, "192.168.1.4:80"));
    let error = driver.refused(add(WEB, "192.168.1.5:80", json!({})));
    assert!(error.message.contains("deleted"), "{error}");
    driver.ok(add(WEB, RS1, json!({})));
}

#[test]
fn services_follow_the_addresses_of_the_machine() {
    let mut driver = Driver::small();
    driver.ok(add_service(WEB));
    driver.ok(add_service("10.0.0.2:80"));
    let local = |address: &str| HashSet::from([address.parse::<IpAddr>().unwrap()]);
    let step = driver.config.with_local_addresses(local("10.0.0.2"));
    let [
        Command::PutService {
            service,
            edit: ServiceEdit::Edited,
        },
    ] = &step.commands[..]
    else {
        panic!("one service changes, not {:?}", step.commands);
    };
    assert!(service.vip_local);
    assert_eq!(service.key, words::service_key(&tcp("10.0.0.2:80")));
    driver.config = step.config;
    assert_eq!(
        driver
            .config
            .with_local_addresses(local("10.0.0.2"))
            .commands
            .len(),
        0
    );
    assert_eq!(
        driver
            .config
            .with_local_addresses(local("10.0.0.1"))
            .commands
            .len(),
        2
    );
    driver.ok(delete_service("10.0.0.2:80"));
    driver.ok(add_service("10.0.0.2:81"));
    assert!(
        driver
            .config
            .service(&tcp("10.0.0.2:81"))
            .unwrap()
            .vip_local
    );
}

#[test]
fn one_change_among_ten_thousand_services_shares_all_the_others() {
    let mut driver = Driver::new(Limits::default());
    let name = |i: u32| format!("10.{}.{}.1:80", i / 250, i % 250);
    for i in 0..10_000 {
        driver.ok(add_service(&name(i)));
    }
    let before: Vec<_> = driver.config.services().cloned().collect();
    let start = Instant::now();
    for i in 0..1000 {
        let step = driver.ok(add(&name(i), RS1, json!({})));
        assert_eq!(step.commands.len(), 1);
    }
    let took = start.elapsed();
    let shared = before
        .iter()
        .zip(driver.config.services())
        .filter(|(a, b)| Arc::ptr_eq(a, b))
        .count();
    assert_eq!(shared, 9000);
    assert!(took < Duration::from_secs(20), "1000 changes took {took:?}");
}

proptest! {
    /// Whatever is asked in whatever order: no two living or remembered servers share a place, and counts hold.
    #[test]
    fn places_are_never_shared(steps in prop::collection::vec((0u8..5, 0u8..3, 0u8..4), 1..200)) {
        let mut driver = Driver::small();
        for (i, (what, service, server)) in steps.into_iter().enumerate() {
            let service = format!("10.0.0.{}:80", service + 1);
            let server = format!("192.168.1.{}:80", server + 1);
            let change = match what {
                0 => add_service(&service),
                1 => delete_service(&service),
                2 | 3 => add(&service, &server, json!({})),
                _ => delete(&service, &server),
            };
            let _ = driver.apply(&change);
            if i % 7 == 0 {
                let now = Duration::from_secs(60 * i as u64);
                let applied = driver.applied;
                driver.config.collect_trash(now, applied, |id| id.index % 2 == 0);
            }
            let living = driver.config.services().flat_map(|s| &s.real_servers).map(|rs| rs.id.index);
            let mut places: Vec<u32> = living.chain(driver.config.trash.values().map(|t| t.id.index)).collect();
            let living = driver.config.services().map(|s| s.real_servers.len()).sum::<usize>();
            prop_assert_eq!(living, driver.config.server_count as usize);
            places.sort_unstable();
            let all = places.len();
            places.dedup();
            prop_assert_eq!(places.len(), all);
        }
    }
}
