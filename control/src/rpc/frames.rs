//! Where one message ends and the next begins.
//!
//! Messages are JSON values on lines of their own, or back to back; a value may also span lines. After text that is not
//! JSON, everything to the next newline is skipped and reading goes on there. Each byte is looked at a bounded
//! number of times, however the bytes come in.

use serde_json::Value;

/// How far back the next line is looked for in a message that turned out malformed. Bounded, so that nonsense is not
/// read over and over; a longer one is dropped whole.
const LOOK_BACK: usize = 4096;

/// Cuts a stream of bytes into messages.
#[derive(Debug)]
pub struct Frames {
    buffer: Vec<u8>,
    /// Bytes of the message at the front that were scanned.
    scanned: usize,
    state: State,
    /// Length at which an unfinished message is next tried for errors that more bytes cannot mend.
    try_at: usize,
    /// Longest message.
    max: usize,
    skipping: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    depth: u32,
    in_string: bool,
    escaped: bool,
}

/// What came.
#[derive(Debug, PartialEq)]
pub enum Frame {
    /// A JSON value.
    Message(Value),
    /// Text that is not JSON; says why.
    Malformed(String),
    /// A message longer than allowed: nothing more can be read.
    TooLarge,
}

impl Frames {
    /// For messages of up to `max` bytes.
    pub fn new(max: usize) -> Self {
        Self {
            buffer: Vec::new(),
            scanned: 0,
            state: State::default(),
            try_at: 0,
            max,
            skipping: false,
        }
    }

    /// Takes received bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, if it is whole.
    pub fn next_frame(&mut self) -> Option<Frame> {
        if self.scanned == 0 {
            self.trim();
        }
        while let Some(&byte) = self.buffer.get(self.scanned) {
            if self.scanned > 0 && self.state.outside() && ends_scalar(byte) {
                return Some(self.finish(self.scanned));
            }
            self.scanned += 1;
            if self.scanned > self.max {
                return Some(Frame::TooLarge);
            }
            if self.state.ends_after(byte) {
                return Some(self.finish(self.scanned));
            }
            if byte == b'\n' && self.scanned >= self.try_at {
                self.try_at = self.scanned * 2;
                if let Some(frame) = self.hopeless() {
                    return Some(frame);
                }
            }
        }
        None
    }

    /// The other side has closed: what is left is a message cut short, or nothing.
    pub fn end(&mut self) -> Option<Frame> {
        self.trim();
        if self.buffer.is_empty() {
            return None;
        }
        let all = self.buffer.len();
        Some(self.finish(all))
    }

    /// Drops what is in front of the next message.
    fn trim(&mut self) {
        let space = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        let mut start = 0;
        if self.skipping {
            match self.buffer.iter().position(|byte| *byte == b'\n') {
                Some(newline) => {
                    start = newline;
                    self.skipping = false;
                }
                None => start = self.buffer.len(),
            }
        }
        let rest = &self.buffer[start..];
        start += rest
            .iter()
            .position(|byte| !space(byte))
            .unwrap_or(rest.len());
        self.buffer.drain(..start);
    }

    /// Takes the first `len` bytes as a message.
    fn finish(&mut self, len: usize) -> Frame {
        let parsed = serde_json::from_slice(&self.buffer[..len]);
        let (frame, keep) = match parsed {
            Ok(value) => (Frame::Message(value), len),
            Err(error) => {
                self.skipping = true;
                let bytes = &self.buffer[..len.min(LOOK_BACK)];
                let newline = bytes.iter().position(|byte| *byte == b'\n');
                let last = len - usize::from(self.buffer[..len].ends_with(b"\n"));
                (Frame::Malformed(error.to_string()), newline.unwrap_or(last))
            }
        };
        self.buffer.drain(..keep);
        self.scanned = 0;
        self.state = State::default();
        self.try_at = 0;
        frame
    }

    /// Looks whether the message so far is beyond repair.
    fn hopeless(&mut self) -> Option<Frame> {
        let so_far = serde_json::from_slice::<serde::de::IgnoredAny>(&self.buffer[..self.scanned]);
        let broken = so_far.is_err_and(|error| !error.is_eof());
        broken.then(|| self.finish(self.scanned))
    }
}

impl State {
    /// In no object, list or string.
    fn outside(self) -> bool {
        self.depth == 0 && !self.in_string
    }

