//! The report as one page for a browser, with nothing outside of it: plots first, the numbers below them.

use std::fmt::Write as _;

use super::chart::{self, Bars, Row, better, escape, number, series};
use super::experiment::Experiment;
use super::{DISTURBED, Report};
use crate::scenario::{METHODS, name};
use crate::single::Turns;
use crate::targets::Target;
use crate::timing::{Window, median};

const STYLE: &str = include_str!("page.css");

/// The page.
pub(super) fn page(report: &Report) -> String {
    let machine = &report.machine;
    let (met, missed) = report.verdict();
    let (chip, word) = match (met, missed) {
        (0, 0) => ("none", "no targets measured".to_owned()),
        (_, 0) => ("good", format!("{met} targets met, 0 missed")),
        _ => ("bad", format!("{met} targets met, {missed} missed")),
    };
    let mut page = format!(
        r#"<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>sluice {} · {}</title><style>{STYLE}</style></head><body><main><header><h1>sluice <code>{}</code></h1><p class="chip {chip}">{word}</p><p class="sub">make {} on {}, {} × {}, {} MB, Linux {}, DPDK {}</p></header>"#,
        escape(&machine.commit),
        report.run.name(),
        escape(&machine.commit),
        report.run.name(),
        escape(&machine.date),
        machine.cores,
        escape(&machine.cpu),
        machine.memory_mb,
        escape(&machine.kernel),
        escape(&machine.dpdk)
    );
    page += &established(report);
    page += &new_connections(report);
    page += &singles(report);
    page.extend(report.experiments.iter().map(of_experiment));
    page += &targets(&report.targets);
    page += &settings(report);
    page + "</main></body></html>\n"
}

fn section(title: &str, lead: &str, body: &str) -> String {
    format!(
        "<section><h2>{}</h2><p>{}</p>{body}</section>",
        escape(title),
        escape(lead)
    )
}

/// A legend of (class, words).
fn legend(entries: &[(&str, &str)]) -> String {
    let entries = entries.iter().map(|(class, words)| {
        format!(
            r#"<span><i class="key {class}"></i>{}</span>"#,
            escape(words)
        )
    });
    format!(r#"<p class="legend">{}</p>"#, entries.collect::<String>())
}

fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = "<div class=\"wide\"><table><thead><tr>".to_owned();
    table.extend(head.iter().map(|cell| format!("<th>{}</th>", escape(cell))));
    table += "</tr></thead><tbody>";
    for row in rows {
        table += "<tr>";
        table.extend(row.iter().map(|cell| format!("<td>{}</td>", escape(cell))));
        table += "</tr>";
    }
    table + "</tbody></table></div>"
}

/// The colour of a method, everywhere on the page.
fn class_of(method: &str) -> String {
    let at = METHODS.iter().position(|known| name(*known) == method);
    series(at.unwrap_or(METHODS.len()))
}

fn bounds_of(targets: &[Target], what: &str) -> Option<(f64, f64)> {
    let target = targets
        .iter()
        .find(|target| target.what.starts_with(what))?;
    Some((target.must, target.aim))
}

fn established(report: &Report) -> String {
    if report.rows.is_empty() {
        return String::new();
    }
    let (mut ratios, mut rates) = (Vec::new(), Vec::new());
    let mut flows = report.rows[0].scenario.flows;
    for row in &report.rows {
        if row.scenario.flows != flows {
            flows = row.scenario.flows;
            ratios.push(Row::default());
            rates.push(Row::default());
        }
        let label = row.scenario.to_string();
        let class = class_of(name(row.scenario.method));
        let mpps = |windows: &[Window]| windows.iter().map(Window::mpps).collect();
        ratios.push(Row {
            bounds: bounds_of(&report.targets, &format!("{label}: ratio")),
            label: label.clone(),
            class: class.clone(),
            samples: row.ratios(&row.macswap),
            beside: Vec::new(),
        });
        rates.push(Row {
            label,
            class,
            samples: mpps(&row.sluice),
            beside: vec![
                ("five", "5tswap", mpps(&row.five_tuple_swap)),
                ("mac", "macswap", mpps(&row.macswap)),
            ],
            bounds: None,
        });
    }
    let ratio = Bars {
        unit: "".to_owned(),
        rows: ratios,
    }
    .svg();
    let rate = Bars {
        unit: "Mpps".to_owned(),
        rows: rates,
    }
    .svg();
    let bounds = [("must", "must be"), ("aim", "aim"), ("dot", "a round")];
    let beside = [
        ("five", "testpmd 5tswap"),
        ("mac", "testpmd macswap, which does nothing"),
    ];
    let body = format!(
        "<figure>{}{ratio}<figcaption>share of testpmd macswap's rate on the same packets</figcaption></figure>\
         <figure>{}{rate}<figcaption>million packets a second of the worker's CPU time</figcaption></figure><details><summary>Numbers</summary>{}</details>",
        legend(&bounds),
        legend(&beside),
        rows_table(report)
    );
    let lead = format!(
        "One worker, {}-byte frames. Flows are packets that differ in their ends, in random order; a connection is one, with NAT and FULLNAT two, one in each direction. {} rounds of {} ms, in turns with testpmd on the same file.",
        report.settings.frame_bytes, report.settings.rounds, report.settings.window_ms
    );
    section("Established connections", &lead, &body)
}

