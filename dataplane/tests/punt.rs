//! The punt thread with real taps, each test in network namespaces of its own.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    reason = "tests wait by the clock, and clippy's exceptions for tests do not cover their helpers"
)]

mod netns;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use rtrb::{Consumer, Producer};
use sluice_dataplane::command::PortId;
use sluice_dataplane::egress::Mac;
use sluice_dataplane::io::memory::{MemoryFrame, MemoryPool};
use sluice_dataplane::io::{Frame, FramePool};
use sluice_dataplane::punt::cells::PuntCells;
use sluice_dataplane::punt::class::{Class, Policing, Rate};
use sluice_dataplane::punt::tap::{Tap, TapError};
use sluice_dataplane::punt::thread::{PuntOptions, PuntPort, PuntThread};
use sluice_dataplane::punt::{WorkerPunt, rings};

use crate::netns::{ip, isolated};

const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
const PEER: Mac = Mac([2, 0, 0, 0, 0, 2]);
const PATIENCE: Duration = Duration::from_secs(60);

/// A tap with its thread, and the worker's side of it.
struct Rig {
    thread: PuntThread,
    worker: WorkerPunt<MemoryFrame>,
}

impl Rig {
    /// The tap `cl0` in the calling thread's namespace, up, at `address`; without noise from IPv6.
    fn new(mac: Mac, address: &str, options: PuntOptions, ring: usize) -> Self {
        Self::with_pool(mac, address, options, ring, MemoryPool)
    }

    fn with_pool<P: FramePool<Frame = MemoryFrame>>(
        mac: Mac,
        address: &str,
        options: PuntOptions,
        ring: usize,
        pool: P,
    ) -> Self {
        let tap = Tap::open("cl0", mac, 1500).unwrap();
        ip("link set cl0 addrgenmode none");
        ip("link set cl0 up");
        ip(&format!("address add {address} dev cl0"));
        let (worker, kernel) = rings(ring);
        let port = PuntPort {
            id: PortId(0),
            tap,
            rings: vec![kernel],
        };
        let thread = PuntThread::start(vec![port], pool, options).unwrap();
        Self { thread, worker }
    }

    fn cells(&self) -> Arc<CachePadded<PuntCells>> {
        Arc::clone(&self.thread.cells()[0].1)
    }

    fn punt(&mut self, bytes: &[u8]) {
        self.worker.to_kernel.push(MemoryFrame::new(bytes)).unwrap();
    }

    /// The next frame from the kernel that `wanted` makes something of.
    fn expect<T>(&mut self, mut wanted: impl FnMut(&[u8]) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            match self.worker.from_kernel.pop() {
                Ok(frame) => {
                    if let Some(found) = wanted(frame.bytes()) {
                        return found;
                    }
                }
                Err(_) => std::thread::sleep(Duration::from_micros(50)),
            }
        }
        panic!("the kernel sent no such frame");
    }

    /// Answers the kernel's ARP request for `addr` with [`PEER`].
    fn answer_arp(&mut self, addr: Ipv4Addr) {
        let request = self.expect(|frame| {
            let is_request = frame[12..14] == [8, 6] && frame[20..22] == [0, 1];
            (is_request && frame[38..42] == addr.octets()).then(|| frame.to_vec())
        });
        let asker = Ipv4Addr::new(request[28], request[29], request[30], request[31]);
        self.punt(&arp(OURS, 2, PEER, addr, OURS, asker));
    }
}

/// Waits until so many punted frames are accounted for.
fn settled(cells: &PuntCells, total: u64) {
    let deadline = Instant::now() + PATIENCE;
    while cells.to_kernel.read() + cells.dropped_to_kernel() < total {
        assert!(Instant::now() < deadline, "{cells:?}");
    }
}

/// An ARP packet (RFC 826) in an Ethernet frame from `sender` to `dst`.
fn arp(
    dst: Mac,
    operation: u8,
    sender: Mac,
    sender_addr: Ipv4Addr,
    target: Mac,
    target_addr: Ipv4Addr,
) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(dst.0);
    frame.extend(sender.0);
    frame.extend([0x08, 0x06]); // EtherType
    frame.extend([0, 1]); // hardware: Ethernet
    frame.extend([0x08, 0x00]); // protocol: IPv4
    frame.extend([6, 4]); // address lengths
    frame.extend([0, operation]);
    frame.extend(sender.0);
    frame.extend(sender_addr.octets());
    frame.extend(target.0);
    frame.extend(target_addr.octets());
    frame
}

