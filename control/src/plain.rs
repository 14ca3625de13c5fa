//! What serde says of a wrong value, in words that do not need Rust.

/// `invalid type: integer `1`, expected struct ServiceRef` becomes `… expected an object`, and so on.
pub(crate) fn plain(message: &str) -> String {
    let Some((found, expected)) = message.split_once("expected ") else {
        return message.to_owned();
    };
    let (what, rest) = match expected.split_once([',', ';']) {
        Some((what, _)) => (what, &expected[what.len()..]),
        None => (expected, ""),
    };
    let number = |bits: u32| {
        let most = u64::MAX >> (64 - bits);
        format!("a whole number from 0 to {most}")
    };
    let what = match what {
        "u8" => number(8),
        "u16" => number(16),
        "u32" => number(32),
        "u64" | "usize" => "a whole number from 0 on".to_owned(),
        "a map" => "an object".to_owned(),
        "a sequence" => "a list".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "unit" => "nothing".to_owned(),
        "socket address" => "text such as 10.0.0.1:80".to_owned(),
        "IPv4 address" => "text such as 10.0.0.1".to_owned(),
        "path string" => "text".to_owned(),
        _ if what.starts_with("struct ") || what.starts_with("internally tagged enum ") => {
            "an object".to_owned()
        }
        _ if what.starts_with("enum ") => "one of its words".to_owned(),
        _ => what.to_owned(),
    };
    format!("{found}expected {what}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_rust_become_words() {
        for (said, want) in [
            (
                "invalid type: integer `1`, expected struct ServiceRef",
                "invalid type: integer `1`, expected an object",
            ),
            (
                "invalid value: integer `-1`, expected u32",
                "invalid value: integer `-1`, expected a whole number from 0 to 4294967295",
            ),
            (
                "invalid value: integer `70000`, expected u16",
                "invalid value: integer `70000`, expected a whole number from 0 to 65535",
            ),
            (
                "invalid type: string \"1\", expected usize",
                "invalid type: string \"1\", expected a whole number from 0 on",
            ),
            (
                "unknown field `x`, expected one of `a`, `b`",
                "unknown field `x`, expected one of `a`, `b`",
            ),
            ("missing field `a`", "missing field `a`"),
        ] {
            assert_eq!(plain(said), want);
        }
    }
}
