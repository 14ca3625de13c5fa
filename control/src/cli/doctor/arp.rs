//! Asks by ARP who has an address, as a machine without an address does (RFC 5227, section 2.1.1): nobody's cache changes.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// How long one question waits for answers.
const PATIENCE: Duration = Duration::from_millis(700);
/// Questions asked in that time: the first may be lost while the network learns where we are.
const TIMES: u32 = 2;
const ETHERTYPE: [u8; 2] = [0x08, 0x06];
const FRAME: usize = 42;

/// A hardware address.
pub(super) type Mac = [u8; 6];

/// An interface to ask by.
pub(super) struct Asker {
    socket: OwnedFd,
    mac: Mac,
}

impl Asker {
    /// Needs root, and the network namespace that the interface is in.
    pub(super) fn new(interface: &str) -> io::Result<Self> {
        let mut interfaces = getifaddrs()?;
        let address = interfaces.find_map(|found| {
            let address = (found.interface_name == interface).then_some(found.address?)?;
            address.as_link_addr().copied()
        });
        let address: LinkAddr = address.ok_or(io::ErrorKind::NotFound)?;
        let mac = address.addr().ok_or(io::ErrorKind::Unsupported)?;
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::EthAll,
        )?;
        bind(socket.as_raw_fd(), &address)?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(50))?;
        Ok(Self { socket, mac })
    }

    /// Who else says to have `address`.
    pub(super) fn ask(&self, address: Ipv4Addr) -> io::Result<Vec<Mac>> {
        let mut answers = Vec::new();
        let mut buffer = [0; 2048];
        for _ in 0..TIMES {
            send(
                self.socket.as_raw_fd(),
                &question(self.mac, address),
                MsgFlags::empty(),
            )?;
            let deadline = Instant::now() + PATIENCE / TIMES;
            while Instant::now() < deadline {
                match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                    Ok(len) => {
                        let mac = answer(&buffer[..len], address);
                        answers
                            .extend(mac.filter(|mac| *mac != self.mac && !answers.contains(mac)));
                    }
                    Err(Errno::EAGAIN | Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(answers)
    }
}

/// Who has `address`? The asker has none.
fn question(mac: Mac, address: Ipv4Addr) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac);
    frame[12..14].copy_from_slice(&ETHERTYPE);
    // Ethernet, IPv4, their lengths, a request.
    frame[14..22].copy_from_slice(&[0, 1, 8, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(&mac);
    frame[38..42].copy_from_slice(&address.octets());
    frame
}

/// The MAC of who answers that it has `address`.
fn answer(frame: &[u8], address: Ipv4Addr) -> Option<Mac> {
    let frame = frame.first_chunk::<FRAME>()?;
    let reply = frame[12..14] == ETHERTYPE && frame[20..22] == [0, 2];
    let sender = frame[28..32] == address.octets();
    let mac = frame[22..28].first_chunk::<6>();
    mac.filter(|_| reply && sender).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 1];

    #[test]
    fn a_question_is_no_answer_and_an_answer_names_its_sender() {
        let address = Ipv4Addr::new(10, 0, 0, 1);
        let mut frame = question(MAC, address);
        assert_eq!(answer(&frame, address), None);
        frame[20..22].copy_from_slice(&[0, 2]);
        frame[28..32].copy_from_slice(&address.octets());
        assert_eq!(answer(&frame, address), Some(MAC));
        assert_eq!(answer(&frame, Ipv4Addr::new(10, 0, 0, 2)), None);
        assert_eq!(answer(&frame[..41], address), None);
    }
}
