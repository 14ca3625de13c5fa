//! What a refused request is told: a kind for programs, the offending parameter's path, a sentence that helps.

use serde_json::{Value, json};

use crate::api::{ErrorData, ErrorKind};

/// A request that was refused, or done only in part.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// One sentence: what is wrong and, where it is not plain, what to do about it.
    pub message: String,
    /// The parts for programs.
    pub data: ErrorData,
}

impl ApiError {
    /// An error that names no parameter.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            data: ErrorData {
                kind,
                path: None,
                workers: Vec::new(),
                revision: None,
            },
        }
    }

    /// Names the offending parameter, as in `service.address`.
    #[must_use]
    pub fn at(mut self, path: impl Into<String>) -> Self {
        self.data.path = Some(path.into());
        self
    }

    /// Some workers have not applied `revision` in time.
    pub fn applied_partially(revision: u64, workers: Vec<u16>) -> Self {
        let names: Vec<String> = workers.iter().map(u16::to_string).collect();
        let mut error = Self::new(
            ErrorKind::AppliedPartially,
            format!(
                "the change stands as revision {revision}, but worker {} has not applied it in time; it will when it runs again",
                names.join(", ")
            ),
        );
        error.data.workers = workers;
        error.data.revision = Some(revision);
        error
    }

    /// What kind it is.
    pub fn kind(&self) -> ErrorKind {
        self.data.kind
    }

    /// The JSON-RPC error object: `code`, `message`, `data`.
    pub fn to_json(&self) -> Value {
        json!({ "code": self.data.kind.code(), "message": self.message, "data": self.data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_carries_code_path_and_sentence() {
        let error = ApiError::new(ErrorKind::OutOfRange, "too heavy").at("weight");
        assert_eq!(
            error.to_json(),
            json!({"code": -32008, "message": "too heavy", "data": {"kind": "out_of_range", "path": "weight"}})
        );
        let partial = ApiError::applied_partially(7, vec![1, 3]).to_json();
        assert_eq!(partial["data"]["workers"], json!([1, 3]));
        assert_eq!(partial["data"]["revision"], json!(7));
    }
}
