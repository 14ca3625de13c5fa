//! `connection_list`: bounded slices of the workers' tables, asked for one after the other.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use sluice_dataplane::command::{Command, ConnFilter, ConnRow, ConnSlice, WorkerId};
use sluice_dataplane::conn::template::Templates;

use crate::api::{Connection, ConnectionList, Connections, ErrorKind, FlowProtocol};
use crate::api_error::ApiError;
use crate::config::words;
use crate::controller::WorkerInfo;
use crate::publish::Publisher;

/// Connections asked of a worker at a time.
const SLICE: usize = 256;

/// Connections in one answer, if the request does not say.
const DEFAULT_LIMIT: usize = 1000;

/// Connections in one answer, at most.
const MAX_LIMIT: usize = 10_000;

/// After so long an answer goes out with what it has, and a cursor.
const PATIENCE: Duration = Duration::from_secs(1);

/// After so long a worker that has not answered is given up.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A listing that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListingId(u64);

/// All listings that run, and answers not yet fetched.
#[derive(Debug, Default)]
pub(super) struct Listings {
    last: u64,
    running: HashMap<ListingId, Listing>,
    done: HashMap<ListingId, Result<Value, ApiError>>,
}

#[derive(Debug)]
struct Listing {
    filter: ConnFilter,
    limit: usize,
    place: Place,
    rows: Vec<Connection>,
    began: Duration,
    asked: Duration,
}

/// Where a listing goes on: a worker and a place in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    worker: u16,
    cursor: u64,
}

impl Listings {
    /// Begins to list.
    pub(super) fn begin(
        &mut self,
        request: &ConnectionList,
        now: Duration,
        workers: &[WorkerInfo],
        publisher: &mut Publisher,
    ) -> Result<ListingId, ApiError> {
        let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(ApiError::new(
                ErrorKind::OutOfRange,
                format!("limit {limit} is not from 1 to {MAX_LIMIT}: fetch more with the cursor"),
            )
            .at("limit"));
        }
        let place = match &request.cursor {
            None => Place {
                worker: 0,
                cursor: 0,
            },
            Some(cursor) => Place::parse(cursor, workers)?,
        };
        self.last += 1;
        let id = ListingId(self.last);
        let listing = Listing {
            filter: ConnFilter {
                protocol: request.protocol.map(words::protocol),
                client: request.client,
                virtual_addr: request.virtual_address,
                virtual_port: request.virtual_port,
                server: request.server,
            },
            limit,
            place,
            rows: Vec::new(),
            began: now,
            asked: now,
        };
        if listing.ask(id, publisher) {
            self.running.insert(id, listing);
        } else {
            self.done.insert(id, listing.answer(None));
        }
        Ok(id)
    }

    /// A worker has filled a slice.
    pub(super) fn answered(
        &mut self,
        worker: WorkerId,
        slice: &ConnSlice,
        now: Duration,
        publisher: &mut Publisher,
    ) {
        let id = ListingId(slice.query);
        // Given up meanwhile, if it is not here.
        let Some(mut listing) = self.running.remove(&id) else {
            return;
        };
        listing.rows.extend(slice.rows.iter().map(connection));
        let next = match slice.cursor {
            Some(cursor) => Some(Place {
                worker: worker.0,
                cursor,
            }),
            None => Some(Place {
                worker: worker.0 + 1,
                cursor: 0,
            })
            .filter(|place| usize::from(place.worker) < publisher.workers()),
        };
        match next {
            Some(place) if listing.rows.len() < listing.limit && now < listing.began + PATIENCE => {
                listing.place = place;
                listing.asked = now;
                listing.ask(id, publisher);
                self.running.insert(id, listing);
            }
            _ => {
                self.done.insert(id, listing.answer(next));
            }
        }
    }

    /// Gives up those whose worker does not answer.
    pub(super) fn expire(&mut self, now: Duration) {
        let late = self
            .running
            .extract_if(|_, listing| now >= listing.asked + TIMEOUT);
        self.done.extend(late.map(|(id, listing)| {
            let worker = listing.place.worker;
            let mut error = ApiError::new(
                ErrorKind::Timeout,
                format!(
                    "worker {worker} did not list its connections within {} s",
                    TIMEOUT.as_secs()
                ),
            );
            error.data.workers = vec![worker];
            (id, Err(error))
        }));
    }

    /// An answer, if it is there.
    pub(super) fn take(&mut self, id: ListingId) -> Option<Result<Value, ApiError>> {
        self.done.remove(&id)
    }
}

impl Listing {
    /// Asks for the next slice; `false` when there is no worker to ask.
    fn ask(&self, id: ListingId, publisher: &mut Publisher) -> bool {
        let room = SLICE.min(self.limit - self.rows.len());
        let slice = ConnSlice {
            query: id.0,
            cursor: Some(self.place.cursor),
            filter: self.filter.clone(),
            rows: Vec::with_capacity(room),
        };
        publisher.ask(
            WorkerId(self.place.worker),
            Command::ListConnections(Box::new(slice)),
        )
    }

    fn answer(self, next: Option<Place>) -> Result<Value, ApiError> {
        let answer = Connections {
            connections: self.rows,
            cursor: next.map(|Place { worker, cursor }| format!("{worker}:{cursor}")),
        };
        serde_json::to_value(answer)
            .map_err(|error| ApiError::new(ErrorKind::Internal, error.to_string()))
    }
}

impl Place {
    /// Takes what [`Listing::answer`] gives: a worker of ours, and a place in its table or the one just past it.
    fn parse(cursor: &str, workers: &[WorkerInfo]) -> Result<Self, ApiError> {
        let numbers = cursor.split_once(':').and_then(|(worker, cursor)| {
            Some(Self {
                worker: number(worker)?.try_into().ok()?,
                cursor: number(cursor)?,
            })
        });
        let in_table = |place: &Self| {
            workers
                .get(usize::from(place.worker))
                .is_some_and(|worker| {
                    // Templates come after the connections.
                    let connections = worker.max_connections;
                    let templates = Templates::capacity_beside(connections);
                    place.cursor <= (connections + templates) as u64
                })
        };
        numbers.filter(in_table).ok_or_else(|| {
            ApiError::new(
                ErrorKind::InvalidParams,
                format!("cursor {cursor:?} is none that connection_list gave"),
            )
            .at("cursor")
        })
    }
}

/// Digits and nothing else: `parse` alone would take a plus sign.
fn number(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

fn connection(row: &ConnRow) -> Connection {
    Connection {
        protocol: row.protocol.map_or(FlowProtocol::Ip, |protocol| {
            words::api_protocol(protocol).into()
        }),
        template: row.template,
        state: row.state.name().to_owned(),
        expires_ms: row.expires_ms,
        client: SocketAddr::from(row.client),
        virtual_address: SocketAddr::from(row.virtual_addr),
        server: SocketAddr::from(row.server),
        local: row.local.map(SocketAddr::from),
        method: words::api_method(row.method),
        worker: row.worker.0,
    }
}
