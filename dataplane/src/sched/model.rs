//! A model of every scheduler's rule: `SEMANTICS.md` section 4 word by word, with scans and no structure that could go stale.
//!
//! Each rule has seeded mistakes (a tie decided the other way, a bound off by one), of which the model makes one when told to:
//! the comparison with the schedulers must then find a difference, or it proves nothing.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::siphash::siphash13;
use super::tests::Bench;
use crate::service::{SchedulerFlags, SchedulerKind};

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Server {
    pub(super) weight: i128,
    pub(super) last_weight: u32,
    pub(super) active: i128,
    pub(super) total: i128,
    pub(super) overloaded: bool,
}

impl Server {
    pub(super) fn usable(&self) -> bool {
        self.weight > 0 && !self.overloaded
    }

    pub(super) fn overhead(&self) -> i128 {
        256 * self.active + self.total
    }
}

/// A service as the kernel has it. Servers are kept when deleted.
pub(super) struct Model {
    kind: SchedulerKind,
    flags: SchedulerFlags,
    pub(super) servers: HashMap<u32, Server>,
    pub(super) list: Vec<u32>,
    pub(super) src: Ipv4Addr,
    pub(super) dst: Ipv4Addr,
    pub(super) port: u16,
    pub(super) now: u64,
    /// The seeded mistake that it makes, from 1; 0 for none.
    pub(super) mistake: usize,
    /// rr's pointer, wrr's `cl`; `None` for the sentinel.
    pointer: Option<u32>,
    /// wrr's `cw`, `mw` and `di`.
    wrr: [i128; 3],
    lblc: HashMap<Ipv4Addr, u32>,
    /// Members and when they were changed.
    lblcr: HashMap<Ipv4Addr, (Vec<u32>, u64)>,
}

/// Seconds after which a set of lblcr shrinks.
pub(super) const LBLCR_EXPIRATION: u64 = 15;

impl Model {
    /// Without servers, the flow being that of `bench`.
    pub(super) fn new(kind: SchedulerKind, flags: SchedulerFlags, bench: &Bench) -> Self {
        Self {
            kind,
            flags,
            servers: HashMap::new(),
            list: Vec::new(),
            src: bench.flow.src,
            dst: bench.flow.dst,
            port: bench.flow.src_port,
            now: 0,
            mistake: 0,
            pointer: None,
            wrr: [0, 0, 1],
            lblc: HashMap::new(),
            lblcr: HashMap::new(),
        }
    }

    fn server(&self, number: u32) -> Server {
        self.servers[&number]
    }

