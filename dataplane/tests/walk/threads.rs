//! Four workers on threads of their own, each as fast as it can, while services change, one of them stands still, or is gone.
//!
//! Time is each worker's own and made of turns; threads wait for each other by counts of turns. How fast they are, and in what
//! order, changes what is dropped, and nothing that is looked at.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use sluice_dataplane::command::{Command, ServiceEdit};
use sluice_dataplane::drop_reason::DropReason;
use sluice_dataplane::service::{
    ClientMask, Method, Persistence, Protocol, RealServerSpec, RsId, SchedulerKind, ServiceId,
    ServiceKey, ServiceSpec, Tunnel,
};
use sluice_dataplane::stats::{Books, Cell, WorkerCells};
use sluice_dataplane::time::{Span, TickRate};

use crate::rig::*;
use crate::team::Team;

const WORKERS: usize = 4;
const TURNS: usize = 24_000;
/// Turns after which all wait until the one that stands still does.
const BEFORE: usize = TURNS / 8;
/// Turns after which the others have done enough without it.
const WITHOUT: usize = TURNS / 2;
/// Turns from one change of services to the next.
const CHANGE: usize = 500;
const PACKETS_A_TURN: usize = 2;
/// Frames in a ring between two workers.
const RING: usize = 128;
const CLIENTS: u32 = 300;
const UPPER: u32 = 40;
const SERVERS: u32 = 4;

/// Services by their places; each has [`SERVERS`] servers.
const STICKY: usize = 0;
const LBLC: usize = 1;
const LBLCR: usize = 2;
const WLC: usize = 3;
const NAT: usize = 4;
/// lblcr as well; its thresholds come and go.
const EDITED: usize = 5;
/// Comes and goes.
const FLEETING: usize = 6;

fn key(protocol: Protocol, service: usize) -> ServiceKey {
    ServiceKey::Address {
        protocol,
        addr: IpAddr::V4(VIP),
        port: 80 + service as u16,
    }
}

/// Connections over UDP end after a second, those over TCP not while packets pass.
fn protocol(service: usize) -> Protocol {
    match service {
        LBLCR | WLC => Protocol::Tcp,
        _ => Protocol::Udp,
    }
}

fn services() -> Vec<ServiceSpec> {
    let spec = |service: usize| {
        let id = ServiceId(service as u32);
        let real = |number: u32| RealServerSpec {
            id: RsId {
                index: service as u32 * SERVERS + number,
                generation: 0,
            },
            addr: server(number as u8 + 1).into(),
            port: if service == NAT {
                8080
            } else {
                80 + service as u16
            },
            method: if service == NAT {
                Method::Nat
            } else {
                Method::Dr
            },
            tunnel: Tunnel::Ipip,
            weight: 1,
            last_weight: 1,
            upper_threshold: if matches!(service, LBLCR | WLC) {
                UPPER
            } else {
                0
            },
            lower_threshold: 0,
        };
        let persistence = Persistence {
            timeout_s: 60,
            mask: ClientMask::V4([255; 4].into()),
        };
        ServiceSpec {
            scheduler: match service {
                LBLC => SchedulerKind::Lblc,
                LBLCR | EDITED => SchedulerKind::Lblcr,
                WLC => SchedulerKind::Wlc,
                _ => SchedulerKind::Rr,
            },
            real_servers: (0..SERVERS).map(real).collect(),
            persistence: matches!(service, STICKY | FLEETING).then_some(persistence),
            ..ServiceSpec::new(id, key(protocol(service), service))
        }
    };
    (0..=FLEETING).map(spec).collect()
}

/// A worker, what it was told of services, and where packets went.
struct Member {
    rig: Rig,
    services: Vec<ServiceSpec>,
    random: u64,
    delivered: u64,
    /// By service, client and port: to which server, of packets that came out here.
    sent: Vec<(usize, Ipv4Addr, u8)>,
}

/// How far each worker is, in turns.
type Progress = [AtomicUsize; WORKERS];

fn progress() -> Progress {
    std::array::from_fn(|_| AtomicUsize::new(0))
}

