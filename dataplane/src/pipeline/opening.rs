//! A packet of no connection: which service it is for, which real server takes it, or who else gets it (`SEMANTICS.md`
//! sections 1, 2 and 5).

use std::net::{IpAddr, Ipv4Addr};

use super::advice::Subject;
use super::{Opened, Pipeline};
use crate::command::{PortId, WorkerId};
use crate::conn::template::{Ending, NewTemplate, TemplateId, TemplateKey, TemplateRef};
use crate::conn::{Conn, Control, Direction, Endpoint, FlowKey, Half, Hash, Hit, NewConn};
use crate::drop_reason::DropReason;
use crate::egress::Route;
use crate::io::{Frame, Port};
use crate::packet::ethernet::Ethernet;
use crate::packet::icmp::Problem;
use crate::packet::ipv4::Ipv4;
use crate::packet::sctp::Chunk;
use crate::packet::tcp;
use crate::parse::Flow;
use crate::sched::Request;
use crate::service::{
    ClientMask, FTP, FTP_DATA, Method, Persistence, Protocol, RealServerSpec, ServiceId,
    ServiceKey, Tunnel,
};
use crate::steer::classes::FIRST_PORT;
use crate::steer::ring::Errand;

/// Who takes a new connection.
pub(super) struct Chosen {
    server: RealServerSpec,
    /// The port there.
    port: u16,
    /// The template that says so.
    template: Option<TemplateId>,
    /// The same, if it is another worker's.
    referred: Option<(WorkerId, TemplateRef)>,
}

impl Chosen {
    pub(super) fn server(&self) -> &RealServerSpec {
        &self.server
    }

    pub(super) fn template(&self) -> Option<TemplateId> {
        self.template
    }
}

impl<P: Port> Pipeline<P> {
    /// Schedules a packet whose key has this hash, gives it to its owner, or leaves it to the kernel (section 2, steps 6 and 7). A
    /// connection that it opens waits for [`Pipeline::complete_openings`], and the packet with it.
    #[inline(never)]
    pub(super) fn open(&mut self, port: PortId, frame: P::Frame, flow: &Flow, hash: Hash) {
        let key = flow.key();
        if let Some(owner) = self.elsewhere(port, &key) {
            let kind = self.handed_as(owner.method, port, &key);
            return self.hand_off(owner.worker, port, frame, Errand::Received, kind);
        }
        if self.owners.steering().has_moved()
            && let Some((to, errand)) = self.former_owner(port, &key)
        {
            let kind = self.handed_as(None, port, &key);
            return self.hand_off(to, port, frame, errand, kind);
        }
        if self.settings.nat_icmp_send && self.is_unknown_reply(flow, &key) {
            return self.refuse_reply(port, frame, flow, &key);
        }
        let Some(service) = self.wanted(port, flow, &key) else {
            let local = key.dst_port >= FIRST_PORT && self.services.is_laddr(key.dst);
            return if local {
                self.forwarder
                    .lanes
                    .discard(frame, DropReason::StrayLocalPort);
            } else {
                self.forwarder.lanes.punt(port, frame);
            };
        };
        if self.settings.defence.drop_rate > 0 && self.sacrifices() {
            return self.forwarder.lanes.discard(frame, DropReason::Defence);
        }
        let Some(spec) = self.services.spec(service) else {
            unreachable!("lookup finds services that are there");
        };
        let (of, one_packet) = (spec.key, spec.one_packet);
        if let Some(owner) = self.adviser(spec, &key) {
            return self.ask(owner, port, frame, Subject::Opening(*flow), (service, of));
        }
        let chosen = match self.chosen(service, &key) {
            Ok(Some(chosen)) => chosen,
            Ok(None) => return self.leave(port, frame, &key, of),
            Err(reason) => return self.forwarder.lanes.discard(frame, reason),
        };
        if one_packet && key.protocol == Protocol::Udp {
            return self.pass_alone(port, frame, flow, service, &chosen);
        }
        match self.half_connect(service, &chosen, &key, hash) {
            Ok(half) => self.opened.push(Opened {
                half,
                frame,
                flow: *flow,
            }),
            Err(reason) => self.forwarder.lanes.discard(frame, reason),
        }
    }

    /// Completes the connections opened since the last call and lets their packets go on. By now the memory that this takes has
    /// been fetched.
    #[inline]
    pub(super) fn complete_openings(&mut self, port: PortId) {
        if !self.opened.is_empty() {
            self.complete_all(port);
        }
    }

