//! A flow as its client knows it: which packet comes next, and what an answer means.

use sluice_dataplane::packet::tcp::{ACK, FIN, SYN};
use sluice_dataplane::time::{Span, Ticks};

use super::fault::Fault;
use super::tuple::{Clients, Endpoint};
use super::wire::DATA;

/// No real server is known yet.
const NOBODY: u16 = u16::MAX;

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// There is none.
    #[default]
    Idle,
    /// A SYN is on its way.
    Opening,
    /// Data may be sent.
    Open,
    /// A FIN is on its way.
    Closing,
    /// The real server's FIN has come; one acknowledgement, and it is over.
    Closed,
}

/// One flow: connections, one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) client: Endpoint,
    phase: Phase,
    /// Whether data was ever sent.
    opened: bool,
    /// Whether this connection is to be closed.
    ending: bool,
    server: u16,
    /// Packets with data that are left in this life.
    left: u32,
    /// The next sequence number to be sent.
    next: u32,
    /// The next sequence number to be received.
    expected: u32,
    /// The latest packet that was answered.
    last: u64,
    /// When the SYN or FIN was sent.
    asked: Ticks,
}

/// What a flow sends next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    /// With data.
    pub(crate) full: bool,
    /// Somebody should answer.
    pub(crate) wants_answer: bool,
    /// It opens a connection.
    pub(crate) opens: bool,
    /// It is the flow's first data.
    pub(crate) first_data: bool,
    /// A connection was given up for want of an answer.
    pub(crate) gave_up: bool,
}

/// What an answer has changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// The flow has something to send at once.
    pub(crate) ready: bool,
    /// A connection is open now.
    pub(crate) opened: bool,
    /// A connection was closed.
    pub(crate) closed: bool,
    pub(crate) fault: Option<Fault>,
}

/// An answer to a flow's packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// Which packet was answered.
    pub(crate) number: u64,
    pub(crate) seq: u32,
    pub(crate) flags: u8,
    /// How far it takes the real server's sequence numbers.
    pub(crate) advance: u32,
    /// Who answered, where the answer tells.
    pub(crate) server: Option<u16>,
    /// It is the packet itself that came back.
    pub(crate) echo: bool,
}

/// What all flows of a run share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) tcp: bool,
    pub(crate) life: Option<u32>,
    /// How long to wait for the answer to a SYN or FIN.
    pub(crate) patience: Span,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            client: Endpoint::default(),
            phase: Phase::Idle,
            opened: false,
            ending: false,
            server: NOBODY,
            left: 0,
            next: 0,
            expected: 0,
            last: 0,
            asked: Ticks(0),
        }
    }
}

impl Flow {
    /// Lets the connection end with the next packet. `false` if none is open.
    pub(crate) fn end(&mut self) -> bool {
        let open = self.phase == Phase::Open && !self.ending;
        self.ending |= open;
        open
    }

    /// Whether there was no connection yet.
    pub(crate) fn is_new(&self) -> bool {
        self.phase == Phase::Idle && !self.opened
    }

    /// What comes next, as packet `number`, of `len` bytes of data if it has any. `None` while an answer is awaited.
    #[inline]
    pub(crate) fn step(
        &mut self,
        rules: &Rules,
        clients: &mut Clients,
        number: u64,
        now: Ticks,
    ) -> Option<Step> {
        if rules.tcp {
            self.tcp(rules, clients, number, now)
        } else {
            Some(self.udp(rules, clients))
        }
    }

    /// Data of so many bytes was sent.
    #[inline]
    pub(crate) fn sent(&mut self, len: u32) {
        self.next = self.next.wrapping_add(len);
    }

    /// The sequence number behind all that was sent.
    pub(crate) fn end_of_sent(&self) -> u32 {
        self.next
    }

    fn udp(&mut self, rules: &Rules, clients: &mut Clients) -> Step {
        let opens = self.phase == Phase::Idle || self.is_over(rules);
        if opens {
            self.begin(rules, clients.draw());
            self.phase = Phase::Open;
        }
        Step {
            opens,
            ..self.data()
        }
    }

