//! This worker's connections, found by either of their two keys.
//!
//! Used in stages over a burst: [`ConnTable::hash`] all keys, [`ConnTable::prefetch`] all buckets,
//! [`ConnTable::lookup`] each. A hit stays valid until its connection is removed; [`ConnTable::removals`] tells whether
//! that may have happened since. Preallocated: neither insert nor remove allocates.

use std::hash::{BuildHasher, Hasher};

use foldhash::fast::FixedState;
use hashbrown::HashTable;

use super::connection::Conn;
use super::key::{Direction, FlowKey};

/// A connection's place in the table; another connection may get it once this one is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnId(u32);

impl ConnId {
    /// Index into arrays that go along with the table.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A key's hash under the table's seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(u64);

/// A connection found, and which of its keys it was found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The connection.
    pub id: ConnId,
    /// The direction of the packet that has this key.
    pub direction: Direction,
}

/// The table has no place left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// One worker's connections.
#[derive(Debug)]
pub struct ConnTable {
    hasher: FixedState,
    index: HashTable<Entry>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    capacity: usize,
    removals: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    slot: u32,
    direction: Direction,
}

/// `generation` counts the tenants of the slot: timers name it, so that one that outlived its connection does nothing.
#[derive(Debug)]
struct Slot {
    generation: u32,
    conn: Option<Conn>,
}

impl ConnTable {
    /// A table for `capacity` connections. `seed` must not be guessable by those who send packets.
    pub fn new(capacity: usize, seed: u64) -> Self {
        let capacity = capacity.min(u32::MAX as usize - 1);
        Self {
            hasher: FixedState::with_seed(seed),
            index: HashTable::with_capacity(capacity * 2),
            slots: (0..capacity)
                .map(|_| Slot {
                    generation: 0,
                    conn: None,
                })
                .collect(),
            free: (0..capacity as u32).rev().collect(),
            capacity,
            removals: 0,
        }
    }

    /// How many it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many it holds.
    pub fn len(&self) -> usize {
        self.capacity - self.free.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts removals; while it stands still, hits stay valid.
    #[inline]
    pub fn removals(&self) -> u64 {
        self.removals
    }

    /// Hashes what a packet shows.
    #[inline]
    pub fn hash(&self, key: FlowKey) -> Hash {
        let (addresses, ports) = key.words();
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u64(addresses);
        hasher.write_u64(ports);
        Hash(hasher.finish())
    }

    /// Hints that `hash` will be looked up soon.
    #[inline]
    pub fn prefetch(&self, _hash: Hash) {}

    /// The connection that a packet belongs to.
    #[inline]
    pub fn lookup(&self, hash: Hash, key: FlowKey) -> Option<Hit> {
        let entry = self
            .index
            .find(hash.0, |entry| self.entry_key(*entry) == Some(key))?;
        Some(Hit {
            id: ConnId(entry.slot),
            direction: entry.direction,
        })
    }

    /// Whether a packet with this key would be found.
    pub fn contains(&self, key: FlowKey) -> bool {
        self.lookup(self.hash(key), key).is_some()
    }

    /// Adds a connection whose client key is not in the table. Where its server's packets would look like those of
    /// an older connection, they are the new one's from now on.
    pub fn insert(&mut self, conn: Conn) -> Result<ConnId, Full> {
        let slot = self.free.pop().ok_or(Full)?;
        self.slots[slot as usize].conn = Some(conn);
        for direction in [Direction::ToServer, Direction::ToClient] {
            let key = conn.key(direction);
            let hash = self.hash(key);
            if let Some(older) = self.lookup(hash, key)
                && older.id.0 != slot
            {
                self.unlink(older.id.0, older.direction);
            }
            let Self {
                index,
                slots,
                hasher,
                ..
            } = self;
            index.insert_unique(hash.0, Entry { slot, direction }, |entry| {
                rehash(slots, hasher, *entry)
            });
        }
        Ok(ConnId(slot))
    }

    /// Removes a connection; `None` if there is none at this place.
    pub fn remove(&mut self, id: ConnId) -> Option<Conn> {
        self.unlink(id.0, Direction::ToServer);
        self.unlink(id.0, Direction::ToClient);
        let slot = self.slots.get_mut(id.index())?;
        let conn = slot.conn.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.0);
        self.removals += 1;
        Some(conn)
    }