    #[inline(never)]
    fn complete_all(&mut self, port: PortId) {
        let mut opened = std::mem::take(&mut self.opened);
        for Opened { half, frame, flow } in opened.drain(..) {
            match self.complete(half) {
                Ok(hit) => self.pass(port, frame, &flow, hit),
                Err(reason) => self.forwarder.lanes.discard(frame, reason),
            }
        }
        self.opened = opened;
    }

    /// The service that a packet may open a connection to.
    fn wanted(&self, port: PortId, flow: &Flow, key: &FlowKey) -> Option<ServiceId> {
        let opens = match key.protocol {
            Protocol::Tcp => {
                let (syn, rst) = (
                    flow.tcp_flags & tcp::SYN != 0,
                    flow.tcp_flags & tcp::RST != 0,
                );
                !rst && (syn || self.settings.sloppy_tcp)
            }
            Protocol::Udp => true,
            Protocol::Sctp => {
                let sloppy = self.settings.sloppy_sctp && flow.chunk != Chunk::Missing;
                flow.chunk == Chunk::Init || sloppy
            }
        };
        if opens {
            self.service_of(port, key)
        } else {
            None
        }
    }

    /// The service of a packet with this key, whatever its flags say.
    pub(super) fn service_of(&self, port: PortId, key: &FlowKey) -> Option<ServiceId> {
        if key.src_port == FTP_DATA {
            return None;
        }
        let mark = if self.services.wants_marks() {
            self.mark(port, key)
        } else {
            0
        };
        self.services.lookup(key, mark)
    }

    /// The firewall mark. Only packets that have arrived have any: IPVS sees no others (section 2).
    #[cold]
    #[inline(never)]
    fn mark(&self, port: PortId, flow: &FlowKey) -> u32 {
        let mark = self.mark_rules.mark(flow, port);
        let arrived = mark != 0 && self.forwarder.fib.lookup(flow.dst) == Some(Route::Local);
        if arrived { mark } else { 0 }
    }

    /// Whether a NAT server sends this from its service's port, without a connection that it could be of. The end of one
    /// is no matter (`nat_icmp_send`).
    #[cold]
    #[inline(never)]
    fn is_unknown_reply(&self, flow: &Flow, key: &FlowKey) -> bool {
        flow.tcp_flags & tcp::RST == 0
            && flow.chunk != Chunk::Abort
            && self
                .services
                .is_masqueraded(key.protocol, key.src, key.src_port)
    }

    /// Tells a NAT server that nobody waits for what it sends.
    #[cold]
    #[inline(never)]
    fn refuse_reply(&mut self, port: PortId, mut frame: P::Frame, flow: &Flow, key: &FlowKey) {
        let arrived = self.forwarder.fib.lookup(key.dst) == Some(Route::Local);
        if !arrived && flow.ttl <= 1 {
            // The kernel, which would forward it, has its own to say.
            return self.forwarder.lanes.punt(port, frame);
        }
        if !arrived && let Ok((ip, _)) = Ipv4::view_mut(&mut frame.bytes_mut()[Ethernet::LEN..]) {
            // It is looked at on its way out: the quote shows that.
            ip.decrement_ttl();
        }
        self.forwarder
            .send_error(port, &frame, None, Problem::PortUnreachable);
        self.forwarder
            .lanes
            .discard(frame, DropReason::UnknownReply);
    }

    /// Whether this is the one of so many opening packets that `drop_packet` drops.
    #[cold]
    #[inline(never)]
    pub(super) fn sacrifices(&mut self) -> bool {
        self.until_drop = self.until_drop.saturating_sub(1);
        let drops = self.until_drop == 0;
        if drops {
            self.until_drop = self.settings.defence.drop_rate;
        }
        drops
    }

    /// Who takes a new connection to the service.
    pub(super) fn chosen(
        &mut self,
        service: ServiceId,
        flow: &FlowKey,
    ) -> Result<Option<Chosen>, DropReason> {
        let Some(spec) = self.services.spec(service) else {
            return Ok(None);
        };
        let key = spec.key;
        match spec.persistence {
            Some(persistence) => self.choose_persistently(service, key, persistence, flow),
            None => self.choose(service, key, flow),
        }
    }

    /// The server that another worker chose.
    pub(super) fn as_advised(
        &self,
        service: ServiceId,
        server: RealServerSpec,
        referred: Option<(WorkerId, TemplateRef)>,
        flow: &FlowKey,
    ) -> Chosen {
        let service_port = self.services.spec(service).map(|spec| port_of(spec.key));
        // Beside the service's own port there is only persistence, which keeps ports as they are.
        let own = service_port.flatten().unwrap_or(0) == flow.dst_port || referred.is_none();
        Chosen {
            port: if server.port != 0 && own {
                server.port
            } else {
                flow.dst_port
            },
            server,
            template: None,
            referred,
        }
    }

