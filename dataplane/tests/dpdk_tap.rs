//! A port on a tap: frames from and to the kernel, in a network namespace of the test's own.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod support;

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::mem;
use std::os::fd::FromRawFd;
use std::process::Command;
use std::thread;
use std::time::Duration;

use sluice_dataplane::dpdk::{DpdkPort, Eal, EthPort, Mbuf, Mempool, PoolConfig, PortConfig};
use sluice_dataplane::egress::Mac;
use sluice_dataplane::io::{Burst, ChecksumRequest, Frame, Port};
use support::{in_own_process, start};

/// The port's own MAC.
const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);

/// For local experiments (IEEE 802): nothing in the kernel sends it.
const EXPERIMENT: [u8; 2] = [0x88, 0xb5];

/// An environment with the tap `dt0`, away from the machine's network.
fn tap() -> (Eal, Mempool) {
    // SAFETY: takes a flag. Threads that start later are in the same namespace.
    let error = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    assert_eq!(error, 0, "{}", io::Error::last_os_error());
    let eal = start(&["net_tap0,iface=dt0,mac=02:00:00:00:00:01"]);
    let pool = Mempool::new(&eal, &PoolConfig::new("frames", 8191)).unwrap();
    (eal, pool)
}

/// A raw socket on the kernel's side.
fn kernel_side() -> File {
    let name = CString::new("dt0").unwrap();
    let every = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: the name is terminated; the socket is owned at once; all zeroes is a value of the address, whose true
    // length is given.
    unsafe {
        let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, every.into());
        assert!(fd >= 0, "{}", io::Error::last_os_error());
        let socket = File::from_raw_fd(fd);
        let mut address: libc::sockaddr_ll = mem::zeroed();
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = every;
        address.sll_ifindex = libc::if_nametoindex(name.as_ptr()) as i32;
        let len = mem::size_of_val(&address) as u32;
        assert_eq!(libc::bind(fd, (&raw const address).cast(), len), 0);
        socket
    }
}

/// What the kernel receives next that is ours: it also sees its own chatter.
fn kernel_receives(socket: &mut File, ethertype: [u8; 2]) -> Vec<u8> {
    let mut buffer = [0; 2048];
    loop {
        let len = socket.read(&mut buffer).unwrap();
        if buffer[12..14] == ethertype && buffer[6..12] == MAC.0 {
            return buffer[..len].to_vec();
        }
    }
}

