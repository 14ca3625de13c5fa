//! What can be wrong with a packet that comes back.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error as _;
use serde::ser::SerializeMap;

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// What is wrong with a packet. Each has at most one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Fault {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// Its name in reports.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

faults! {
    /// Shorter than its headers say.
    BadLength = "bad_length",
    /// The IPv4 header's checksum is wrong, or it has become a fragment.
    BadIpHeader = "bad_ip_header",
    /// The TCP or UDP checksum is wrong.
    BadChecksum = "bad_checksum",
    /// The payload, or the number in it, is not what was sent.
    BadPayload = "bad_payload",
    /// TCP's sequence or acknowledgement number, or its flags, are not what they must be.
    BadSequence = "bad_sequence",
    /// Nobody has sent a packet with this number, or very long ago.
    Unknown = "unknown",
    /// It is from or to another client than the packet with this number was.
    WrongClient = "wrong_client",
    /// It came to nobody who is a real server, or to a port that is not.
    NoServer = "no_server",
    /// It came to another real server than the connection's earlier packets.
    WrongServer = "wrong_server",
    /// It came by another method than the real server's.
    WrongMethod = "wrong_method",
    /// It came before.
    Duplicate = "duplicate",
    /// It came after a packet of its flow that was sent later.
    Reordered = "reordered",
}

/// How often each fault was seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults([u64; Fault::ALL.len()]);

impl Faults {
    /// Counts one.
    pub(crate) fn count(&mut self, fault: Fault) {
        self.0[fault as usize] += 1;
    }

    /// How often this one was seen.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize]
    }

    /// All together.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Those of two who looked.
    pub(crate) fn plus(mut self, other: &Self) -> Self {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine += theirs;
        }
        self
    }

    fn seen(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let all = Fault::ALL.iter().zip(self.0);
        all.filter(|(_, count)| *count > 0)
            .map(|(fault, count)| (fault.name(), count))
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self
            .seen()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        match all.as_slice() {
            [] => f.write_str("none"),
            all => f.write_str(&all.join(", ")),
        }
    }
}

impl<'de> serde::Deserialize<'de> for Faults {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let counts: BTreeMap<String, u64> = serde::Deserialize::deserialize(deserializer)?;
        let mut faults = Self::default();
        for (name, count) in counts {
            let fault = Fault::ALL.iter().position(|fault| fault.name() == name);
            let fault = fault.ok_or_else(|| D::Error::custom(format!("no fault {name:?}")))?;
            faults.0[fault] = count;
        }
        Ok(faults)
    }
}

impl serde::Serialize for Faults {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, count) in self.seen() {
            map.serialize_entry(name, &count)?;
        }
        map.end()
    }
}
