//! `sluice`, the client: commands to calls of the daemon, answers to tables or JSON.
//!
//! [`run`] is the whole program; `args` says what can be typed, `change` does what changes something, `show` and `status` print what is,
//! `output` how it looks.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use serde_json::Value;

use crate::api;
use crate::client::{DEFAULT_TIMEOUT, Rpc, RpcError, UnixClient};
use crate::ipvsadm;

mod args;
mod change;
mod doctor;
mod drain;
mod output;
mod setup_script;
mod show;
mod status;

use args::{Cli, Command, Output, ServerCommand, SettingCommand};

/// The streams of a process.
pub struct Streams<'a> {
    /// Standard input.
    pub stdin: &'a mut dyn Read,
    /// Standard output.
    pub out: &'a mut dyn Write,
    /// Standard error.
    pub err: &'a mut dyn Write,
}

/// Runs the client with `args`, the first of them the name by which it was called: `ipvsadm` makes it that. Gives the exit code: 0
/// done, 1 refused or unreachable, 2 wrong usage (and ipvsadm's own).
pub fn run(args: &[OsString], streams: &mut Streams<'_>) -> u8 {
    let called = args.first().map(Path::new).and_then(Path::file_name);
    let done = if called.is_some_and(|name| name == "ipvsadm") {
        let socket =
            std::env::var_os("SLUICE_SOCKET").unwrap_or_else(|| api::DEFAULT_SOCKET.into());
        let mut client = UnixClient::new(Path::new(&socket), DEFAULT_TIMEOUT);
        let words: Vec<String> = args[1..]
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        front_end(&words, &mut client, streams)
    } else {
        match Cli::try_parse_from(args) {
            Ok(cli) => execute(cli, streams),
            Err(error) => unusable(&error, streams),
        }
    };
    match done {
        Ok(code) => code,
        Err(Failure::Rpc(error)) => complain(&error.to_string(), 1, streams),
        Err(Failure::Gone(text)) => complain(&text, 1, streams),
        Err(Failure::Input(text)) => complain(&text, 2, streams),
        // Who reads us has seen enough (`sluice connections | head`).
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(Failure::Output(error)) => {
            complain(&format!("cannot write the answer: {error}"), 1, streams)
        }
    }
}

/// Why a command failed.
#[derive(Debug)]
enum Failure {
    /// The daemon refused or cannot be reached.
    Rpc(RpcError),
    /// What was typed or read is wrong.
    Input(String),
    /// What a command waits for cannot happen any more.
    Gone(String),
    /// The answer cannot be printed.
    Output(io::Error),
}

