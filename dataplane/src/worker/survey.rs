//! What a worker looks up in its whole table for control, a bounded piece a turn.

use std::net::Ipv4Addr;

use super::Worker;
use crate::command::{Census, ConnRow, ConnSlice, Event, WorkerId};
use crate::conn::state::{State, StateName};
use crate::conn::template::Template;
use crate::conn::{Conn, Endpoint};
use crate::io::Port;
use crate::service::Protocol;

/// Places of the connection table looked at for a listing in one turn.
const SCAN: usize = 512;

/// Places looked at in one turn to count connections of classes that moved, which takes hashes of each.
const COUNTED: usize = 128;

/// Something that control wants to know of the table.
#[derive(Debug)]
pub(super) enum Survey {
    /// Which connections there are.
    List(Box<ConnSlice>),
    /// How many are left of what moved; and the place to go on at.
    Count(Box<Census>, usize),
}

impl<P: Port> Worker<P> {
    /// Goes on with the oldest survey. Returns whether there is any.
    #[cold]
    #[inline(never)]
    pub(super) fn survey(&mut self) -> bool {
        match self.surveys.front() {
            Some(Survey::List(_)) => self.list_connections(),
            Some(Survey::Count(..)) => self.count_moved(),
            None => false,
        }
    }

    /// Goes on with the oldest listing for a bounded number of places; sends it off when it is full or at the end. Templates
    /// come after the connections, as places beyond theirs.
    fn list_connections(&mut self) -> bool {
        let Some(Survey::List(slice)) = self.surveys.front_mut() else {
            return false;
        };
        let Self {
            pipeline, config, ..
        } = self;
        let connections = pipeline.table.capacity();
        // Whatever a client made up as a cursor, past the end is the end.
        let last = connections + pipeline.templates.capacity();
        let mut place = slice.cursor.map_or(0, |at| at.min(last as u64) as usize);
        let end = place + SCAN;
        let mut done = slice.rows.len() >= slice.rows.capacity();
        while !done && place < end {
            let found = if place < connections {
                let scanned = pipeline.table.scan(place, end - place);
                scanned.map(|(conn, next)| {
                    (
                        conn.map(|conn| row(conn, pipeline.expires_ms(conn), config.id)),
                        next,
                    )
                })
            } else {
                let scanned = pipeline.templates.scan(place - connections, end - place);
                scanned.map(|(template, next)| {
                    let row = template.map(|(_, template)| {
                        template_row(template, pipeline.template_expires_ms(template), config.id)
                    });
                    (row, connections + next)
                })
            };
            let Some((row, next)) = found else {
                slice.cursor = None;
                return self.send_survey();
            };
            place = next;
            if let Some(row) = row.filter(|row| slice.filter.matches(row)) {
                slice.rows.push(row);
                done = slice.rows.len() >= slice.rows.capacity();
            }
        }
        slice.cursor = Some(place as u64);
        if done { self.send_survey() } else { true }
    }

    /// Counts on, and sends the census off at the end of the table.
    fn count_moved(&mut self) -> bool {
        let Some(Survey::Count(census, place)) = self.surveys.front_mut() else {
            return false;
        };
        let end = place.saturating_add(COUNTED);
        while *place < end {
            let Some((conn, next)) = self.pipeline.table.scan(*place, end - *place) else {
                return self.send_survey();
            };
            if let Some(conn) = conn {
                self.pipeline.count_moved(conn, census);
            }
            *place = next;
        }
        true
    }

    /// Sends the oldest survey off, if control has room for it.
    fn send_survey(&mut self) -> bool {
        let room = self.pipeline.forwarder.events.slots() > 0;
        let event = match self.surveys.pop_front_if(|_| room) {
            Some(Survey::List(slice)) => Event::Connections(slice),
            Some(Survey::Count(census, _)) => Event::Counted(census),
            None => return true,
        };
        if self.pipeline.forwarder.events.push(event).is_err() {
            unreachable!("nobody else takes the room");
        }
        true
    }
}

fn pair(endpoint: Endpoint) -> (Ipv4Addr, u16) {
    (endpoint.addr, endpoint.port)
}

fn row(conn: &Conn, expires_ms: u64, worker: WorkerId) -> ConnRow {
    let protocol = conn.protocol();
    ConnRow {
        protocol: Some(protocol),
        template: false,
        client: pair(conn.client()),
        virtual_addr: pair(conn.virtual_endpoint()),
        server: pair(conn.server()),
        local: conn.local().map(pair),
        method: conn.method(),
        state: if protocol == Protocol::Udp {
            StateName::Udp
        } else {
            StateName::Of(conn.state)
        },
        expires_ms,
        worker,
    }
}

fn template_row(template: &Template, expires_ms: u64, worker: WorkerId) -> ConnRow {
    let key = template.key();
    ConnRow {
        protocol: key.protocol,
        template: true,
        client: (key.client, 0),
        virtual_addr: (key.vaddr, key.vport),
        server: pair(template.server()),
        local: None,
        method: template.method(),
        state: if template.assured() {
            StateName::Assured
        } else {
            StateName::Of(State::None)
        },
        expires_ms,
        worker,
    }
}
