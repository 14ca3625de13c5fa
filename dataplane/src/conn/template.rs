//! Persistence templates: which real server a client's next connection goes to (`SEMANTICS.md` section 5).
//!
//! Looked up only when a connection opens, so they have a table of their own beside the connections', and packets of known
//! connections never touch it. A connection that a template controls is known here by its place; of the connection itself only
//! [`super::Control`] remembers it. With several workers each owns some of the templates, and others' connections refer to them
//! (contract 3 of the design).

use std::net::Ipv4Addr;

use hashbrown::HashMap;

use super::connection::Endpoint;
use super::table::ConnId;
use super::timer::TimerWheel;
use crate::service::{Method, Protocol};
use crate::time::Grain;

/// The port that a template gets, in place of its service's and its server's, once it leads nowhere.
pub const NOWHERE: u16 = u16::MAX;

/// Whom a template is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TemplateKey {
    /// `None` for services of marks, which take all protocols.
    pub protocol: Option<Protocol>,
    /// The client, masked.
    pub client: Ipv4Addr,
    /// The virtual address, or the mark as one.
    pub vaddr: Ipv4Addr,
    /// The virtual port; 0 for all of them.
    pub vport: u16,
}

/// A template's place; another template may get it once this one is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateId(ConnId);

/// A template as other workers know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TemplateRef {
    place: u32,
    generation: u32,
}

impl TemplateRef {
    /// From its [`Self::numbers`].
    pub fn new(place: u32, generation: u32) -> Self {
        Self { place, generation }
    }

    /// Its place, and which of the place's successive tenants it is.
    pub fn numbers(self) -> (u32, u32) {
        (self.place, self.generation)
    }
}

/// What a template is made from.
#[derive(Clone, Copy, Debug)]
pub struct NewTemplate {
    /// Whom it is for.
    pub key: TemplateKey,
    /// The real server's place ([`crate::service::RsId::index`]).
    pub rs: u32,
    /// The real server as listed.
    pub server: Endpoint,
    /// How packets get there, as listed.
    pub method: Method,
    /// Grains that it lives after each new connection.
    pub timeout: u32,
    /// Of a service with one-packet scheduling.
    pub one_packet: bool,
}

/// One template.
#[derive(Clone, Copy, Debug)]
pub struct Template {
    new: NewTemplate,
    /// Grains that it lives after `seen`.
    timeout: u32,
    /// Last new connection ([`Grain::short`]).
    seen: u32,
    /// Connections that refer to it.
    controls: u32,
    /// New connections so far, as far as anybody cares.
    connections: u8,
    /// One of its connections was confirmed from both sides.
    assured: bool,
    /// It is found by its key.
    valid: bool,
}

impl Template {
    /// Whom it is for; with port [`NOWHERE`] once it leads nowhere.
    pub fn key(&self) -> TemplateKey {
        let vport = if self.valid {
            self.new.key.vport
        } else {
            NOWHERE
        };
        TemplateKey {
            vport,
            ..self.new.key
        }
    }

    /// The real server's place.
    pub fn rs(&self) -> u32 {
        self.new.rs
    }

    /// The real server as listed.
    pub fn server(&self) -> Endpoint {
        let Endpoint { addr, port } = self.new.server;
        Endpoint::new(addr, if self.valid { port } else { NOWHERE })
    }

    /// How packets get there, as listed.
    pub fn method(&self) -> Method {
        self.new.method
    }

    /// Whether one of its connections was confirmed: TCP or SCTP established, or a UDP reply seen.
    pub fn assured(&self) -> bool {
        self.assured
    }

    /// Whether any connection refers to it.
    pub fn in_use(&self) -> bool {
        self.controls > 0
    }

    /// Whether its service has one-packet scheduling.
    pub fn one_packet(&self) -> bool {
        self.new.one_packet
    }

    /// New connections so far, no more than a byte can count.
    pub fn connections(&self) -> u8 {
        self.connections
    }

    /// Grains since the last new connection.
    pub fn idle(&self, now: Grain) -> u32 {
        now.since(self.seen)
    }

    /// Grains left to live.
    pub fn left(&self, now: Grain) -> u32 {
        self.timeout.saturating_sub(self.idle(now))
    }
}

/// The table has no place left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// How a connection ended, as far as its template cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Its time had come.
    Natural,
    /// It was ended before: its template goes with it if it controls nothing else and was never assured.
    Forced,
}

/// One worker's templates.
#[derive(Debug)]
pub struct Templates {
    capacity: usize,
    by_key: HashMap<TemplateKey, u32, foldhash::fast::RandomState>,
    places: Vec<Place>,
    free: Vec<u32>,
    /// For each connection's place its template's, plus 1; 0 for none. Memory that nothing touches until it is needed.
    controllers: Box<[u32]>,
    wheel: TimerWheel,
    count: usize,
}

