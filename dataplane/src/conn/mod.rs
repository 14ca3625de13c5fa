//! Connections: their key, this worker's table of them, their states and timers, persistence, FULLNAT's local ports.
//!
//! A connection has two keys in the table: the packet of its client, and the packet of its server. What a packet
//! shows is looked up as it is; which of the two keys matched is the packet's direction.

mod connection;
mod huge;
mod index;
mod key;
pub mod local_ports;
pub mod state;
mod table;
pub mod template;
pub mod timer;

pub use connection::{Conn, Control, Delta, Endpoint, NewConn};
pub use key::{Direction, Ends, FlowKey};
pub use table::{Bucket, ConnId, ConnTable, Guess, Half, Hash, Hit};

/// Bytes that the connections of a worker take, with their timers and templates: all of it is allocated when the worker starts.
pub fn bytes_for(max_connections: usize) -> usize {
    ConnTable::bytes_for(max_connections)
        + timer::TimerWheel::bytes_for(max_connections)
        + template::Templates::bytes_for(max_connections)
}
