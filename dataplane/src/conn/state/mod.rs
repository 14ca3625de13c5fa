//! Connection states and their timeouts (`SEMANTICS.md` section 6).

mod sctp;
mod tcp;
mod timeouts;

pub use self::tcp::TcpTables;
pub use self::timeouts::{TimeoutTable, Timeouts};

/// States of TCP, in the order of its transition tables' columns, then those that only SCTP has, in the order of its.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// No packet yet; also the state of every UDP connection.
    #[default]
    None,
    /// Both sides have opened, or it was taken up in mid-stream.
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
    /// SCTP: the client's first INIT.
    Init1 = 16,
    /// SCTP: more than one INIT.
    Init,
    /// SCTP: the server answered INIT.
    CookieSent,
    /// SCTP: the client sent its cookie back.
    CookieReplied,
    /// SCTP: the server's INIT seen first.
    CookieWait,
    /// SCTP: the client answered that.
    Cookie,
    /// SCTP: the server sent its cookie back, or is to have done so.
    CookieEchoed,
    /// SCTP: the server closes.
    ShutdownSent,
    /// SCTP: the client closes.
    ShutdownReceived,
    /// SCTP: the server agreed to the end.
    ShutdownAckSent,
    /// SCTP: aborted before it was open.
    Rejected,
    /// SCTP: over.
    Closed,
}

impl State {
    /// Whether a connection in this state counts as active (`SEMANTICS.md` section 3).
    #[inline]
    pub fn is_active(self) -> bool {
        const ACTIVE: u32 = 1 << State::Established as u32
            | 1 << State::SynSent as u32
            | 1 << State::SynRecv as u32
            | 1 << State::SynAck as u32;
        ACTIVE >> self as u32 & 1 == 1
    }

    /// Whether a packet that opens a connection may take the place of one in this state (`SEMANTICS.md` section 2).
    pub fn is_over(self) -> bool {
        matches!(self, Self::TimeWait | Self::Close | Self::Closed)
    }

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
            Self::Init1 => "INIT1",
            Self::Init => "INIT",
            Self::CookieSent => "C-SENT",
            Self::CookieReplied => "C-REPLIED",
            Self::CookieWait => "C-WAIT",
            Self::Cookie => "COOKIE",
            Self::CookieEchoed => "C-ECHOED",
            Self::ShutdownSent => "S-SENT",
            Self::ShutdownReceived => "S-RECEIVED",
            Self::ShutdownAckSent => "S-ACK-SENT",
            Self::Rejected => "REJECTED",
            Self::Closed => "CLOSED",
        }
    }
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

/// The state that a connection or template is listed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateName {
    /// A connection's own, or none.
    Of(State),
    /// UDP's only state.
    Udp,
    /// A template whose connections were confirmed.
    Assured,
}

impl StateName {
    /// As `ipvsadm -Lc` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Of(state) => state.name(),
            Self::Udp => "UDP",
            Self::Assured => "ASSURED",
        }
    }
}

#[cfg(test)]
mod against_text;