    /// The connection at this place.
    #[inline]
    pub fn conn(&self, id: ConnId) -> Option<&Conn> {
        self.slots.get(id.index())?.conn.as_ref()
    }

    /// The connection at this place, to change everything but its keys.
    #[inline]
    pub fn conn_mut(&mut self, id: ConnId) -> Option<&mut Conn> {
        self.slots.get_mut(id.index())?.conn.as_mut()
    }

    /// How often this place was vacated: tells successive connections of one place apart.
    #[inline]
    pub fn generation(&self, id: ConnId) -> u32 {
        self.slots[id.index()].generation
    }

    /// The first connection at `place` or after, and the place after it; `None` past the end. Looks at no more than
    /// `bound` places: then the connection is `None` and the walk goes on at the returned place.
    pub fn scan(&self, place: usize, bound: usize) -> Option<(Option<&Conn>, usize)> {
        if place >= self.slots.len() {
            return None;
        }
        let end = self.slots.len().min(place + bound.max(1));
        let found = (place..end).find(|at| self.slots[*at].conn.is_some());
        match found {
            Some(at) => Some((self.slots[at].conn.as_ref(), at + 1)),
            None => Some((None, end)),
        }
    }

    fn unlink(&mut self, slot: u32, direction: Direction) {
        let Some(conn) = self
            .slots
            .get(slot as usize)
            .and_then(|slot| slot.conn.as_ref())
        else {
            return;
        };
        let hash = self.hash(conn.key(direction));
        let wanted = Entry { slot, direction };
        if let Ok(entry) = self.index.find_entry(hash.0, |entry| *entry == wanted) {
            entry.remove();
        }
    }

    fn entry_key(&self, entry: Entry) -> Option<FlowKey> {
        self.slots[entry.slot as usize]
            .conn
            .as_ref()
            .map(|conn| conn.key(entry.direction))
    }
}

/// The index is allocated for twice the capacity, so it never grows; should it shift entries, this is their hash.
fn rehash(slots: &[Slot], hasher: &FixedState, entry: Entry) -> u64 {
    let Some(conn) = &slots[entry.slot as usize].conn else {
        unreachable!("an index entry outlived its connection");
    };
    let (addresses, ports) = conn.key(entry.direction).words();
    let mut state = hasher.build_hasher();
    state.write_u64(addresses);
    state.write_u64(ports);
    state.finish()
}

#[cfg(test)]
pub(super) mod tests_support {
    use std::net::Ipv4Addr;

    use super::super::ConnFlags;
    use super::super::state::TcpState;
    use super::*;
    use crate::service::{Method, Protocol, RsId, ServiceId};
    use crate::time::{Span, Ticks};

    pub(crate) fn any_id() -> ConnId {
        ConnId(0)
    }

    pub(crate) fn conn(client: u8, port: u16, server: u8, method: Method) -> Conn {
        Conn {
            client: FlowKey {
                protocol: Protocol::Tcp,
                src: Ipv4Addr::new(198, 51, 100, client),
                dst: Ipv4Addr::new(10, 0, 0, 1),
                src_port: port,
                dst_port: 80,
            },
            server: (Ipv4Addr::new(192, 168, 1, server), 8080),
            local: None,
            method,
            state: TcpState::None,
            flags: ConnFlags::default(),
            rs: RsId {
                index: 0,
                generation: 0,
            },
            service: ServiceId(0),
            last_seen: Ticks(0),
            timeout: Span(1),
        }
    }

