//! Listing connections.

use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::{FlowProtocol, Method, Protocol};

/// `connection_list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionList {
    /// Only of this protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
    /// Only of this client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Ipv4Addr>,
    /// Only to this virtual address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_address: Option<Ipv4Addr>,
    /// Only to this virtual port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_port: Option<u16>,
    /// Only to this real server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<Ipv4Addr>,
    /// At most so many; 1 to 10000, 1000 if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Where the last answer stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// `connection_list`'s answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connections {
    /// Some connections, in no particular order.
    pub connections: Vec<Connection>,
    /// Pass it to go on; absent at the end. Connections that come and go meanwhile may be missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// One connection, or persistence template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Protocol.
    pub protocol: FlowProtocol,
    /// It is no connection but says where a client's next ones go. Its virtual address may be a firewall mark's number.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub template: bool,
    /// State, as ipvsadm names it.
    pub state: String,
    /// Milliseconds until it expires.
    pub expires_ms: u64,
    /// Client.
    pub client: SocketAddr,
    /// Virtual address and port.
    #[serde(rename = "virtual")]
    pub virtual_address: SocketAddr,
    /// Real server.
    pub server: SocketAddr,
    /// FULLNAT's local address and port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<SocketAddr>,
    /// How packets get to the server.
    pub method: Method,
    /// The worker that owns it.
    pub worker: u16,
}
