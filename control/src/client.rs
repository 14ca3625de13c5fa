//! A blocking JSON-RPC client: what `sluice` and the ipvsadm front end talk to the daemon through.
//!
//! Clients ask by [`Rpc`], so that tests and the conformance runner can put a control plane of their own process behind it.

use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::{ErrorData, ErrorKind};

/// How long [`UnixClient`] waits for an answer unless told otherwise. The daemon itself gives its workers 2 s for a change.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Something that answers JSON-RPC calls.
pub trait Rpc {
    /// Calls `method` with named parameters (`Value::Null` for none) and gives its `result`.
    fn call(&mut self, method: &str, params: Value) -> Result<Value, RpcError>;
}

/// Calls `method` and decodes its answer as `T`, one of the types of [`crate::api`].
pub fn ask<T: DeserializeOwned>(
    rpc: &mut dyn Rpc,
    method: &str,
    params: Value,
) -> Result<T, RpcError> {
    let result = rpc.call(method, params)?;
    serde_json::from_value(result).map_err(|source| RpcError::Answer {
        method: method.to_owned(),
        reason: source.to_string(),
    })
}

/// A call that failed. Every message fits a line and says what to do next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    /// The daemon answered with an error.
    #[error("{}", refusal(message, data.as_ref()))]
    Refused {
        /// The JSON-RPC code; [`ErrorKind::code`] of the daemon's own kinds.
        code: i64,
        /// The daemon's sentence.
        message: String,
        /// Kind and offending parameter, where the daemon gave them.
        data: Option<ErrorData>,
    },
    /// Nobody listens.
    #[error(
        "cannot reach sluiced at {socket}: {reason}; is it running? Start it with `sluiced --config FILE`, or name its socket with --socket or SLUICE_SOCKET"
    )]
    NotRunning {
        /// The socket tried.
        socket: String,
        /// What the system said.
        reason: String,
    },
    /// The socket is there, but not for us.
    #[error("no permission to use {socket}: run as root, or as a member of the socket's group")]
    PermissionDenied {
        /// The socket tried.
        socket: String,
    },
    /// No answer in time. The call may still take effect.
    #[error(
        "sluiced did not answer {method} within {seconds} s; `sluice version` tells whether it answers at all"
    )]
    NoAnswer {
        /// The method called.
        method: String,
        /// How long we waited.
        seconds: u64,
    },
    /// The connection broke.
    #[error("talking to sluiced at {socket} failed: {reason}")]
    Broken {
        /// The socket in use.
        socket: String,
        /// What the system said.
        reason: String,
    },
    /// The answer is not what this client knows.
    #[error(
        "sluiced's answer to {method} does not fit this client ({reason}); are both of the same version?"
    )]
    Answer {
        /// The method called.
        method: String,
        /// What does not fit.
        reason: String,
    },
}

impl RpcError {
    /// The daemon's kind of error, if the daemon answered and said.
    pub fn kind(&self) -> Option<ErrorKind> {
        match self {
            Self::Refused {
                data: Some(data), ..
            } => Some(data.kind),
            Self::Refused { code, .. } => [ErrorKind::MethodNotFound, ErrorKind::InvalidParams]
                .into_iter()
                .find(|kind| kind.code() == *code),
            _ => None,
        }
    }

    /// The parameter that the daemon objects to.
    pub fn path(&self) -> Option<&str> {
        match self {
            Self::Refused {
                data: Some(data), ..
            } => data.path.as_deref(),
            _ => None,
        }
    }
}

fn refusal(message: &str, data: Option<&ErrorData>) -> String {
    match data.and_then(|data| data.path.as_deref()) {
        Some(path) if !message.contains(path) => format!("{path}: {message}"),
        _ => message.to_owned(),
    }
}

/// The client of a daemon's Unix socket. Connects at the first call, and again after a failure.
#[derive(Debug)]
pub struct UnixClient {
    socket: PathBuf,
    timeout: Duration,
    stream: Option<BufReader<UnixStream>>,
    calls: u64,
}

impl UnixClient {
    /// A client of the daemon at `socket`; a call fails when the daemon is silent for `timeout`.
    pub fn new(socket: &Path, timeout: Duration) -> Self {
        Self {
            socket: socket.to_owned(),
            timeout: timeout.max(Duration::from_millis(1)),
            stream: None,
            calls: 0,
        }
    }

    fn connect(&self) -> Result<BufReader<UnixStream>, RpcError> {
        let stream = UnixStream::connect(&self.socket).map_err(|error| self.unreachable(&error))?;
        stream
            .set_read_timeout(Some(self.timeout))
            .and_then(|()| stream.set_write_timeout(Some(self.timeout)))
            .map_err(|error| self.broken(&error))?;
        Ok(BufReader::new(stream))
    }

    fn unreachable(&self, error: &io::Error) -> RpcError {
        let socket = self.socket.display().to_string();
        match error.kind() {
            io::ErrorKind::PermissionDenied => RpcError::PermissionDenied { socket },
            io::ErrorKind::NotFound => RpcError::NotRunning {
                socket,
                reason: "there is no such socket".to_owned(),
            },
            io::ErrorKind::ConnectionRefused => RpcError::NotRunning {
                socket,
                reason: "nobody listens there any more".to_owned(),
            },
            _ => RpcError::NotRunning {
                socket,
                reason: error.to_string(),
            },
        }
    }

    fn broken(&self, error: &io::Error) -> RpcError {
        RpcError::Broken {
            socket: self.socket.display().to_string(),
            reason: error.to_string(),
        }
    }

