//! Connection states and their timeouts (`SEMANTICS.md` section 6).

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
        }
    }
}

/// Seconds in each state. `--set` changes [`Timeouts::established_s`], [`Timeouts::fin_wait_s`] and
/// [`Timeouts::udp_s`].
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