fn wait_until(what: impl Fn() -> bool) {
    while !what() {
        thread::yield_now();
    }
}

impl Member {
    fn new(rig: Rig, number: u64) -> Self {
        let mut member = Self {
            rig,
            services: services(),
            random: 0x9e37_79b9_7f4a_7c15 ^ number << 32,
            delivered: 0,
            sent: Vec::new(),
        };
        member.rig.settings(|settings| settings.timeouts.udp_s = 1);
        for service in 0..=FLEETING {
            member.put(service, ServiceEdit::Created);
        }
        member
    }

    fn put(&mut self, service: usize, edit: ServiceEdit) {
        let service = Arc::new(self.services[service].clone());
        self.rig.command(Command::PutService { service, edit });
    }

    fn draw(&mut self, below: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 33) as u32 % below
    }

    /// A packet that opens a connection to a service.
    fn packet(&mut self, service: usize) {
        let client = self.draw(CLIENTS);
        self.packet_of(service, client);
    }

    fn packet_of(&mut self, service: usize, client: u32) {
        let from = (addr_of(client), 1024 + self.draw(60_000) as u16);
        let to = (VIP, 80 + service as u16);
        let packet = match protocol(service) {
            Protocol::Tcp => tcp(from, to, "S", b""),
            _ => udp(from, to, b"?"),
        };
        let port = &mut self.rig.worker.port_mut(CLIENT_SIDE).unwrap().port;
        port.deliver(&ethernet(mac(CLIENT_SIDE), &packet));
        self.delivered += 1;
    }

    fn turn(&mut self) {
        self.rig.now = self.rig.now + Span(TickRate::NANOSECONDS.millis(1).0 / 10);
        self.rig.poll();
        for sent in self.rig.sent() {
            // Others are told that nobody takes their connections.
            if sent.side == SERVER_SIDE {
                let (from, to) = sent.flow();
                let service = if to.1 == 8080 {
                    NAT
                } else {
                    usize::from(to.1 - 80)
                };
                self.sent.push((service, from.0, sent.to.0[5]));
            }
        }
    }

    /// The `nth` change of services, the same for all workers.
    fn change(&mut self, nth: usize) {
        let place = nth / 4 % SERVERS as usize;
        let edited = |member: &Self, service: usize| {
            ServiceEdit::ServerEdited(member.services[service].real_servers[place].id)
        };
        match nth % 4 {
            0 => {
                let real = &mut self.services[EDITED].real_servers[place];
                real.upper_threshold = if real.upper_threshold == 0 { UPPER } else { 0 };
                self.put(EDITED, edited(self, EDITED));
            }
            1 => {
                let real = &mut self.services[STICKY].real_servers[place];
                real.weight = 1 + (real.weight + 1) % 3;
                self.put(STICKY, edited(self, STICKY));
            }
            2 => self
                .rig
                .command(Command::DeleteService(ServiceId(FLEETING as u32))),
            _ => self.put(FLEETING, ServiceEdit::Created),
        }
    }

    /// All its turns; before each, `gate` may hold it up, or end it by `false`.
    fn run(&mut self, me: usize, progress: &Progress, gate: impl Fn(usize) -> bool) {
        for turn in 0..TURNS {
            progress[me].store(turn, SeqCst);
            if !gate(turn) {
                return;
            }
            if turn % CHANGE == CHANGE - 1 {
                self.change(turn / CHANGE);
            }
            for _ in 0..PACKETS_A_TURN {
                let service = self.draw(FLEETING as u32 + 1) as usize;
                self.packet(service);
            }
            self.turn();
        }
        progress[me].store(TURNS, SeqCst);
    }
}

fn addr_of(client: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(198, 18, 0, 1)) + client)
}

fn members() -> Vec<Member> {
    let mut team = Team::sized(WORKERS as u16, RING, Protocol::Udp, 1 << 16);
    team.spread_by_nics();
    team.each(|rig| rig.command(Command::DeleteService(rig.service.id)));
    let rigs = std::mem::take(&mut team.workers);
    let members = (0..)
        .zip(rigs)
        .map(|(number, rig)| Member::new(rig, number));
    members.collect()
}