/// What the port receives next that is ours.
fn port_receives(queue: &mut DpdkPort) -> Mbuf {
    let mut burst = Burst::new();
    loop {
        queue.rx(&mut burst);
        let ours = burst
            .drain(..)
            .find(|frame| frame.bytes()[12..14] == EXPERIMENT);
        if let Some(frame) = ours {
            return frame;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn frame(queue: &mut DpdkPort, bytes: &[u8]) -> Mbuf {
    let mut frame = queue.alloc().unwrap();
    assert!(frame.push_back(bytes.len()));
    frame.bytes_mut().copy_from_slice(bytes);
    frame
}

fn send(queue: &mut DpdkPort, frame: Mbuf) {
    let mut burst = Burst::new();
    burst.push(frame);
    assert_eq!(queue.tx(&mut burst), 1);
}

#[test]
fn frames_pass_to_and_from_the_kernel_byte_for_byte() {
    in_own_process("frames_pass_to_and_from_the_kernel_byte_for_byte", || {
        let (eal, pool) = tap();
        let config = PortConfig {
            rx_descriptors: 128,
            tx_descriptors: 128,
            mtu: 1400,
            promiscuous: true,
            ..PortConfig::new("net_tap0", 2)
        };
        let port = EthPort::open(&eal, &config, &[pool]).unwrap();
        assert_eq!(port.mac(), MAC);
        assert_eq!(port.mtu().unwrap(), 1400);
        assert!(port.link().unwrap().up);
        let link = Command::new("ip")
            .args(["link", "show", "dt0"])
            .output()
            .unwrap();
        let link = String::from_utf8(link.stdout).unwrap();
        assert!(link.contains("mtu 1400"), "{link}");

        let mut kernel = kernel_side();
        let mut queues = [port.queue(0).unwrap(), port.queue(1).unwrap()];
        for (n, queue) in queues.iter_mut().enumerate() {
            let payload: Vec<u8> = (0..1400).map(|byte| (byte * 3 + n) as u8).collect();
            let sent = [&[2, 0, 0, 0, 0, 9], &MAC.0[..], &EXPERIMENT, &payload].concat();
            let frame = frame(queue, &sent);
            send(queue, frame);
            assert_eq!(kernel_receives(&mut kernel, EXPERIMENT), sent);
        }

        // One queue alone: the kernel spreads frames over two by a hash of its own.
        drop(queues);
        port.close().unwrap();
        assert_eq!(pool.available(), 8191);
    });
}

#[test]
fn the_port_receives_what_the_kernel_sends() {
    in_own_process("the_port_receives_what_the_kernel_sends", || {
        let (eal, pool) = tap();
        let port = EthPort::open(&eal, &PortConfig::new("net_tap0", 1), &[pool]).unwrap();
        let mut queue = port.queue(0).unwrap();
        let payload: Vec<u8> = (0..1500).map(|byte| byte as u8).collect();
        let sent = [&MAC.0[..], &[2, 0, 0, 0, 0, 9], &EXPERIMENT, &payload].concat();
        kernel_side().write_all(&sent).unwrap();
        assert_eq!(port_receives(&mut queue).bytes(), sent);
        assert_eq!(queue.refused().oversize, 0);
    });
}

#[test]
fn requested_checksums_are_filled_in_and_others_stay_wrong() {
    in_own_process(
        "requested_checksums_are_filled_in_and_others_stay_wrong",
        || {
            let (eal, pool) = tap();
            let port = EthPort::open(&eal, &PortConfig::new("net_tap0", 1), &[pool]).unwrap();
            assert!(port.offloads().ipv4_checksum && port.offloads().udp_checksum);
            let mut queue = port.queue(0).unwrap();
            let mut kernel = kernel_side();

            #[rustfmt::skip]
        let datagram = [
            2, 0, 0, 0, 0, 9,                    // to
            2, 0, 0, 0, 0, 1,                    // from
            0x08, 0x00,                          // IPv4
            0x45, 0, 0, 32,                      // 32 bytes in all
            0, 1, 0, 0,                          // not a fragment
            64, 17, 0, 0,                        // UDP, no checksum yet
            10, 0, 0, 1,
            10, 0, 0, 2,
            0x04, 0xd2, 0x16, 0x2e,              // ports 1234, 5678
            0, 12, 0x14, 0x20,                   // 12 bytes, the pseudo-header's sum: 0x0a00 * 2 + 1 + 2 + 17 + 12
            1, 2, 3, 4,
        ];
            let mut both = frame(&mut queue, &datagram);
            both.request_checksums(ChecksumRequest {
                l2_len: 14,
                l3_len: 20,
                ipv4: true,
                udp: true,
            });
            send(&mut queue, both);
            let got = kernel_receives(&mut kernel, [0x08, 0x00]);
            let packet = etherparse::SlicedPacket::from_ethernet(&got).unwrap();
            let Some(etherparse::NetSlice::Ipv4(ip)) = packet.net else {
                panic!("not IPv4")
            };
            let header = ip.header().to_header();
            assert_eq!(header.header_checksum, header.calc_header_checksum());
            let Some(etherparse::TransportSlice::Udp(udp)) = packet.transport else {
                panic!("not UDP")
            };
            let right = udp
                .to_header()
                .calc_checksum_ipv4(&header, udp.payload())
                .unwrap();
            assert_eq!(udp.checksum(), right);

            let mut header_only = frame(&mut queue, &datagram);
            header_only.request_checksums(ChecksumRequest {
                l2_len: 14,
                l3_len: 20,
                ipv4: true,
                udp: false,
            });
            send(&mut queue, header_only);
            let got = kernel_receives(&mut kernel, [0x08, 0x00]);
            assert_eq!(got[24..26], header.header_checksum.to_be_bytes());
            assert_eq!(got[40..42], [0x14, 0x20], "not asked for");

            let neither = frame(&mut queue, &datagram);
            send(&mut queue, neither);
            assert_eq!(kernel_receives(&mut kernel, [0x08, 0x00]), datagram);
        },
    );
}
