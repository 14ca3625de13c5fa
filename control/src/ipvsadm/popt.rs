//! Reads a command line the way popt does: bundled short options (`-Ln`, `-At ADDRESS`), values in the same word
//! (`-srr`, `--scheduler=rr`) or in the next, options and other words in any order, `--` ends the options.

use super::options::{Arg, Opt, OptId};

/// One option met on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    /// Which option.
    pub(super) id: OptId,
    /// Its value.
    pub(super) value: Option<String>,
    /// The word it stood in, for messages.
    pub(super) word: String,
}

/// What is wrong with an option, as popt says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PoptError {
    /// The word it stood in.
    pub(super) word: String,
    /// popt's own text.
    pub(super) reason: &'static str,
}

/// Walks over a command line.
pub(super) struct Popt<'a> {
    args: &'a [String],
    next: usize,
    /// What is left of a word of bundled short options.
    bundle: Option<&'a str>,
    words: Vec<&'a str>,
}

impl<'a> Popt<'a> {
    pub(super) fn new(args: &'a [String]) -> Self {
        Self {
            args,
            next: 0,
            bundle: None,
            words: Vec::new(),
        }
    }

    /// The next option, looked up in `table`; `None` at the end.
    pub(super) fn option(&mut self, table: &[Opt]) -> Option<Result<Given, PoptError>> {
        if let Some(bundle) = self.bundle.take() {
            return Some(self.short(bundle, table));
        }
        while let Some(word) = self.args.get(self.next) {
            self.next += 1;
            match word.strip_prefix('-') {
                Some("-") => {
                    let rest = &self.args[self.next..];
                    self.words.extend(rest.iter().map(String::as_str));
                    self.next = self.args.len();
                }
                Some(option) if !option.is_empty() => {
                    return Some(match option.strip_prefix('-') {
                        Some(long) => self.long(long, table),
                        None => self.short(option, table),
                    });
                }
                _ => self.words.push(word),
            }
        }
        None
    }

    /// The words that are no options, in order; call it when [`Self::option`] has come to the end.
    pub(super) fn words(&self) -> &[&'a str] {
        &self.words
    }

    fn long(&mut self, long: &'a str, table: &[Opt]) -> Result<Given, PoptError> {
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (long, None),
        };
        let opt = table.iter().find(|opt| opt.long == name);
        let opt = opt.ok_or_else(|| self.error("unknown option"))?;
        if value.is_some() && opt.arg == Arg::No {
            return Err(self.error("option does not take an argument"));
        }
        self.finish(opt, value)
    }

    fn short(&mut self, bundle: &'a str, table: &[Opt]) -> Result<Given, PoptError> {
        let mut letters = bundle.chars();
        let letter = letters.next();
        let opt = table
            .iter()
            .find(|opt| opt.short.is_some() && opt.short == letter);
        let opt = opt.ok_or_else(|| self.error("unknown option"))?;
        let rest = letters.as_str();
        let rest = rest.strip_prefix('=').unwrap_or(rest);
        let rest = Some(rest).filter(|rest| !rest.is_empty());
        if opt.arg == Arg::No {
            self.bundle = rest;
            return self.finish(opt, None);
        }
        self.finish(opt, rest)
    }

    fn finish(&mut self, opt: &Opt, value: Option<&str>) -> Result<Given, PoptError> {
        let word = self.word().to_owned();
        let value = match (opt.arg, value) {
            (Arg::No, _) => None,
            (_, Some(value)) => Some(value.to_owned()),
            (arg, None) => match self.args.get(self.next) {
                // An optional value is not looked for in what looks like an option; a required one may be `-1`.
                Some(next) if arg == Arg::Required || !next.starts_with('-') => {
                    self.next += 1;
                    Some(next.clone())
                }
                None if arg == Arg::Required => return Err(self.error("missing argument")),
                _ => None,
            },
        };
        Ok(Given {
            id: opt.id,
            value,
            word,
        })
    }

    fn word(&self) -> &'a str {
        self.args[self.next - 1].as_str()
    }

    fn error(&self, reason: &'static str) -> PoptError {
        PoptError {
            word: self.word().to_owned(),
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::table;
    use super::*;

    type Read = (Vec<(OptId, Option<String>)>, Vec<String>);

    fn read(line: &str) -> Result<Read, PoptError> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let mut popt = Popt::new(&args);
        let mut given = Vec::new();
        while let Some(option) = popt.option(table(None)) {
            let option = option?;
            given.push((option.id, option.value));
        }
        Ok((
            given,
            popt.words().iter().map(|word| (*word).to_owned()).collect(),
        ))
    }

    fn value(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn short_options_bundle_and_the_last_may_take_the_next_word() {
        let (given, words) = read("-At 10.0.0.1:80 -srr").unwrap();
        assert_eq!(
            given,
            [
                (OptId::AddService, None),
                (OptId::Tcp, value("10.0.0.1:80")),
                (OptId::Scheduler, value("rr")),
            ]
        );
        assert!(words.is_empty());
        assert_eq!(
            read("-Ln").unwrap().0,
            [(OptId::List, None), (OptId::Numeric, None)]
        );
    }

    #[test]
    fn values_come_by_equals_sign_in_the_same_word_or_in_the_next() {
        for line in ["--scheduler=rr", "--scheduler rr", "-s rr", "-srr", "-s=rr"] {
            assert_eq!(
                read(line).unwrap().0,
                [(OptId::Scheduler, value("rr"))],
                "{line}"
            );
        }
    }

    #[test]
    fn an_optional_value_is_never_a_word_that_looks_like_an_option_but_a_required_one_may_be() {
        let given = read("-p -o").unwrap().0;
        assert_eq!(given, [(OptId::Persistent, None), (OptId::OnePacket, None)]);
        assert_eq!(read("-p 60").unwrap().0, [(OptId::Persistent, value("60"))]);
        assert_eq!(read("-w -1").unwrap().0, [(OptId::Weight, value("-1"))]);
    }

    #[test]
    fn errors_name_the_whole_word() {
        let error = |line| {
            read(line)
                .map_err(|error| (error.word, error.reason))
                .unwrap_err()
        };
        assert_eq!(error("-Lq"), ("-Lq".to_owned(), "unknown option"));
        assert_eq!(
            error("--bogus=1"),
            ("--bogus=1".to_owned(), "unknown option")
        );
        assert_eq!(error("-L -s"), ("-s".to_owned(), "missing argument"));
        assert_eq!(
            error("--numeric=1"),
            ("--numeric=1".to_owned(), "option does not take an argument")
        );
    }

    #[test]
    fn other_words_are_kept_in_order_and_two_dashes_end_the_options() {
        let (given, words) = read("a -L b -- -n c").unwrap();
        assert_eq!(given, [(OptId::List, None)]);
        assert_eq!(words, ["a", "b", "-n", "c"]);
    }
}
