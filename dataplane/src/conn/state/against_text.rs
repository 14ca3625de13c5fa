//! Every cell of the state tables, and every timeout, against the words of `SEMANTICS.md` section 6; and that one wrong cell or
//! second in those words would be found.

use std::collections::HashMap;

use super::*;
use crate::packet::sctp::Chunk;
use crate::packet::tcp::{ACK, FIN, RST, SYN};
use crate::time::{GrainRate, TickRate};

const TEXT: &str = include_str!("../../../ipvs/SEMANTICS.md");

const VIEWPOINTS: [Viewpoint; 3] = [Viewpoint::Client, Viewpoint::Server, Viewpoint::ClientOnly];

/// Rows of columns, as written.
type Table = Vec<Vec<State>>;

/// The columns of TCP's tables, as the text abbreviates them.
const TCP: [(&str, State); 11] = [
    ("NO", State::None),
    ("ES", State::Established),
    ("SS", State::SynSent),
    ("SR", State::SynRecv),
    ("FW", State::FinWait),
    ("TW", State::TimeWait),
    ("CL", State::Close),
    ("CW", State::CloseWait),
    ("LA", State::LastAck),
    ("LI", State::Listen),
    ("SA", State::SynAck),
];

const TCP_ROWS: [(&str, u8); 4] = [("syn:", SYN), ("fin:", FIN), ("ack:", ACK), ("rst:", RST)];

/// Where the tables of `secure_tcp` differ, as the text says: viewpoint, row, from a state to another. Without output, SYN leads to
/// SYNACK besides where it leads to SYN_RECV otherwise, but from there.
const SECURE: [(usize, usize, &str, &str); 8] = [
    (0, 0, "SA", "SA"),
    (0, 1, "SA", "SA"),
    (0, 2, "SR", "SR"),
    (0, 2, "SA", "SA"),
    (0, 3, "SA", "CL"),
    (1, 0, "SR", "SA"),
    (1, 0, "SA", "SA"),
    (2, 3, "SA", "CL"),
];

/// The columns of SCTP's tables.
const SCTP: [(&str, State); 14] = [
    ("NO", State::None),
    ("I1", State::Init1),
    ("IN", State::Init),
    ("CS", State::CookieSent),
    ("CR", State::CookieReplied),
    ("CW", State::CookieWait),
    ("CO", State::Cookie),
    ("CE", State::CookieEchoed),
    ("ES", State::Established),
    ("SS", State::ShutdownSent),
    ("SR", State::ShutdownReceived),
    ("SA", State::ShutdownAckSent),
    ("RJ", State::Rejected),
    ("CL", State::Closed),
];

const SCTP_ROWS: [(&str, Chunk); 10] = [
    ("data", Chunk::Data),
    ("init", Chunk::Init),
    ("init_ack", Chunk::InitAck),
    ("cookie_echo", Chunk::CookieEcho),
    ("cookie_ack", Chunk::CookieAck),
    ("shutdown", Chunk::Shutdown),
    ("shutdown_ack", Chunk::ShutdownAck),
    ("shutdown_complete", Chunk::ShutdownComplete),
    ("error", Chunk::Error),
    ("abort", Chunk::Abort),
];

fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(begin).expect(begin);
    rest.split_once(end).expect(end).0
}

fn state(columns: &[(&str, State)], code: &str) -> Option<State> {
    let known = columns.iter().find(|(name, _)| *name == code);
    known.map(|(_, state)| *state)
}

/// TCP's three tables as the text has them.
fn tcp_tables() -> [Table; 3] {
    [
        "from client, normal",
        "from server",
        "client, no output seen",
    ]
    .map(|title| {
        let is_it = |line: &&str| line.starts_with(title) && line.contains("syn:");
        let line = TEXT.lines().find(is_it).unwrap();
        let row = |(name, _): &(&str, u8)| {
            let (_, cells) = line.split_once(name).unwrap();
            let codes = cells.split_whitespace().take(TCP.len());
            codes.map(|code| state(&TCP, code).unwrap()).collect()
        };
        TCP_ROWS.iter().map(row).collect()
    })
}

