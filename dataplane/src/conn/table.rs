//! This worker's connections, found by either of their two keys.
//!
//! Used in stages over a burst: [`ConnTable::hash`] and [`ConnTable::prefetch`] all keys, [`ConnTable::guess`] all
//! connections, [`ConnTable::confirm`] each guess, or [`ConnTable::lookup`]. A hit stays valid until its connection is removed; a
//! guess that was confirmed may be of a connection removed since it was made, but such a one has no next hop.
//! Preallocated: neither insert nor remove allocates.

use super::connection::Conn;
use super::huge::HugeSlice;
use super::index::{Index, Place, Reference};
use super::key::{Direction, Ends, FlowKey};
use super::timer::Timer;
use crate::egress::HopRef;
use crate::service::Protocol;
use crate::time::Grain;

/// A connection's place in the table; another connection may get it once this one is removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnId(u32);

impl ConnId {
    pub(super) fn of(place: u32) -> Self {
        Self(place)
    }

    pub(crate) fn number(self) -> u32 {
        self.0
    }

    fn index(self) -> usize {
        self.0 as usize
    }
}

/// A key's hash under the table's seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(Place);

impl Hash {
    /// Any: where no key was hashed.
    pub(crate) const NONE: Self = Self(Place::NONE);
}

/// Where a hash is looked up first.
#[derive(Clone, Copy, Debug)]
pub struct Bucket(u32);

impl Bucket {
    /// The first: where no hash was.
    pub(crate) const NONE: Self = Self(0);
}

/// A connection found, and which of its keys it was found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The connection.
    pub id: ConnId,
    /// The direction of the packet that has this key.
    pub direction: Direction,
}

/// A connection that a packet may belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guess(u32);

impl Guess {
    /// No connection: its place is past the end of every table.
    pub const NONE: Self = Self(u32::MAX);

    #[inline(always)]
    fn index(self) -> usize {
        (self.0 >> 1) as usize
    }

    #[inline(always)]
    fn direction(self) -> Direction {
        if self.0 & 1 == 0 {
            Direction::ToServer
        } else {
            Direction::ToClient
        }
    }
}

impl Hit {
    fn new(reference: Reference) -> Self {
        let value = reference.value();
        let direction = if value & 1 == 0 {
            Direction::ToServer
        } else {
            Direction::ToClient
        };
        Self {
            id: ConnId(value >> 1),
            direction,
        }
    }

    fn reference(self) -> Reference {
        Reference::new(self.id.0 << 1 | u32::from(self.direction == Direction::ToClient))
    }
}

/// A connection that only its client's packets find yet.
#[derive(Clone, Copy, Debug)]
pub struct Half {
    /// Which.
    pub id: ConnId,
    /// Of its server's packets, unless they find it too.
    reply: Option<Hash>,
}

/// The table has no place left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// One worker's connections.
#[derive(Debug)]
pub struct ConnTable {
    seed: [u64; 3],
    index: Index,
    conns: HugeSlice<Conn>,
    /// Whether a place is taken, a bit each.
    taken: Box<[u64]>,
    free: Vec<u32>,
}

impl ConnTable {
    /// The most connections that a table can be made for.
    pub const MAX: usize = (Reference::MAX >> 1) as usize;

    /// A table for `capacity` connections, at most [`Self::MAX`]. `seed` must not be guessable by those who
    /// send packets.
    pub fn new(capacity: usize, seed: u64) -> Self {
        let capacity = capacity.min(Self::MAX);
        Self {
            seed: [expand(seed, 1), expand(seed, 2), expand(seed, 3)],
            index: Index::with_capacity(capacity * 2),
            conns: HugeSlice::from_fn(capacity, |_| Conn::vacant()),
            taken: vec![0; capacity.div_ceil(64)].into_boxed_slice(),
            free: (0..capacity as u32).rev().collect(),
        }
    }