/// A place with its timer, which serves the place's next tenant too.
#[derive(Clone, Debug, Default)]
struct Place {
    template: Option<Template>,
    armed: bool,
    filed: u32,
    /// Of its successive tenants.
    generation: u32,
}

impl Templates {
    /// How many templates there can be beside so many connections: as many as fill half of a map for a power of two of them.
    pub const fn capacity_beside(connections: usize) -> usize {
        let beside = connections / 16 * 7;
        if beside < 64 { 64 } else { beside }
    }

    /// No templates, for the connections of a table of that capacity.
    pub fn new(connections: usize, now: Grain) -> Self {
        let capacity = Self::capacity_beside(connections);
        Self {
            capacity,
            // Half full at most: so what was removed never makes it grow.
            by_key: HashMap::with_capacity_and_hasher(2 * capacity, Default::default()),
            places: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            controllers: vec![0; connections].into_boxed_slice(),
            wheel: TimerWheel::new(capacity, now),
            count: 0,
        }
    }

    /// Bytes of memory, all told, before they are made. The map's are estimated: it fills seven eighths of a power of two of
    /// places, with a byte each of its own.
    pub fn bytes_for(connections: usize) -> usize {
        let capacity = Self::capacity_beside(connections);
        let mapped = (2 * capacity * 8).div_ceil(7).next_power_of_two();
        mapped * (size_of::<(TemplateKey, u32)>() + 1)
            + capacity * (size_of::<Place>() + size_of::<u32>())
            + connections * size_of::<u32>()
            + TimerWheel::bytes_for(capacity)
    }