    /// Takes a byte; whether an object, a list or a string that stands alone ends with it.
    fn ends_after(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return self.outside();
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

/// Whether a number or a word that stands alone ends in front of this byte.
fn ends_scalar(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b'{' | b'[' | b'"')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// All frames of `text`, fed in pieces of `piece` bytes; malformed ones without their reason.
    fn cut(text: &str, piece: usize) -> Vec<Frame> {
        let mut frames = Frames::new(1000);
        let mut seen = Vec::new();
        for bytes in text.as_bytes().chunks(piece) {
            frames.feed(bytes);
            while let Some(frame) = frames.next_frame() {
                seen.push(frame);
            }
        }
        seen.extend(frames.end());
        for frame in &mut seen {
            if let Frame::Malformed(why) = frame {
                why.clear();
            }
        }
        seen
    }

    fn message(value: Value) -> Frame {
        Frame::Message(value)
    }

    fn malformed() -> Frame {
        Frame::Malformed(String::new())
    }

    #[test]
    fn messages_are_told_apart_by_lines_or_by_nothing() {
        let text = "{\"a\":1}\n{\"b\":[2]}{\"c\":\"}\\\"{\"}\r\n[\n {\n}\n]\n 5 true\"x\"";
        let want = [
            message(json!({"a": 1})),
            message(json!({"b": [2]})),
            message(json!({"c": "}\"{"})),
            message(json!([{}])),
            message(json!(5)),
            message(json!(true)),
            message(json!("x")),
        ];
        for piece in [1, 2, 3, 7, 100] {
            assert_eq!(cut(text, piece), want, "in pieces of {piece}");
        }
    }

    #[test]
    fn after_what_is_not_json_reading_goes_on_at_the_next_line() {
        for text in [
            "hello\n{}",
            "{nope\n{}",
            "{\"a\": nope} {\"x\":1}\n{}",
            "}{\n{}",
            "{\"a\n{}",
            "{\"a\":1,}\n{}",
        ] {
            for piece in [1, 4, 100] {
                let mut seen = cut(text, piece);
                assert_eq!(seen.pop(), Some(message(json!({}))), "{text:?}");
                assert_eq!(seen, [malformed()], "{text:?}");
            }
        }
    }

    #[test]
    fn a_message_cut_short_is_malformed() {
        assert_eq!(cut("{\"a\":", 100), [malformed()]);
        assert_eq!(cut("  \n ", 100), []);
    }

    #[test]
    fn a_message_over_the_bound_ends_everything() {
        let mut frames = Frames::new(10);
        frames.feed(b"{\"a\":1234}");
        assert_eq!(frames.next_frame(), Some(message(json!({"a": 1234}))));
        frames.feed(b"              {\"a\":12345}");
        assert_eq!(frames.next_frame(), Some(Frame::TooLarge));
    }

    #[test]
    fn a_long_message_in_many_lines_is_not_read_over_and_over() {
        let mut frames = Frames::new(1 << 20);
        let text = format!("[{}0]", "0,\n".repeat(300_000));
        let start = std::time::Instant::now();
        let mut seen = 0;
        for piece in text.as_bytes().chunks(100) {
            frames.feed(piece);
            seen += usize::from(frames.next_frame().is_some());
        }
        assert_eq!(seen, 1);
        assert!(start.elapsed().as_secs() < 5);
    }

    proptest! {
        /// Any bytes, in any pieces: no panic, and a sound message on a line of its own is found in the end.
        #[test]
        fn noise_does_not_swallow_the_next_line(noise in "[a-z0-9{}\\[\\]\",: ]{0,40}", piece in 1usize..9) {
            let mut frames = Frames::new(1000);
            let mut last = None;
            for bytes in format!("{noise}\n").as_bytes().chunks(piece) {
                frames.feed(bytes);
                while frames.next_frame().is_some() {}
            }
            // What is open is closed by nonsense; from the line after that on all is well.
            frames.feed(b"\"]}!\n\"]}!\n{\"id\":7}\n");
            while let Some(frame) = frames.next_frame() {
                last = Some(frame);
            }
            if noise.bytes().filter(|byte| matches!(byte, b'{' | b'[')).count() < 1 {
                prop_assert_eq!(last, Some(Frame::Message(json!({"id": 7}))));
            }
        }
    }
}
