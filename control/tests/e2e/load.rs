//! Many connections at once, datagrams, and change under load.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::rig::{LADDR, Rig, Service, eventually};
use crate::traffic::{Failure, Server, connect, http_get, udp_to};

#[test]
fn a_thousand_connections_are_open_at_once() {
    const THREADS: usize = 20;
    const EACH: usize = 50;
    // Both ends of each are ours.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit is known");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("up to the maximum");

    let mut rig = Rig::two_arms(2);
    let service = rig.service("tcp", 7, "rr");
    rig.real_server(&service, "192.168.1.1:7", "nat");
    rig.real_server(&service, "192.168.1.2:7", "nat");
    let servers = [
        Server::tcp_echo(&rig.servers[0], "192.168.1.1:7"),
        Server::tcp_echo(&rig.servers[1], "192.168.1.2:7"),
    ];
    let to = service.address();

    let connecting: Vec<_> = (0..THREADS)
        .map(|_| {
            rig.client.spawn(move || {
                (0..EACH)
                    .map(|_| connect(to))
                    .collect::<io::Result<Vec<_>>>()
            })
        })
        .collect();
    let mut streams: Vec<TcpStream> = Vec::new();
    for thread in connecting {
        streams.extend(
            thread
                .join()
                .expect("no panic")
                .expect("every connection opens"),
        );
    }
    for (n, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&n.to_be_bytes()).expect("send");
    }
    for (n, stream) in streams.iter_mut().enumerate() {
        let mut echo = [0; size_of::<usize>()];
        stream.read_exact(&mut echo).expect("echo");
        assert_eq!(
            usize::from_be_bytes(echo),
            n,
            "an echo from another connection"
        );
    }

    // All of them at this very moment, page by page.
    let filter = json!({"protocol": "tcp", "virtual_port": 7, "limit": 300});
    let connections = rig.rpc.connections(filter);
    let established = |conn: &Value| conn["state"] == "ESTABLISHED";
    assert!(connections.iter().all(established), "{connections:?}");
    let mut clients: Vec<_> = connections
        .iter()
        .map(|conn| conn["client"].to_string())
        .collect();
    clients.sort();
    clients.dedup();
    assert_eq!(clients.len(), THREADS * EACH);
    assert!(
        servers
            .iter()
            .all(|server| server.peers().len() == THREADS * EACH / 2)
    );
    drop(streams);
    eventually("none is active any more", || {
        active(&mut rig, &service) == [0, 0]
    });
    rig.close();
}

#[test]
fn datagrams_are_echoed_by_nat() {
    let mut rig = Rig::two_arms(2);
    let service = rig.service("udp", 7, "rr");
    echo(&mut rig, &service, "nat");
    rig.close();
}

#[test]
fn datagrams_are_echoed_by_fullnat() {
    let mut rig = Rig::two_arms(2);
    let service = rig.service("udp", 7, "rr");
    rig.laddr(&service, LADDR);
    echo(&mut rig, &service, "fullnat");
    rig.close();
}

fn echo(rig: &mut Rig, service: &Service, method: &str) {
    rig.real_server(service, "192.168.1.1:7", method);
    rig.real_server(service, "192.168.1.2:7", method);
    let servers = [
        Server::udp_echo(&rig.servers[0], "192.168.1.1:7"),
        Server::udp_echo(&rig.servers[1], "192.168.1.2:7"),
    ];
    let to = service.address();
    let asked_again = rig.client.run(|| {
        let mut again = 0;
        for _ in 0..10 {
            let socket = udp_to(to).expect("socket");
            // From nothing to all that an Ethernet frame holds.
            for len in [0, 1, 2, 511, 1471, 1472] {
                let sent: Vec<u8> = (0..len).map(|n| n as u8).collect();
                again += ask(&socket, &sent);
            }
        }
        again
    });
    // Kernels may lose datagrams on a busy machine, and then clients ask again; sluice may not.
    let losses = rig.losses();
    assert!(losses.is_empty(), "{losses:?}, asked again {asked_again}");
    for server in servers {
        let mut peers = server.peers();
        assert!((30..=30 + asked_again).contains(&peers.len()), "{peers:?}");
        peers.sort();
        peers.dedup();
        assert_eq!(peers.len(), 5, "a flow stays with its server: {peers:?}");
    }
}

