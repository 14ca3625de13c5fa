//! Every method once, by hand, against a running daemon; and what the socket makes of bad input.

use serde_json::{Value, json};

use crate::daemon::Rpc;
use crate::rig::{LADDR, Rig, VIP, eventually};
use crate::traffic::{Server, http_get};

#[test]
fn every_method_answers() {
    let rig = Rig::two_arms(1);
    let _server = Server::http(&rig.servers[0], "192.168.1.1:8080", "rs1");
    let web = json!({"protocol": "tcp", "address": format!("{VIP}:80")});
    let first = json!({"service": web, "address": "192.168.1.1:8080"});
    let laddr = json!({"service": web, "address": LADDR});
    let mut called = Called {
        rpc: rig.daemon.rpc(),
        methods: Vec::new(),
    };

    let version = called.call("version", json!({}));
    assert_eq!(version["sluice"], env!("CARGO_PKG_VERSION"));
    let dpdk = version["dpdk"].as_str().expect("text");
    assert!(dpdk.starts_with(|c: char| c.is_ascii_digit()), "{version}");

    let at = called.revision("service_add", json!({"service": web, "scheduler": "rr"}));
    let next = called.revision("service_set", json!({"service": web, "scheduler": "wrr"}));
    // The kernel's changes count, too, whenever they come.
    assert!(next > at);
    assert!(called.revision("laddr_add", laddr.clone()) > next);
    assert_eq!(
        called.call("laddr_list", json!({"service": web}))["laddrs"],
        json!([laddr])
    );
    let mut added = first.clone();
    added["method"] = json!("fullnat");
    added["weight"] = json!(3);
    called.revision("real_server_add", added);
    let mut set = first.clone();
    set["weight"] = json!(5);
    called.revision("real_server_set", set);

    let listed = called.call("service_list", json!({}));
    let service = &listed["services"][0];
    assert_eq!(service["service"], web);
    assert_eq!(service["scheduler"], "wrr");
    assert_eq!(service["laddrs"], json!([LADDR]));
    let server = &called.call("real_server_list", json!({"service": web}))["real_servers"][0];
    assert_eq!(server["service"], web);
    assert_eq!(server["real_server"]["weight"], 5);
    assert_eq!(server["real_server"]["method"], "fullnat");
    assert_eq!(server["real_server"]["address"], "192.168.1.1:8080");

    let to = format!("{VIP}:80").parse().expect("an address");
    eventually("the service serves", || {
        rig.client.run(|| http_get(to)).is_ok()
    });

    called.methods.push("connection_list".to_owned());
    let connections = called.rpc.connections(json!({"client": "10.0.0.100"}));
    let connection = &connections[0];
    assert_eq!(connection["virtual"], format!("{VIP}:80"));
    assert_eq!(connection["server"], "192.168.1.1:8080");
    assert!(
        connection["local"]
            .as_str()
            .expect("FULLNAT")
            .starts_with(LADDR)
    );
    assert_eq!(connection["method"], "fullnat");
    let nobody = called.rpc.connections(json!({"client": "10.0.0.101"}));
    assert!(nobody.is_empty(), "{nobody:?}");

    eventually("statistics are published", || {
        called.call("stats", json!({}))["totals"]["conns"].as_u64() >= Some(1)
    });
    // The client may still be closing, but nobody connects.
    called.revision("service_zero", json!({}));
    let stats = called.call("stats", json!({}));
    assert_eq!(stats["totals"]["conns"], 0);
    assert_eq!(stats["ports"][0]["name"], "client");
    assert_eq!(stats["ports"][1]["exception"], "ex1");
    let drops = called.call("drops", json!({}));
    assert!(
        drops["drops"].as_array().expect("a list").len() > 5,
        "{drops}"
    );

    called.revision("service_zero", json!({"service": web}));
    let listed = called.call("service_list", json!({}));
    assert_eq!(listed["services"][0]["stats"]["conns"], 0);

    let rule = json!({"destination": "10.9.0.0/16", "protocol": "tcp", "destination_ports": "80-89", "port": "client", "mark": 5});
    called.revision("mark_rule_add", json!({"rule": rule}));
    let exempt = json!({"source": "10.0.0.0/24", "mark": 0});
    called.revision("mark_rule_insert", json!({"rule": exempt}));
    let rules = called.call("mark_rule_list", json!({}));
    assert_eq!(rules["rules"], json!([exempt, rule]));
    called.revision("mark_rule_delete", json!({"position": 1}));
    let marked = json!({"fwmark": 5});
    called.revision(
        "service_add",
        json!({"service": marked, "scheduler": "sh", "persistence_s": 60, "persistence_mask": "255.255.255.0"}),
    );
    let listed = called.call("service_list", json!({"service": marked}));
    assert_eq!(listed["services"][0]["persistence_mask"], "255.255.255.0");
    called.revision("service_delete", json!({"service": marked}));

    called.revision("setting_set", json!({"settings": {"timeout_udp": 250}}));
    let settings = called.call("setting_list", json!({}));
    let udp = settings["settings"].as_array().expect("a list").iter();
    let mut udp = udp.filter(|setting| setting["name"] == "timeout_udp");
    assert_eq!(udp.next().expect("it is listed")["value"], 250);

    let master = json!({"role": "master", "interface": "ex1", "syncid": 9});
    called.revision("sync_daemon_start", master);
    let daemons = called.call("sync_daemon_list", json!({}))["daemons"].clone();
    assert_eq!(
        (&daemons[0]["syncid"], &daemons[0]["interface"]),
        (&json!(9), &json!("ex1"))
    );
    called.revision("sync_daemon_stop", json!({"role": "master"}));

    let table = called.call("rss_table_list", json!({}));
    assert_eq!(table["owners"][0], 0);
    called.revision("rss_table_set", json!({"reset": true}));

    called.revision("real_server_delete", first);
    called.revision("laddr_delete", laddr);
    called.revision("service_delete", json!({"service": web}));
    assert_eq!(
        called.call("service_list", json!({}))["services"],
        json!([])
    );

    // None was forgotten.
    let methods = called.call("rpc_methods", json!({}));
    for method in methods["methods"].as_array().expect("a list") {
        let name = method["name"].as_str().expect("a name");
        assert!(
            called.methods.iter().any(|called| called == name),
            "{name} was not called"
        );
        assert!(!method["description"].as_str().expect("text").is_empty());
    }
    rig.close();
}

