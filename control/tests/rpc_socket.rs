//! The JSON-RPC server over a real Unix socket, with a real worker on an in-memory port behind it.

#![expect(
    clippy::unwrap_used,
    reason = "in a test a panic is the way to say what went wrong"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sluice_control::config::Limits;
use sluice_control::controller::{Controller, Setup, Statics, WorkerInfo};
use sluice_control::publish;
use sluice_control::rpc::server::Hub;
use sluice_control::rpc::socket::Socket;
use sluice_dataplane::command::{PortId, WorkerId};
use sluice_dataplane::io::memory::MemoryPort;
use sluice_dataplane::steer::ring::Peers;
use sluice_dataplane::time::{TickRate, Ticks};
use sluice_dataplane::worker::{Worker, WorkerConfig, WorkerPort};

/// What the server takes at a time, of connections.
const CONNECTIONS: usize = 256;

const MAX_REQUEST: usize = 64 << 10;

/// A server on its own socket; everything ends when it is dropped.
struct Rig {
    path: PathBuf,
    /// The worker turns while this is set.
    turning: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Rig {
    fn start() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("sluice-rpc-test-{}-{count}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let limits = Limits {
            max_services: 2000,
            max_real_servers: 2000,
        };
        let (link, channels) = publish::link(Arc::new(limits.cells()));
        let config = WorkerConfig {
            id: WorkerId(0),
            rate: TickRate::NANOSECONDS,
            max_connections: 64,
            max_held: 8,
            seed: 1,
        };
        let port = WorkerPort {
            id: PortId(0),
            port: MemoryPort::default(),
            punt: None,
        };
        let mut worker = Worker::new(config, vec![port], channels, Peers::none(), Ticks(0));
        let (turning, stop) = (
            Arc::new(AtomicBool::new(true)),
            Arc::new(AtomicBool::new(false)),
        );
        let worker = thread::spawn({
            let (turning, stop) = (Arc::clone(&turning), Arc::clone(&stop));
            move || {
                let start = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    let now = Ticks(start.elapsed().as_nanos() as u64);
                    if !turning.load(Ordering::Relaxed) || !worker.poll(now) {
                        thread::sleep(Duration::from_micros(100));
                    }
                }
            }
        });
        let info = WorkerInfo {
            core: 0,
            max_connections: 64,
        };
        let controller = Controller::new(Setup {
            limits,
            workers: vec![(info, link)],
            ports: Box::new(Vec::new),
            dpdk: "none".to_owned(),
            statics: Statics::default(),
        });
        let (listener, file) = Socket::claim(&path, 0o660).unwrap().into_parts();
        let server = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let _file = file;
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime.block_on(async {
                    let hub = Hub::new(controller, MAX_REQUEST);
                    listener.set_nonblocking(true).unwrap();
                    let listener = tokio::net::UnixListener::from_std(listener).unwrap();
                    let until = async {
                        while !stop.load(Ordering::Relaxed) {
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    };
                    tokio::select! {
                        () = hub.serve(listener) => {}
                        () = hub.run(|_| {}) => {}
                        () = until => {}
                    }
                });
            }
        });
        Self {
            path,
            turning,
            stop,
            threads: vec![worker, server],
        }
    }

    fn client(&self) -> Client {
        let stream = UnixStream::connect(&self.path).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(120)))
            .unwrap();
        Client(BufReader::new(stream))
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

struct Client(BufReader<UnixStream>);

impl Client {
    fn send(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
    }

    fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.send(&request(1, method, &params));
        self.receive()
    }

    /// Nothing more comes, and the other side closes.
    fn at_end(&mut self) -> bool {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).unwrap();
        rest.is_empty()
    }
}

fn request(id: usize, method: &str, params: &Value) -> String {
    format!(
        "{}\n",
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
    )
}

fn service(n: usize) -> Value {
    json!({"service": {"protocol": "tcp", "address": format!("10.0.{}.{}:80", n / 200, n % 200 + 1)}})
}

#[test]
fn a_service_is_added_listed_and_deleted() {
    let rig = Rig::start();
    let mut client = rig.client();
    assert_eq!(
        client.call("service_add", service(1))["result"],
        json!({"revision": 1})
    );
    let server =
        json!({"service": service(1)["service"], "address": "192.168.1.1:80", "method": "nat"});
    assert_eq!(
        client.call("real_server_add", server)["result"],
        json!({"revision": 2})
    );
    let list = client.call("service_list", json!({}));
    assert_eq!(
        list["result"]["services"][0]["real_servers"][0]["method"],
        "nat"
    );
    let error = client.call("service_add", service(1));
    assert_eq!(error["error"]["code"], -32001);
    assert_eq!(error["error"]["data"]["path"], "service");
    assert_eq!(
        client.call("connection_list", json!({}))["result"]["connections"],
        json!([])
    );
    assert_eq!(
        client.call("stats", json!({}))["result"]["workers"][0]["applied"],
        2
    );
    assert_eq!(
        client.call("service_delete", service(1))["result"],
        json!({"revision": 3})
    );
}

#[test]
fn idle_clients_keep_nobody_out() {
    let rig = Rig::start();
    let mut idle: Vec<Client> = (0..CONNECTIONS).map(|_| rig.client()).collect();
    // The last one is accepted after all the others.
    idle[CONNECTIONS - 1].call("version", json!({}));
    idle[0].call("version", json!({}));
    let mut late = rig.client();
    assert!(late.call("version", json!({}))["result"].is_object());
    // The one that was silent longest has gone.
    assert!(idle[1].at_end());
    assert!(idle[0].call("version", json!({}))["result"].is_object());
}