/// A frame from the peer to the kernel.
fn from_peer(build: impl FnOnce(PacketBuilderAtIp) -> Vec<u8>) -> Vec<u8> {
    build(PacketBuilder::ethernet2(PEER.0, OURS.0).ipv4([10, 77, 0, 2], [10, 77, 0, 1], 64))
}

type PacketBuilderAtIp = etherparse::PacketBuilderStep<etherparse::IpHeaders>;

fn udp_from_peer(payload: &[u8]) -> Vec<u8> {
    from_peer(|ip| {
        let mut frame = Vec::new();
        ip.udp(7, 7).write(&mut frame, payload).unwrap();
        frame
    })
}

/// Panics when a checksum of an IPv4 frame is wrong; returns whether it was TCP.
fn check_checksums(frame: &[u8]) -> bool {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    let Some(NetSlice::Ipv4(ipv4)) = &packet.net else {
        return false;
    };
    let header = ipv4.header().to_header();
    assert_eq!(header.calc_header_checksum(), header.header_checksum);
    match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let right = tcp
                .to_header()
                .calc_checksum_ipv4(&header, tcp.payload())
                .unwrap();
            // Zero has two forms in one's complement, and kernels send either.
            let sent = match tcp.checksum() {
                0xffff => 0,
                sum => sum,
            };
            assert_eq!(sent, right, "TCP checksum of {frame:02x?}");
            true
        }
        Some(TransportSlice::Udp(udp)) => {
            let right = udp
                .to_header()
                .calc_checksum_ipv4(&header, udp.payload())
                .unwrap();
            assert_eq!(udp.checksum(), right, "UDP checksum of {frame:02x?}");
            false
        }
        _ => false,
    }
}

#[test]
fn the_kernel_answers_arp_and_ping_that_a_worker_punts() {
    isolated(|| {
        let mut rig = Rig::new(OURS, "10.77.0.1/24", PuntOptions::default(), 64);
        let (us, peer) = (Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2));
        rig.punt(&arp(Mac::BROADCAST, 1, PEER, peer, Mac::default(), us));
        let reply = rig.expect(|frame| (frame[12..14] == [8, 6]).then(|| frame.to_vec()));
        assert_eq!(reply, arp(PEER, 2, OURS, us, PEER, peer));

        rig.punt(&from_peer(|ip| {
            let mut frame = Vec::new();
            ip.icmpv4_echo_request(0x1234, 1)
                .write(&mut frame, b"are you there?")
                .unwrap();
            frame
        }));
        let reply = rig.expect(|frame| (frame[12..14] == [8, 0]).then(|| frame.to_vec()));
        assert_eq!(reply[..6], PEER.0);
        let packet = SlicedPacket::from_ethernet(&reply).unwrap();
        let Some(TransportSlice::Icmpv4(icmp)) = packet.transport else {
            panic!("no ICMP: {packet:?}");
        };
        assert_eq!(icmp.type_u8(), 0);
        assert!(icmp.header().payload_len_ok(icmp.payload()));
        assert_eq!(icmp.payload(), b"are you there?");
    })
    .join()
    .unwrap();
}

/// Checks an ICMP header against its payload.
trait PayloadLenOk {
    fn payload_len_ok(&self, payload: &[u8]) -> bool;
}

impl PayloadLenOk for etherparse::Icmpv4Header {
    fn payload_len_ok(&self, payload: &[u8]) -> bool {
        self.icmp_type.calc_checksum(payload) == self.checksum
    }
}

#[test]
fn the_kernel_asks_for_a_peer_and_then_talks_to_it() {
    isolated(|| {
        let mut rig = Rig::new(OURS, "10.77.0.1/24", PuntOptions::default(), 64);
        let socket = UdpSocket::bind("10.77.0.1:7").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(b"hello", "10.77.0.2:7").unwrap();
        rig.answer_arp(Ipv4Addr::new(10, 77, 0, 2));
        rig.expect(|frame| {
            check_checksums(frame);
            frame.ends_with(b"hello").then_some(())
        });
        rig.punt(&udp_from_peer(b"hello yourself"));
        let mut buffer = [0; 100];
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], b"hello yourself");
        assert_eq!(from, "10.77.0.2:7".parse::<SocketAddr>().unwrap());
        let cells = rig.cells();
        settled(&cells, 2);
        assert_eq!(cells.to_kernel.read(), 2);
        assert!(cells.from_kernel.read() >= 2);
        assert_eq!(cells.dropped_from_kernel(), 0);
    })
    .join()
    .unwrap();
}