    fn listed(&self) -> impl Iterator<Item = (u32, Server)> + '_ {
        self.list
            .iter()
            .map(|number| (*number, self.server(*number)))
    }

    pub(super) fn add(&mut self, number: u32, weight: u32) {
        let server = self.servers.entry(number).or_default();
        server.weight = i128::from(weight);
        server.last_weight = weight;
        self.list.insert(0, number);
        self.wrr_edited();
    }

    pub(super) fn delete(&mut self, number: u32) {
        let at = self.list.iter().position(|other| *other == number).unwrap();
        if self.kind == SchedulerKind::Rr && self.pointer == Some(number) {
            let predecessor = at.checked_sub(1).map(|before| self.list[before]);
            // Mistake: goes on at the head.
            self.pointer = predecessor.filter(|_| self.mistake != 1);
        }
        self.list.remove(at);
        self.wrr_edited();
    }

    pub(super) fn set_weight(&mut self, number: u32, weight: u32) {
        let server = self.servers.get_mut(&number).unwrap();
        server.weight = i128::from(weight);
        if weight != 0 {
            server.last_weight = weight;
        }
        self.wrr_edited();
    }

    pub(super) fn choose(&mut self) -> Option<u32> {
        use SchedulerKind as Kind;
        match self.kind {
            Kind::Rr => self.rr(),
            Kind::Wrr => self.wrr(),
            Kind::Lc => self.lc(),
            Kind::Wlc => self.by_ratio(&self.list, Server::overhead),
            Kind::Sed => self.by_ratio(&self.list, |server| server.active + 1),
            Kind::Nq => self.nq(),
            Kind::Fo => self.heaviest(|_| true),
            // Mistake: full with as many active connections as weight.
            Kind::Ovf if self.mistake == 1 => self.heaviest(|server| server.active < server.weight),
            Kind::Ovf => self.heaviest(|server| server.active <= server.weight),
            Kind::Dh => self.dh(),
            Kind::Sh => self.sh(),
            Kind::Mh => self.mh(),
            Kind::Lblc => self.lblc(),
            Kind::Lblcr => self.lblcr(),
            Kind::Twos => unreachable!("random"),
        }
    }

    fn rr(&mut self) -> Option<u32> {
        let count = self.list.len();
        let at = self
            .pointer
            .map(|number| self.list.iter().position(|other| *other == number).unwrap());
        for step in 1..=count {
            // The sentinel is before the first.
            let place = at.map_or(step - 1, |at| (at + step) % count);
            if self.server(self.list[place]).usable() {
                self.pointer = Some(self.list[place]);
                return self.pointer;
            }
        }
        None
    }

    fn wrr_edited(&mut self) {
        if self.kind != SchedulerKind::Wrr {
            return;
        }
        let weights: Vec<i128> = self
            .listed()
            .map(|(_, s)| s.weight)
            .filter(|w| *w > 0)
            .collect();
        let heaviest = weights.iter().copied().max().unwrap_or(0);
        let divides = |d: i128| weights.iter().all(|w| w % d == 0);
        // Divisors come in pairs, so one half of each need be tried only up to the root.
        let least = weights.iter().copied().min().unwrap_or(1);
        let pairs = (1..=46_341)
            .take_while(|d| d * d <= least)
            .filter(|d| least % d == 0);
        let divisor = pairs
            .flat_map(|d| [d, least / d])
            .filter(|d| divides(*d))
            .max()
            .unwrap();
        self.pointer = None;
        let [cw, mw, di] = &mut self.wrr;
        *di = divisor;
        *mw = heaviest - (divisor - 1);
        if *cw > *mw || *cw == 0 {
            *cw = *mw;
        } else if *di > 1 {
            *cw = *cw / *di * *di + 1;
        }
    }

    /// Node 0 is the sentinel, node `n` the server at place `n - 1`.
    fn wrr(&mut self) -> Option<u32> {
        let [mut cw, mw, di] = self.wrr;
        if mw == 0 {
            return None;
        }
        let node_of = |number: Option<u32>| {
            number.map_or(0, |n| {
                self.list.iter().position(|other| *other == n).unwrap() + 1
            })
        };
        let last = node_of(self.pointer);
        let (mut node, mut restarted, mut last_pass) = (last, false, false);
        let chosen = loop {
            node = (node + 1) % (self.list.len() + 1);
            if node > 0 {
                let number = self.list[node - 1];
                let server = self.server(number);
                // Mistake: a level not reached by its own weight.
                let level = if self.mistake == 1 { cw + 1 } else { cw };
                if !server.overloaded && server.weight >= level {
                    break Some(number);
                }
                if node == last && last_pass && restarted {
                    // Given up where it stands: the walk's place stays.
                    break None;
                }
                continue;
            }
            cw -= di;
            if cw <= 0 {
                cw = mw;
                if last_pass || last == 0 {
                    self.pointer = None;
                    break None;
                }
                restarted = true;
            }
            last_pass = cw <= di;
        };
        self.wrr[0] = cw;
        if chosen.is_some() {
            self.pointer = chosen;
        }
        chosen
    }

    fn lc(&self) -> Option<u32> {
        let mut best: Option<(u32, Server)> = None;
        for (number, server) in self.listed().filter(|(_, server)| server.usable()) {
            // Mistake: the later of equals.
            let tie = i128::from(self.mistake == 1);
            if best.is_none_or(|(_, best)| server.overhead() < best.overhead() + tie) {
                best = Some((number, server));
            }
        }
        best.map(|(number, _)| number)
    }

    fn by_ratio(&self, numbers: &[u32], load: fn(&Server) -> i128) -> Option<u32> {
        let mut best: Option<(u32, Server)> = None;
        for number in numbers {
            let server = self.server(*number);
            let better = match best {
                None => server.usable(),
                Some((_, best)) => {
                    let (kept, taken) = (load(&best) * server.weight, load(&server) * best.weight);
                    // Mistake: the later of equals.
                    let tie = self.mistake == 1;
                    server.usable() && (kept > taken || tie && kept == taken)
                }
            };
            if better {
                best = Some((*number, server));
            }
        }
        best.map(|(number, _)| number)
    }

    fn nq(&self) -> Option<u32> {
        let idle = self
            .listed()
            .find(|(_, server)| server.usable() && server.active == 0);
        idle.map(|(number, _)| number)
            .or_else(|| self.by_ratio(&self.list, |server| server.active + 1))
    }

    fn heaviest(&self, takes: fn(&Server) -> bool) -> Option<u32> {
        let mut best: Option<(u32, i128)> = None;
        for (number, server) in self.listed() {
            // Mistake: the later of equals.
            let tie = i128::from(self.mistake == 1 && self.kind == SchedulerKind::Fo);
            let heavier = best.is_none_or(|(_, w)| server.weight > w - tie);
            if server.usable() && takes(&server) && heavier {
                best = Some((number, server.weight));
            }
        }
        best.map(|(number, _)| number)
    }

    fn if_usable(&self, number: u32) -> Option<u32> {
        self.server(number).usable().then_some(number)
    }

    fn dh(&self) -> Option<u32> {
        let mut buckets = Vec::new();
        while !self.list.is_empty() && buckets.len() < 256 {
            buckets.push(self.list[buckets.len() % self.list.len()]);
        }
        // Mistake: the bucket beside.
        let bucket = hash32(self.dst.to_bits()) ^ usize::from(self.mistake == 1);
        let number = *buckets.get(bucket)?;
        self.if_usable(number)
    }

    fn sh(&self) -> Option<u32> {
        let mut buckets = Vec::new();
        while !self.list.is_empty() && buckets.len() < 256 {
            for (number, server) in self.listed() {
                // Mistake: the least share is two buckets.
                let least = 1 + i128::from(self.mistake == 1);
                for _ in 0..server.weight.clamp(least, 256) {
                    buckets.push(number);
                }
            }
        }
        let bucket = hash32(self.src.to_bits().wrapping_add(self.source_port()));
        if let Some(number) = buckets.get(bucket).and_then(|n| self.if_usable(*n)) {
            return Some(number);
        }
        if !self.flags.fallback() || buckets.is_empty() {
            return None;
        }
        (0..256).find_map(|o| {
            let r = (o + bucket) % 256;
            self.if_usable(buckets[(r + bucket) % 256])
        })
    }

    fn source_port(&self) -> u32 {
        if self.flags.port() {
            u32::from(self.port)
        } else {
            0
        }
    }

    /// Section 3.4 of the paper: whole permutations, then turns.
    fn mh(&self) -> Option<u32> {
        const M: u32 = 4093;
        let (k1, k2) = (2_654_435_761, 2_654_446_892);
        let weights: Vec<u32> = self.listed().map(|(_, s)| s.last_weight).collect();
        let heaviest = weights.iter().copied().max().filter(|w| *w > 0)?;
        let divisor = weights
            .iter()
            .copied()
            .filter(|w| *w > 0)
            .fold(0, |mut a, mut b| {
                while b > 0 {
                    (a, b) = (b, a % b);
                }
                a
            });
        let mut shift = 0;
        while (heaviest / divisor) >> shift >= 64 {
            shift += 1;
        }
        let mut preferences: Vec<(u32, u32, Vec<u32>)> = Vec::new();
        for (number, server) in self.listed().filter(|(_, s)| s.last_weight > 0) {
            let endpoint = 0xc0a8_0100 + number + 80;
            let (offset, skip) = (
                siphash13(k1, endpoint) % M,
                // Mistake: a stride of one less.
                siphash13(k2, endpoint) % (M - 1) + u32::from(self.mistake != 1),
            );
            let turns = ((server.last_weight / divisor) >> shift).max(1);
            let mut order: Vec<u32> = (0..M).map(|j| (offset + j * skip) % M).collect();
            order.reverse();
            preferences.push((number, turns, order));
        }
        let mut slots = vec![None; M as usize];
        let mut filled = 0;
        while filled < M {
            for (number, turns, order) in &mut preferences {
                for _ in 0..*turns {
                    let free =
                        std::iter::from_fn(|| order.pop()).find(|at| slots[*at as usize].is_none());
                    if let Some(at) = free {
                        slots[at as usize] = Some(*number);
                        filled += 1;
                    }
                }
            }
        }
        let source = self.src.to_bits().wrapping_add(self.source_port());
        let slot = siphash13(k1, source) % M;
        let first = slots[slot as usize]?;
        if self.server(first).usable() || !self.flags.fallback() {
            return self.if_usable(first);
        }
        (0..M).find_map(|o| {
            let r = (o + slot) % M;
            let number = slots[(siphash13(k1, source.wrapping_add(r)) % M) as usize];
            number.and_then(|number| self.if_usable(number))
        })
    }

    fn has_enough(&self, number: u32) -> bool {
        let server = self.server(number);
        // Mistake: as many active connections as weight are enough.
        let bound = i128::from(self.mistake == 2);
        server.active > server.weight - bound
            && self
                .listed()
                // Mistake: another one that is just half full.
                .any(|(_, m)| 2 * m.active < m.weight + i128::from(self.mistake == 3))
    }

    fn lblc(&mut self) -> Option<u32> {
        if let Some(number) = self.lblc.get(&self.dst).copied()
            && self.list.contains(&number)
            && self.server(number).weight > 0
            // Mistake: looks at the flag.
            && !(self.mistake == 4 && self.server(number).overloaded)
            && !self.has_enough(number)
        {
            return Some(number);
        }
        let number = self.by_ratio(&self.list, Server::overhead)?;
        self.lblc.insert(self.dst, number);
        Some(number)
    }

    fn lblcr(&mut self) -> Option<u32> {
        let all = |model: &Self| model.by_ratio(&model.list, Server::overhead);
        let Some((mut set, mut modified)) = self.lblcr.remove(&self.dst) else {
            let number = all(self)?;
            self.lblcr.insert(self.dst, (vec![number], self.now));
            return Some(number);
        };
        let available: Vec<u32> = set
            .iter()
            .copied()
            .filter(|n| self.list.contains(n))
            .collect();
        let mut chosen = self.by_ratio(&available, Server::overhead);
        // Mistake: on the very second.
        let due = modified + LBLCR_EXPIRATION - u64::from(self.mistake == 4);
        if set.len() > 1 && self.now > due {
            let mut most: Option<(u32, Server)> = None;
            for number in &set {
                let server = self.server(*number);
                let more = match most {
                    None => true,
                    Some((_, most)) => {
                        // Mistake: the later of equals.
                        let tie = i128::from(self.mistake == 5);
                        most.overhead() * server.weight < server.overhead() * most.weight + tie
                    }
                };
                // Mistake: only those that are there.
                let there = self.mistake != 6 || self.list.contains(number);
                if server.weight > 0 && more && there {
                    most = Some((*number, server));
                }
            }
            if let Some((most, _)) = most {
                set.retain(|number| *number != most);
                // Mistake: goes on shrinking.
                if self.mistake != 7 {
                    modified = self.now;
                }
                // Mistake: who is removed serves no more.
                chosen = chosen.filter(|number| self.mistake != 8 || *number != most);
            }
        }
        if chosen.is_none_or(|number| self.has_enough(number)) {
            chosen = all(self);
            if let Some(number) = chosen.filter(|number| !set.contains(number)) {
                // Mistake: the latest last.
                let at = if self.mistake == 9 { set.len() } else { 0 };
                set.insert(at, number);
                // Mistake: growing is no change.
                if self.mistake != 10 {
                    modified = self.now;
                }
            }
        }
        self.lblcr.insert(self.dst, (set, modified));
        chosen
    }
}

fn hash32(value: u32) -> usize {
    let product = u64::from(value) * 0x61C8_8647 % (1 << 32);
    (product >> 24) as usize
}