#[test]
fn the_answers_to_a_batch_are_bounded() {
    let rig = Rig::start();
    let mut client = rig.client();
    let one = |id: usize| json!({"jsonrpc": "2.0", "method": "connection_list", "params": {"limit": 10_000}, "id": id});
    let batch: Vec<Value> = (0..9).map(one).collect();
    client.send(&json!(batch).to_string());
    let answers = client.receive();
    let answers = answers.as_array().unwrap();
    assert_eq!(answers.len(), 9);
    assert!(answers[0]["result"].is_object(), "{}", answers[0]);
    assert_eq!(answers[8]["id"], 8);
    assert_eq!(
        answers[8]["error"]["data"]["kind"], "request_too_large",
        "{}",
        answers[8]
    );
    // The connection goes on.
    assert!(client.call("version", json!({}))["result"].is_object());
}

#[test]
fn batches_notifications_and_nonsense_are_answered_as_the_specification_says() {
    let rig = Rig::start();
    let mut client = rig.client();
    let note = json!({"jsonrpc": "2.0", "method": "service_add", "params": service(1)});
    let list = json!({"jsonrpc": "2.0", "method": "service_list", "id": "x"});
    client.send(&json!([note, list, 7, {"jsonrpc": "2.0", "method": "nope", "id": 2}]).to_string());
    let answers = client.receive();
    assert_eq!(answers.as_array().unwrap().len(), 3);
    assert_eq!(answers[0]["id"], "x");
    assert_eq!(
        answers[0]["result"]["services"].as_array().unwrap().len(),
        1
    );
    assert_eq!(
        (&answers[1]["id"], &answers[1]["error"]["code"]),
        (&Value::Null, &json!(-32600))
    );
    assert_eq!(answers[2]["error"]["code"], -32601);
    // Notifications only: silence. Then an empty batch, back to back with the next message.
    client.send(&json!([note]).to_string());
    client.send("[]{\"jsonrpc\":\"2.0\",\"method\":\"version\",\"id\":3}");
    assert_eq!(client.receive()["error"]["code"], -32600);
    assert_eq!(client.receive()["id"], 3);
    client.send("hello\n");
    let error = client.receive();
    assert_eq!(
        (&error["id"], &error["error"]["code"]),
        (&Value::Null, &json!(-32700))
    );
    let error = client.call("version", json!([1]));
    assert_eq!(error["error"]["code"], -32602);
    assert!(
        error["error"]["message"]
            .as_str()
            .unwrap()
            .contains("named parameters")
    );
}

#[test]
fn a_request_over_the_bound_is_refused_once_and_the_connection_closes() {
    let rig = Rig::start();
    let mut client = rig.client();
    let long = json!({"jsonrpc": "2.0", "id": 1, "method": "x".repeat(MAX_REQUEST)});
    client.send(&long.to_string());
    assert_eq!(client.receive()["error"]["code"], -32000);
    assert!(client.at_end());
    assert_eq!(
        rig.client().call("version", json!({}))["result"]["dpdk"],
        "none"
    );
}

#[test]
fn what_was_asked_before_the_client_closed_its_side_is_answered() {
    let rig = Rig::start();
    let mut client = rig.client();
    client.send(request(1, "service_add", &service(1)).trim_end());
    client.0.get_mut().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.receive()["result"]["revision"], 1);
    assert!(client.at_end());
}

#[test]
fn a_thousand_changes_of_many_clients_do_not_wait_for_each_other() {
    let rig = Rig::start();
    let start = Instant::now();
    thread::scope(|scope| {
        for client in 0..10 {
            let rig = &rig;
            scope.spawn(move || {
                let mut connection = rig.client();
                for i in 0..100 {
                    connection.send(&request(i, "service_add", &service(client * 100 + i)));
                }
                for i in 0..100 {
                    let answer = connection.receive();
                    assert_eq!(answer["id"], i);
                    assert!(answer["result"]["revision"].is_u64(), "{answer}");
                }
            });
        }
    });
    let took = start.elapsed();
    let list = rig.client().call("service_list", json!({}));
    assert_eq!(list["result"]["services"].as_array().unwrap().len(), 1000);
    assert_eq!(list["result"]["revision"], 1000);
    assert!(took < Duration::from_secs(20), "1000 changes took {took:?}");
}

#[test]
fn a_worker_that_stands_still_is_told_of_and_catches_up() {
    let rig = Rig::start();
    let mut client = rig.client();
    rig.turning.store(false, Ordering::Relaxed);
    let start = Instant::now();
    let error = client.call("service_add", service(1));
    assert_eq!(error["error"]["code"], -32011);
    assert_eq!(error["error"]["data"]["workers"], json!([0]));
    assert_eq!(error["error"]["data"]["revision"], 1);
    assert!(start.elapsed() >= Duration::from_secs(2));
    rig.turning.store(true, Ordering::Relaxed);
    while client.call("stats", json!({}))["result"]["workers"][0]["applied"] != 1 {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(
        client.call("service_add", service(2))["result"],
        json!({"revision": 2})
    );
}
