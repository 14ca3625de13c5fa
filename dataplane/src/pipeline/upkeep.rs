//! What a worker does between bursts: ends what has timed out, what lost its real server, and what a flood left behind
//! (`SEMANTICS.md` sections 1, 5 and 8). Each a bounded piece a turn, so that packets do not wait.

use arrayvec::ArrayVec;

use super::Pipeline;
use crate::conn::Conn;
use crate::conn::state::State;
use crate::conn::template::{Ending, Template};
use crate::conn::timer::Timer;
use crate::io::Port;
use crate::service::Protocol;
use crate::time::{Grain, Ticks};

/// Timers handled in one turn.
const EXPIRIES: usize = 256;

/// Timers handled together, so that memory is waited for once and not for each.
const EXPIRED_AT_ONCE: usize = 32;

/// Places looked at by a sweep in one turn.
const SWEPT: usize = 512;

/// Seconds that a template lives on, again and again, while it controls connections.
const CONTROLLING_S: u32 = 60;

/// Seconds after which `drop_entry` takes even an established connection for unused.
const UNUSED_S: u32 = 60;

/// Every so many-th of all places is looked at by `drop_entry` each second.
const SAMPLE: usize = 32;

/// Client packets from which on `drop_entry` spares an established connection.
const BUSY: usize = 9;

/// What is under way.
#[derive(Debug)]
pub(super) struct Upkeep {
    /// Where the sweep for connections of deleted servers goes on.
    sweep: Option<Sweep>,
    /// When `drop_entry` begins another sample.
    next_sample: Ticks,
    /// Places of this second's sample still to be looked at.
    sample: usize,
    random: u64,
    /// How many more to spare, by client packets.
    spared: [u8; BUSY],
}

#[derive(Clone, Copy, Debug)]
enum Sweep {
    Connections(usize),
    Templates(usize),
}

impl Upkeep {
    pub(super) fn new(now: Ticks) -> Self {
        Self {
            sweep: None,
            next_sample: now,
            sample: 0,
            random: now.0 | 1,
            spared: [0; BUSY],
        }
    }

    /// A number that nobody need be unable to guess (xorshift).
    fn draw(&mut self, below: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        ((u128::from(self.random) * below as u128) >> 64) as usize
    }

    /// Whether one that has seen so many client packets goes: of those with n every n-th, none without any.
    fn drops(&mut self, packets: u8) -> bool {
        let Some(spared) = self.spared.get_mut(usize::from(packets)) else {
            return false;
        };
        if packets == 0 {
            return false;
        }
        *spared = spared.saturating_sub(1);
        let drops = *spared == 0;
        if drops {
            *spared = packets;
        }
        drops
    }
}

impl<P: Port> Pipeline<P> {
    /// Ends connections and templates whose time has come. Returns whether there were any timers to handle.
    pub(crate) fn expire_due(&mut self) -> bool {
        let mut busy = false;
        for _ in 0..EXPIRIES / EXPIRED_AT_ONCE {
            let mut due = ArrayVec::<Timer, EXPIRED_AT_ONCE>::new();
            while !due.is_full()
                && let Some(timer) = self.wheel.pop(self.grain)
            {
                self.table.prefetch_place(timer.id);
                due.push(timer);
            }
            if due.is_empty() {
                break;
            }
            busy = true;
            for timer in &due {
                self.table.prefetch_removal(timer.id, self.grain);
            }
            for timer in &due {
                self.fire(timer);
            }
        }
        if !self.templates.is_empty() {
            busy |= self.expire_templates();
        }
        busy
    }

    /// A timer came due, and what it is about is likely in the cache.
    fn fire(&mut self, timer: &Timer) {
        if !self.table.counts(timer) {
            return;
        }
        *self.table.timer_of(timer.id).0 = false;
        let Some(conn) = self.table.conn(timer.id) else {
            return;
        };
        if conn.expired(self.grain) {
            self.expire(timer.id, Ending::Natural);
        } else {
            let due = self.grain.0 + u64::from(conn.left(self.grain)) + 1;
            self.file(timer.id, Grain(due));
        }
    }

    #[cold]
    #[inline(never)]
    fn expire_templates(&mut self) -> bool {
        let again = self.grains_of(CONTROLLING_S);
        let mut busy = false;
        for _ in 0..EXPIRIES {
            let Some(end) = self.templates.expire_due(self.grain, again) else {
                break;
            };
            busy = true;
            if let Some(template) = end {
                self.forget(&template);
            }
        }
        busy
    }