#[test]
fn bad_requests_are_refused_with_reasons() {
    let mut rig = Rig::two_arms(1);
    let web = json!({"protocol": "tcp", "address": format!("{VIP}:80")});
    let other = json!({"protocol": "tcp", "address": format!("{VIP}:81")});
    rig.rpc.call("service_add", json!({"service": web}));
    let before = rig.rpc.call("service_list", json!({}));

    let server = |address: &str| json!({"service": web, "address": address, "method": "nat"});
    let cases = [
        (
            "service_add",
            json!({"service": web}),
            "service_exists",
            "service",
        ),
        (
            "service_add",
            json!({"service": other, "scheduler": "best"}),
            "no_such_scheduler",
            "scheduler",
        ),
        (
            "service_add",
            json!({"service": other, "colour": "red"}),
            "invalid_params",
            "colour",
        ),
        (
            "service_add",
            json!({"service": {"protocol": "tcp", "address": "10.0.0.1"}}),
            "invalid_params",
            "service.address",
        ),
        (
            "service_add",
            json!({"service": {"protocol": "tcp", "address": "224.0.0.1:80"}}),
            "invalid_params",
            "service.address",
        ),
        (
            "service_add",
            json!({"service": {"protocol": "tcp", "address": "255.255.255.255:80"}}),
            "invalid_params",
            "service.address",
        ),
        ("service_add", json!([web]), "invalid_params", ""),
        (
            "service_set",
            json!({"service": other}),
            "no_such_service",
            "service",
        ),
        (
            "service_delete",
            json!({"service": other}),
            "no_such_service",
            "service",
        ),
        (
            "real_server_add",
            json!({"service": other, "address": "192.168.1.1:80"}),
            "no_such_service",
            "service",
        ),
        (
            "real_server_add",
            server("0.0.0.0:80"),
            "invalid_params",
            "address",
        ),
        (
            "real_server_add",
            server("239.1.1.1:80"),
            "invalid_params",
            "address",
        ),
        (
            "real_server_add",
            json!({"service": web, "address": "192.168.1.1:80", "method": "fullnat"}),
            "needs_laddr",
            "method",
        ),
        (
            "real_server_add",
            json!({"service": web, "address": "192.168.1.1:80", "weight": -1}),
            "invalid_params",
            "weight",
        ),
        (
            "real_server_set",
            server("192.168.1.1:80"),
            "no_such_server",
            "address",
        ),
        (
            "laddr_delete",
            json!({"service": web, "address": LADDR}),
            "no_such_laddr",
            "address",
        ),
        (
            "connection_list",
            json!({"limit": 0}),
            "out_of_range",
            "limit",
        ),
        (
            "connection_list",
            json!({"cursor": "nonsense"}),
            "invalid_params",
            "cursor",
        ),
        ("service_explode", json!({}), "method_not_found", ""),
    ];
    for (method, params, kind, path) in cases {
        let error = rig.rpc.fail(method, params.clone());
        let text = format!("{method} {params}: {error}");
        assert_eq!(error["data"]["kind"], kind, "{text}");
        if !path.is_empty() {
            assert_eq!(error["data"]["path"], path, "{text}");
        }
        assert!(error["code"].is_i64(), "{text}");
        assert!(
            error["message"]
                .as_str()
                .is_some_and(|said| said.len() > 10),
            "{text}"
        );
    }
    // Nothing of all this has changed anything.
    let after = rig.rpc.call("service_list", json!({}));
    let configured = |listed: &Value| {
        let mut services = listed["services"].clone();
        for service in services.as_array_mut().expect("a list") {
            // What the kernel says may come meanwhile.
            service["vip_local"].take();
        }
        services
    };
    assert_eq!(configured(&after), configured(&before));
    rig.close();
}

