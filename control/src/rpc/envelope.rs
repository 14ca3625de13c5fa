//! JSON-RPC 2.0 requests and answers (jsonrpc.org, specification of 2013).

use serde_json::{Map, Value, json};

use crate::api::ErrorKind;
use crate::api_error::ApiError;

/// One request, or a notification.
#[derive(Debug, PartialEq)]
pub struct Request {
    /// What to call it in the answer; `None` wants no answer.
    pub id: Option<Value>,
    /// Method.
    pub method: String,
    /// Parameters, an object or a list; an empty object when there are none.
    pub params: Value,
}

/// What one message asks.
#[derive(Debug, PartialEq)]
pub enum Message {
    /// One thing.
    Single(Result<Request, Refused>),
    /// Several, to be answered together. Not empty.
    Batch(Vec<Result<Request, Refused>>),
}

/// Not a request ([`ErrorKind::InvalidRequest`]). Answered under the id that it had, if it had a sound one.
#[derive(Debug, PartialEq)]
pub struct Refused {
    /// The id to answer under.
    pub id: Value,
    /// Why.
    pub why: String,
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        Self::new(ErrorKind::InvalidRequest, refused.why)
    }
}

/// Reads a message.
pub fn read(message: Value) -> Message {
    match message {
        Value::Array(items) if items.is_empty() => Message::Single(Err(refused(
            Value::Null,
            "a batch needs at least one request",
        ))),
        Value::Array(items) => Message::Batch(items.into_iter().map(request).collect()),
        single => Message::Single(request(single)),
    }
}

/// An answer, good or bad.
pub fn answer(id: &Value, result: Result<Value, ApiError>) -> Value {
    match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(error) => json!({ "jsonrpc": "2.0", "id": id, "error": error.to_json() }),
    }
}

fn request(value: Value) -> Result<Request, Refused> {
    let Value::Object(mut object) = value else {
        return Err(refused(
            Value::Null,
            "a request is an object with jsonrpc, method, params and id",
        ));
    };
    let id = match object.remove("id") {
        None => None,
        Some(id @ (Value::Null | Value::String(_) | Value::Number(_))) => Some(id),
        Some(_) => return Err(refused(Value::Null, "id is neither a string nor a number")),
    };
    let under = id.clone().unwrap_or_default();
    parts(&mut object)
        .map(|(method, params)| Request { id, method, params })
        .map_err(|why| refused(under, why))
}

fn parts(object: &mut Map<String, Value>) -> Result<(String, Value), String> {
    if object.remove("jsonrpc") != Some(Value::from("2.0")) {
        return Err("jsonrpc is not \"2.0\"".to_owned());
    }
    let Some(Value::String(method)) = object.remove("method") else {
        return Err("method is not a string".to_owned());
    };
    let params = match object.remove("params") {
        None => Value::Object(Map::new()),
        Some(params @ (Value::Object(_) | Value::Array(_))) => params,
        Some(_) => return Err("params is not an object".to_owned()),
    };
    match object.keys().next() {
        None => Ok((method, params)),
        Some(unknown) => Err(format!(
            "a request has jsonrpc, method, params and id, but no {unknown:?}"
        )),
    }
}

fn refused(id: Value, why: impl Into<String>) -> Refused {
    Refused {
        id,
        why: why.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(message: Value) -> Refused {
        match read(message) {
            Message::Single(Err(refused)) => refused,
            other => panic!("expected a refusal, not {other:?}"),
        }
    }

    #[test]
    fn a_request_has_a_method_and_maybe_params_and_an_id() {
        let message = json!({"jsonrpc": "2.0", "method": "m", "params": {"a": 1}, "id": 7});
        let want = Request {
            id: Some(json!(7)),
            method: "m".to_owned(),
            params: json!({"a": 1}),
        };
        assert_eq!(read(message), Message::Single(Ok(want)));
        let Message::Single(Ok(note)) = read(json!({"jsonrpc": "2.0", "method": "m"})) else {
            panic!("a notification is a request without id");
        };
        assert_eq!((note.id, note.params), (None, json!({})));
        let Message::Single(Ok(null)) = read(json!({"jsonrpc": "2.0", "method": "m", "id": null}))
        else {
            panic!("null is an id");
        };
        assert_eq!(null.id, Some(Value::Null));
    }

    #[test]
    fn what_is_no_request_is_refused_under_its_id() {
        for (message, id) in [
            (json!(5), Value::Null),
            (json!([]), Value::Null),
            (json!({"method": "m", "id": 1}), json!(1)),
            (json!({"jsonrpc": "1.0", "method": "m", "id": 1}), json!(1)),
            (json!({"jsonrpc": "2.0", "id": "x"}), json!("x")),
            (
                json!({"jsonrpc": "2.0", "method": 1, "id": "x"}),
                json!("x"),
            ),
            (
                json!({"jsonrpc": "2.0", "method": "m", "params": "p", "id": 1}),
                json!(1),
            ),
            (
                json!({"jsonrpc": "2.0", "method": "m", "params": null, "id": 1}),
                json!(1),
            ),
            (
                json!({"jsonrpc": "2.0", "method": "m", "id": [1]}),
                Value::Null,
            ),
            (
                json!({"jsonrpc": "2.0", "method": "m", "parms": {}, "id": 1}),
                json!(1),
            ),
        ] {
            let refused = refusal(message.clone());
            assert_eq!(refused.id, id, "{message}");
            assert_eq!(ApiError::from(refused).kind(), ErrorKind::InvalidRequest);
        }
    }

    #[test]
    fn a_batch_keeps_its_sound_and_its_broken_parts() {
        let Message::Batch(parts) = read(json!([1, {"jsonrpc": "2.0", "method": "m"}, [2]])) else {
            panic!("a list is a batch");
        };
        assert!(parts[0].is_err() && parts[1].is_ok() && parts[2].is_err());
    }
}