impl From<RpcError> for Failure {
    fn from(error: RpcError) -> Self {
        Self::Rpc(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

fn complain(text: &str, code: u8, streams: &mut Streams<'_>) -> u8 {
    // There is nowhere left to say that standard error is gone.
    let _unsaid = writeln!(streams.err, "error: {}", text.trim_end().replace('\n', " "));
    code
}

/// Help and version as asked for; what is wrong with the command line in one line.
fn unusable(error: &clap::Error, streams: &mut Streams<'_>) -> Result<u8, Failure> {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            write!(streams.out, "{error}")?;
            streams.out.flush()?;
            Ok(0)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            write!(streams.err, "{error}")?;
            Ok(2)
        }
        _ => {
            let text = error.to_string();
            let paragraphs = text.split("\n\n").map(|paragraph| {
                let words: Vec<&str> = paragraph.split_whitespace().collect();
                words.join(" ")
            });
            let useful =
                |paragraph: &String| !paragraph.is_empty() && !paragraph.starts_with("Usage:");
            let useful: Vec<String> = paragraphs.filter(useful).collect();
            let line = useful.join("; ");
            let line = line.strip_prefix("error: ").unwrap_or(&line);
            let line = line.replace("For more information, try", "try");
            Err(Failure::Input(line.trim_end_matches('.').to_owned()))
        }
    }
}

fn execute(cli: Cli, streams: &mut Streams<'_>) -> Result<u8, Failure> {
    let mut client = UnixClient::new(&cli.socket, Duration::from_secs(cli.timeout));
    let rpc: &mut dyn Rpc = &mut client;
    let json = cli.output == Output::Json;
    match cli.command {
        Command::Service(command) => change::service(command, json, rpc, streams.out)?,
        Command::Server(ServerCommand::Drain(args)) => {
            return drain::drain(&args, json, rpc, streams.out);
        }
        Command::Server(ServerCommand::SetupScript(args)) => {
            write!(streams.out, "{}", setup_script::script(&args)?)?;
        }
        Command::Server(command) => change::server(command, json, rpc, streams.out)?,
        Command::Laddr(command) => change::laddr(command, json, rpc, streams.out)?,
        Command::Mark(command) => change::mark(command, json, rpc, streams.out)?,
        Command::Setting(SettingCommand::List) => show::settings(json, rpc, streams.out)?,
        Command::Setting(SettingCommand::Set { settings }) => {
            change::settings(settings, json, rpc, streams.out)?;
        }
        Command::Doctor {
            config: Some(config),
            root,
        } => return doctor::before_start(&config, &root, json, streams.out),
        Command::Doctor { config: None, .. } => return doctor::doctor(json, rpc, streams.out),
        Command::Rss { command: None } => show::rss(json, rpc, streams.out)?,
        Command::Rss {
            command: Some(command),
        } => change::rss(command, json, rpc, streams.out)?,
        Command::Status => status::status(json, rpc, streams.out)?,
        Command::Stats => show::stats(json, rpc, streams.out)?,
        Command::Drops { all } => show::drops(all, json, rpc, streams.out)?,
        Command::Connections(args) => show::connections(&args, json, rpc, streams)?,
        Command::Proc { file } => return told(ipvsadm::proc(file.into(), rpc), streams),
        Command::Save => return told(ipvsadm::save(rpc), streams),
        Command::Restore { replace, file } => {
            let lines = read(&file, streams)?;
            return told(ipvsadm::restore(&lines, replace, rpc), streams);
        }
        Command::Version => show::version(json, rpc, streams.out)?,
        Command::Methods => show::methods(json, rpc, streams.out)?,
        Command::Rpc { method, params } => raw(&method, params, rpc, streams)?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "sluice", &mut script);
            streams.out.write_all(&script)?;
        }
        Command::Ipvsadm { args } => return front_end(&args, rpc, streams),
    }
    streams.out.flush()?;
    Ok(0)
}

fn front_end(
    words: &[String],
    rpc: &mut dyn Rpc,
    streams: &mut Streams<'_>,
) -> Result<u8, Failure> {
    told(ipvsadm::run(words, streams.stdin, rpc), streams)
}

fn told(outcome: ipvsadm::Outcome, streams: &mut Streams<'_>) -> Result<u8, Failure> {
    let _unsaid = streams.err.write_all(outcome.err.as_bytes());
    let _unsaid = streams.err.write_all(outcome.note.as_bytes());
    streams.out.write_all(outcome.out.as_bytes())?;
    streams.out.flush()?;
    Ok(u8::try_from(outcome.rc).unwrap_or(255))
}

/// A file, or standard input.
fn read(file: &Path, streams: &mut Streams<'_>) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        streams.stdin.read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(file).map(|read| text = read)
    };
    read.map_err(|error| Failure::Input(format!("cannot read {}: {error}", file.display())))?;
    Ok(text)
}

/// `sluice rpc`: whatever the daemon has.
fn raw(
    method: &str,
    params: Option<String>,
    rpc: &mut dyn Rpc,
    streams: &mut Streams<'_>,
) -> Result<(), Failure> {
    let text = match params.as_deref() {
        Some("-") => {
            let mut text = String::new();
            let read = streams.stdin.read_to_string(&mut text);
            read.map_err(|error| {
                Failure::Input(format!("cannot read JSON from standard input: {error}"))
            })?;
            Some(text)
        }
        _ => params,
    };
    let params = match text {
        Some(text) => serde_json::from_str(&text).map_err(|error| {
            Failure::Input(format!(
                "JSON: {error}; quote it for the shell, as in '{{\"a\": 1}}'"
            ))
        })?,
        None => Value::Null,
    };
    let answer = rpc.call(method, params)?;
    Ok(output::json(streams.out, &answer)?)
}

/// Encodes a method's parameters.
fn encode(params: &impl serde::Serialize) -> Result<Value, Failure> {
    serde_json::to_value(params).map_err(|error| Failure::Input(error.to_string()))
}

/// Decodes an answer of `method`.
fn decode<T: serde::de::DeserializeOwned>(method: &str, answer: Value) -> Result<T, Failure> {
    let decoded = serde_json::from_value(answer);
    decoded.map_err(|error| {
        Failure::Rpc(RpcError::Answer {
            method: method.to_owned(),
            reason: error.to_string(),
        })
    })
}

#[cfg(test)]
mod tests;
