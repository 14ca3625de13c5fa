//! Servers and clients on plain kernel sockets.
//!
//! Every server here lives on threads inside a namespace and stops when dropped.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::netns::Netns;

/// How long a client waits for anything before it calls a request failed. A segment that a busy machine loses is sent again
/// after 1, 3, 7 and 15 seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How often a server looks whether it shall stop.
const GLANCE: Duration = Duration::from_millis(50);

/// Something that answers.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    peers: Arc<Peers>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// An HTTP server that answers every request with `name`, and closes.
    pub(crate) fn http(netns: &Netns, at: &str, name: &str) -> Self {
        let name = name.to_owned();
        Self::tcp(netns, at, move |stream| answer_http(stream, &name))
    }

    /// Sends back whatever comes, until the client is done.
    pub(crate) fn tcp_echo(netns: &Netns, at: &str) -> Self {
        Self::tcp(netns, at, |mut stream| {
            let mut buffer = [0; 4096];
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(()),
                    len => stream.write_all(&buffer[..len])?,
                }
            }
        })
    }

    /// Calls `serve` on a thread of its own for each connection.
    pub(crate) fn tcp(
        netns: &Netns,
        at: &str,
        serve: impl Fn(TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let at: SocketAddr = at.parse().expect("an address and a port");
        let listener = netns.run(|| listen(at)).expect("address is free");
        let serve = Arc::new(serve);
        Self::start(netns, move |stop, peers| {
            while !stop.load(Ordering::Relaxed) {
                // Without a client for a GLANCE: WouldBlock.
                let Ok((stream, peer)) = listener.accept() else {
                    continue;
                };
                peers.note(peer);
                // Inherited from the listener.
                stream.set_read_timeout(None).expect("it is open");
                let serve = Arc::clone(&serve);
                std::thread::Builder::new()
                    .stack_size(128 << 10)
                    // A client that gives up is the client's to report.
                    .spawn(move || drop(serve(stream)))
                    .expect("thread starts");
            }
        })
    }

    /// Sends every datagram back.
    pub(crate) fn udp_echo(netns: &Netns, at: &str) -> Self {
        let at: SocketAddr = at.parse().expect("an address and a port");
        let socket = netns.run(|| UdpSocket::bind(at)).expect("address is free");
        socket.set_read_timeout(Some(GLANCE)).expect("not zero");
        Self::start(netns, move |stop, peers| {
            let mut buffer = vec![0; 65536];
            while !stop.load(Ordering::Relaxed) {
                let Ok((len, peer)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                peers.note(peer);
                socket.send_to(&buffer[..len], peer).expect("route back");
            }
        })
    }

    /// Who has connected (or sent a datagram) so far, in order.
    pub(crate) fn peers(&self) -> Vec<SocketAddr> {
        let seen = self.peers.0.lock().expect("no panic while held");
        seen.iter().map(|(peer, _)| *peer).collect()
    }

    /// Whether a client with this port has connected since then. (Ports are used again, some time.)
    pub(crate) fn saw(&self, port: u16, since: Instant) -> bool {
        let seen = self.peers.0.lock().expect("no panic while held");
        let mut later = seen.iter().rev().take_while(|(_, at)| *at >= since);
        later.any(|(peer, _)| peer.port() == port)
    }

    fn start(netns: &Netns, job: impl FnOnce(&AtomicBool, &Peers) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let peers = Arc::new(Peers::default());
        let thread = {
            let (stop, peers) = (Arc::clone(&stop), Arc::clone(&peers));
            netns.spawn(move || job(&stop, &peers))
        };
        Self {
            stop,
            peers,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Everybody who has come to a server, and when.
#[derive(Default)]
struct Peers(Mutex<Vec<(SocketAddr, Instant)>>);

impl Peers {
    fn note(&self, peer: SocketAddr) {
        let mut seen = self.0.lock().expect("no panic while held");
        seen.push((peer, Instant::now()));
    }
}

/// One request on a connection of its own; the body of the answer. Call it inside the client's namespace.
pub(crate) fn http_get(server: SocketAddr) -> Result<String, Failure> {
    http_get_within(server, PATIENCE)
}

/// As [`http_get`], with another patience for each step.
pub(crate) fn http_get_within(server: SocketAddr, patience: Duration) -> Result<String, Failure> {
    let begun = Instant::now();
    let failure = |port| move |error| Failure { port, begun, error };
    let (socket, port) = client_socket(Type::STREAM, Protocol::TCP).map_err(failure(0))?;
    socket
        .connect_timeout(&server.into(), patience)
        .and_then(|()| request(socket.into(), patience))
        .map_err(failure(port))
}

/// A request that got no answer.
#[derive(Debug)]
#[expect(dead_code, reason = "`error` is there for `Debug` to show")]
pub(crate) struct Failure {
    /// The client's port.
    pub(crate) port: u16,
    /// Since when.
    pub(crate) begun: Instant,
    /// What went wrong.
    pub(crate) error: io::Error,
}

fn request(mut stream: TcpStream, patience: Duration) -> io::Result<String> {
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: vip\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.split_once("\r\n\r\n") {
        Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
        _ => Err(io::Error::other(format!("not an answer: {answer:?}"))),
    }
}

/// A TCP connection whose every step gives up after [`PATIENCE`].
pub(crate) fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let (socket, _) = client_socket(Type::STREAM, Protocol::TCP)?;
    socket.connect_timeout(&server.into(), PATIENCE)?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A UDP socket connected to `server`.
pub(crate) fn udp_to(server: SocketAddr) -> io::Result<UdpSocket> {
    let (socket, _) = client_socket(Type::DGRAM, Protocol::UDP)?;
    socket.connect(&server.into())?;
    Ok(socket.into())
}

/// Clients' ports, below those that kernels choose.
const CLIENT_PORTS: Range<u16> = 10_000..32_000;

/// A socket bound to a port that no client of this process has had for long, and the port.
///
/// A kernel may choose one that was closed a moment ago. A SYN from there belongs to the old connection where replies pass
/// us by, which then is in FIN_WAIT (`SEMANTICS.md` section 2, step 4), and goes to the old server.
fn client_socket(kind: Type, protocol: Protocol) -> io::Result<(Socket, u16)> {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    loop {
        let n = TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = CLIENT_PORTS.start + n % (CLIENT_PORTS.end - CLIENT_PORTS.start);
        let socket = Socket::new(Domain::IPV4, kind, Some(protocol))?;
        match socket.bind(&SocketAddr::from(([0, 0, 0, 0], port)).into()) {
            Ok(()) => return Ok((socket, port)),
            // Once around, and its last connection lives on.
            Err(err) if err.kind() == io::ErrorKind::AddrInUse => {}
            Err(err) => return Err(err),
        }
    }
}

/// A stream of bytes that depends on every byte before: a lost, doubled or swapped piece shows.
pub(crate) struct Pattern(u64);

impl Pattern {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next bytes; `chunk` in whole words of eight.
    pub(crate) fn fill(&mut self, chunk: &mut [u8]) {
        for word in chunk.chunks_exact_mut(8) {
            // xorshift64 (Marsaglia, 2003).
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes());
        }
    }
}

/// Bytes that [`send_pattern`] and [`expect_pattern`] handle at a time.
const CHUNK: usize = 64 << 10;

/// Writes `len` bytes of the pattern.
pub(crate) fn send_pattern(stream: &mut TcpStream, seed: u64, len: usize) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let mut chunk = vec![0; CHUNK];
    for _ in 0..len / CHUNK {
        pattern.fill(&mut chunk);
        stream.write_all(&chunk)?;
    }
    Ok(())
}

/// Reads `len` bytes and compares each with the pattern.
pub(crate) fn expect_pattern(stream: &mut TcpStream, seed: u64, len: usize) -> io::Result<()> {
    let mut pattern = Pattern::new(seed);
    let (mut got, mut wanted) = (vec![0; CHUNK], vec![0; CHUNK]);
    for n in 0..len / CHUNK {
        stream.read_exact(&mut got)?;
        pattern.fill(&mut wanted);
        if got != wanted {
            let at = n * CHUNK + got.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
            return Err(io::Error::other(format!("byte {at} differs")));
        }
    }
    Ok(())
}

fn listen(at: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    // The standard library's 128 is less than what the tests open at once.
    socket.listen(4096)?;
    let listener = TcpListener::from(socket);
    SockRef::from(&listener).set_read_timeout(Some(GLANCE))?;
    Ok(listener)
}

fn answer_http(stream: TcpStream, name: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut stream = reader.into_inner();
    let len = name.len();
    let answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{name}");
    stream.write_all(answer.as_bytes())
}
