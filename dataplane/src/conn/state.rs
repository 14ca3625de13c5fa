//! Connection states and their timeouts (`SEMANTICS.md` section 6).

use crate::packet::tcp;
use crate::time::{GrainRate, TickRate};

/// TCP states, in the order of the transition tables' columns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum TcpState {
    /// No packet yet; also the state of every UDP connection.
    #[default]
    None,
    /// Both SYNs seen and acknowledged, or taken up in mid-stream.
    Established,
    /// The server's SYN seen first.
    SynSent,
    /// The client's SYN seen.
    SynRecv,
    /// One side closed.
    FinWait,
    /// Both sides closed.
    TimeWait,
    /// Reset, or a packet without SYN, FIN, ACK or RST.
    Close,
    /// The client closed first.
    CloseWait,
    /// Waiting for the last ACK.
    LastAck,
    /// Listening.
    Listen,
    /// SYN answered (`secure_tcp`).
    SynAck,
}

/// Which of the transition tables holds for a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Viewpoint {
    /// From the client, the server's packets being seen too.
    Client = 0,
    /// From the server.
    Server = 1,
    /// From the client, no packet of the server having been seen (DR, TUN).
    ClientOnly = 2,
}

impl Viewpoint {
    /// Of a packet to the server, or from it, of a connection whose server was not seen, or was.
    #[inline]
    pub fn new(to_server: bool, no_output: bool) -> Self {
        match (to_server, no_output) {
            (false, _) => Self::Server,
            (true, true) => Self::ClientOnly,
            (true, false) => Self::Client,
        }
    }
}

/// Columns `NO ES SS SR FW TW CL CW LA LI SA`, rows SYN, FIN, ACK, RST.
type Table = [[TcpState; 11]; 4];