/// A client sends a datagram again when no answer comes for so long.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Sends a datagram until it comes back, and says how many times it took more than one. Each size is used once on a socket: an
/// echo of another size is a late one.
fn ask(socket: &UdpSocket, sent: &[u8]) -> usize {
    let mut got = vec![0; 2000];
    socket.set_read_timeout(Some(ASK_AGAIN)).expect("not zero");
    for again in 0..60 {
        socket.send(sent).expect("send");
        let deadline = Instant::now() + ASK_AGAIN;
        while Instant::now() < deadline {
            match socket.recv(&mut got) {
                Ok(len) if len == sent.len() => {
                    assert_eq!(got[..len], *sent);
                    return again;
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
    }
    panic!("{} bytes never came back", sent.len());
}

#[test]
fn a_server_comes_and_goes_under_load_and_no_other_notices() {
    const CLIENTS: usize = 4;
    let mut rig = Rig::two_arms(2);
    let service = rig.service("tcp", 80, "rr");
    rig.real_server(&service, "192.168.1.1:80", "nat");
    let servers = [
        Server::http(&rig.servers[0], "192.168.1.1:80", "rs1"),
        Server::http(&rig.servers[1], "192.168.1.2:80", "rs2"),
    ];
    let load = Load::default();
    let to = service.address();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| rig.client.run(|| load.run(to)));
        }
        // Stops the load when this closure ends, also by panic: the scope waits for it.
        let _stop = StopOnDrop(&load.stop);
        let mut rpc = rig.daemon.rpc();
        let second = json!({"service": service.0, "address": "192.168.1.2:80"});
        let with = |key: &str, value: Value| {
            let mut params = second.clone();
            params[key] = value;
            params
        };
        for _ in 0..3 {
            load.more_answers("rs1", 50);
            rpc.call("real_server_add", with("method", json!("nat")));
            load.more_answers("rs2", 50);
            // The polite way: no new connections, then none at all.
            rpc.call("real_server_set", with("weight", json!(0)));
            eventually("rs2 is drained", || {
                let listed = rpc.call("real_server_list", json!({"service": service.0}));
                let servers = listed["real_servers"].as_array().expect("a list");
                let busy = |s: &&Value| {
                    s["real_server"]["address"] == "192.168.1.2:80"
                        && s["real_server"]["active"] != 0
                };
                servers.iter().find(busy).is_none()
            });
            load.more_answers("rs1", 50);
            load.none_failed();
            rpc.call("real_server_delete", second.clone());
        }
        load.more_answers("rs1", 50);
        load.none_failed();

        // The rude way: it goes while it serves. Its own connections may die with it, nobody else's.
        rpc.call("real_server_add", with("method", json!("nat")));
        load.more_answers("rs2", 50);
        rpc.call("real_server_delete", second);
        load.more_answers("rs1", 200);
    });
    let failures = load.failures.into_inner().unwrap();
    for failure in &failures {
        assert!(
            !servers[0].saw(failure.port, failure.begun),
            "belongs to rs1: {failure:?}"
        );
    }
    // At most what was under way when rs2 went.
    assert!(failures.len() <= CLIENTS, "{failures:?}");
    rig.close();
}

/// Requests without a pause, and what became of them.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    answers: Mutex<Vec<String>>,
    failures: Mutex<Vec<Failure>>,
}

impl Load {
    fn run(&self, to: SocketAddr) {
        while !self.stop.load(Ordering::Relaxed) {
            match http_get(to) {
                Ok(body) => self.answers.lock().unwrap().push(body),
                Err(err) => self.failures.lock().unwrap().push(err),
            }
        }
    }

    /// Waits for `count` further answers by `server`.
    fn more_answers(&self, server: &str, count: usize) {
        let have = || {
            self.answers
                .lock()
                .unwrap()
                .iter()
                .filter(|answer| *answer == server)
                .count()
        };
        let before = have();
        eventually(&format!("{count} more answers by {server}"), || {
            have() >= before + count
        });
    }

    fn none_failed(&self) {
        let failures = self.failures.lock().unwrap();
        assert!(failures.is_empty(), "{failures:?}");
    }
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn active(rig: &mut Rig, service: &Service) -> Vec<u64> {
    let listed = rig.listed(service);
    let servers = listed["real_servers"].as_array().expect("a list");
    servers
        .iter()
        .map(|server| server["active"].as_u64().expect("a count"))
        .collect()
}
