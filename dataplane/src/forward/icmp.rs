//! ICMP errors that sluice sends about packets it did not pass on (RFC 792, RFC 1812 section 4.3.2.3).

use std::net::Ipv4Addr;

use zerocopy::IntoBytes;

use super::{Forwarder, Plan, Way};
use crate::command::PortId;
use crate::conn::Direction;
use crate::io::{Frame, Port};
use crate::packet::ethernet::Ethernet;
use crate::packet::icmp::{IcmpError, Problem};
use crate::packet::ipv4::{Ipv4, NewHeader, protocol};
use crate::parse::Flow;
use crate::time::{Span, TickRate, Ticks};

/// Bytes that an error may have as a whole, as Linux sends it (RFC 1812 asks for no more than 576).
const LONGEST: usize = 576;

/// How many errors may be sent: a thousand a second, fifty at once, as Linux does it.
#[derive(Debug)]
pub(crate) struct ErrorBudget {
    left: u64,
    interval: Span,
    since: Ticks,
}

impl ErrorBudget {
    const BURST: u64 = 50;

    pub(crate) fn new(rate: TickRate, now: Ticks) -> Self {
        Self {
            left: Self::BURST,
            interval: Span(rate.millis(1).0.max(1)),
            since: now,
        }
    }

    fn take(&mut self, now: Ticks) -> bool {
        let earned = (now - self.since).0 / self.interval.0;
        if earned > 0 {
            self.left = (self.left + earned).min(Self::BURST);
            self.since = self.since + Span(earned * self.interval.0);
        }
        let may = self.left > 0;
        self.left -= u64::from(may);
        may
    }
}

impl<P: Port> Forwarder<P> {
    /// Tells the sender of `frame` what is wrong with it: in the name of the virtual address, or towards a real server in that
    /// of whatever address leads to it.
    pub(super) fn report(
        &mut self,
        port: PortId,
        frame: &P::Frame,
        flow: &Flow,
        plan: &Plan,
        problem: Problem,
    ) {
        let source = (plan.direction == Direction::ToServer).then(|| flow.ends.dst().addr);
        self.send_error(port, frame, source, problem);
    }

    /// Sends an ICMP error about `frame`, which came in on `port`, from `source` or else from the address that leads
    /// to its sender. Says nothing where an error is not allowed, not affordable or not possible.
    pub(crate) fn send_error(
        &mut self,
        port: PortId,
        frame: &P::Frame,
        source: Option<Ipv4Addr>,
        problem: Problem,
    ) {
        let packet = &frame.bytes()[Ethernet::LEN..];
        let Ok((offender, _)) = Ipv4::view(packet) else {
            return;
        };
        let sender = offender.src();
        if sender.is_multicast()
            || sender.is_broadcast()
            || sender.is_unspecified()
            || sender.is_loopback()
        {
            return;
        }
        let Ok(Way::Hop(hop)) = self.way(sender) else {
            return;
        };
        if !self.errors.take(self.now) {
            return;
        }
        let whole = usize::from(offender.total_len()).min(packet.len());
        let quote = &packet[..whole.min(LONGEST - Ipv4::LEN - IcmpError::LEN)];
        let icmp = IcmpError::new(problem, quote);
        let total_len = Ipv4::LEN + IcmpError::LEN + quote.len();
        let ip = Ipv4::new(&NewHeader {
            // Precedence "internetwork control" (RFC 1812 section 4.3.2.5).
            tos: offender.tos() & 0x1e | 0xc0,
            total_len: total_len as u16,
            id: self.next_ip_id,
            dont_fragment: false,
            ttl: 64,
            protocol: protocol::ICMP,
            src: source.unwrap_or(hop.source),
            dst: sender,
        });
        self.next_ip_id = self.next_ip_id.wrapping_add(1);
        let Some(mut error) = self.lanes.alloc(port) else {
            return;
        };
        if !error.push_back(Ethernet::LEN + total_len) {
            return;
        }
        let (_, body) = error.bytes_mut().split_at_mut(Ethernet::LEN);
        let (header, body) = body.split_at_mut(Ipv4::LEN);
        let (kind, body) = body.split_at_mut(IcmpError::LEN);
        header.copy_from_slice(ip.as_bytes());
        kind.copy_from_slice(icmp.as_bytes());
        body.copy_from_slice(quote);
        self.cells.books.generated.add(1);
        self.transmit(error, &hop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifty_errors_at_once_then_one_a_millisecond() {
        let rate = TickRate::NANOSECONDS;
        let mut budget = ErrorBudget::new(rate, Ticks(0));
        let burst = (0..60).filter(|_| budget.take(Ticks(5))).count();
        assert_eq!(burst, 50);
        assert!(budget.take(Ticks(0) + rate.millis(1)));
        assert!(!budget.take(Ticks(0) + rate.millis(1)));
        let later = (0..600)
            .filter(|n| budget.take(Ticks(0) + rate.millis(2 + n / 2)))
            .count();
        assert_eq!(later, 300);
    }
}
