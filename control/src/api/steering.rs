//! Which worker owns which part of the packets.

use serde::{Deserialize, Serialize};

/// `rss_table_set`: just one of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RssTableSet {
    /// Entries go to a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub give: Option<RssGive>,
    /// All entries of this worker go to the others that have any, in turn; if there is none, to all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<u16>,
    /// All workers get equally many again, as at start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
}

/// Entries for a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RssGive {
    /// By number, from 0.
    pub entries: Vec<u16>,
    /// Who gets them.
    pub worker: u16,
}

/// `rss_table_list`'s answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RssTable {
    /// The worker of each entry: a packet's is its hash modulo how many there are.
    pub owners: Vec<u16>,
    /// Whether workers are still asked for connections of entries that they had before.
    pub moving: bool,
    /// How many such connections there were when the workers last counted them; not there before they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<u64>,
    /// Why NICs did not take the table that they were last given: packets arrive there as before, and are handed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
}