fn rows_table(report: &Report) -> String {
    let rows = report.rows.iter().map(|row| {
        let ns = |windows: &[Window]| number(median(windows.iter().map(Window::ns_per_packet)));
        vec![
            row.scenario.to_string(),
            number(median(row.sluice.iter().map(Window::mpps))),
            ns(&row.sluice),
            ns(&row.macswap),
            ns(&row.five_tuple_swap),
            number(row.ratio(&row.macswap)),
            number(row.ratio(&row.five_tuple_swap)),
            row.instructions.map_or_else(|| "–".to_owned(), number),
            row.compared.to_string(),
            if row.disturbed() > DISTURBED {
                "yes"
            } else {
                ""
            }
            .to_owned(),
        ]
    });
    let head = [
        "",
        "Mpps",
        "ns",
        "macswap ns",
        "5tswap ns",
        "to macswap",
        "to 5tswap",
        "instructions",
        "frames compared",
        "disturbed",
    ];
    table(&head, &rows.collect::<Vec<_>>())
}

fn new_connections(report: &Report) -> String {
    if report.new_connections.is_empty() {
        return String::new();
    }
    let bounds = bounds_of(&report.targets, "new connections");
    let rows = report.new_connections.iter().map(|new| Row {
        label: new.method.clone(),
        class: class_of(&new.method),
        samples: new
            .windows
            .iter()
            .map(|window| window.millions_per_s())
            .collect(),
        beside: Vec::new(),
        bounds,
    });
    let bars = Bars {
        unit: "M/s".to_owned(),
        rows: rows.collect(),
    };
    let mut body = format!("<figure>{}</figure>", bars.svg());
    if let Some(bytes) = report.connection_bytes {
        let _ = write!(
            body,
            "<p>A connection takes {} bytes, with everything that belongs to it.</p>",
            number(bytes)
        );
    }
    let lead = "Every packet is the first of another client's connection, scheduled by wrr over 100 servers; as many connections end as begin, and a million are there. In memory, without a driver.";
    section("New connections", lead, &body)
}

fn singles(report: &Report) -> String {
    if report.singles.is_empty() {
        return String::new();
    }
    let rows = report.singles.iter().map(|single| {
        let of = |value: fn(&Turns) -> f64| single.windows.iter().map(value).collect();
        let method = name(single.scenario.method);
        Row {
            label: single.scenario.to_string(),
            class: class_of(method),
            samples: of(|turns| turns.median_ns),
            beside: vec![("five", "99 of 100", of(|turns| turns.p99_ns))],
            bounds: bounds_of(&report.targets, &format!("burst of one packet, {method}:")),
        }
    });
    let bars = Bars {
        unit: "ns".to_owned(),
        rows: rows.collect(),
    };
    let entries = [
        ("five", "99 of 100 take no longer"),
        ("must", "must be below"),
    ];
    let body = format!("<figure>{}{}</figure>", legend(&entries), bars.svg());
    let lead = "A packet that comes alone: the worker's whole turn, from before it is received until after it is sent. In memory, without a driver.";
    section("A burst of one packet", lead, &body)
}

fn of_experiment(experiment: &Experiment) -> String {
    let places = experiment.places();
    let mut head = vec![""];
    head.extend(&places);
    let rows = experiment.lines.iter().map(|line| {
        let cells = places.iter().map(|place| {
            line.at(place)
                .map_or_else(|| "–".to_owned(), |point| number(point.median()))
        });
        std::iter::once(line.name.clone()).chain(cells).collect()
    });
    let body = format!(
        "<figure>{}<figcaption>{}, {}</figcaption></figure><details><summary>Numbers</summary>{}</details>",
        chart::experiment(experiment),
        escape(&experiment.unit),
        better(experiment.better),
        table(&head, &rows.collect::<Vec<_>>())
    );
    section(&experiment.title, &experiment.how, &body)
}

fn targets(targets: &[Target]) -> String {
    if targets.is_empty() {
        return String::new();
    }
    let rows = targets.iter().map(|target| {
        let than = if target.at_most { "≤" } else { "≥" };
        let (mark, word) = if target.met() {
            ("✓", "met")
        } else {
            ("✗", "missed")
        };
        vec![
            target.what.clone(),
            number(target.value),
            format!("{than} {}", number(target.must)),
            format!("{mark} {word}"),
            format!("{than} {}", number(target.aim)),
            if target.aim_met() {
                "reached"
            } else {
                "not reached"
            }
            .to_owned(),
        ]
    });
    let head = ["", "value", "must", "", "aim", ""];
    section(
        "Targets",
        "What this must reach, and what it aims at.",
        &table(&head, &rows.collect::<Vec<_>>()),
    )
}

fn settings(report: &Report) -> String {
    let settings = &report.settings;
    let lines = [
        ("rig", settings.rig.clone()),
        ("frame", format!("{} bytes", settings.frame_bytes)),
        (
            "queues",
            format!(
                "{} each way, {} descriptors",
                settings.queues, settings.descriptors
            ),
        ),
        ("burst", format!("{} packets", settings.burst)),
        (
            "mbuf data room",
            format!("{} bytes, headroom included", settings.mbuf_data_room),
        ),
        (
            "mempool cache",
            format!("{} frames", settings.mempool_cache),
        ),
        (
            "memory",
            if settings.hugepages {
                "hugepages of 2 MB"
            } else {
                "no hugepages"
            }
            .to_owned(),
        ),
        (
            "load of the machine",
            format!("{:.1} before, {:.1} after", report.load.0, report.load.1),
        ),
    ];
    let mut body = "<dl>".to_owned();
    for (name, value) in lines {
        let _ = write!(body, "<dt>{name}</dt><dd>{}</dd>", escape(&value));
    }
    let _ = write!(
        body,
        "</dl><details><summary>Command lines</summary><pre>{}</pre></details>",
        escape(&settings.command_lines.join("\n"))
    );
    section("How it was run", "The same for sluice and testpmd.", &body)
}