    /// Bytes of memory, all told.
    pub fn bytes(&self) -> usize {
        self.by_key.allocation_size()
            + self.places.capacity() * size_of::<Place>()
            + self.free.capacity() * size_of::<u32>()
            + size_of_val(&*self.controllers)
            + self.wheel.bytes()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many there can be.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The template for this key.
    pub fn find(&self, key: &TemplateKey) -> Option<TemplateId> {
        self.by_key.get(key).map(|place| id(*place))
    }

    /// The template at this place.
    pub fn template(&self, id: TemplateId) -> Option<&Template> {
        self.places.get(index(id))?.template.as_ref()
    }

    /// Adds a template whose key has none.
    pub fn insert(&mut self, new: NewTemplate, now: Grain) -> Result<TemplateId, Full> {
        let place = match self.free.pop() {
            Some(place) => place,
            None if self.places.len() < self.capacity => {
                self.places.push(Place::default());
                (self.places.len() - 1) as u32
            }
            None => return Err(Full),
        };
        let id = id(place);
        self.count += 1;
        self.by_key.insert(new.key, place);
        self.places[index(id)].generation = self.places[index(id)].generation.wrapping_add(1);
        self.places[index(id)].template = Some(Template {
            new,
            timeout: new.timeout,
            seen: now.short(),
            controls: 0,
            connections: 0,
            assured: false,
            valid: true,
        });
        self.rearm(id, now);
        Ok(id)
    }

    /// A new connection by this template: it lives on from now.
    pub fn renew(&mut self, id: TemplateId, now: Grain) {
        if let Some(template) = self.template_mut(id) {
            template.seen = now.short();
            template.connections = template.connections.saturating_add(1);
            self.rearm(id, now);
        }
    }

    /// It leads nowhere any more: it stays, to be listed, but nobody finds it.
    pub fn invalidate(&mut self, id: TemplateId) {
        let Some(template) = self.template_mut(id).filter(|template| template.valid) else {
            return;
        };
        template.valid = false;
        let key = template.new.key;
        self.by_key.remove(&key);
    }

    /// The connection refers to the template until [`Self::release`].
    pub fn control(&mut self, id: TemplateId, conn: ConnId) {
        if let Some(template) = self.template_mut(id) {
            template.controls += 1;
            self.controllers[conn.number() as usize] = id.0.number() + 1;
        }
    }

    /// One of its connections is confirmed from both sides.
    pub fn assure(&mut self, conn: ConnId) {
        let id = self.controller(conn);
        if let Some(template) = id.and_then(|id| self.template_mut(id)) {
            template.assured = true;
        }
    }

    /// A connection that a template controls has ended. The template, if it went with it.
    pub fn release(&mut self, conn: ConnId, ending: Ending) -> Option<Template> {
        let id = self.controller(conn)?;
        self.controllers[conn.number() as usize] = 0;
        self.let_go(id, ending)
    }

    /// Another worker's connection refers to the template until [`Self::release_referred`].
    pub fn refer(&mut self, id: TemplateId) -> TemplateRef {
        if let Some(template) = self.template_mut(id) {
            template.controls += 1;
        }
        let generation = self
            .places
            .get(index(id))
            .map_or(0, |place| place.generation);
        TemplateRef {
            place: id.0.number(),
            generation,
        }
    }

    /// As [`Self::assure`], for another worker's connection.
    pub fn assure_referred(&mut self, template: TemplateRef) {
        let id = self.referred(template);
        if let Some(template) = id.and_then(|id| self.template_mut(id)) {
            template.assured = true;
        }
    }

    /// As [`Self::release`], for another worker's connection.
    pub fn release_referred(&mut self, template: TemplateRef, ending: Ending) -> Option<Template> {
        let id = self.referred(template)?;
        self.let_go(id, ending)
    }

    fn referred(&self, template: TemplateRef) -> Option<TemplateId> {
        let id = id(template.place);
        let place = self.places.get(index(id))?;
        (place.generation == template.generation).then_some(id)
    }

    fn let_go(&mut self, id: TemplateId, ending: Ending) -> Option<Template> {
        let template = self.template_mut(id)?;
        template.controls = template.controls.saturating_sub(1);
        let unused = template.controls == 0 && !template.assured;
        (unused && ending == Ending::Forced).then(|| self.remove(id))?
    }

    /// Takes a template out.
    pub fn remove(&mut self, id: TemplateId) -> Option<Template> {
        let template = self.places.get_mut(index(id))?.template.take()?;
        if template.valid {
            self.by_key.remove(&template.new.key);
        }
        self.free.push(id.0.number());
        self.count -= 1;
        Some(template)
    }

    /// Handles a timer that is due: `None` when there is none, else the template if its end has come. One that still controls
    /// connections lives on, `again` grains from now and after each new connection.
    pub fn expire_due(&mut self, now: Grain, again: u32) -> Option<Option<Template>> {
        let timer = self.wheel.pop(now)?;
        let id = TemplateId(timer.id);
        let place = &mut self.places[index(id)];
        if !place.armed || place.filed != timer.filed {
            return Some(None);
        }
        place.armed = false;
        let Some(template) = &mut place.template else {
            return Some(None);
        };
        if template.idle(now) <= template.timeout {
            self.rearm(id, now);
            return Some(None);
        }
        if template.in_use() {
            template.timeout = again;
            template.seen = now.short();
            self.rearm(id, now);
            return Some(None);
        }
        Some(self.remove(id))
    }

    /// The first template at `place` or after, and the place after it; `None` past the end. Looks at no more than
    /// `bound` places.
    pub fn scan(
        &self,
        place: usize,
        bound: usize,
    ) -> Option<(Option<(TemplateId, &Template)>, usize)> {
        if place >= self.places.len() {
            return None;
        }
        let end = self.places.len().min(place + bound.max(1));
        let found = (place..end).find_map(|at| {
            let template = self.places[at].template.as_ref()?;
            Some(((id(at as u32), template), at + 1))
        });
        match found {
            Some((found, next)) => Some((Some(found), next)),
            None => Some((None, end)),
        }
    }

    fn controller(&self, conn: ConnId) -> Option<TemplateId> {
        let place = self.controllers[conn.number() as usize].checked_sub(1)?;
        Some(id(place))
    }

    fn template_mut(&mut self, id: TemplateId) -> Option<&mut Template> {
        self.places.get_mut(index(id))?.template.as_mut()
    }

    /// Files a timer unless one is filed that comes soon enough.
    fn rearm(&mut self, id: TemplateId, now: Grain) {
        let place = &self.places[index(id)];
        let Some(template) = &place.template else {
            return;
        };
        let due = Grain(now.0 + u64::from(template.left(now)) + 1);
        let earlier = (due.short().wrapping_sub(place.filed) as i32) < 0;
        if place.armed && !earlier {
            return;
        }
        let places = &self.places;
        self.wheel.file_for_place(id.0, due, |timer| {
            let place = &places[timer.id.number() as usize];
            place.armed && place.filed == timer.filed
        });
        let place = &mut self.places[index(id)];
        (place.armed, place.filed) = (true, due.short());
    }
}

fn id(place: u32) -> TemplateId {
    TemplateId(ConnId::of(place))
}

fn index(id: TemplateId) -> usize {
    id.0.number() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u32 = 250;

    fn key(client: u8) -> TemplateKey {
        TemplateKey {
            protocol: Some(Protocol::Tcp),
            client: Ipv4Addr::new(172, 16, 0, client),
            vaddr: Ipv4Addr::new(10, 0, 0, 1),
            vport: 80,
        }
    }

    fn new(client: u8, timeout: u32) -> NewTemplate {
        NewTemplate {
            key: key(client),
            rs: 3,
            server: Endpoint::new(Ipv4Addr::new(192, 168, 1, 1), 80),
            method: Method::Nat,
            timeout,
            one_packet: false,
        }
    }

    /// Ends what is due at `now`, as a worker's turns would; how many templates went.
    fn expire(templates: &mut Templates, now: u64) -> usize {
        let mut gone = 0;
        while let Some(end) = templates.expire_due(Grain(now), 60 * SECOND) {
            gone += usize::from(end.is_some());
        }
        gone
    }

    #[test]
    fn what_they_take_is_known_before_they_are_made() {
        for connections in [0, 1000, 100_000] {
            let taken = Templates::new(connections, Grain(0)).bytes();
            let told = Templates::bytes_for(connections);
            assert!(taken.abs_diff(told) < 64, "{taken} taken, {told} told");
        }
    }

    #[test]
    fn a_new_connection_prolongs_a_template_and_nothing_else_does() {
        let mut templates = Templates::new(16, Grain(0));
        let id = templates.insert(new(1, 100), Grain(0)).unwrap();
        assert_eq!(expire(&mut templates, 90), 0);
        templates.renew(id, Grain(90));
        assert_eq!(templates.template(id).unwrap().left(Grain(100)), 90);
        assert_eq!(expire(&mut templates, 190), 0);
        assert_eq!(templates.find(&key(1)), Some(id));
        assert_eq!(expire(&mut templates, 210), 1);
        assert_eq!((templates.find(&key(1)), templates.len()), (None, 0));
    }

    #[test]
    fn while_it_controls_connections_it_is_asked_again_each_minute_for_good() {
        let mut templates = Templates::new(16, Grain(0));
        let id = templates.insert(new(1, 100), Grain(0)).unwrap();
        let conn = ConnId::of(5);
        templates.control(id, conn);
        assert_eq!(expire(&mut templates, 120), 0);
        let left = templates.template(id).unwrap().left(Grain(120));
        assert_eq!(left, 60 * SECOND);
        templates.renew(id, Grain(200));
        let left = templates.template(id).unwrap().left(Grain(200));
        assert_eq!(left, 60 * SECOND, "not the service's value any more");
        assert!(templates.release(conn, Ending::Natural).is_none());
        assert_eq!(expire(&mut templates, 200 + 60 * 250 - 10), 0);
        assert_eq!(expire(&mut templates, 200 + 60 * 250 + 20), 1);
    }

    #[test]
    fn an_invalid_template_stays_under_a_port_that_nobody_asks_for() {
        let mut templates = Templates::new(16, Grain(0));
        let old = templates.insert(new(1, 100), Grain(0)).unwrap();
        templates.invalidate(old);
        assert_eq!(templates.find(&key(1)), None);
        let fresh = templates.insert(new(1, 200), Grain(0)).unwrap();
        let stale = templates.template(old).unwrap();
        assert_eq!((stale.key().vport, stale.server().port), (65535, 65535));
        assert_eq!(expire(&mut templates, 120), 1);
        assert_eq!(templates.find(&key(1)), Some(fresh));
    }

    #[test]
    fn forced_out_with_its_last_connection_unless_assured() {
        let mut templates = Templates::new(16, Grain(0));
        let id = templates.insert(new(1, 100), Grain(0)).unwrap();
        let (a, b) = (ConnId::of(0), ConnId::of(1));
        templates.control(id, a);
        templates.control(id, b);
        assert!(templates.release(a, Ending::Forced).is_none());
        assert!(templates.release(b, Ending::Forced).is_some());
        let id = templates.insert(new(1, 100), Grain(0)).unwrap();
        templates.control(id, a);
        templates.assure(a);
        assert!(templates.release(a, Ending::Forced).is_none());
        assert!(templates.release(a, Ending::Forced).is_none(), "only once");
        assert_eq!(templates.find(&key(1)), Some(id));
    }

    #[test]
    fn a_full_table_refuses_and_a_place_serves_its_next_tenant() {
        let mut templates = Templates::new(0, Grain(0));
        let ids: Vec<_> = (0..64)
            .map(|n| templates.insert(new(n, 100), Grain(0)).unwrap())
            .collect();
        assert_eq!(templates.insert(new(99, 100), Grain(0)), Err(Full));
        templates.remove(ids[7]).unwrap();
        let id = templates.insert(new(99, 500), Grain(50)).unwrap();
        assert_eq!(expire(&mut templates, 130), 63);
        assert_eq!(templates.find(&key(99)), Some(id));
        assert_eq!(expire(&mut templates, 580), 1);
        let seen = templates.scan(0, 100).unwrap();
        assert!(seen.0.is_none() && templates.scan(seen.1, 1).is_none());
    }
}
