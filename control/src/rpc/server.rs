//! Connections: each reads requests, has them performed at once, and answers in their order.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, mpsc};
use tracing::{debug, warn};

use super::clients::{Clients, Place};
use super::envelope::{self, Message, Refused, Request};
use super::frames::{Frame, Frames};
use super::waiting::{Answer, Waiting};
use crate::api::ErrorKind;
use crate::api_error::ApiError;
use crate::controller::{Controller, Peer};

/// Requests of one connection that may wait for their answers; then it is not read from.
const PIPELINED: usize = 64;

/// Connections at a time. One more, and the one that was silent longest is closed: idle clients may stay, but keep nobody out.
const CONNECTIONS: usize = 256;

/// Bytes of the answers to one batch, about; what comes after them in the batch is not performed.
const BATCH_ANSWER: usize = 16 << 20;

/// Bytes of a connection in a listing, about.
const CONNECTION_ROW: u64 = 256;

/// How often to look while somebody waits for the workers, and while nobody does.
const BUSY_PERIOD: Duration = Duration::from_millis(1);
const IDLE_PERIOD: Duration = Duration::from_millis(4);

/// How long to read on from a client that sent too much.
const LINGER: Duration = Duration::from_secs(1);

/// The controller and who waits for it, shared by all tasks of the control thread. The lock is never held across an
/// await, so it is free but for the time of one request.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Mutex<Inner>>,
    wake: Arc<Notify>,
    start: Instant,
    max_request: usize,
}

struct Inner {
    controller: Controller,
    waiting: Waiting,
}

/// The answer to one message.
enum Response {
    None,
    Single(Value, Answer),
    Batch(Vec<(Value, Answer)>),
}

impl Hub {
    /// For requests of up to `max_request` bytes. Time starts now.
    pub fn new(controller: Controller, max_request: usize) -> Self {
        Self {
            inner: Arc::new(Mutex::new(Inner {
                controller,
                waiting: Waiting::default(),
            })),
            wake: Arc::default(),
            start: Instant::now(),
            max_request,
        }
    }

    /// Does something with the controller: what the kernel mirror has seen, for one.
    pub fn with<T>(&self, act: impl FnOnce(&mut Controller) -> T) -> T {
        act(&mut self.lock().controller)
    }

    /// Turns the controller for ever: time, the workers' reports, answers that are due. `after` runs after each turn.
    pub async fn run(&self, mut after: impl FnMut(&mut Controller)) {
        loop {
            let idle = {
                let now = self.start.elapsed();
                let mut inner = self.lock();
                let Inner {
                    controller,
                    waiting,
                } = &mut *inner;
                controller.tick(now);
                waiting.look(controller, now);
                after(controller);
                waiting.is_empty()
            };
            if idle {
                let _ = tokio::time::timeout(IDLE_PERIOD, self.wake.notified()).await;
            } else {
                tokio::time::sleep(BUSY_PERIOD).await;
            }
        }
    }

