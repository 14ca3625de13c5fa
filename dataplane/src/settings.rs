//! Settings that connections and forwarding follow, under `net.ipv4.vs`' names where IPVS has them (`SEMANTICS.md` section 8).

use crate::conn::state::Timeouts;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// State timeouts.
    pub timeouts: Timeouts,
    /// Packets of a connection whose server was deleted: 0 drop silently, 1 expire and schedule anew.
    pub expire_nodest_conn: bool,
    /// A template whose server has weight 0 leads nowhere.
    pub expire_quiescent_template: bool,
    /// When a SYN may take over a finished connection: 0, 1, 2 or 3.
    pub conn_reuse_mode: u8,
    /// Schedule TCP packets that are not SYN.
    pub sloppy_tcp: bool,
    /// Schedule SCTP packets that are not INIT.
    pub sloppy_sctp: bool,
    /// Send ICMP "fragmentation needed" about packets too long for a tunnel.
    pub pmtu_disc: bool,
    /// Answer a NAT server's packet of no connection with ICMP "port unreachable".
    pub nat_icmp_send: bool,
    /// Seconds after which lblc forgets a destination that nobody asked for.
    pub lblc_expiration_s: u32,
    /// Seconds after which lblcr forgets a destination, and after which a destination's set of servers shrinks.
    pub lblcr_expiration_s: u32,
    /// What the defences against floods come to at the moment. Control works it out each second.
    pub defence: Defence,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeouts: Timeouts::default(),
            expire_nodest_conn: false,
            expire_quiescent_template: false,
            conn_reuse_mode: 1,
            sloppy_tcp: false,
            sloppy_sctp: false,
            pmtu_disc: true,
            nat_icmp_send: false,
            lblc_expiration_s: 86_400,
            lblcr_expiration_s: 86_400,
            defence: Defence::default(),
        }
    }
}

/// The defences that are up (`drop_entry`, `drop_packet`, `secure_tcp`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Defence {
    /// Each second some connections that look unused are ended.
    pub drop_entry: bool,
    /// Every so many-th packet that would open a connection is dropped; 0 for none.
    pub drop_rate: u32,
    /// The state tables of `secure_tcp` hold.
    pub secure_tcp: bool,
}