    /// What the scheduler says.
    fn choose(
        &mut self,
        service: ServiceId,
        key: ServiceKey,
        flow: &FlowKey,
    ) -> Result<Option<Chosen>, DropReason> {
        let dst_port = flow.dst_port;
        // Only persistence looks after other ports than the service's own: a data connection needs it to get to where its
        // FTP session is.
        if port_of(key).is_some_and(|port| port != dst_port) {
            return Ok(None);
        }
        let server = self.schedule(service, flow);
        Ok(server.map(|server| Chosen {
            port: if server.port == 0 {
                dst_port
            } else {
                server.port
            },
            server,
            template: None,
            referred: None,
        }))
    }

    fn schedule(&mut self, service: ServiceId, flow: &FlowKey) -> Option<RealServerSpec> {
        let request = Request {
            flow,
            now: self.now,
            rate: self.rate,
            settings: &self.settings,
        };
        self.services.schedule(service, &request)
    }

    /// What the client's template says, or else the scheduler; then there is a template from now on (section 5).
    #[inline(never)]
    fn choose_persistently(
        &mut self,
        service: ServiceId,
        key: ServiceKey,
        persistence: Persistence,
        flow: &FlowKey,
    ) -> Result<Option<Chosen>, DropReason> {
        let dst_port = flow.dst_port;
        let service_port = port_of(key).unwrap_or(0);
        let template_key = template_key(key, persistence, flow);
        let known = self.templates.find(&template_key);
        let (server, template) = match known.and_then(|id| Some((self.persists(id)?, id))) {
            Some(known) => known,
            None => {
                let Some(server) = self.schedule(service, flow) else {
                    return Ok(None);
                };
                let template = self.remember(service, template_key, persistence, &server)?;
                (server, template)
            }
        };
        self.templates.renew(template, self.grain);
        Ok(Some(Chosen {
            port: if server.port != 0 && dst_port == service_port {
                server.port
            } else {
                dst_port
            },
            server,
            template: Some(template),
            referred: None,
        }))
    }

    /// The server that a template leads to. One that leads nowhere is found no more.
    fn persists(&mut self, id: TemplateId) -> Option<RealServerSpec> {
        let rs = self.templates.template(id)?.rs();
        let quiesced =
            |real: &&RealServerSpec| real.weight > 0 || !self.settings.expire_quiescent_template;
        let server = self.services.real_server(rs).filter(quiesced).copied();
        if server.is_none() {
            self.templates.invalidate(id);
        }
        server
    }

    fn remember(
        &mut self,
        service: ServiceId,
        key: TemplateKey,
        persistence: Persistence,
        server: &RealServerSpec,
    ) -> Result<TemplateId, DropReason> {
        let IpAddr::V4(addr) = server.addr else {
            return Err(DropReason::UnsupportedTunnel);
        };
        let port = if key.vport == 0 { 0 } else { server.port };
        let one_packet = self
            .services
            .spec(service)
            .is_some_and(|spec| spec.one_packet);
        let new = NewTemplate {
            key,
            rs: server.id.index,
            server: Endpoint::new(addr, port),
            method: server.method,
            timeout: self
                .grains
                .at_least(self.rate.seconds(persistence.timeout_s)),
            one_packet,
        };
        let id = self.templates.insert(new, self.grain);
        let id = id.map_err(|_| DropReason::TemplatesFull)?;
        self.cells.servers[new.rs as usize].templates.add(1);
        Ok(id)
    }

    /// No server for it (section 2, step 7).
    #[cold]
    #[inline(never)]
    pub(super) fn leave(
        &mut self,
        port: PortId,
        frame: P::Frame,
        flow: &FlowKey,
        service: ServiceKey,
    ) {
        if is_beside_ftp(service, flow) {
            return self.forwarder.lanes.punt(port, frame);
        }
        self.forwarder
            .send_error(port, &frame, Some(flow.dst), Problem::PortUnreachable);
        self.forwarder.lanes.discard(frame, DropReason::NoServer)
    }

    pub(super) fn connect(
        &mut self,
        service: ServiceId,
        chosen: &Chosen,
        client: &FlowKey,
    ) -> Result<Hit, DropReason> {
        let hash = self.table.hash(client.protocol.number(), &client.ends());
        let half = self.half_connect(service, chosen, client, hash)?;
        self.complete(half)
    }