/// Moves what waits along the wire, looking at every frame; returns how many TCP segments there were.
fn carry(from: &mut Consumer<MemoryFrame>, to: &mut Producer<MemoryFrame>) -> usize {
    let mut segments = 0;
    while !to.is_full()
        && let Ok(frame) = from.pop()
    {
        assert!(frame.bytes().len() <= 1514);
        segments += usize::from(check_checksums(frame.bytes()));
        to.push(frame).unwrap();
    }
    segments
}

/// Two kernels, two taps, and a wire of four rings that looks at every frame.
#[test]
fn tcp_between_two_kernels_has_right_checksums_and_no_giant_frames() {
    const BYTES: usize = 4 << 20;
    let (to_wire, ends) = channel();
    let (ports, port) = channel();
    let server = isolated({
        let to_wire = to_wire.clone();
        move || {
            let rig = Rig::new(OURS, "10.77.0.1/24", PuntOptions::default(), 512);
            let listener = TcpListener::bind("10.77.0.1:80").unwrap();
            to_wire.send((0, rig.worker)).unwrap();
            ports.send(()).unwrap();
            let mut received = Vec::new();
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.read_to_end(&mut received).unwrap();
            stream.write_all(b"thanks").unwrap();
            (received, rig.thread)
        }
    });
    let client = isolated(move || {
        let rig = Rig::new(PEER, "10.77.0.2/24", PuntOptions::default(), 512);
        to_wire.send((1, rig.worker)).unwrap();
        port.recv().unwrap();
        let sent: Vec<u8> = (0..BYTES).map(|i| ((i * i) >> 7) as u8).collect();
        let mut stream = TcpStream::connect("10.77.0.1:80").unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&sent).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "thanks");
        (sent, rig.thread)
    });
    let mut ends: Vec<(i32, WorkerPunt<MemoryFrame>)> = ends.iter().take(2).collect();
    ends.sort_by_key(|(side, _)| *side);
    let [(_, a), (_, b)] = &mut ends[..] else {
        unreachable!("two ends");
    };
    let mut segments = 0;
    while !(server.is_finished() && client.is_finished()) {
        let before = segments;
        segments += carry(&mut a.from_kernel, &mut b.to_kernel);
        segments += carry(&mut b.from_kernel, &mut a.to_kernel);
        if segments == before {
            std::thread::sleep(Duration::from_micros(20));
        }
    }
    let ((received, _a), (sent, _b)) = (server.join().unwrap(), client.join().unwrap());
    assert!(sent == received, "what arrived is not what was sent");
    assert!(segments > BYTES / 1500, "{segments} segments");
}

#[test]
fn what_is_over_the_rate_of_its_class_is_counted_and_the_other_classes_pass() {
    isolated(|| {
        let mut options = PuntOptions::default();
        options.policing = Policing {
            rates: options.policing.rates.map(|rate| Rate {
                per_second: 1,
                burst: 3.min(rate.burst),
            }),
        };
        let mut rig = Rig::new(OURS, "10.77.0.1/24", options, 64);
        let cells = rig.cells();
        rig.thread
            .local_addresses([IpAddr::V4(Ipv4Addr::new(10, 77, 0, 9))].into());
        for _ in 0..10 {
            rig.punt(&udp_from_peer(b"too much"));
        }
        let (us, peer) = (Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2));
        rig.punt(&arp(Mac::BROADCAST, 1, PEER, peer, Mac::default(), us));
        settled(&cells, 11);
        // Where they take more than a second, one more is within the rate.
        let policed = cells.policed[Class::Routed as usize].read();
        assert!((1..=7).contains(&policed), "{cells:?}");
        assert_eq!(cells.dropped_to_kernel(), policed);
        assert_eq!(cells.to_kernel.read(), 11 - policed);
    })
    .join()
    .unwrap();
}

