//! What workers were told of the kernel, and what of it they still have to be told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_dataplane::command::PortId;
use sluice_dataplane::egress::{Fib, Mac};

use super::fib::Address;
use super::netlink::Link;

/// An exception interface, as last told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortState {
    pub(super) mac: Mac,
    pub(super) mtu: u16,
    pub(super) up: bool,
}

/// What workers were told, or will be as soon as there is room; and what of it they still have to be told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) local: Option<BTreeSet<IpAddr>>,
    pub(super) ports: BTreeMap<PortId, PortState>,
    pub(super) fib: Option<Arc<Fib>>,
    pub(super) local_is_news: bool,
    pub(super) fib_is_news: bool,
    pub(super) news_of_ports: BTreeSet<PortId>,
    pub(super) complete_is_news: bool,
}

impl Told {
    pub(super) fn has_news(&self) -> bool {
        self.local_is_news
            || self.fib_is_news
            || self.complete_is_news
            || !self.news_of_ports.is_empty()
    }

    pub(super) fn set_local(&mut self, addresses: &[Address]) {
        let local: BTreeSet<_> = addresses.iter().map(|a| IpAddr::V4(a.local)).collect();
        if self.local.as_ref() != Some(&local) {
            self.local = Some(local);
            self.local_is_news = true;
        }
    }

    pub(super) fn set_fib(&mut self, fib: Fib) {
        let same = self.fib.as_ref().is_some_and(|f| f.iter().eq(fib.iter()));
        if !same {
            self.fib = Some(Arc::new(fib));
            self.fib_is_news = true;
        }
    }

    /// `None`: the interface is not there.
    pub(super) fn set_port(&mut self, port: PortId, state: Option<PortState>) {
        let before = self.ports.get(&port).copied();
        let state = state.or(before.map(|before| PortState {
            up: false,
            ..before
        }));
        if let Some(state) = state
            && before != Some(state)
        {
            self.ports.insert(port, state);
            self.news_of_ports.insert(port);
        }
    }
}

/// What a worker needs to know of its port's interface; `None` when it is no Ethernet interface.
pub(super) fn port_state(link: &Link) -> Option<PortState> {
    Some(PortState {
        mac: link.mac?,
        mtu: link.mtu.try_into().unwrap_or(u16::MAX),
        up: link.up,
    })
}