/// SCTP's, whose rows are abbreviated in words.
fn sctp_tables() -> [Table; 3] {
    let block = format!(
        "client: data{}",
        between(TEXT, "\nclient: data", "[G:sctp-states")
    );
    let block = block.replace("(DR/TUN until a server packet is seen)", "");
    let is_blank = |c: char| c.is_whitespace() || ",;:`".contains(c);
    let words: Vec<&str> = block
        .split(is_blank)
        .filter(|word| !word.is_empty())
        .collect();
    let mut tables: [Table; 3] = std::array::from_fn(|_| vec![Vec::new(); SCTP_ROWS.len()]);
    let (mut table, mut row) = (0, 0);
    for (at, word) in words.iter().enumerate() {
        let filled = |row: &[State]| vec![row[0]; SCTP.len()];
        let column = |name: &str| SCTP.iter().position(|(code, _)| *code == name).unwrap();
        if let Some(next) = SCTP_ROWS.iter().position(|(name, _)| name == word) {
            row = next;
        } else if let Some(state) = state(&SCTP, word) {
            tables[table][row].push(state);
        } else if let Some(times) = word.strip_prefix('x').and_then(|n| n.parse::<usize>().ok()) {
            let last = *tables[table][row].last().unwrap();
            tables[table][row].extend(vec![last; times - 1]);
        } else if *word == "as" {
            tables[table][row] = tables[0][row].clone();
        } else if *word == "from" {
            let (kept, becomes) = words[at + 3].trim_end_matches(')').split_once('(').unwrap();
            tables[table][row] = filled(&tables[table][row]);
            tables[table][row][column(kept)] = state(&SCTP, becomes).unwrap();
        } else if *word == "except" {
            let (from, to) = words[at + 1].split_once("->").unwrap();
            tables[table][row] = filled(&tables[table][row]);
            tables[table][row][column(from)] = state(&SCTP, to).unwrap();
        } else if *word == "unchanged" {
            let own = SCTP.iter().map(|(_, state)| *state);
            let first = tables[table][row].len();
            tables[table][row].extend(own.skip(first));
        } else if *word == "server" {
            table = 1;
        } else if *word == "output" {
            table = 2;
        }
    }
    tables
}

fn secure(mut tables: [Table; 3]) -> [Table; 3] {
    for (table, row, from, to) in SECURE {
        let column = TCP.iter().position(|(name, _)| *name == from).unwrap();
        tables[table][row][column] = state(&TCP, to).unwrap();
    }
    for (cell, (name, _)) in tables[2][0].iter_mut().zip(TCP) {
        if *cell == State::SynRecv && name != "SR" {
            *cell = State::SynAck;
        }
    }
    tables
}

/// Cells (table, row, column) that the code has otherwise.
fn differences(
    tables: &[Table; 3],
    columns: &[(&str, State)],
    after: impl Fn(State, usize, Viewpoint) -> State,
) -> Vec<(usize, usize, usize)> {
    let mut cells = Vec::new();
    for (at, viewpoint) in VIEWPOINTS.into_iter().enumerate() {
        for (row, states) in tables[at].iter().enumerate() {
            assert_eq!(states.len(), columns.len(), "row {row} of table {at}");
            for (column, wanted) in states.iter().enumerate() {
                if after(columns[column].1, row, viewpoint) != *wanted {
                    cells.push((at, row, column));
                }
            }
        }
    }
    cells
}

/// The code has these tables; and were any one cell another, just that would be found.
fn holds(
    tables: [Table; 3],
    columns: &[(&str, State)],
    after: impl Fn(State, usize, Viewpoint) -> State,
) {
    assert_eq!(differences(&tables, columns, &after), []);
    for (at, table) in tables.iter().enumerate() {
        for (row, states) in table.iter().enumerate() {
            for (column, right) in states.iter().enumerate() {
                let mut mutated = tables.clone();
                let beside = columns
                    .iter()
                    .position(|(_, state)| state == right)
                    .unwrap()
                    + 1;
                mutated[at][row][column] = columns[beside % columns.len()].1;
                let found = differences(&mutated, columns, &after);
                assert_eq!(found, [(at, row, column)]);
            }
        }
    }
}

#[test]
fn tcp_has_the_tables_of_the_text() {
    for (tables, set) in [
        (tcp_tables(), TcpTables::NORMAL),
        (secure(tcp_tables()), TcpTables::SECURE),
    ] {
        holds(tables, &TCP, |state, row, viewpoint| {
            state.after(TCP_ROWS[row].1, viewpoint, set)
        });
    }
}

#[test]
fn sctp_has_the_tables_of_the_text() {
    holds(sctp_tables(), &SCTP, |state, row, viewpoint| {
        state.after_chunk(SCTP_ROWS[row].1, viewpoint)
    });
}

/// Seconds by state, as listed in the text.
fn seconds(list: &str) -> HashMap<&str, u32> {
    let pairs = list.split(", ").filter_map(|pair| pair.rsplit_once(' '));
    let number = |(name, seconds): (_, &str)| Some((name, seconds.parse().ok()?));
    pairs.filter_map(number).collect()
}

#[test]
fn timeouts_are_those_of_the_text_to_the_second() {
    let rate = TickRate::NANOSECONDS;
    let grains = GrainRate::new(rate);
    let span = |seconds| grains.at_least(rate.seconds(seconds));
    let table = TimeoutTable::new(&Timeouts::default(), rate, grains);
    let text = between(TEXT, "Default seconds, ", "\n");
    let tcp = seconds(between(text, "TCP: ", "."));
    let udp: u32 = between(text, ". UDP ", " ").parse().unwrap();
    let sctp = seconds(between(text, "SCTP: ", "."));
    assert_eq!((tcp.len(), sctp.len()), (11, 5));
    let mut all = vec![(table.udp(), udp)];
    for (_, state) in TCP {
        all.push((table.tcp(state), tcp[state.name()]));
    }
    for (_, state) in SCTP {
        let wanted = sctp.get(state.name()).unwrap_or(&sctp["all others"]);
        all.push((table.sctp(state), *wanted));
    }
    for (timeout, seconds) in all {
        assert_eq!(timeout, span(seconds));
        assert!(![span(seconds - 1), span(seconds + 1)].contains(&timeout));
    }
}
