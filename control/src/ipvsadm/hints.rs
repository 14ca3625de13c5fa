//! One more line after stock ipvsadm's error, where a slip is common and its cure is short.

use super::options::{CommandId, table};
use super::parse::Unusable;

/// What would mend the command line `args`, of which `unusable` was said.
pub(super) fn hint(args: &[String], unusable: &Unusable) -> Option<String> {
    let text = unusable.text.as_str();
    if let Some(word) = text.strip_suffix(": unknown option") {
        return case(word);
    }
    if text.starts_with("Try `") {
        return command_first(args);
    }
    if text.starts_with("Zero port specified") {
        return Some(
            "port 0, or none, stands for all ports of the address and needs persistence: add -p, or give a port as in 10.0.0.1:80"
                .to_owned(),
        );
    }
    if text.starts_with("Tunnel options conflict") {
        return Some("--tun-type and its like go with -i".to_owned());
    }
    misplaced(text)
}

/// `-I` for a tunnel, and other letters of the wrong case.
fn case(word: &str) -> Option<String> {
    let letter = word
        .strip_prefix('-')?
        .chars()
        .find(|letter| short(*letter).is_none())?;
    if letter == 'I' {
        return Some("a tunnel is -i, in lower case".to_owned());
    }
    let other = if letter.is_ascii_uppercase() {
        letter.to_ascii_lowercase()
    } else {
        letter.to_ascii_uppercase()
    };
    let (long, _) = short(other)?;
    Some(format!(
        "there is -{other} (--{long}); the case of the letter counts"
    ))
}

/// Options before the command.
fn command_first(args: &[String]) -> Option<String> {
    let place = args.iter().position(|word| is_command(word))?;
    // What begins with a command is wrong in another way.
    if place == 0 {
        return None;
    }
    let command = args[place].as_str();
    let rest = args.iter().enumerate().filter(|(at, _)| *at != place);
    let rest: Vec<&str> = rest.map(|(_, word)| word.as_str()).collect();
    Some(format!(
        "the command comes first: ipvsadm {command} {}",
        rest.join(" ")
    ))
}

/// `-r` with `-A`, `-s` with `-a`, and so on.
fn misplaced(text: &str) -> Option<String> {
    let (option, command) = text
        .strip_prefix("Illegal '")?
        .strip_suffix("' command")?
        .split_once("' option with the '")?;
    let of_server = [
        "real-server",
        "forwarding-method",
        "weight",
        "u-threshold",
        "l-threshold",
    ];
    let of_service = [
        "scheduler",
        "persistent",
        "netmask",
        "ops",
        "pe",
        "sched-flags",
    ];
    match command {
        "add-service" | "edit-service" if of_server.contains(&option) => Some(format!(
            "'{option}' is for real servers: ipvsadm -a -t SERVICE -r SERVER …, once the service is there"
        )),
        "add-server" | "edit-server" if of_service.contains(&option) => Some(format!(
            "'{option}' is the service's: ipvsadm -A -t SERVICE …, or -E if it is there"
        )),
        _ => None,
    }
}

fn is_command(word: &str) -> bool {
    let name = word.strip_prefix("--");
    let mut options = table(None).iter();
    options.any(|opt| {
        let spelled = match name {
            Some(name) => opt.long == name,
            None => opt.short.is_some_and(|short| {
                word.strip_prefix('-')
                    .is_some_and(|rest| rest.starts_with(short))
            }),
        };
        spelled && opt.id.command().is_some()
    })
}

fn short(letter: char) -> Option<(&'static str, Option<CommandId>)> {
    let opt = table(None).iter().find(|opt| opt.short == Some(letter))?;
    Some((opt.long, opt.id.command()))
}

#[cfg(test)]
mod tests {
    use super::super::names::LocalNames;
    use super::super::parse::parse;
    use super::*;

    fn of(line: &str) -> Option<String> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        hint(&args, &parse(&args, &LocalNames).expect_err(line))
    }

    #[test]
    fn common_slips_are_mended() {
        for (line, cure) in [
            ("-a -t 10.0.0.1:80 -r 192.168.1.1 -I", "-i, in lower case"),
            (
                "-a -t 10.0.0.1:80 -r 192.168.1.1 -W 3",
                "there is -w (--weight)",
            ),
            ("-A -t 10.0.0.1:0 -s rr", "add -p"),
            ("-A -t 10.0.0.1", "add -p"),
            ("-t 10.0.0.1:80 -A -s rr", "ipvsadm -A -t 10.0.0.1:80 -s rr"),
            ("-n -L", "ipvsadm -L -n"),
            ("-n --list", "ipvsadm --list -n"),
            ("-A -t 10.0.0.1:80 -r 192.168.1.1", "ipvsadm -a"),
            ("-A -t 10.0.0.1:80 -w 5", "ipvsadm -a"),
            ("-a -t 10.0.0.1:80 -r 192.168.1.1 -s rr", "ipvsadm -A"),
            (
                "-a -t 10.0.0.1:80 -r 192.168.1.1 -m --tun-type gre",
                "with -i",
            ),
        ] {
            let hint = of(line).unwrap_or_default();
            assert!(hint.contains(cure), "ipvsadm {line}: {hint}");
        }
    }

    #[test]
    fn what_is_plain_has_no_hint() {
        for line in [
            "-a -t 10.0.0.1:80",
            "-A -t 10.0.0.1:80 -s rr -p 0",
            "-L --bogus",
            "--bogus",
            "-w 3",
            "-D -t 10.0.0.1:80 -s rr",
        ] {
            assert_eq!(of(line), None, "ipvsadm {line}");
        }
    }
}
