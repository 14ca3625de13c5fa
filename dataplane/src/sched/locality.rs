//! What lblc and lblcr share: a server remembered for a destination, and whether others could relieve it.

use std::net::IpAddr;

use super::Pool;
use crate::service::{RealServerSpec, RsId};

/// A real server, remembered. Deleted and added again it is the same one, even under another id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Remembered {
    pub(super) id: RsId,
    addr: IpAddr,
    port: u16,
    /// Where it stood last.
    place: u32,
}

impl Remembered {
    pub(super) fn new(list: &[RealServerSpec], place: usize) -> Self {
        let server = &list[place];
        Self {
            id: server.id,
            addr: server.addr,
            port: server.port,
            place: place as u32,
        }
    }

    /// Where it stands now; `None` while it is deleted. O(1), O(n) once after each edit.
    pub(super) fn place(&mut self, list: &[RealServerSpec]) -> Option<usize> {
        let is_it = |server: &RealServerSpec| server.addr == self.addr && server.port == self.port;
        if list.get(self.place as usize).is_some_and(is_it) {
            self.id = list[self.place as usize].id;
            return Some(self.place as usize);
        }
        let place = list.iter().position(is_it)?;
        *self = Self::new(list, place);
        Some(place)
    }
}

/// Which servers have less than half as many active connections as weight.
#[derive(Debug)]
pub(super) struct Idlers {
    idle: Vec<bool>,
    count: usize,
}

impl Idlers {
    pub(super) fn new(pool: &Pool<'_>) -> Self {
        let mut idlers = Self {
            idle: Vec::new(),
            count: 0,
        };
        idlers.recount(pool);
        idlers
    }

    /// Looks at all servers.
    pub(super) fn recount(&mut self, pool: &Pool<'_>) {
        let idle = (0..pool.list().len()).map(|place| is_idle(pool, place));
        self.idle.clear();
        self.idle.extend(idle);
        self.count = self.idle.iter().filter(|idle| **idle).count();
    }

    /// The server at `place` stands otherwise than before.
    pub(super) fn update(&mut self, pool: &Pool<'_>, place: usize) {
        let idle = is_idle(pool, place);
        let was_idle = std::mem::replace(&mut self.idle[place], idle);
        self.count = self.count + usize::from(idle) - usize::from(was_idle);
    }

    /// Whether the server at `place` has more active connections than weight while another one is here.
    pub(super) fn relieve(&self, pool: &Pool<'_>, place: usize) -> bool {
        let standing = pool.standing(place);
        standing.active > standing.weight && self.count > 0
    }
}

fn is_idle(pool: &Pool<'_>, place: usize) -> bool {
    let standing = pool.standing(place);
    2 * u64::from(standing.active) < u64::from(standing.weight)
}
