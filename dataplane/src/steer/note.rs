//! What workers write to each other: who takes a new connection, where that is not the asker's to say (contract 3 of the design).

use crate::conn::FlowKey;
use crate::conn::template::TemplateRef;
use crate::service::{RsId, ServiceId, ServiceKey};

/// A note from one worker to another.
#[derive(Clone, Copy, Debug)]
pub enum Note {
    /// Which real server takes the connection that this packet opens?
    Ask {
        /// The asker's, to tell answers apart.
        ticket: u64,
        /// The service's place.
        service: ServiceId,
        /// The service, which may be another one there for a moment.
        key: ServiceKey,
        /// The packet.
        flow: FlowKey,
    },
    /// The answer.
    Answer {
        /// Of the question.
        ticket: u64,
        /// What it is.
        advice: Advice,
    },
    /// A connection that the template controls was confirmed from both sides.
    Assured(TemplateRef),
    /// A connection that the template controlled has ended, or never came to be.
    Ended {
        /// The template.
        template: TemplateRef,
        /// Whether its time had come.
        natural: bool,
        /// Whether it was confirmed from both sides.
        assured: bool,
    },
}

/// Who takes a connection.
#[derive(Clone, Copy, Debug)]
pub enum Advice {
    /// This real server.
    Server(Offer),
    /// None may.
    Nobody,
    /// There is no room to remember it.
    NoRoom,
    /// The service is not known here, or not as such: one of the two has yet to hear of a change.
    NotYet,
}

/// A real server for a connection, and what was set aside for it: to be used or given back.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// Which.
    pub id: RsId,
    /// The template that says so; it counts the connection as one that it controls.
    pub template: Option<TemplateRef>,
    /// A place under the server's threshold is taken for it.
    pub reserved: bool,
}
