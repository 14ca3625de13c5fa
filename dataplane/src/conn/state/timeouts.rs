//! How long connections live in each state.

use super::State;
use crate::time::{GrainRate, TickRate};

/// Seconds in the states whose timeouts can be set (`ipvsadm --set tcp tcpfin udp`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP ESTABLISHED.
    pub established_s: u32,
    /// TCP FIN_WAIT.
    pub fin_wait_s: u32,
    /// UDP.
    pub udp_s: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            established_s: 900,
            fin_wait_s: 120,
            udp_s: 300,
        }
    }
}

/// Every state's timeout in grains, looked up for each packet.
#[derive(Clone, Copy, Debug)]
pub struct TimeoutTable {
    tcp: [u32; 16],
    udp: u32,
    sctp: [u32; 4],
}

impl TimeoutTable {
    /// The timeouts in grains of `grains`, for ticks of `rate`.
    pub fn new(timeouts: &Timeouts, rate: TickRate, grains: GrainRate) -> Self {
        // Columns NO ES SS SR FW TW CL CW LA LI SA.
        let tcp = [
            2,
            timeouts.established_s,
            120,
            60,
            timeouts.fin_wait_s,
            120,
            10,
            60,
            30,
            120,
            120,
        ];
        let span = |seconds| grains.at_least(rate.seconds(seconds));
        let mut table = Self {
            tcp: [0; 16],
            udp: span(timeouts.udp_s),
            sctp: [2, 4, 900, 61].map(span),
        };
        table
            .tcp
            .iter_mut()
            .zip(tcp)
            .for_each(|(entry, seconds)| *entry = span(seconds));
        table
    }

    /// Of a TCP state.
    #[inline]
    pub fn tcp(&self, state: State) -> u32 {
        self.tcp[state as usize & 15]
    }

    /// Of UDP.
    #[inline]
    pub fn udp(&self) -> u32 {
        self.udp
    }

    /// Of an SCTP state. None of them can be set.
    pub fn sctp(&self, state: State) -> u32 {
        self.sctp[match state {
            State::None => 0,
            State::Init1 | State::Rejected => 1,
            State::Established => 2,
            _ => 3,
        }]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_timeouts_change_their_own_states_only() {
        let timeouts = Timeouts {
            established_s: 10,
            fin_wait_s: 11,
            udp_s: 12,
        };
        let rate = TickRate::new(1);
        let table = TimeoutTable::new(&timeouts, rate, GrainRate::new(rate));
        assert_eq!(table.tcp(State::Established), 11);
        assert_eq!(table.tcp(State::FinWait), 12);
        assert_eq!(table.tcp(State::TimeWait), 121);
        assert_eq!(table.udp(), 13);
        assert_eq!(table.sctp(State::Established), 901);
    }
}