    pub(super) fn half_connect(
        &mut self,
        service: ServiceId,
        chosen: &Chosen,
        client: &FlowKey,
        hash: Hash,
    ) -> Result<Half, DropReason> {
        let (mut conn, reply) = self.connection(service, chosen, client)?;
        if chosen.template.is_some() || chosen.referred.is_some() {
            conn.control = Control::Tentative;
        }
        let half = self.table.begin(conn, hash, reply);
        let half = half.map_err(|_| DropReason::TableFull)?;
        if let Some(template) = chosen.template {
            self.templates.control(template, half.id);
        }
        if let Some(template) = chosen.referred {
            self.refer(half.id, template);
        }
        self.bind(service, conn.rs);
        self.cells.connections.set(self.table.len() as u64);
        Ok(half)
    }

    pub(super) fn complete(&mut self, half: Half) -> Result<Hit, DropReason> {
        let hit = Hit {
            id: half.id,
            direction: Direction::ToServer,
        };
        if self.table.complete(half).is_ok() {
            return Ok(hit);
        }
        let server = &self.cells.servers[self.table.of(hit).rs as usize];
        server.conns.sub(1);
        if let Some(service) = self.cells.service_of(server) {
            service.conns.sub(1);
        }
        self.expire(hit.id, Ending::Forced);
        Err(DropReason::TableFull)
    }

    /// The connection as it will be. For FULLNAT also the hash of its server's packets, which no connection has.
    pub(super) fn connection(
        &mut self,
        service: ServiceId,
        chosen: &Chosen,
        client: &FlowKey,
    ) -> Result<(Conn, Option<Hash>), DropReason> {
        let Chosen { server, port, .. } = chosen;
        let IpAddr::V4(addr) = server.addr else {
            return Err(DropReason::UnsupportedTunnel);
        };
        if server.method == Method::Tun && server.tunnel != Tunnel::Ipip {
            return Err(DropReason::UnsupportedTunnel);
        }
        let to = Endpoint::new(addr, *port);
        let local = match (server.method, self.services.spec(service)) {
            (Method::FullNat, Some(spec)) => Some(self.local_ports.choose(
                &self.table,
                self.owners.steering(),
                client.protocol,
                to,
                &spec.laddrs,
            )?),
            _ => None,
        };
        let conn = Conn::new(&NewConn {
            client: *client,
            server: to,
            local: local.map(|(local, _)| local),
            method: server.method,
            rs: server.id.index,
        });
        Ok((conn, local.map(|(_, reply)| reply)))
    }

    /// Counts a connection that came.
    pub(super) fn bind(&mut self, service: ServiceId, rs: u32) {
        self.services.bind(rs);
        self.cells.servers[rs as usize].conns.add(1);
        self.cells.services[service.0 as usize].conns.add(1);
    }

    /// One-packet scheduling: a connection that ends with its first packet, and that no reply finds (section 6).
    #[inline(never)]
    pub(super) fn pass_alone(
        &mut self,
        port: PortId,
        frame: P::Frame,
        flow: &Flow,
        service: ServiceId,
        chosen: &Chosen,
    ) {
        let mut conn = match self.connection(service, chosen, &flow.key()) {
            Ok((conn, _)) => conn,
            Err(reason) => return self.forwarder.lanes.discard(frame, reason),
        };
        self.bind(service, conn.rs);
        self.services.unbind(conn.rs, false);
        let direction = Direction::ToServer;
        self.count(conn.rs, direction, flow.total_len);
        self.forwarder
            .forward(port, frame, flow, &mut conn, direction);
    }
}

/// Whether an FTP service was found for another port: who has FTP here may have other services of the machine's own there.
pub(super) fn is_beside_ftp(service: ServiceKey, flow: &FlowKey) -> bool {
    port_of(service) == Some(FTP) && flow.dst_port != FTP
}

/// The port that a service has; `None` for one of a mark, which has them all.
fn port_of(service: ServiceKey) -> Option<u16> {
    match service {
        ServiceKey::Address { port, .. } => Some(port),
        ServiceKey::Mark { .. } => None,
    }
}

/// What the client's template is known by (section 5).
pub(super) fn template_key(
    service: ServiceKey,
    persistence: Persistence,
    flow: &FlowKey,
) -> TemplateKey {
    let client = match persistence.mask {
        ClientMask::V4(mask) => flow.src & mask,
        ClientMask::V6(_) => flow.src,
    };
    match service {
        ServiceKey::Mark { mark, .. } => TemplateKey {
            protocol: None,
            client,
            vaddr: Ipv4Addr::from_bits(mark),
            vport: 0,
        },
        ServiceKey::Address { port, .. } => TemplateKey {
            protocol: Some(flow.protocol),
            client,
            vaddr: flow.dst,
            vport: if flow.dst_port == port && port != FTP {
                port
            } else {
                0
            },
        },
    }
}
