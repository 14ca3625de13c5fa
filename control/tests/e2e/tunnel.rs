//! The far end of an IP-in-IP tunnel, in user space: not every kernel has the module.
//!
//! A raw socket receives what arrives as protocol 4; what was inside goes to a tun interface, and from there up the
//! real server's own stack.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;

/// Takes packets out of their tunnel and checks each outer header on the way.
pub(crate) struct Decapsulator {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<usize>,
}

impl Decapsulator {
    /// Starts one on the real server whose address is `at`.
    pub(crate) fn start(server: &Netns, at: &str) -> Self {
        let at: Ipv4Addr = at.parse().expect("an address");
        // What comes out of the tunnel has a source that the route back does not lead to the tunnel.
        server.sysctl("ipv4/conf/default/rp_filter", "0");
        server.sysctl("ipv4/conf/all/rp_filter", "0");
        let (socket, inside) = server.run(|| {
            let ipip = Some(Protocol::from(4));
            let socket = Socket::new(Domain::IPV4, Type::RAW, ipip).expect("a raw socket");
            let inside = tun_rs::DeviceBuilder::new()
                .name("decap")
                .mtu(1480)
                .build_sync()
                .expect("a tun interface");
            (socket, inside)
        });
        server.ip("link set decap up");
        let glance = Some(Duration::from_millis(50));
        socket.set_read_timeout(glance).expect("not zero");

        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                let mut packets = 0;
                let mut buffer = vec![0; 65536];
                while !stop.load(Ordering::Relaxed) {
                    // `Read` is for `&Socket`; nothing there for a glance: WouldBlock.
                    let Ok(len) = std::io::Read::read(&mut &socket, &mut buffer) else {
                        continue;
                    };
                    let inner = inner_of(&buffer[..len], at);
                    inside.send(inner).expect("the tun interface is up");
                    packets += 1;
                }
                packets
            }
        });
        Self { stop, thread }
    }

    /// Stops; how many packets came through.
    pub(crate) fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// The packet inside, if the one outside is as `SEMANTICS.md` section 7 has it.
fn inner_of(outer: &[u8], at: Ipv4Addr) -> &[u8] {
    assert_eq!(outer[0], 0x45, "IPv4 without options");
    let inner = &outer[20..];
    assert_eq!(
        usize::from(u16::from_be_bytes([outer[2], outer[3]])),
        outer.len()
    );
    assert_eq!(outer[1], inner[1], "TOS is copied");
    assert_eq!(outer[6] & 0x40, inner[6] & 0x40, "DF is copied");
    assert_eq!(
        outer[8], inner[8],
        "TTL is the inner one, after its decrement"
    );
    assert_eq!(inner[8], 63, "which happened");
    assert_eq!(outer[9], 4, "IP in IP");
    assert_eq!(
        outer[12..16],
        [10, 0, 0, 2],
        "from the appliance's own address"
    );
    assert_eq!(outer[16..20], at.octets());
    assert_eq!(inner[16..20], [10, 0, 0, 1], "to the VIP");
    inner
}
