//! What is on its way: whoever meets a packet looks up here what it was when it left.
//!
//! One writer, the generator; any number of readers on other cores. A slot holds the last packet whose number falls on it, so a
//! packet that comes back after [`SLOTS`] others were sent is not known any more.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use sluice_dataplane::time::{Span, Ticks};

use super::tuple::Endpoint;

/// Packets that are remembered.
pub(crate) const SLOTS: usize = 1 << 20;

/// The flow of a packet that belongs to none: each has a tuple of its own.
pub(crate) const NO_FLOW: u32 = u32::MAX;

/// The flow of a packet of a flood.
pub(crate) const FLOOD: u32 = u32::MAX - 1;

/// A packet, as it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Departure {
    /// From 1; the packet carries its low half. At most 48 bits.
    pub(crate) number: u64,
    /// Which flow it belongs to.
    pub(crate) flow: u32,
    /// Who sent it.
    pub(crate) client: Endpoint,
    /// The sequence number behind its last byte: what an answer acknowledges.
    pub(crate) end: u32,
    /// When it was to leave.
    pub(crate) intended: Ticks,
    /// When it left.
    pub(crate) sent: Ticks,
}

#[derive(Default)]
struct Slot {
    /// 48 bits of number, 16 of port. Written last.
    number_port: AtomicU64,
    intended: AtomicU64,
    flow_lag: AtomicU64,
    address_end: AtomicU64,
}

/// Packets on their way.
pub(crate) struct Flight {
    slots: Box<[Slot]>,
}

impl Flight {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
        }
    }

    fn slot(&self, number: u64) -> &Slot {
        &self.slots[number as usize & (SLOTS - 1)]
    }

    /// Notes a packet that leaves. Only one thread may call this.
    #[inline]
    pub(crate) fn depart(&self, packet: &Departure) {
        let slot = self.slot(packet.number);
        let lag = u32::try_from((packet.sent - packet.intended).0).unwrap_or(u32::MAX);
        let set = |cell: &AtomicU64, high: u64, low: u64, bits: u32| {
            cell.store(high << bits | low, Ordering::Relaxed);
        };
        // A reader that sees any of what follows sees that the slot is not what it was.
        slot.number_port.store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        slot.intended.store(packet.intended.0, Ordering::Relaxed);
        set(&slot.flow_lag, packet.flow.into(), lag.into(), 32);
        set(
            &slot.address_end,
            packet.client.addr.into(),
            packet.end.into(),
            32,
        );
        let number_port = packet.number << 16 | u64::from(packet.client.port);
        slot.number_port.store(number_port, Ordering::Release);
    }

    /// The packet that carries `number`, if it is still remembered.
    #[inline]
    pub(crate) fn find(&self, number: u32) -> Option<Departure> {
        let slot = self.slot(number.into());
        let number_port = slot.number_port.load(Ordering::Acquire);
        let intended = slot.intended.load(Ordering::Relaxed);
        let flow_lag = slot.flow_lag.load(Ordering::Relaxed);
        let address_end = slot.address_end.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let same = slot.number_port.load(Ordering::Relaxed) == number_port;
        let found = number_port >> 16;
        if !same || found as u32 != number || found == 0 {
            return None;
        }
        let intended = Ticks(intended);
        Some(Departure {
            number: found,
            flow: (flow_lag >> 32) as u32,
            client: Endpoint {
                addr: (address_end >> 32) as u32,
                port: number_port as u16,
            },
            end: address_end as u32,
            intended,
            sent: intended + Span(u64::from(flow_lag as u32)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(number: u64) -> Departure {
        Departure {
            number,
            flow: 77,
            client: Endpoint {
                addr: 0x0b00_0001,
                port: 1024,
            },
            end: 0xdead_beef,
            intended: Ticks(1 << 50),
            sent: Ticks((1 << 50) + 300),
        }
    }

    #[test]
    fn a_packet_is_found_as_it_left_until_its_slot_is_needed() {
        let flight = Flight::new();
        assert_eq!(flight.find(0), None);
        assert_eq!(flight.find(5), None);
        let first = packet((1 << 32) + 5);
        flight.depart(&first);
        assert_eq!(flight.find(5), Some(first));
        flight.depart(&packet((1 << 32) + 5 + SLOTS as u64));
        assert_eq!(flight.find(5), None);
        assert_eq!(flight.find(5 + SLOTS as u32).unwrap().flow, 77);
    }
}