    /// Counts a template that went.
    pub(super) fn forget(&self, template: &Template) {
        self.cells.servers[template.rs() as usize].templates.sub(1);
    }

    fn grains_of(&self, seconds: u32) -> u32 {
        self.grains.at_least(self.rate.seconds(seconds))
    }

    /// Real servers were deleted: with `expire_nodest_conn` their connections are not waited for.
    pub(crate) fn servers_deleted(&mut self) {
        if self.settings.expire_nodest_conn {
            self.upkeep.sweep = Some(Sweep::Connections(0));
        }
    }

    /// A piece of the sweeps that are under way. Returns whether there were any.
    #[inline]
    pub(crate) fn keep_up(&mut self) -> bool {
        let swept = self.upkeep.sweep.is_some() && self.sweep();
        if self.settings.defence.drop_entry {
            self.drop_entries();
        }
        swept
    }

    #[cold]
    #[inline(never)]
    fn sweep(&mut self) -> bool {
        self.upkeep.sweep = match self.upkeep.sweep {
            Some(Sweep::Connections(mut place)) => {
                let end = place + SWEPT;
                loop {
                    let Some((found, next)) = self.table.scan_ids(place, end - place) else {
                        break Some(Sweep::Templates(0));
                    };
                    if let Some((id, conn)) = found
                        && !self.services.server_at(conn.rs).available
                    {
                        self.expire(id, Ending::Forced);
                    }
                    place = next;
                    if place >= end {
                        break Some(Sweep::Connections(place));
                    }
                }
            }
            Some(Sweep::Templates(mut place)) => {
                let end = place + SWEPT;
                loop {
                    let Some((found, next)) = self.templates.scan(place, end - place) else {
                        break None;
                    };
                    if let Some((id, template)) = found
                        && !template.in_use()
                        && !self.services.server_at(template.rs()).available
                        && let Some(template) = self.templates.remove(id)
                    {
                        self.forget(&template);
                    }
                    place = next;
                    if place >= end {
                        break Some(Sweep::Templates(place));
                    }
                }
            }
            None => None,
        };
        true
    }

    /// `drop_entry`: of a random sample each second, those go that a flood may have left behind.
    #[cold]
    #[inline(never)]
    fn drop_entries(&mut self) {
        let places = self.table.capacity() + self.templates.capacity();
        if self.now >= self.upkeep.next_sample {
            self.upkeep.next_sample = self.now + self.rate.seconds(1);
            self.upkeep.sample = places / SAMPLE;
        }
        let turn = self.upkeep.sample.min(SWEPT);
        self.upkeep.sample -= turn;
        for _ in 0..turn {
            let place = self.upkeep.draw(places);
            match place.checked_sub(self.table.capacity()) {
                None => self.drop_connection(place),
                Some(place) => self.drop_template(place),
            }
        }
    }

    fn drop_connection(&mut self, place: usize) {
        let Some((Some((id, conn)), _)) = self.table.scan_ids(place, 1) else {
            return;
        };
        if self.looks_unused(&Conn::clone(conn)) {
            self.expire(id, Ending::Forced);
        }
    }

    fn looks_unused(&mut self, conn: &Conn) -> bool {
        match (conn.protocol(), conn.state) {
            (Protocol::Tcp, State::SynRecv | State::SynAck) => true,
            (Protocol::Sctp, State::Init1 | State::Init) => true,
            (Protocol::Tcp | Protocol::Sctp, State::Established) | (Protocol::Udp, _) => {
                let idle = self.grain.since(conn.seen);
                idle >= self.grains_of(UNUSED_S) && self.upkeep.drops(conn.packets)
            }
            (Protocol::Tcp | Protocol::Sctp, _) => false,
        }
    }

    fn drop_template(&mut self, place: usize) {
        let Some((Some((id, template)), _)) = self.templates.scan(place, 1) else {
            return;
        };
        if template.in_use() {
            return;
        }
        let goes = if template.one_packet() {
            template.idle(self.grain) >= self.grains_of(UNUSED_S)
                && self.upkeep.drops(template.connections())
        } else {
            !template.assured()
        };
        if goes && let Some(template) = self.templates.remove(id) {
            self.forget(&template);
        }
    }
}