    #[inline]
    fn tcp(
        &mut self,
        rules: &Rules,
        clients: &mut Clients,
        number: u64,
        now: Ticks,
    ) -> Option<Step> {
        match self.phase {
            Phase::Open if !self.is_over(rules) => Some(Step {
                seq: self.next,
                ack: self.expected,
                flags: DATA,
                ..self.data()
            }),
            Phase::Open => {
                self.phase = Phase::Closing;
                self.asked = now;
                Some(self.bare(FIN | ACK, true))
            }
            Phase::Idle => Some(self.open(rules, clients.draw(), number, now)),
            Phase::Opening | Phase::Closing if now - self.asked < rules.patience => None,
            Phase::Opening | Phase::Closing => Some(Step {
                gave_up: true,
                ..self.open(rules, clients.draw(), number, now)
            }),
            Phase::Closed => {
                self.phase = Phase::Idle;
                Some(self.bare(ACK, false))
            }
        }
    }

    fn open(&mut self, rules: &Rules, client: Endpoint, number: u64, now: Ticks) -> Step {
        self.begin(rules, client);
        self.phase = Phase::Opening;
        self.asked = now;
        self.next = initial(number);
        self.expected = 0;
        Step {
            opens: true,
            ..self.bare(SYN, true)
        }
    }

    fn begin(&mut self, rules: &Rules, client: Endpoint) {
        self.client = client;
        self.ending = false;
        self.server = NOBODY;
        self.left = rules.life.unwrap_or(u32::MAX);
    }

    fn is_over(&self, rules: &Rules) -> bool {
        self.ending || rules.life.is_some() && self.left == 0
    }

    fn data(&mut self) -> Step {
        self.left = self.left.saturating_sub(1);
        let first_data = !self.opened;
        self.opened = true;
        Step {
            full: true,
            wants_answer: true,
            first_data,
            ..Step::default()
        }
    }

    /// A segment without data. SYN and FIN take a sequence number each.
    fn bare(&mut self, flags: u8, wants_answer: bool) -> Step {
        let seq = self.next;
        self.next = seq.wrapping_add(u32::from(flags & (SYN | FIN) != 0));
        Step {
            seq,
            ack: self.expected,
            flags,
            wants_answer,
            ..Step::default()
        }
    }

    /// Takes an answer to one of this connection's packets.
    #[inline]
    pub(crate) fn settle(&mut self, answer: &Answer) -> Settled {
        let mut settled = Settled {
            fault: self.check(answer),
            ..Settled::default()
        };
        let has = |flag| answer.flags & flag != 0;
        match self.phase {
            Phase::Opening if has(SYN) => {
                self.phase = Phase::Open;
                self.expected = answer.seq.wrapping_add(answer.advance);
                settled.ready = true;
                settled.opened = true;
            }
            Phase::Closing if has(FIN) => {
                self.phase = Phase::Closed;
                self.expected = answer.seq.wrapping_add(answer.advance);
                settled.ready = true;
                settled.closed = true;
            }
            _ if !answer.echo => self.take(answer),
            _ => {}
        }
        settled
    }

    /// Order, and who answers.
    fn check(&mut self, answer: &Answer) -> Option<Fault> {
        if answer.number < self.last {
            return Some(Fault::Reordered);
        }
        self.last = answer.number;
        let server = answer.server?;
        let known = std::mem::replace(&mut self.server, server);
        (known != server && known != NOBODY).then_some(Fault::WrongServer)
    }

    /// Data from the real server. What was lost in front of it is counted elsewhere.
    fn take(&mut self, answer: &Answer) {
        let ahead = answer.seq.wrapping_sub(self.expected);
        if ahead < 1 << 31 {
            self.expected = answer.seq.wrapping_add(answer.advance);
        }
    }
}

