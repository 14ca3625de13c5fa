//! Cutting a packet that may be fragmented into pieces that fit (RFC 791 section 3.2).

use super::Forwarder;
use crate::drop_reason::DropReason;
use crate::egress::Hop;
use crate::io::{Frame, Port};
use crate::packet::checksum::Sum;
use crate::packet::ethernet::Ethernet;
use crate::packet::ipv4::{Ipv4, MF, OFFSET};

/// Option bytes: end of list, and no operation.
const END: u8 = 0;
const NOP: u8 = 1;
/// An option with this bit is copied into every fragment.
const COPIED: u8 = 0x80;

impl<P: Port> Forwarder<P> {
    /// Sends a finished packet in fragments of at most the hop's MTU.
    pub(super) fn fragment(&mut self, frame: P::Frame, hop: &Hop) {
        let packet = &frame.bytes()[Ethernet::LEN..];
        let Ok((ip, _)) = Ipv4::view(packet) else {
            return self.lanes.discard(frame, DropReason::BadIpv4Header);
        };
        let (header_len, total_len) = (ip.header_len(), usize::from(ip.total_len()));
        let (first_offset, more_follow) = (ip.flags_offset() & OFFSET, ip.flags_offset() & MF != 0);
        let room = usize::from(hop.mtu).saturating_sub(header_len) & !7;
        let payload_len = total_len - header_len;
        if room == 0 || payload_len <= room {
            return self.lanes.discard(frame, DropReason::TooLong);
        }
        let count = payload_len.div_ceil(room);
        let mut pieces = 0;
        for n in 0..count {
            let offset = n * room;
            let len = room.min(payload_len - offset);
            let Some(mut piece) = self.lanes.alloc(hop.port) else {
                break;
            };
            if !piece.push_back(Ethernet::LEN + header_len + len) {
                break;
            }
            let out = &mut piece.bytes_mut()[Ethernet::LEN..];
            let (header, payload) = out.split_at_mut(header_len);
            header.copy_from_slice(&packet[..header_len]);
            payload.copy_from_slice(&packet[header_len + offset..header_len + offset + len]);
            if n > 0 {
                blank_options(header);
            }
            if let Ok((ip, _)) = Ipv4::view_mut(header) {
                let more = more_follow || n + 1 < count;
                ip.set_fragment(
                    first_offset * 8 + offset as u16,
                    more,
                    (header_len + len) as u16,
                );
            }
            pieces += 1;
            self.cells.books.extra_fragments.add(1);
            self.transmit(piece, hop);
        }
        // The packet itself has become the first piece; what could not be sent is one lost packet.
        if pieces == count {
            self.cells.books.extra_fragments.sub(1);
            drop(frame);
        } else {
            self.lanes.discard(frame, DropReason::NoBuffer);
        }
    }
}

/// Makes options that belong into the first fragment only into no-operations, the checksum following.
fn blank_options(header: &mut [u8]) {
    let mut at = Ipv4::LEN;
    while at < header.len() {
        let kind = header[at];
        let len = match kind {
            END => break,
            NOP => 1,
            _ => match header.get(at + 1) {
                Some(len) if usize::from(*len) >= 2 && at + usize::from(*len) <= header.len() => {
                    usize::from(*len)
                }
                _ => break,
            },
        };
        if kind & COPIED == 0 {
            header[at..at + len].fill(NOP);
        }
        at += len;
    }
    header[10..12].fill(0);
    let checksum = Sum::default().bytes(header).checksum();
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_options_marked_for_it_are_copied() {
        let mut header = [0u8; 32];
        header[0] = 0x48;
        // Record route (7), security (130, copied), end.
        header[20..32].copy_from_slice(&[7, 3, 4, 130, 4, 9, 9, 7, 3, 4, 0, 0]);
        blank_options(&mut header);
        assert_eq!(header[20..32], [1, 1, 1, 130, 4, 9, 9, 1, 1, 1, 0, 0]);
        assert_eq!(Sum::default().bytes(&header).folded(), 0xffff);
    }
}