/// Which set of tables holds.
#[derive(Clone, Copy, Debug)]
pub struct TcpTables(&'static [Filled; 3]);

impl TcpTables {
    /// The normal ones.
    pub const NORMAL: Self = Self(&NORMAL);

    /// Those of `secure_tcp` in force.
    pub const SECURE: Self = Self(&SECURE);
}

mod tables {
    use super::Table;
    use super::TcpState::{
        Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA,
        Listen as LI, SynAck as SA, SynRecv as SR, SynSent as SS, TimeWait as TW,
    };

    pub(super) const CLIENT: Table = [
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
        [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR],
    ];
    pub(super) const SERVER: Table = [
        [SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR],
        [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
        [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL],
    ];
    pub(super) const CLIENT_ONLY: Table = [
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
        [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
    ];
    pub(super) const SECURE_CLIENT: Table = [
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SA],
        [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, SA],
        [ES, ES, SS, SR, FW, TW, CL, CW, CL, LI, SA],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
    ];
    pub(super) const SECURE_SERVER: Table = [
        [SS, ES, SS, SA, SS, SS, SS, SS, SS, LI, SA],
        [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
        [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL],
    ];
    pub(super) const SECURE_CLIENT_ONLY: Table = [
        [SA, ES, ES, SR, SA, SA, SA, SA, SA, SA, SA],
        [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
    ];
}

impl TcpState {
    /// The state after a packet with control bits `flags`: reset counts before SYN, before FIN, before ACK; `Close` after one
    /// with none of them.
    #[inline]
    pub fn after(self, flags: u8, viewpoint: Viewpoint, set: TcpTables) -> Self {
        set.0[viewpoint as usize][usize::from(flags & 31)][self as usize & 15]
    }

    /// Whether a connection in this state counts as active (`SEMANTICS.md` section 3).
    #[inline]
    pub fn is_active(self) -> bool {
        const ACTIVE: u16 = 1 << TcpState::Established as u16
            | 1 << TcpState::SynSent as u16
            | 1 << TcpState::SynRecv as u16
            | 1 << TcpState::SynAck as u16;
        ACTIVE >> self as u16 & 1 == 1
    }

    /// As listed.
    pub fn name(self) -> StateName {
        match self {
            Self::None => StateName::None,
            Self::Established => StateName::Established,
            Self::SynSent => StateName::SynSent,
            Self::SynRecv => StateName::SynRecv,
            Self::FinWait => StateName::FinWait,
            Self::TimeWait => StateName::TimeWait,
            Self::Close => StateName::Close,
            Self::CloseWait => StateName::CloseWait,
            Self::LastAck => StateName::LastAck,
            Self::Listen => StateName::Listen,
            Self::SynAck => StateName::SynAck,
        }
    }
}

/// The row of a transition table for each set of control bits; the last one is for none that counts.
const fn rows() -> [u8; 32] {
    let mut rows = [4; 32];
    let mut flags = 0;
    while flags < 32 {
        let bits = flags as u8;
        rows[flags] = if bits & tcp::RST != 0 {
            3
        } else if bits & tcp::SYN != 0 {
            0
        } else if bits & tcp::FIN != 0 {
            1
        } else if bits & tcp::ACK != 0 {
            2
        } else {
            4
        };
        flags += 1;
    }
    rows
}

/// A table with a row for all control bits, and as wide as a power of two, so that no index needs a check and none a detour.
type Filled = [[TcpState; 16]; 32];

/// By [`Viewpoint`].
static NORMAL: [Filled; 3] = [
    filled(tables::CLIENT),
    filled(tables::SERVER),
    filled(tables::CLIENT_ONLY),
];

static SECURE: [Filled; 3] = [
    filled(tables::SECURE_CLIENT),
    filled(tables::SECURE_SERVER),
    filled(tables::SECURE_CLIENT_ONLY),
];

const fn filled(table: Table) -> Filled {
    let rows = rows();
    let mut filled = [[TcpState::Close; 16]; 32];
    let mut flags = 0;
    while flags < rows.len() {
        let row = rows[flags] as usize;
        let mut column = 0;
        while row < table.len() && column < table[row].len() {
            filled[flags][column] = table[row][column];
            column += 1;
        }
        flags += 1;
    }
    filled
}

/// A connection's state, as listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateName {
    /// No state yet.
    None,
    /// TCP, SCTP: established.
    Established,
    /// TCP: the server's SYN seen first.
    SynSent,
    /// TCP: the client's SYN seen.
    SynRecv,
    /// TCP: one side closed.
    FinWait,
    /// TCP: both sides closed.
    TimeWait,
    /// TCP: reset, or nothing understood.
    Close,
    /// TCP: the client closed first.
    CloseWait,
    /// TCP: waiting for the last ACK.
    LastAck,
    /// TCP: listening.
    Listen,
    /// TCP: SYN answered (`secure_tcp`).
    SynAck,
    /// UDP's only state.
    Udp,
    /// A template whose connections were confirmed.
    Assured,
}

impl StateName {
    /// As `ipvsadm -Lc` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait => "FIN_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::SynAck => "SYNACK",
            Self::Udp => "UDP",
            Self::Assured => "ASSURED",
        }
    }
}

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
    pub fn tcp(&self, state: TcpState) -> u32 {
        self.tcp[state as usize & 15]
    }

    /// Of UDP.
    #[inline]
    pub fn udp(&self) -> u32 {
        self.udp
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tcp::{ACK, FIN, RST, SYN};

    /// Runs packets, upper case from the client, lower case from the server, through the tables.
    fn run(sequence: &str, no_output: bool, set: TcpTables) -> TcpState {
        let mut state = TcpState::None;
        for letter in sequence.chars() {
            let viewpoint = match (letter.is_uppercase(), no_output) {
                (true, true) => Viewpoint::ClientOnly,
                (true, false) => Viewpoint::Client,
                (false, _) => Viewpoint::Server,
            };
            let flags = match letter {
                'S' => SYN,
                's' => SYN | ACK,
                'A' | 'a' => ACK,
                'F' | 'f' => FIN | ACK,
                'R' | 'r' => RST,
                _ => 0,
            };
            state = state.after(flags, viewpoint, set);
        }
        state
    }

    #[test]
    fn a_nat_connection_closed_by_the_client_passes_close_wait_to_time_wait() {
        assert_eq!(run("SsA", false, TcpTables::NORMAL), TcpState::Established);
        assert_eq!(run("SsAF", false, TcpTables::NORMAL), TcpState::CloseWait);
        assert_eq!(run("SsAFf", false, TcpTables::NORMAL), TcpState::TimeWait);
        assert_eq!(run("SsAf", false, TcpTables::NORMAL), TcpState::FinWait);
    }

    #[test]
    fn a_dr_connection_ends_in_fin_wait() {
        assert_eq!(run("SAFA", true, TcpTables::NORMAL), TcpState::FinWait);
    }

    #[test]
    fn a_reset_of_a_half_open_connection_changes_nothing() {
        assert_eq!(run("SR", false, TcpTables::NORMAL), TcpState::SynRecv);
        assert_eq!(run("SsAR", false, TcpTables::NORMAL), TcpState::Close);
    }

    #[test]
    fn a_packet_without_any_flag_closes() {
        assert_eq!(run("SsA.", false, TcpTables::NORMAL), TcpState::Close);
    }

    #[test]
    fn secure_tcp_keeps_an_unanswered_ack_half_open() {
        assert_eq!(run("SA", false, TcpTables::SECURE), TcpState::SynRecv);
        assert_eq!(run("S", true, TcpTables::SECURE), TcpState::SynAck);
        assert_eq!(run("Ss", false, TcpTables::SECURE), TcpState::SynAck);
    }

    #[test]
    fn set_timeouts_change_their_own_states_only() {
        let timeouts = Timeouts {
            established_s: 10,
            fin_wait_s: 11,
            udp_s: 12,
        };
        let rate = TickRate::new(1);
        let table = TimeoutTable::new(&timeouts, rate, GrainRate::new(rate));
        assert_eq!(table.tcp(TcpState::Established), 11);
        assert_eq!(table.tcp(TcpState::FinWait), 12);
        assert_eq!(table.tcp(TcpState::TimeWait), 121);
        assert_eq!(table.udp(), 13);
    }
}
