//! Lists of servers in one store, which never grows: what lblcr remembers of each destination.

use super::locality::Remembered;

const NONE: u32 = u32::MAX;

/// Servers, the latest first. Give it back with [`Members::clear`].
#[derive(Debug)]
pub(super) struct List {
    first: u32,
    len: u32,
}

impl List {
    /// No servers.
    pub(super) const EMPTY: Self = Self {
        first: NONE,
        len: 0,
    };

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }
}

/// The store of all lists of a service.
#[derive(Debug)]
pub(super) struct Members {
    nodes: Vec<Node>,
    free: u32,
}

#[derive(Debug)]
struct Node {
    server: Remembered,
    next: u32,
}

impl Members {
    /// Room for so many servers in all lists together.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self {
            nodes: Vec::with_capacity(capacity),
            free: NONE,
        }
    }

    /// Puts a server in front. `false` when there is no room.
    pub(super) fn push(&mut self, list: &mut List, server: Remembered) -> bool {
        let node = Node {
            server,
            next: list.first,
        };
        let at = self.free;
        if let Some(free) = self.nodes.get_mut(at as usize) {
            self.free = free.next;
            *free = node;
            list.first = at;
        } else if self.nodes.len() < self.nodes.capacity() {
            list.first = self.nodes.len() as u32;
            self.nodes.push(node);
        } else {
            return false;
        }
        list.len += 1;
        true
    }

    /// Looks at all servers, the latest first.
    pub(super) fn each(&mut self, list: &List, mut look: impl FnMut(&mut Remembered)) {
        let mut at = list.first;
        while let Some(node) = self.nodes.get_mut(at as usize) {
            look(&mut node.server);
            at = node.next;
        }
    }

    /// Keeps only the servers that `wanted` accepts.
    pub(super) fn retain(
        &mut self,
        list: &mut List,
        mut wanted: impl FnMut(&mut Remembered) -> bool,
    ) {
        let (mut at, mut kept) = (list.first, NONE);
        while let Some(node) = self.nodes.get_mut(at as usize) {
            let next = node.next;
            if wanted(&mut node.server) {
                kept = at;
            } else {
                node.next = self.free;
                self.free = at;
                list.len -= 1;
                match self.nodes.get_mut(kept as usize) {
                    Some(before) => before.next = next,
                    None => list.first = next,
                }
            }
            at = next;
        }
    }

    /// Empties a list.
    pub(super) fn clear(&mut self, list: &mut List) {
        self.retain(list, |_| false);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::server;
    use super::*;

    fn numbers(members: &mut Members, list: &List) -> Vec<u32> {
        let mut numbers = Vec::new();
        members.each(list, |server| numbers.push(server.id.index));
        assert_eq!(numbers.len(), list.len());
        numbers
    }

    #[test]
    fn lists_share_a_store_that_serves_again_what_they_give_back() {
        let of = |n| Remembered::new(&[server(n, 1)], 0);
        let mut members = Members::with_capacity(4);
        let (mut a, mut b) = (List::EMPTY, List::EMPTY);
        assert!((1..=3).all(|n| members.push(&mut a, of(n))));
        assert!(members.push(&mut b, of(9)) && !members.push(&mut b, of(10)));
        assert_eq!(numbers(&mut members, &a), [3, 2, 1]);
        members.retain(&mut a, |server| server.id.index == 2);
        assert_eq!(numbers(&mut members, &a), [2]);
        assert!(members.push(&mut b, of(10)) && members.push(&mut a, of(4)));
        assert_eq!(numbers(&mut members, &b), [10, 9]);
        members.clear(&mut b);
        assert_eq!(numbers(&mut members, &b), [0; 0]);
        assert!(members.push(&mut a, of(5)) && members.push(&mut a, of(6)));
        assert_eq!(numbers(&mut members, &a), [6, 5, 4, 2]);
    }
}