    fn exchange(
        &self,
        stream: &mut BufReader<UnixStream>,
        method: &str,
        request: &Value,
    ) -> Result<Response, RpcError> {
        let failed = |error: &io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => RpcError::NoAnswer {
                method: method.to_owned(),
                seconds: self.timeout.as_secs(),
            },
            _ => self.broken(error),
        };
        let mut line = request.to_string();
        line.push('\n');
        stream
            .get_mut()
            .write_all(line.as_bytes())
            .map_err(|error| failed(&error))?;
        // A response is an object: the reader stops at its closing brace and takes nothing of what follows.
        let mut answer = serde_json::Deserializer::from_reader(stream);
        Response::deserialize(&mut answer).map_err(|error| match error.io_error_kind() {
            Some(kind) => failed(&io::Error::from(kind)),
            None if error.is_eof() => failed(&io::Error::other("it closed the connection")),
            None => RpcError::Answer {
                method: method.to_owned(),
                reason: error.to_string(),
            },
        })
    }
}

impl Rpc for UnixClient {
    fn call(&mut self, method: &str, params: Value) -> Result<Value, RpcError> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        self.calls += 1;
        let mut request = json!({"jsonrpc": "2.0", "id": self.calls, "method": method});
        if !params.is_null() {
            request["params"] = params;
        }
        let response = self.exchange(&mut stream, method, &request)?;
        if !response.id.is_null() && response.id != self.calls {
            return Err(RpcError::Answer {
                method: method.to_owned(),
                reason: format!("it answers call {} instead of {}", response.id, self.calls),
            });
        }
        self.stream = Some(stream);
        match response.error {
            Some(error) => Err(error.into()),
            None => Ok(response.result),
        }
    }
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    id: Value,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: Option<ErrorObject>,
}

#[derive(Deserialize)]
struct ErrorObject {
    code: i64,
    message: String,
    #[serde(default)]
    data: Option<Value>,
}

impl From<ErrorObject> for RpcError {
    fn from(error: ErrorObject) -> Self {
        Self::Refused {
            code: error.code,
            message: error.message,
            data: error
                .data
                .and_then(|data| serde_json::from_value(data).ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, Read};
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    fn socket(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("sluice-client-{}-{name}.sock", std::process::id()));
        let _stale = std::fs::remove_file(&path);
        path
    }

    /// Answers each line on one connection with the next of `answers`, and gives the lines.
    fn server(path: &Path, answers: Vec<String>) -> thread::JoinHandle<Vec<Value>> {
        let listener = UnixListener::bind(path).unwrap();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut stream = stream;
            let mut requests = Vec::new();
            for answer in answers {
                requests.push(serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap());
                stream.write_all(answer.as_bytes()).unwrap();
            }
            requests
        })
    }

    #[test]
    fn two_calls_share_a_connection_and_need_no_newline_after_the_answer() {
        let path = socket("two");
        let requests = server(
            &path,
            vec![
                r#"{"jsonrpc":"2.0","id":1,"result":{"revision":7}}"#.to_owned(),
                "{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":[]}\n".to_owned(),
            ],
        );
        let mut client = UnixClient::new(&path, DEFAULT_TIMEOUT);
        assert_eq!(
            client.call("a", json!({"x": 1})),
            Ok(json!({"revision": 7}))
        );
        assert_eq!(client.call("b", Value::Null), Ok(json!([])));
        let requests = requests.join().unwrap();
        assert_eq!(
            requests[0],
            json!({"jsonrpc": "2.0", "id": 1, "method": "a", "params": {"x": 1}})
        );
        assert_eq!(
            requests[1],
            json!({"jsonrpc": "2.0", "id": 2, "method": "b"})
        );
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_refusal_carries_kind_and_path_and_reads_as_one_sentence() {
        let path = socket("refusal");
        let answer = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32001,"message":"there is one already","data":{"kind":"service_exists","path":"service"}}}"#;
        let requests = server(&path, vec![answer.to_owned()]);
        let error = UnixClient::new(&path, DEFAULT_TIMEOUT)
            .call("service_add", Value::Null)
            .unwrap_err();
        assert_eq!(error.kind(), Some(ErrorKind::ServiceExists));
        assert_eq!(error.to_string(), "service: there is one already");
        requests.join().unwrap();
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_missing_socket_says_how_to_start_the_daemon() {
        let path = socket("missing");
        let error = UnixClient::new(&path, DEFAULT_TIMEOUT)
            .call("version", Value::Null)
            .unwrap_err();
        assert!(matches!(error, RpcError::NotRunning { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("sluiced --config") && text.contains("--socket"),
            "{text}"
        );
    }

    #[test]
    fn a_dead_socket_is_told_from_a_missing_one() {
        let path = socket("dead");
        drop(UnixListener::bind(&path).unwrap());
        let error = UnixClient::new(&path, DEFAULT_TIMEOUT)
            .call("version", Value::Null)
            .unwrap_err();
        assert!(error.to_string().contains("nobody listens"), "{error}");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn silence_and_a_closed_connection_are_errors_and_the_next_call_connects_anew() {
        let path = socket("silence");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let (mut silent, _) = listener.accept().unwrap();
            let mut read = Vec::new();
            silent.read_to_end(&mut read).unwrap();
            drop(listener.accept().unwrap());
        });
        let mut client = UnixClient::new(&path, Duration::from_millis(50));
        let error = client.call("stats", Value::Null).unwrap_err();
        assert!(matches!(error, RpcError::NoAnswer { .. }), "{error:?}");
        let error = client.call("stats", Value::Null).unwrap_err();
        assert!(matches!(error, RpcError::Broken { .. }), "{error:?}");
        server.join().unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}
