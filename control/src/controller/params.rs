//! From a request's parameters to typed ones, with errors that name the place.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use crate::api::ErrorKind;
use crate::api_error::ApiError;
use crate::plain::plain;

/// Reads the named parameters of `method`.
pub(super) fn parse<T: DeserializeOwned>(method: &str, params: &Value) -> Result<T, ApiError> {
    if params.is_array() {
        return Err(ApiError::new(
            ErrorKind::InvalidParams,
            format!(
                "{method} takes named parameters: send an object, not a list (rpc_methods tells the names)"
            ),
        ));
    }
    serde_path_to_error::deserialize(params).map_err(|error| explain(params, &error))
}

fn explain(params: &Value, error: &serde_path_to_error::Error<serde_json::Error>) -> ApiError {
    let message = error.inner().to_string();
    let mut path: Vec<String> = Vec::new();
    let mut at = Some(params);
    for segment in error.path() {
        let (text, next) = match segment {
            Segment::Map { key } => (key.clone(), at.and_then(|value| value.get(key))),
            Segment::Seq { index } => (format!("[{index}]"), at.and_then(|value| value.get(index))),
            Segment::Enum { variant } => (variant.clone(), at),
            Segment::Unknown => continue,
        };
        path.push(text);
        at = next;
    }
    // A field that is missing or unknown is named in the message only.
    let named = ["missing field `", "unknown field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start)?.split_once('`'));
    if let Some((field, _)) = named
        && path.last().map(String::as_str) != Some(field)
    {
        path.push(field.to_owned());
    }
    let path = path.join(".").replace(".[", "[");
    let what = match (message.as_str(), at) {
        ("invalid socket address syntax", Some(given)) => {
            format!(
                "{given} is not an address with a port, such as 10.0.0.1:80 or [2001:db8::1]:80"
            )
        }
        ("invalid IPv4 address syntax", Some(given)) => {
            format!("{given} is not an IPv4 address such as 10.0.0.1")
        }
        _ => plain(&message),
    };
    if path.is_empty() {
        return ApiError::new(ErrorKind::InvalidParams, what);
    }
    let error = ApiError::new(
        ErrorKind::InvalidParams,
        format!("parameter {path}: {what}"),
    );
    error.at(path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{LaddrRef, RealServerAdd};

    fn refused<T: DeserializeOwned + std::fmt::Debug>(params: Value) -> (Option<String>, String) {
        let error = parse::<T>("some_method", &params).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidParams);
        (error.data.path, error.message)
    }

    #[test]
    fn the_offending_parameter_is_named_by_its_path() {
        let service = json!({"protocol": "tcp", "address": "10.0.0.1:80"});
        let good = "192.168.1.1:80";
        let cases = [
            (json!({}), "service"),
            (
                json!({"service": {"protocol": "tcp"}, "address": good}),
                "service.address",
            ),
            (
                json!({"service": {"protocol": "igmp", "address": "10.0.0.1:80"}, "address": good}),
                "service.protocol",
            ),
            (
                json!({"service": {"protocol": "tcp", "address": "10.0.0.1:80", "x": 1}, "address": good}),
                "service.x",
            ),
            (
                json!({"service": service, "address": good, "weigth": 1}),
                "weigth",
            ),
            (
                json!({"service": service, "address": good, "weight": -1}),
                "weight",
            ),
            (
                json!({"service": service, "address": good, "weight": "1"}),
                "weight",
            ),
            (json!({"service": service, "address": "nowhere"}), "address"),
            (json!({"service": 1, "address": good}), "service"),
        ];
        for (params, path) in cases {
            let (found, message) = refused::<RealServerAdd>(params.clone());
            assert_eq!(found.as_deref(), Some(path), "{params}: {message}");
            assert!(
                message.starts_with(&format!("parameter {path}: ")),
                "{message}"
            );
            let rust = ["struct", "enum", "u32", "map", "Ref"];
            assert!(!rust.iter().any(|word| message.contains(word)), "{message}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_shown_with_an_example() {
        let service = json!({"protocol": "tcp", "address": "10.0.0.1"});
        let (_, message) = refused::<LaddrRef>(json!({"service": service, "address": "10.1.0.1"}));
        assert!(
            message.contains("\"10.0.0.1\" is not an address with a port"),
            "{message}"
        );
        let service = json!({"protocol": "tcp", "address": "10.0.0.1:80"});
        let (_, message) = refused::<LaddrRef>(json!({"service": service, "address": "fe80::1"}));
        assert!(
            message.contains("\"fe80::1\" is not an IPv4 address"),
            "{message}"
        );
    }

    #[test]
    fn positional_parameters_are_refused_with_advice() {
        let (path, message) = refused::<LaddrRef>(json!(["10.0.0.1:80"]));
        assert_eq!(path, None);
        assert!(message.contains("named parameters"), "{message}");
    }
}
