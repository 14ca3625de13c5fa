//! What SCTP's chunks make of a connection.

use super::{State, Viewpoint};
use crate::packet::sctp::Chunk;

/// A row: columns `NO I1 IN CS CR CW CO CE ES SS SR SA RJ CL`.
type Row = [State; 14];

/// Rows by [`Chunk::row`].
type Table = [Row; 10];

mod tables {
    use super::super::State::{
        Closed as CL, Cookie as CO, CookieEchoed as CE, CookieReplied as CR, CookieSent as CS,
        CookieWait as CW, Established as ES, Init as IN, Init1 as I1, None as NO, Rejected as RJ,
        ShutdownAckSent as SA, ShutdownReceived as SR, ShutdownSent as SS,
    };
    use super::{Row, Table};

    pub(super) const COLUMNS: Row = [NO, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL];

    pub(super) const CLIENT: Table = [
        [ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [I1, IN, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, IN, IN],
        [CW, CW, CW, CS, CR, CO, CO, CE, ES, SS, SR, SA, RJ, CL],
        [CR, IN, IN, CR, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [ES, I1, IN, CS, CR, CW, CO, ES, ES, SS, SR, SA, RJ, CL],
        [SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL],
        [CL, IN, IN, CS, CR, CW, CO, CE, ES, CL, SR, CL, RJ, CL],
        [CL, CL, CL, CS, CR, CW, CO, CE, ES, SS, SR, CL, RJ, CL],
        [CL, I1, IN, CS, CR, CW, CO, CL, ES, SS, SR, SA, RJ, CL],
        [CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL],
    ];
    pub(super) const SERVER: Table = [
        [ES, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [CW, CW, CW, CW, CW, CW, CW, CW, ES, CW, CW, CW, CW, CW],
        [CS, CS, CS, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [CE, CE, CE, CE, CE, CE, CE, CE, ES, SS, SR, SA, RJ, CL],
        [ES, ES, ES, ES, ES, ES, ES, ES, ES, SS, SR, SA, RJ, CL],
        [SS, SS, SS, SS, SS, SS, SS, SS, SS, SS, SR, SA, RJ, CL],
        [SA, SA, SA, SA, SA, CW, CO, CE, ES, SA, SA, SA, RJ, CL],
        [CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL, CL],
    ];
    pub(super) const CLIENT_ONLY: Table = [
        [ES, I1, IN, CS, CR, ES, CO, CE, ES, SS, SR, SA, RJ, CL],
        [I1, IN, IN, IN, IN, IN, CO, CE, ES, SS, SR, SA, IN, IN],
        [CE, CE, CE, CE, CE, CE, CO, CE, ES, SS, SR, SA, RJ, CL],
        [ES, ES, ES, ES, ES, ES, CO, CE, ES, SS, SR, SA, RJ, CL],
        [ES, I1, IN, ES, ES, CW, ES, ES, ES, SS, SR, SA, RJ, CL],
        [SR, I1, IN, CS, CR, CW, CO, CE, SR, SS, SR, SA, RJ, CL],
        [CL, IN, IN, CS, CR, CW, CO, CE, CL, CL, SR, CL, RJ, CL],
        [CL, CL, CL, CL, CL, CW, CO, CE, ES, SS, CL, CL, RJ, CL],
        [CL, I1, IN, CS, CR, CW, CO, CE, ES, SS, SR, SA, RJ, CL],
        [CL, CL, CL, CL, CL, RJ, CL, CL, CL, CL, CL, CL, CL, CL],
    ];
}

/// By [`Viewpoint`].
static TABLES: [Table; 3] = [tables::CLIENT, tables::SERVER, tables::CLIENT_ONLY];

impl Chunk {
    /// Its row in the tables. What opens, keeps up or ends nothing is data.
    fn row(self) -> Option<usize> {
        match self {
            Self::Missing => None,
            Self::Data => Some(0),
            Self::Init => Some(1),
            Self::InitAck => Some(2),
            Self::CookieEcho => Some(3),
            Self::CookieAck => Some(4),
            Self::Shutdown => Some(5),
            Self::ShutdownAck => Some(6),
            Self::ShutdownComplete => Some(7),
            Self::Error => Some(8),
            Self::Abort => Some(9),
        }
    }
}

impl State {
    /// The state of an SCTP connection after a packet that begins with such a chunk; the same if there is none.
    pub fn after_chunk(self, chunk: Chunk, viewpoint: Viewpoint) -> Self {
        let column = tables::COLUMNS.iter().position(|state| *state == self);
        match (chunk.row(), column) {
            (Some(row), Some(column)) => TABLES[viewpoint as usize][row][column],
            _ => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Chunk::{Abort, CookieAck, CookieEcho, Data, Init, InitAck, Missing, Shutdown};

    fn run(chunks: &[(Chunk, Viewpoint)]) -> State {
        chunks
            .iter()
            .fold(State::None, |state, (chunk, viewpoint)| {
                state.after_chunk(*chunk, *viewpoint)
            })
    }

    #[test]
    fn an_association_opens_in_four_steps_and_closes() {
        use Viewpoint::{Client, Server};
        let opening = [
            (Init, Client, State::Init1),
            (InitAck, Server, State::CookieSent),
            (CookieEcho, Client, State::CookieReplied),
            (CookieAck, Server, State::Established),
            (Missing, Client, State::Established),
            (Data, Client, State::Established),
            (Shutdown, Client, State::ShutdownReceived),
        ];
        let mut chunks = Vec::new();
        for (chunk, viewpoint, state) in opening {
            chunks.push((chunk, viewpoint));
            assert_eq!(run(&chunks), state);
        }
    }

    #[test]
    fn an_abort_rejects_what_has_only_begun() {
        use Viewpoint::{Client, Server};
        assert_eq!(run(&[(Init, Client), (Abort, Server)]), State::Rejected);
        assert_eq!(run(&[(Init, Client), (Abort, Client)]), State::Closed);
        assert_eq!(run(&[(Init, Server), (Abort, Client)]), State::Rejected);
    }

    #[test]
    fn where_the_server_is_not_seen_a_cookie_establishes() {
        let seen = Viewpoint::ClientOnly;
        assert_eq!(run(&[(Init, seen), (CookieEcho, seen)]), State::Established);
    }
}
