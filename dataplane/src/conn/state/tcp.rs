//! What TCP's control bits make of a connection.

use super::{State, Viewpoint};
use crate::packet::tcp;

/// Columns `NO ES SS SR FW TW CL CW LA LI SA`, rows SYN, FIN, ACK, RST.
type Table = [[State; 11]; 4];

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
    use super::super::State::{
        Close as CL, CloseWait as CW, Established as ES, FinWait as FW, LastAck as LA,
        Listen as LI, SynAck as SA, SynRecv as SR, SynSent as SS, TimeWait as TW,
    };
    use super::Table;

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

impl State {
    /// The state after a packet with control bits `flags`: reset counts before SYN, before FIN, before ACK; `Close` after one
    /// with none of them.
    #[inline]
    pub fn after(self, flags: u8, viewpoint: Viewpoint, set: TcpTables) -> Self {
        set.0[viewpoint as usize][usize::from(flags & 31)][self as usize & 15]
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
type Filled = [[State; 16]; 32];

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
    let mut filled = [[State::Close; 16]; 32];
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::tcp::{ACK, FIN, RST, SYN};

    /// Runs packets, upper case from the client, lower case from the server, through the tables.
    fn run(sequence: &str, no_output: bool, set: TcpTables) -> State {
        let mut state = State::None;
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
        assert_eq!(run("SsA", false, TcpTables::NORMAL), State::Established);
        assert_eq!(run("SsAF", false, TcpTables::NORMAL), State::CloseWait);
        assert_eq!(run("SsAFf", false, TcpTables::NORMAL), State::TimeWait);
        assert_eq!(run("SsAf", false, TcpTables::NORMAL), State::FinWait);
    }

    #[test]
    fn a_dr_connection_ends_in_fin_wait() {
        assert_eq!(run("SAFA", true, TcpTables::NORMAL), State::FinWait);
    }

    #[test]
    fn a_reset_of_a_half_open_connection_changes_nothing() {
        assert_eq!(run("SR", false, TcpTables::NORMAL), State::SynRecv);
        assert_eq!(run("SsAR", false, TcpTables::NORMAL), State::Close);
    }

    #[test]
    fn a_packet_without_any_flag_closes() {
        assert_eq!(run("SsA.", false, TcpTables::NORMAL), State::Close);
    }

    #[test]
    fn secure_tcp_keeps_an_unanswered_ack_half_open() {
        assert_eq!(run("SA", false, TcpTables::SECURE), State::SynRecv);
        assert_eq!(run("S", true, TcpTables::SECURE), State::SynAck);
        assert_eq!(run("Ss", false, TcpTables::SECURE), State::SynAck);
    }
}