/// Turns workers until nothing waits and nothing is on its way but to who is gone.
fn settle(members: &mut [Member]) {
    let held = |members: &[Member]| {
        members
            .iter()
            .map(|one| one.rig.cells.books.held.read())
            .sum::<u64>()
    };
    let mut rounds = 0;
    while rounds < 64 || held(members) > 0 {
        members.iter_mut().for_each(Member::turn);
        rounds += 1;
        assert!(rounds < 100_000, "packets wait for ever");
    }
}

fn sum(members: &[Member], what: impl Fn(&WorkerCells) -> u64) -> u64 {
    members.iter().map(|one| what(&one.rig.cells)).sum()
}

fn drops(members: &[Member], reason: DropReason) -> u64 {
    sum(members, |cells| cells.books.drops[reason as usize].read())
}

/// Every packet is accounted for: what came in was sent, dropped for a reason, or lies in rings to who is gone.
fn assert_books(members: &[Member], in_rings: u64) {
    let total = |what: fn(&WorkerCells) -> u64| sum(members, what);
    let delivered: u64 = members.iter().map(|one| one.delivered).sum();
    assert_eq!(total(|cells| cells.books.rx.read()), delivered);
    let dropped = total(|cells| cells.books.drops.iter().map(Cell::read).sum());
    let out = total(|cells| cells.books.tx.read() + cells.books.punted.read());
    let made = total(|cells| cells.books.generated.read());
    assert_eq!(delivered + made, out + dropped + in_rings);
    let handed = total(|cells| cells.books.handed_out.read());
    assert_eq!(
        handed - total(|cells| cells.books.handed_in.read()),
        in_rings
    );
}

/// No client was ever on two servers, nor lblc's one destination. Returns how many clients there were.
fn assert_sticky(members: &[Member]) -> usize {
    let mut server_of = HashMap::new();
    let sent = || members.iter().flat_map(|one| &one.sent);
    let cached: HashSet<u8> = sent()
        .filter(|sent| sent.0 == LBLC)
        .map(|sent| sent.2)
        .collect();
    assert_eq!(cached.len(), 1, "lblc has one destination");
    for (_, client, server) in sent().filter(|sent| sent.0 == STICKY) {
        let first = server_of.entry(*client).or_insert(*server);
        assert_eq!(first, server, "{client} was on two servers");
    }
    server_of.len()
}

/// Connections of a service's server at a place, over all workers.
fn connections(members: &[Member], service: usize, place: u32) -> u64 {
    let index = service * SERVERS as usize + place as usize;
    sum(members, |cells| {
        cells.servers[index].active.read() + cells.servers[index].inactive.read()
    })
}

/// As many connections as the thresholds allow, and `least` of each server.
fn assert_thresholds(members: &[Member], service: usize, least: u32) {
    for place in 0..SERVERS {
        let count = connections(members, service, place);
        let allowed = u64::from(least)..=u64::from(UPPER);
        assert!(allowed.contains(&count), "service {service}: {count}");
    }
}

/// Many more connections than thresholds allow.
fn fill(members: &mut [Member], service: usize) {
    for client in 0..UPPER * SERVERS * 3 {
        let at = client as usize % members.len();
        members[at].packet_of(service, client);
        members.iter_mut().for_each(Member::turn);
    }
    settle(members);
}

/// After everything ended there is as much room under each threshold as ever: no place got lost.
fn assert_room(members: &mut [Member]) {
    for _ in 0..10 {
        members.iter_mut().for_each(|one| one.rig.sleep(60_000));
    }
    assert_eq!(sum(members, |cells| cells.connections.read()), 0);
    for member in &mut *members {
        for place in 0..SERVERS as usize {
            let real = &mut member.services[EDITED].real_servers[place];
            real.upper_threshold = UPPER;
            let id = real.id;
            member.put(EDITED, ServiceEdit::ServerEdited(id));
        }
    }
    for service in [LBLCR, WLC, EDITED] {
        fill(members, service);
        assert_thresholds(members, service, UPPER);
    }
}

