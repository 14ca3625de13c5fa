//! Files of `/proc`. All bytes count, but for these masks:
//!
//! - `ip_vs`: services come in any order (a kernel's is that of its hash table), each with its real servers in theirs.
//! - `ip_vs_conn`: any order, and one second more or less.
//! - `sync_qlen_max` of the settings: it follows from the recorded machine's memory.

use super::text;

/// Compares a file with the recorded one. `Err` says readably what differs.
pub fn compare(recorded: &str, ours: &str) -> Result<(), String> {
    if recorded.starts_with("Pro FromIP") {
        let (theirs, here) = (connections(recorded), connections(ours));
        let alike = |(theirs, here): (&(String, u64), &(String, u64))| {
            theirs.0 == here.0 && theirs.1.abs_diff(here.1) <= 1
        };
        if theirs.len() == here.len() && theirs.iter().zip(&here).all(alike) {
            return Ok(());
        }
        return different(recorded, ours);
    }
    if blocks(recorded) == blocks(ours) {
        return Ok(());
    }
    different(recorded, ours)
}

/// The folder that a recorded command lists with all that is in it.
pub fn listed_tree(command: &str) -> Option<&str> {
    let mut words = command.split_whitespace();
    let program = words.next()?.rsplit('/').next()?;
    (program == "grep" && words.next()? == "-r").then(|| words.last())?
}

/// Compares a tree of settings.
pub fn compare_tree(recorded: &str, ours: &str) -> Result<(), String> {
    let masked = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| !line.contains("/sync_qlen_max:"));
        let mut lines: Vec<String> = lines.map(str::to_owned).collect();
        lines.sort();
        lines
    };
    if masked(recorded) == masked(ours) {
        return Ok(());
    }
    different(recorded, ours)
}

fn different(recorded: &str, ours: &str) -> Result<(), String> {
    Err(format!(
        "the file differs (- recorded, + sluice)\n{}",
        text::diff(recorded, ours)
    ))
}

/// Lines without their expiry, and that, sorted.
fn connections(text: &str) -> Vec<(String, u64)> {
    let split = |line: &str| {
        let expires = line
            .split_whitespace()
            .nth(8)
            .and_then(|word| word.parse().ok());
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if words.len() > 8 && expires.is_some() {
            words.remove(8);
        }
        (words.join(" "), expires.unwrap_or_default())
    };
    let mut lines: Vec<_> = text.lines().map(split).collect();
    lines.sort();
    lines
}

/// A service with its real servers each, sorted; other lines as they are.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        match blocks.last_mut() {
            Some(last) if number > 2 && line.starts_with("  ->") => {
                last.push('\n');
                last.push_str(line);
            }
            _ => blocks.push(line.to_owned()),
        }
    }
    if blocks
        .first()
        .is_some_and(|line| line.starts_with("IP Virtual Server"))
    {
        blocks.sort();
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n";

    #[test]
    fn services_may_change_places_but_not_their_servers() {
        let text = |rest: &str| format!("{HEAD}{rest}");
        let recorded = text("TCP  A wrr  \n  -> 1\n  -> 2\nUDP  B rr  \n  -> 3\n");
        assert!(
            compare(
                &recorded,
                &text("UDP  B rr  \n  -> 3\nTCP  A wrr  \n  -> 1\n  -> 2\n")
            )
            .is_ok()
        );
        for wrong in [
            "UDP  B rr  \n  -> 3\nTCP  A wrr  \n  -> 2\n  -> 1\n",
            "UDP  B rr  \n  -> 1\nTCP  A wrr  \n  -> 3\n  -> 2\n",
            "TCP  A wrr \n  -> 1\n  -> 2\nUDP  B rr  \n  -> 3\n",
        ] {
            assert!(compare(&recorded, &text(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn connections_may_be_a_second_off() {
        let line = |left| {
            format!(
                "Pro FromIP\nTCP C6336400 0000 0A000001 01BB C0A80105 01BB NONE            {left}\n"
            )
        };
        assert!(compare(&line(580), &line(579)).is_ok());
        assert!(compare(&line(580), &line(578)).is_err());
    }

    #[test]
    fn trees_are_those_of_grep() {
        assert_eq!(
            listed_tree("/bin/grep -r  /proc/sys/net/ipv4/vs/"),
            Some("/proc/sys/net/ipv4/vs/")
        );
        assert_eq!(listed_tree("cat /proc/net/ip_vs"), None);
        assert!(compare_tree("a:1\nvs/sync_qlen_max:5\n", "vs/sync_qlen_max:6\na:1\n").is_ok());
        assert!(compare_tree("a:1\n", "a:2\n").is_err());
    }
}