#[test]
fn frames_of_impossible_length_and_to_a_sleeping_interface_are_counted() {
    isolated(|| {
        let mut rig = Rig::new(OURS, "10.77.0.1/24", PuntOptions::default(), 64);
        let cells = rig.cells();
        rig.punt(&[0; 13]);
        rig.punt(&udp_from_peer(&[0; 1476])); // with a VLAN tag it would be as long
        rig.punt(&udp_from_peer(&[0; 1477]));
        settled(&cells, 3);
        assert_eq!(cells.short.read(), 1);
        assert_eq!(cells.to_kernel.read(), 1);
        assert_eq!(cells.long.read(), 1);
        rig.thread.mtu(PortId(0), 9000);
        // The thread hears of it before it takes frames, but may be in between now.
        let mut sent = 3;
        while cells.to_kernel.read() == 1 {
            assert!(sent < 10, "{cells:?}");
            rig.punt(&udp_from_peer(&[0; 1477]));
            sent += 1;
            settled(&cells, sent);
        }
        ip("link set cl0 down");
        rig.punt(&udp_from_peer(b"anybody up?"));
        settled(&cells, sent + 1);
        assert_eq!(cells.tap_down.read(), 1);
        ip("link delete cl0");
        rig.punt(&udp_from_peer(b"anybody left?"));
        settled(&cells, sent + 2);
        assert_eq!(cells.tap_down.read(), 2);
    })
    .join()
    .unwrap();
}

/// A pool that is used up.
struct EmptyPool;

impl FramePool for EmptyPool {
    type Frame = MemoryFrame;

    fn alloc(&mut self) -> Option<MemoryFrame> {
        None
    }
}

#[test]
fn what_the_kernel_sends_in_vain_is_counted() {
    isolated(|| {
        let rig = Rig::new(OURS, "10.77.0.1/24", PuntOptions::default(), 2);
        let socket = UdpSocket::bind("10.77.0.1:7").unwrap();
        ip("neighbour add 10.77.0.2 lladdr 02:00:00:00:00:02 dev cl0");
        for _ in 0..5 {
            socket.send_to(b"hello", "10.77.0.2:7").unwrap();
        }
        let wait_for = |cells: &PuntCells, total: u64| {
            let deadline = Instant::now() + PATIENCE;
            while cells.from_kernel.read() + cells.dropped_from_kernel() < total {
                assert!(Instant::now() < deadline, "{cells:?}");
            }
        };
        wait_for(&rig.cells(), 5);
        assert_eq!(rig.cells().from_kernel.read(), 2);
        assert_eq!(rig.cells().ring_full.read(), 3);
        drop(rig);
        let rig = Rig::with_pool(OURS, "10.77.0.1/24", PuntOptions::default(), 2, EmptyPool);
        ip("neighbour add 10.77.0.2 lladdr 02:00:00:00:00:02 dev cl0");
        socket.send_to(b"hello", "10.77.0.2:7").unwrap();
        wait_for(&rig.cells(), 1);
        assert_eq!(rig.cells().pool_empty.read(), 1);
    })
    .join()
    .unwrap();
}

#[test]
fn a_tap_is_made_with_its_mac_and_mtu_and_vanishes_with_its_thread() {
    isolated(|| {
        let rig = Rig::new(OURS, "10.77.0.1/24", PuntOptions::default(), 2);
        let show = || {
            let output = std::process::Command::new("ip")
                .args(["link", "show", "cl0"])
                .output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        assert!(show().contains("mtu 1500"), "{}", show());
        assert!(show().contains("02:00:00:00:00:01"), "{}", show());
        let error = Tap::open("cl0", OURS, 1500).err().unwrap();
        assert!(matches!(error, TapError::Busy { .. }), "{error}");
        rig.thread.stop();
        assert_eq!(show(), "");
        let error = Tap::open("lo", OURS, 1500).err().unwrap();
        assert!(matches!(error, TapError::NotATap { .. }), "{error}");
        let error = Tap::open("cl0", Mac([1, 0, 0, 0, 0, 1]), 1500)
            .err()
            .unwrap();
        assert!(error.to_string().contains("MAC"), "{error}");
    })
    .join()
    .unwrap();
}

#[test]
fn a_persistent_tap_is_attached_to_and_stays_up() {
    isolated(|| {
        ip("tuntap add cl0 mode tap");
        ip("link set cl0 addrgenmode none");
        ip("link set cl0 up");
        ip("address add 10.77.0.1/24 dev cl0");
        let tap = Tap::open("cl0", OURS, 1400).unwrap();
        let (mut worker, kernel) = rings(16);
        let port = PuntPort {
            id: PortId(0),
            tap,
            rings: vec![kernel],
        };
        let _thread = PuntThread::start(vec![port], MemoryPool, PuntOptions::default()).unwrap();
        let socket = UdpSocket::bind("10.77.0.1:7").unwrap();
        socket.send_to(b"hello", "10.77.0.2:7").unwrap();
        let deadline = Instant::now() + PATIENCE;
        while worker.from_kernel.pop().is_err() {
            assert!(Instant::now() < deadline, "no ARP request came");
        }
    })
    .join()
    .unwrap();
}