    pub(crate) fn fullnat_conn(n: u32, server: (Ipv4Addr, u16), local: (Ipv4Addr, u16)) -> Conn {
        let mut conn = conn(0, 0, 0, Method::FullNat);
        conn.client.src = Ipv4Addr::from_bits(0x0b00_0000 + n);
        conn.server = server;
        conn.local = Some(local);
        conn
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::tests_support::conn;
    use super::*;
    use crate::service::Method;

    #[test]
    fn a_connection_is_found_from_both_sides() {
        let mut table = ConnTable::new(4, 1);
        let conn = conn(1, 1000, 1, Method::Nat);
        let id = table.insert(conn).unwrap();
        let key = conn.client;
        assert_eq!(
            table.lookup(table.hash(key), key),
            Some(Hit {
                id,
                direction: Direction::ToServer
            })
        );
        let reply = FlowKey {
            src: conn.server.0,
            src_port: 8080,
            ..key.reversed()
        };
        assert_eq!(
            table.lookup(table.hash(reply), reply),
            Some(Hit {
                id,
                direction: Direction::ToClient
            })
        );
        assert!(!table.contains(key.reversed()));
        table.remove(id).unwrap();
        assert!(!table.contains(key) && !table.contains(reply) && table.is_empty());
    }

    #[test]
    fn a_full_table_refuses_and_keeps_what_it_has() {
        let mut table = ConnTable::new(2, 1);
        table.insert(conn(1, 1, 1, Method::Nat)).unwrap();
        table.insert(conn(1, 2, 1, Method::Nat)).unwrap();
        assert_eq!(table.insert(conn(1, 3, 1, Method::Nat)), Err(Full));
        assert_eq!(table.len(), 2);
        assert!(table.contains(conn(1, 1, 1, Method::Nat).client));
    }

    #[test]
    fn replies_that_look_alike_go_to_the_latest_connection() {
        let mut table = ConnTable::new(2, 1);
        let first = conn(1, 1, 1, Method::Nat);
        let mut second = first;
        second.client.dst = Ipv4Addr::new(10, 0, 0, 2);
        let old = table.insert(first).unwrap();
        let new = table.insert(second).unwrap();
        let reply = first.key(Direction::ToClient);
        assert_eq!(table.lookup(table.hash(reply), reply).unwrap().id, new);
        table.remove(old).unwrap();
        assert_eq!(table.lookup(table.hash(reply), reply).unwrap().id, new);
    }

    #[test]
    fn scanning_in_small_pieces_sees_every_connection_once() {
        let mut table = ConnTable::new(50, 1);
        for port in 0..40 {
            table.insert(conn(1, port, 1, Method::Dr)).unwrap();
        }
        let (mut place, mut seen) = (0, 0);
        while let Some((found, next)) = table.scan(place, 3) {
            seen += usize::from(found.is_some());
            place = next;
        }
        assert_eq!(seen, 40);
    }

    proptest! {
        #[test]
        fn the_table_agrees_with_a_plain_map(
            steps in prop::collection::vec((any::<bool>(), 0u8..4, 0u16..12, 0u8..3, 0u8..2), 1..200),
        ) {
            let mut table = ConnTable::new(16, 7);
            let mut model: HashMap<FlowKey, ConnId> = HashMap::new();
            for (add, client, port, server, method) in steps {
                let method = if method == 0 { Method::Dr } else { Method::Nat };
                let conn = conn(client, port, server, method);
                match (add, model.get(&conn.client)) {
                    (true, None) if model.len() < 16 => {
                        model.insert(conn.client, table.insert(conn).unwrap());
                    }
                    (true, None) => prop_assert_eq!(table.insert(conn), Err(Full)),
                    (false, Some(id)) => {
                        prop_assert_eq!(table.remove(*id).unwrap().client, conn.client);
                        model.remove(&conn.client);
                    }
                    _ => {}
                }
                prop_assert_eq!(table.len(), model.len());
                for (key, id) in &model {
                    let hit = table.lookup(table.hash(*key), *key);
                    prop_assert_eq!(hit, Some(Hit { id: *id, direction: Direction::ToServer }));
                    let reply = table.conn(*id).unwrap().key(Direction::ToClient);
                    prop_assert_eq!(table.lookup(table.hash(reply), reply).unwrap().id, *id);
                }
            }
        }
    }
}
