//! What lblc and lblcr share: a server remembered for a destination, and when it has enough.

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

/// Whether the server at `place` has more active connections than weight while another has less than half of its own.
pub(super) fn has_enough(pool: &Pool<'_>, place: usize) -> bool {
    let standing = pool.standing(place);
    standing.active > standing.weight
        && (0..pool.list().len()).any(|other| {
            let other = pool.standing(other);
            2 * u64::from(other.active) < u64::from(other.weight)
        })
}