#[test]
fn the_socket_takes_lines_runs_and_batches() {
    let rig = Rig::two_arms(0);
    let mut rpc = rig.daemon.rpc();
    let version = |id: u32| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"version"}}"#);

    // Back to back, in one write and without a newline between; over lines; a piece at a time.
    rpc.send([version(1), version(2)].concat().as_bytes());
    assert_eq!(rpc.receive()["id"], 1);
    assert_eq!(rpc.receive()["id"], 2);
    rpc.send(version(3).replace(',', ",\n").as_bytes());
    rpc.send(b"\n");
    assert_eq!(rpc.receive()["id"], 3);
    for byte in version(4).bytes() {
        rpc.send(&[byte]);
    }
    assert_eq!(rpc.receive()["id"], 4);

    // A batch: an answer for each but the notification.
    let notification = r#"{"jsonrpc":"2.0","method":"version"}"#;
    rpc.send(format!("[{},{notification},{{\"id\":7}}]\n", version(5)).as_bytes());
    let batch = rpc.receive();
    assert_eq!(batch.as_array().map(Vec::len), Some(2), "{batch}");
    assert_eq!(batch[0]["id"], 5);
    assert_eq!(batch[1]["error"]["code"], -32600);
    rpc.send(b"[]\n");
    assert_eq!(rpc.receive()["error"]["code"], -32600);

    // Not JSON: said once, with a null id, and others are none the worse.
    let mut broken = rig.daemon.rpc();
    broken.send(b"{\"jsonrpc\": nonsense}\n");
    let answer = broken.receive();
    assert_eq!(answer["error"]["code"], -32700, "{answer}");
    assert_eq!(answer["id"], Value::Null);

    // More than anybody may ask.
    let mut greedy = rig.daemon.rpc();
    greedy.send(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"");
    let letters = vec![b'a'; 64 << 10];
    for _ in 0..32 {
        greedy.send(&letters);
    }
    let answer = greedy.receive();
    assert_eq!(
        answer["error"]["data"]["kind"], "request_too_large",
        "{answer}"
    );
    assert!(greedy.has_ended(), "nothing after it can be read");

    rpc.send(version(8).as_bytes());
    assert_eq!(rpc.receive()["id"], 8);
    rig.close();
}

/// Remembers what has been called.
struct Called {
    rpc: Rpc,
    methods: Vec<String>,
}

impl Called {
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.methods.push(method.to_owned());
        self.rpc.call(method, params)
    }

    /// Calls what changes something; the revision with the change in it.
    fn revision(&mut self, method: &str, params: Value) -> u64 {
        let answer = self.call(method, params);
        answer["revision"].as_u64().expect("a revision")
    }
}
