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
    /// Schedule ICMP errors of no connection by the packet that they quote.
    pub schedule_icmp: bool,
    /// Seconds after which lblc forgets a destination that nobody asked for.
    pub lblc_expiration_s: u32,
    /// Seconds after which lblcr forgets a destination, and after which a destination's set of servers shrinks.
    pub lblcr_expiration_s: u32,
    /// Whether rates are estimated.
    pub run_estimation: bool,
    /// When to defend against floods.
    pub policy: DefencePolicy,
    /// What that comes to at the moment. Control works it out each second ([`DefencePolicy::evaluate`]).
    pub defence: Defence,
    /// Settings of the kernel that change nothing here.
    pub kept: Kept,
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
            schedule_icmp: false,
            lblc_expiration_s: 86_400,
            lblcr_expiration_s: 86_400,
            run_estimation: true,
            policy: DefencePolicy::default(),
            defence: Defence::default(),
            kept: Kept::default(),
        }
    }
}

/// Settings that are kept and listed for the scripts that set them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The backup daemon's machine forwards nothing.
    pub backup_only: bool,
    /// Packets of a mark's service without servers go on to where they are addressed.
    pub cache_bypass: bool,
    /// The kernel's connection tracking sees IPVS' packets.
    pub conntrack: bool,
    /// IPVS passes tunnelled packets over.
    pub ignore_tunneled: bool,
    /// Replies are routed again as the virtual address' own.
    pub snat_reroute: bool,
}

impl Default for Kept {
    fn default() -> Self {
        Self {
            backup_only: false,
            cache_bypass: false,
            conntrack: false,
            ignore_tunneled: false,
            snat_reroute: true,
        }
    }
}

/// When to defend against floods: 0 never, 1 and 2 while memory is short (2: it is), 3 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefencePolicy {
    /// End connections that look unused.
    pub drop_entry: u8,
    /// Drop packets that would open a connection.
    pub drop_packet: u8,
    /// Use the state tables that trust clients less.
    pub secure_tcp: u8,
    /// Memory is short below so many free pages.
    pub amemthresh: u32,
    /// With `drop_packet` 3 every so many-th packet goes.
    pub am_droprate: u32,
}

impl Default for DefencePolicy {
    fn default() -> Self {
        Self {
            drop_entry: 0,
            drop_packet: 0,
            secure_tcp: 0,
            amemthresh: 1024,
            am_droprate: 10,
        }
    }
}

impl DefencePolicy {
    /// Whether anything depends on how much memory is free.
    pub fn is_automatic(&self) -> bool {
        [self.drop_entry, self.drop_packet, self.secure_tcp]
            .iter()
            .any(|mode| matches!(mode, 1 | 2))
    }

    /// What it comes to with so many pages free. Automatic modes become 1 or 2, as in the kernel.
    pub fn evaluate(&mut self, free_pages: u64) -> Defence {
        let threshold = u64::from(self.amemthresh);
        let short = free_pages < threshold;
        let up = |mode: &mut u8| {
            if matches!(*mode, 1 | 2) {
                *mode = if short { 2 } else { 1 };
            }
            *mode >= 2
        };
        let rate = if !up(&mut self.drop_packet) {
            0
        } else if self.drop_packet == 3 {
            self.am_droprate
        } else {
            u32::try_from(threshold / (threshold - free_pages)).unwrap_or(u32::MAX)
        };
        Defence {
            drop_entry: up(&mut self.drop_entry),
            drop_rate: rate,
            secure_tcp: up(&mut self.secure_tcp),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(mode: u8) -> DefencePolicy {
        DefencePolicy {
            drop_entry: mode,
            drop_packet: mode,
            secure_tcp: mode,
            ..DefencePolicy::default()
        }
    }

    #[test]
    fn without_a_mode_nothing_is_up_and_with_mode_3_everything() {
        for free in [0, u64::MAX] {
            assert_eq!(policy(0).evaluate(free), Defence::default());
            let all = Defence {
                drop_entry: true,
                drop_rate: 10,
                secure_tcp: true,
            };
            assert_eq!(policy(3).evaluate(free), all);
        }
    }

    #[test]
    fn automatic_modes_follow_free_memory_and_say_so() {
        let mut automatic = policy(1);
        assert_eq!(automatic.evaluate(1024), Defence::default());
        assert_eq!(automatic, policy(1));
        let up = automatic.evaluate(1023);
        assert_eq!(
            (up.drop_rate, up.drop_entry, up.secure_tcp),
            (1024, true, true)
        );
        assert_eq!(automatic, policy(2));
        assert_eq!(automatic.evaluate(0).drop_rate, 1, "every packet");
        assert_eq!(automatic.evaluate(512).drop_rate, 2);
        assert_eq!(automatic.evaluate(5000), Defence::default());
        assert_eq!(automatic, policy(1));
        assert!(policy(2).is_automatic() && !policy(3).is_automatic());
    }
}
