//! Recorded against replayed: packets and text, less what the README says cannot be reproduced.

mod mask;
pub mod packets;
pub mod proc;
pub mod text;

use std::collections::BTreeSet;

use crate::trace::{Command, Step};

/// Services whose scheduler is `twos`: their choices are random, so only how often each server was chosen counts.
///
/// Read off the trace's own command lines, so that it holds whatever sluice does with them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RandomServices {
    /// As ipvsadm's arguments name them: `10.0.0.1:80`.
    named: BTreeSet<String>,
}

impl RandomServices {
    /// Those that `steps` make.
    pub fn of(steps: &[Step]) -> Self {
        let mut named = BTreeSet::new();
        for step in steps {
            if let Step::Ipvsadm(Command { args, stdin, .. }) = step {
                for line in std::iter::once(args.as_str()).chain(stdin.lines()) {
                    named.extend(random_service(line).map(str::to_owned));
                }
            }
        }
        Self { named }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty()
    }

    /// Whether this one, as a listing shows it, is one.
    pub fn contains(&self, service: &str) -> bool {
        self.named.contains(service)
    }
}

/// The service that `line` gives the scheduler `twos`.
fn random_service(line: &str) -> Option<&str> {
    const SERVICE: [&str; 6] = [
        "-t",
        "-u",
        "-f",
        "--tcp-service",
        "--udp-service",
        "--fwmark-service",
    ];
    let words: Vec<_> = line.split_whitespace().collect();
    let twos = words
        .iter()
        .any(|word| ["-stwos", "--scheduler=twos"].contains(word))
        || words
            .windows(2)
            .any(|pair| ["-s", "--scheduler"].contains(&pair[0]) && pair[1] == "twos");
    let mut pairs = words.windows(2).filter(|pair| SERVICE.contains(&pair[0]));
    pairs.next().filter(|_| twos).map(|pair| pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_random_only_by_its_scheduler() {
        assert_eq!(
            random_service("-A -t 10.0.0.1:80 -s twos"),
            Some("10.0.0.1:80")
        );
        assert_eq!(
            random_service("-E -stwos -u 10.0.0.1:53"),
            Some("10.0.0.1:53")
        );
        assert_eq!(random_service("-A -t 10.0.0.1:80 -s rr"), None);
        assert_eq!(random_service("-a -t 10.0.0.1:80 -r twos"), None);
    }
}