    /// Bytes of a table for `capacity` connections, before it is made.
    pub fn bytes_for(capacity: usize) -> usize {
        let capacity = capacity.min(Self::MAX);
        Index::bytes_for(capacity * 2)
            + capacity * (size_of::<Conn>() + size_of::<u32>())
            + capacity.div_ceil(64) * size_of::<u64>()
    }

    /// How many it can hold.
    pub fn capacity(&self) -> usize {
        self.conns.len()
    }

    /// How many it holds.
    pub fn len(&self) -> usize {
        self.conns.len() - self.free.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory, all told.
    pub fn bytes(&self) -> usize {
        self.index.bytes()
            + size_of_val(&*self.conns)
            + size_of_val(&*self.taken)
            + self.free.capacity() * size_of::<u32>()
    }

    /// Hashes what a packet shows and its protocol's number: two rounds of multiply and fold under the seed (as wyhash and foldhash do).
    #[inline]
    pub fn hash(&self, protocol: u8, ends: &Ends) -> Hash {
        let (addresses, ports) = ends.words();
        let [a, b, c] = self.seed;
        let rest = u64::from(ports) | u64::from(protocol) << 32;
        let mixed = fold(addresses ^ a, rest ^ b);
        Hash(self.index.place(fold(mixed ^ c, 0x9e37_79b9_7f4a_7c15)))
    }

    /// Hints that `hash` will be looked up soon. Returns where, for [`ConnTable::guess`].
    #[inline(always)]
    pub fn prefetch(&self, hash: Hash) -> Bucket {
        Bucket(self.index.prefetch(hash.0))
    }

    /// The connection that `hash` likely leads to, which is hinted to be read soon. `bucket` was returned for this hash.
    #[inline(always)]
    pub fn guess(&self, hash: Hash, bucket: Bucket) -> Guess {
        let Some(reference) = self.index.candidate(hash.0, bucket.0) else {
            return Guess::NONE;
        };
        let guess = Guess(reference.value());
        crate::prefetch::read(&self.conns, guess.index());
        guess
    }

    /// The connection of a guess, if it was right. One that was removed since has no next hop.
    #[inline(always)]
    pub fn confirm(
        &mut self,
        guess: Guess,
        protocol: u8,
        ends: &Ends,
    ) -> Option<(&mut Conn, Direction)> {
        let direction = guess.direction();
        let conn = self.conns.get_mut(guess.index())?;
        conn.is(direction, protocol, ends)
            .then_some((conn, direction))
    }

    /// The connection that a packet with this hash belongs to.
    #[inline(always)]
    pub fn lookup(&self, hash: Hash, protocol: Protocol, ends: &Ends) -> Option<Hit> {
        let protocol = protocol.number();
        let is = |reference| {
            let hit = Hit::new(reference);
            self.conns[hit.id.index()].is(hit.direction, protocol, ends)
        };
        self.index.find(hash.0, is).map(Hit::new)
    }

    /// The connection that a packet with this key belongs to, in one step.
    pub fn find(&self, key: FlowKey) -> Option<Hit> {
        let ends = key.ends();
        self.lookup(self.hash(key.protocol.number(), &ends), key.protocol, &ends)
    }

    /// Hints that this key will be looked up soon.
    pub fn prefetch_key(&self, key: FlowKey) {
        self.prefetch(self.hash(key.protocol.number(), &key.ends()));
    }

    /// Whether a packet with this key would be found.
    pub fn contains(&self, key: FlowKey) -> bool {
        self.find(key).is_some()
    }

    /// Adds a connection whose client key is not in the table. Where its server's packets would look like those of
    /// an older connection, they are the new one's from now on, and the older one is marked as displaced.
    pub fn insert(&mut self, conn: Conn) -> Result<ConnId, Full> {
        let hash = self.hash(conn.protocol().number(), conn.ends(Direction::ToServer));
        let half = self.begin(conn, hash, None)?;
        match self.complete(half) {
            Ok(()) => Ok(half.id),
            Err(full) => {
                self.remove(half.id);
                Err(full)
            }
        }
    }

    /// The first half of [`ConnTable::insert`]: the connection is there, and found by its client's packets, whose hash this is. Where
    /// its server's packets will be found is fetched meanwhile. With `reply`, the hash of those packets when no connection has their
    /// key, they find it too from now on.
    pub fn begin(&mut self, mut conn: Conn, hash: Hash, reply: Option<Hash>) -> Result<Half, Full> {
        let id = ConnId(*self.free.last().ok_or(Full)?);
        let entry = |direction| Hit { id, direction }.reference();
        let client = entry(Direction::ToServer);
        self.index.insert(hash.0, client).map_err(|_| Full)?;
        let reply = match reply {
            Some(reply) => {
                let inserted = self.index.insert(reply.0, entry(Direction::ToClient));
                if inserted.is_err() {
                    self.index.remove(hash.0, client);
                    return Err(Full);
                }
                None
            }
            None => {
                let reply = self.hash(conn.protocol().number(), conn.ends(Direction::ToClient));
                self.prefetch(reply);
                Some(reply)
            }
        };
        let place = &mut self.conns[id.index()];
        // The timer of the place's last tenant may still be in the wheel, and does for this one too.
        (conn.armed, conn.filed) = (place.armed, place.filed);
        *place = conn;
        self.free.pop();
        self.taken[id.index() / 64] |= 1 << (id.index() % 64);
        Ok(Half { id, reply })
    }

    /// The second half. When it fails the connection is still there, to be removed.
    pub fn complete(&mut self, half: Half) -> Result<(), Full> {
        match half.reply {
            Some(reply) => self.link(half.id, reply),
            None => Ok(()),
        }
    }

    /// Gives a displaced connection its server's packets back, unless the newer connection still has them.
    pub fn relink(&mut self, hit: Hit) {
        let conn = self.of(hit);
        let (protocol, ends) = (conn.protocol(), conn.ends(Direction::ToClient));
        let hash = self.hash(protocol.number(), ends);
        let taken = self.lookup(hash, protocol, ends).is_some();
        if !taken && self.link(hit.id, hash).is_ok() {
            self.of_mut(hit).displaced = false;
        }
    }

    /// Makes a connection be found by its server's packets, whose hash this is.
    fn link(&mut self, id: ConnId, hash: Hash) -> Result<(), Full> {
        let direction = Direction::ToClient;
        let conn = &self.conns[id.index()];
        let older = self.lookup(hash, conn.protocol(), conn.ends(direction));
        self.index
            .insert(hash.0, Hit { id, direction }.reference())
            .map_err(|_| Full)?;
        if let Some(older) = older {
            self.index.remove(hash.0, older.reference());
            let older = &mut self.conns[older.id.index()];
            older.displaced = true;
            older.hops = [HopRef::NONE; 2];
        }
        Ok(())
    }

    /// Removes a connection; `None` if there is none at this place.
    pub fn remove(&mut self, id: ConnId) -> Option<Conn> {
        let conn = *self.conn(id)?;
        for direction in [Direction::ToServer, Direction::ToClient] {
            let hash = self.hash(conn.protocol().number(), conn.ends(direction));
            self.index.remove(hash.0, Hit { id, direction }.reference());
        }
        self.taken[id.index() / 64] &= !(1 << (id.index() % 64));
        self.free.push(id.0);
        self.conns[id.index()].hops = [HopRef::NONE; 2];
        Some(conn)
    }

    /// Hints that a place will be looked at soon.
    #[inline]
    pub fn prefetch_place(&self, id: ConnId) {
        crate::prefetch::read(&self.conns, id.index());
    }

    /// Hints that the connection at a place will be removed soon, if its time has come.
    #[inline]
    pub fn prefetch_removal(&self, id: ConnId, now: Grain) {
        let conn = &self.conns[id.index()];
        if conn.expired(now) {
            for direction in [Direction::ToServer, Direction::ToClient] {
                self.prefetch(self.hash(conn.protocol().number(), conn.ends(direction)));
            }
        }
    }

    /// The connection at this place.
    #[inline]
    pub fn conn(&self, id: ConnId) -> Option<&Conn> {
        self.is_taken(id.index()).then(|| &self.conns[id.index()])
    }

    /// The connection of a hit that is still valid.
    #[inline]
    pub fn of(&self, hit: Hit) -> &Conn {
        &self.conns[hit.id.index()]
    }

    /// The connection of a hit that is still valid, to change everything but its keys.
    #[inline]
    pub fn of_mut(&mut self, hit: Hit) -> &mut Conn {
        &mut self.conns[hit.id.index()]
    }

    /// What a place says of its timer, whether it has a connection or not.
    #[inline]
    pub fn timer_of(&mut self, id: ConnId) -> (&mut bool, &mut u32) {
        let place = &mut self.conns[id.index()];
        (&mut place.armed, &mut place.filed)
    }

    /// Whether a timer is the one that counts for its place.
    pub fn counts(&self, timer: &Timer) -> bool {
        let place = &self.conns[timer.id.index()];
        place.armed && place.filed == timer.filed
    }

    /// Makes every connection forget its next hops.
    pub(crate) fn forget_hops(&mut self) {
        for conn in &mut *self.conns {
            conn.hops = [HopRef::NONE; 2];
        }
    }

    /// The first connection at `place` or after, and the place after it; `None` past the end. Looks at no more than
    /// `bound` places: then the connection is `None` and the walk goes on at the returned place.
    pub fn scan(&self, place: usize, bound: usize) -> Option<(Option<&Conn>, usize)> {
        let (found, next) = self.scan_ids(place, bound)?;
        Some((found.map(|(_, conn)| conn), next))
    }

    /// As [`Self::scan`], with the connection's place.
    pub fn scan_ids(&self, place: usize, bound: usize) -> Option<(Option<(ConnId, &Conn)>, usize)> {
        if place >= self.conns.len() {
            return None;
        }
        let end = self.conns.len().min(place + bound.max(1));
        match (place..end).find(|at| self.is_taken(*at)) {
            Some(at) => Some((Some((ConnId(at as u32), &self.conns[at])), at + 1)),
            None => Some((None, end)),
        }
    }

    #[inline]
    fn is_taken(&self, at: usize) -> bool {
        self.taken
            .get(at / 64)
            .is_some_and(|bits| bits >> (at % 64) & 1 == 1)
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// Words of the seed, never 0 for long (SplitMix64).
fn expand(seed: u64, n: u64) -> u64 {
    let mut x = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
pub(super) mod tests_support {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::conn::{Endpoint, NewConn};
    use crate::service::{Method, Protocol};

    pub(crate) fn conn(client: u8, port: u16, server: u8, method: Method) -> Conn {
        let client = FlowKey {
            protocol: Protocol::Tcp,
            src: Ipv4Addr::new(198, 51, 100, client),
            dst: Ipv4Addr::new(10, 0, 0, 1),
            src_port: port,
            dst_port: 80,
        };
        let server = Endpoint::new(Ipv4Addr::new(192, 168, 1, server), 8080);
        Conn::new(&NewConn {
            client,
            server,
            local: None,
            method,
            rs: 0,
        })
    }

    pub(crate) fn fullnat_conn(n: u32, server: Endpoint, local: Endpoint) -> Conn {
        let client = FlowKey {
            src: Ipv4Addr::from_bits(0x0b00_0000 + n),
            ..client_key(&conn(0, 0, 0, Method::Nat))
        };
        Conn::new(&NewConn {
            client,
            server,
            local: Some(local),
            method: Method::FullNat,
            rs: 0,
        })
    }

    pub(crate) fn client_key(conn: &Conn) -> FlowKey {
        conn.key(Direction::ToServer)
    }
}

#[cfg(test)]
mod tests;
