//! JSON-RPC 2.0 over a Unix socket.
//!
//! Bytes → [`frames`] (where a message ends) → [`envelope`] (requests, notifications, batches) → the
//! [`Controller`](crate::controller::Controller) → [`waiting`] (changes until all workers have them) → [`server`]
//! (connections). Requests are performed in the order of arrival and answered in that order on each connection, but not
//! one after the other: the next one is performed while the last one waits for the workers.

mod clients;
pub mod envelope;
pub mod frames;
pub mod server;
pub mod socket;
pub mod waiting;