/// A client's first sequence number.
pub(crate) fn initial(number: u64) -> u32 {
    (number as u32).wrapping_mul(0xc2b2_ae35)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        tcp: true,
        life: Some(2),
        patience: Span(1000),
    };

    fn clients() -> Clients {
        Clients::new("11.0.0.0/24".parse().unwrap())
    }

    fn answer(number: u64, seq: u32, flags: u8, advance: u32) -> Answer {
        Answer {
            number,
            seq,
            flags,
            advance,
            server: Some(1),
            echo: false,
        }
    }

    #[test]
    fn a_connection_is_opened_used_closed_and_followed_by_another() {
        let (mut flow, mut clients) = (Flow::default(), clients());
        let mut step =
            |flow: &mut Flow, number| flow.step(&RULES, &mut clients, number, Ticks(number));
        let syn = step(&mut flow, 1).unwrap();
        assert!(syn.opens && !syn.full && syn.wants_answer);
        assert_eq!((syn.flags, syn.ack), (SYN, 0));
        let first = flow.client;
        assert_eq!(step(&mut flow, 2), None, "the answer is awaited");
        let settled = flow.settle(&answer(1, 5000, SYN | ACK, 1));
        assert!(settled.opened && settled.ready && settled.fault.is_none());

        let mut seq = syn.seq.wrapping_add(1);
        for (number, ack) in [(3, 5001), (4, 5007)] {
            let data = step(&mut flow, number).unwrap();
            assert!(data.full);
            assert_eq!((data.seq, data.ack, data.flags), (seq, ack, DATA));
            flow.sent(6);
            flow.settle(&answer(number, ack, DATA, 6));
            seq = seq.wrapping_add(6);
        }
        let fin = step(&mut flow, 5).unwrap();
        assert_eq!((fin.seq, fin.ack, fin.flags), (seq, 5013, FIN | ACK));
        assert!(flow.settle(&answer(5, 5013, FIN | ACK, 1)).closed);
        let last = step(&mut flow, 6).unwrap();
        assert_eq!(
            (last.seq, last.ack, last.flags),
            (seq.wrapping_add(1), 5014, ACK)
        );
        assert!(!last.wants_answer);
        let again = step(&mut flow, 7).unwrap();
        assert!(again.opens && again.flags == SYN);
        assert_ne!(flow.client, first);
    }

    #[test]
    fn who_does_not_answer_is_given_up_for_another_connection() {
        let (mut flow, mut clients) = (Flow::default(), clients());
        let mut step = |number, now| flow.step(&RULES, &mut clients, number, Ticks(now));
        assert!(!step(1, 0).unwrap().gave_up);
        assert_eq!(step(2, 999), None);
        let again = step(2, 1000).unwrap();
        assert!(again.gave_up && again.opens && again.flags == SYN);
    }

    #[test]
    fn datagrams_need_no_opening_and_change_clients_when_their_life_is_over() {
        let rules = Rules {
            tcp: false,
            ..RULES
        };
        let (mut flow, mut clients) = (Flow::default(), clients());
        let opens: Vec<bool> = (1..=6)
            .map(|number| {
                let step = flow.step(&rules, &mut clients, number, Ticks(0)).unwrap();
                assert!(step.full && step.wants_answer);
                step.opens
            })
            .collect();
        assert_eq!(opens, [true, false, true, false, true, false]);
    }

    #[test]
    fn late_answers_and_other_servers_are_noticed() {
        let rules = Rules {
            tcp: false,
            life: None,
            ..RULES
        };
        let (mut flow, mut clients) = (Flow::default(), clients());
        flow.step(&rules, &mut clients, 1, Ticks(0));
        assert_eq!(flow.settle(&answer(2, 0, 0, 0)).fault, None);
        assert_eq!(
            flow.settle(&answer(1, 0, 0, 0)).fault,
            Some(Fault::Reordered)
        );
        let other = Answer {
            server: Some(2),
            ..answer(3, 0, 0, 0)
        };
        assert_eq!(flow.settle(&other).fault, Some(Fault::WrongServer));
    }
}