/// Each client once more, by each worker: to the server that it had. Returns how many were served.
fn serve_all(members: &mut [Member]) -> usize {
    let before: Vec<usize> = members.iter().map(|one| one.sent.len()).collect();
    for client in 0..CLIENTS {
        for member in &mut *members {
            member.packet_of(STICKY, client);
        }
        members.iter_mut().for_each(Member::turn);
    }
    settle(members);
    assert_sticky(members);
    let since = members.iter().zip(before);
    let since = since.flat_map(|(one, before)| &one.sent[before..]);
    let clients = since.filter(|sent| sent.0 == STICKY).map(|sent| sent.1);
    clients.collect::<HashSet<Ipv4Addr>>().len()
}

#[test]
fn clients_thresholds_and_packets_are_kept_by_workers_on_threads_while_one_stands_still() {
    let mut members = members();
    let progress = &progress();
    let stalled = WORKERS - 1;
    thread::scope(|scope| {
        for (me, member) in members.iter_mut().enumerate() {
            let at_least = |turn: usize| {
                (0..WORKERS)
                    .filter(|other| *other != stalled)
                    .all(|other| progress[other].load(SeqCst) >= turn)
            };
            scope.spawn(move || {
                member.run(me, progress, |turn| {
                    match turn {
                        BEFORE if me == stalled => wait_until(|| at_least(WITHOUT)),
                        BEFORE => wait_until(|| progress[stalled].load(SeqCst) >= BEFORE),
                        _ => {}
                    }
                    true
                });
            });
        }
    });
    settle(&mut members);
    assert_books(&members, 0);
    assert!(assert_sticky(&members) > 0);
    // Who asked the one that stood still waited in vain.
    let missed =
        drops(&members, DropReason::AdviceMissing) + drops(&members, DropReason::AdviceQueueFull);
    assert!(missed > 0);
    for service in [LBLCR, WLC] {
        assert_thresholds(&members, service, 0);
    }
    assert_eq!(serve_all(&mut members), CLIENTS as usize);
    assert_books(&members, 0);
    for service in [LBLCR, WLC] {
        fill(&mut members, service);
        // A place that was taken and given back leaves the overload as it is, until the lower threshold.
        assert_thresholds(&members, service, UPPER * 3 / 4);
    }
    assert_room(&mut members);
    assert_books(&members, 0);
}

#[test]
fn a_worker_that_is_gone_costs_what_it_alone_could_answer_and_nothing_else() {
    let mut members = members();
    let progress = &progress();
    let gone = WORKERS - 1;
    let last = members.pop().unwrap();
    let cells = Arc::clone(&last.rig.cells);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut last = last;
            last.run(gone, progress, |turn| turn < BEFORE);
            // Here it ends, with all that it owned.
        });
        for (me, member) in members.iter_mut().enumerate() {
            scope.spawn(move || {
                member.run(me, progress, |turn| {
                    if turn == BEFORE {
                        wait_until(|| progress[gone].load(SeqCst) >= BEFORE);
                    }
                    true
                });
            });
        }
    });
    settle(&mut members);
    assert!(drops(&members, DropReason::AdviceMissing) > 0);
    // Most clients are others' to answer for, and stay where they were.
    let served = serve_all(&mut members);
    let most = CLIENTS as usize;
    assert!(served > most / 2 && served < most, "{served} of {most}");
    // What was handed to it lies in its rings, and beyond that is dropped: nothing else is missing.
    assert!(drops(&members, DropReason::HandOffFull) > 0);
    let handed =
        |what: fn(&Books) -> u64| sum(&members, |cells| what(&cells.books)) + what(&cells.books);
    let in_rings = handed(|books| books.handed_out.read()) - handed(|books| books.handed_in.read());
    assert_eq!(in_rings, ((WORKERS - 1) * RING) as u64);
    assert!(members.iter().all(|one| one.rig.cells.books.balance()));
    for service in [LBLCR, WLC] {
        assert_thresholds(&members, service, 0);
    }
}