    /// Accepts connections for ever.
    pub async fn serve(&self, listener: UnixListener) {
        let clients = Clients::new(CONNECTIONS);
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (hub, place) = (self.clone(), clients.admit());
                    tokio::spawn(async move {
                        tokio::select! {
                            ended = hub.connection(stream, &place) => if let Err(error) = ended {
                                debug!(%error, "a client's connection broke");
                            },
                            () = place.must_leave() => {
                                debug!("a client that was silent for long made room for another");
                            }
                        }
                    });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: others must go first.
                    warn!(%error, "cannot accept a client");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(&self, stream: UnixStream, place: &Place) -> io::Result<()> {
        let credentials = stream.peer_cred()?;
        let peer = Peer::process(credentials.pid(), credentials.uid());
        let (reader, writer) = stream.into_split();
        let (responses, queue) = mpsc::channel(PIPELINED);
        let (read, written) = tokio::join!(
            self.read(reader, responses, &peer, place),
            write(writer, queue)
        );
        read.and(written)
    }

    /// Reads until the other side closes, goes, or sends too much at a time.
    async fn read(
        &self,
        mut reader: OwnedReadHalf,
        responses: mpsc::Sender<Response>,
        peer: &Peer,
        place: &Place,
    ) -> io::Result<()> {
        let mut frames = Frames::new(self.max_request);
        let mut bytes = vec![0; 64 << 10];
        loop {
            while let Some(frame) = frames.next_frame() {
                let last = frame == Frame::TooLarge;
                let response = self.perform(frame, peer);
                if responses.send(response).await.is_err() {
                    return Ok(());
                }
                if last {
                    drop(responses);
                    return discard(reader).await;
                }
            }
            match reader.read(&mut bytes).await? {
                0 => break,
                n => {
                    place.heard();
                    frames.feed(&bytes[..n]);
                }
            }
        }
        if let Some(frame) = frames.end() {
            let _ = responses.send(self.perform(frame, peer)).await;
        }
        Ok(())
    }

    /// Performs what a message asks; nothing here waits.
    fn perform(&self, frame: Frame, peer: &Peer) -> Response {
        let message = match frame {
            Frame::Message(message) => message,
            Frame::Malformed(why) => {
                return failure(ErrorKind::ParseError, format!("not JSON: {why}"));
            }
            Frame::TooLarge => {
                let max = self.max_request;
                return failure(
                    ErrorKind::RequestTooLarge,
                    format!(
                        "the request is longer than {max} bytes (rpc.max_request_bytes); the connection closes"
                    ),
                );
            }
        };
        let response = match envelope::read(message) {
            Message::Single(request) => match self.request(request, peer) {
                Some((id, answer)) => Response::Single(id, answer),
                None => Response::None,
            },
            Message::Batch(requests) => {
                let answers = self.batch(requests, peer);
                if answers.is_empty() {
                    Response::None
                } else {
                    Response::Batch(answers)
                }
            }
        };
        self.wake.notify_one();
        response
    }

    /// All answers are held until the last one is there: so they are bounded.
    fn batch(&self, requests: Vec<Result<Request, Refused>>, peer: &Peer) -> Vec<(Value, Answer)> {
        let mut answers = Vec::new();
        let mut room = BATCH_ANSWER;
        for request in requests {
            let expected = request.as_ref().map_or(0, expected_bytes);
            if room >= expected {
                let answer = self.request(request, peer);
                if let Some((_, Answer::Now(Ok(value)))) = &answer {
                    room = room.saturating_sub(value.to_string().len());
                }
                room = room.saturating_sub(expected.max(64));
                answers.extend(answer);
            } else {
                room = 0;
                let id = request.map_or_else(|refused| Some(refused.id), |request| request.id);
                answers.extend(id.map(|id| (id, Answer::Now(Err(batch_too_large())))));
            }
        }
        answers
    }

    /// The id to answer under and the answer; `None` for a notification.
    fn request(&self, request: Result<Request, Refused>, peer: &Peer) -> Option<(Value, Answer)> {
        let Request { id, method, params } = match request {
            Ok(request) => request,
            Err(refused) => {
                let id = refused.id.clone();
                return Some((id, Answer::Now(Err(refused.into()))));
            }
        };
        let mut inner = self.lock();
        let reply = inner.controller.handle(&method, params, peer);
        let answer = inner.waiting.admit(reply, self.start.elapsed());
        id.map(|id| (id, answer))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic ends the process (panic = "abort"), so nobody sees a half-done change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes of an answer that comes later and may be long.
fn expected_bytes(request: &Request) -> usize {
    if request.method != "connection_list" {
        return 1;
    }
    let limit = request.params.get("limit").and_then(Value::as_u64);
    (limit.unwrap_or(1000).min(10_000) * CONNECTION_ROW) as usize
}

fn batch_too_large() -> ApiError {
    ApiError::new(
        ErrorKind::RequestTooLarge,
        format!(
            "not performed: the answers to the batch so far are over {} MB; send smaller batches",
            BATCH_ANSWER >> 20
        ),
    )
}

fn failure(kind: ErrorKind, message: String) -> Response {
    Response::Single(Value::Null, Answer::Now(Err(ApiError::new(kind, message))))
}

/// Reads on for a while for nothing, so that a client that sends all before it reads gets to read why it was refused.
async fn discard(mut reader: OwnedReadHalf) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    let all = async {
        while reader.read(&mut bytes).await? > 0 {}
        io::Result::Ok(())
    };
    tokio::time::timeout(LINGER, all).await.unwrap_or(Ok(()))
}

/// Writes answers in the order of their requests.
async fn write(mut writer: OwnedWriteHalf, mut queue: mpsc::Receiver<Response>) -> io::Result<()> {
    while let Some(response) = queue.recv().await {
        let answer = match response {
            Response::None => continue,
            Response::Single(id, answer) => envelope::answer(&id, settled(answer).await),
            Response::Batch(parts) => {
                let mut answers = Vec::with_capacity(parts.len());
                for (id, answer) in parts {
                    answers.push(envelope::answer(&id, settled(answer).await));
                }
                Value::Array(answers)
            }
        };
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        writer.write_all(&line).await?;
    }
    writer.shutdown().await
}

async fn settled(answer: Answer) -> Result<Value, ApiError> {
    match answer {
        Answer::Now(answer) => answer,
        Answer::Later(receiver) => receiver.await.unwrap_or_else(|_| {
            Err(ApiError::new(
                ErrorKind::Internal,
                "sluiced forgot about this request",
            ))
        }),
    }
}
