//! Plots as inline SVG: bars in rows, and lines over an axis. Colours are classes, which the page's style sheet gives for light
//! and dark; every mark says its value when pointed at.

use std::fmt::Write as _;

use super::experiment::{Better, Experiment, Line};
use crate::timing::median;

/// Width of every plot.
const WIDTH: f64 = 760.0;

/// Room for labels left and right of the plot proper.
const LEFT: f64 = 164.0;
const RIGHT: f64 = 96.0;

/// Height of a row of bars.
const ROW: f64 = 26.0;

/// Height of the plot proper of lines.
const HEIGHT: f64 = 240.0;

/// From so many times the least on, values are shown by their logarithms.
const WIDE: f64 = 60.0;

/// Rows of bars.
#[derive(Default)]
pub(super) struct Bars {
    /// What values are in.
    pub(super) unit: String,
    /// The rows; an empty label begins a new group.
    pub(super) rows: Vec<Row>,
}

/// A row: a bar from zero to the median of the first samples, and marks for all others.
#[derive(Default)]
pub(super) struct Row {
    /// What it is.
    pub(super) label: String,
    /// Class of the bar's colour.
    pub(super) class: String,
    /// A sample a round.
    pub(super) samples: Vec<f64>,
    /// Others to compare with: class, name, samples.
    pub(super) beside: Vec<(&'static str, &'static str, Vec<f64>)>,
    /// Bounds: what must be, what should be.
    pub(super) bounds: Option<(f64, f64)>,
}

/// A number with about three digits that count.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        1000.0.. => 0,
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let Some((whole, _)) = text.split_once('.').or(Some((text.as_str(), ""))) else {
        return text;
    };
    if whole.len() < 5 {
        return text;
    }
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) && digit.is_ascii_digit() {
            grouped.push('\u{202f}');
        }
        grouped.push(digit);
    }
    grouped
}

/// For text in a page.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// Steps between grid lines, such that there are four to eight of them.
fn step(most: f64) -> f64 {
    let magnitude = 10f64.powf(most.log10().floor());
    let steps = [0.1, 0.2, 0.25, 0.5, 1.0, 2.0].map(|step| step * magnitude);
    let fits = steps.into_iter().find(|step| most / step <= 6.5);
    fits.unwrap_or(most)
}

impl Bars {
    /// The plot.
    pub(super) fn svg(&self) -> String {
        let values = self.rows.iter().flat_map(|row| {
            let beside = row.beside.iter().flat_map(|(_, _, samples)| samples);
            let bounds = row.bounds.iter().flat_map(|(must, aim)| [must, aim]);
            row.samples.iter().chain(beside).chain(bounds)
        });
        let most = values.copied().fold(f64::MIN_POSITIVE, f64::max) * 1.02;
        let scale = (WIDTH - LEFT - RIGHT) / most;
        let bottom = 8.0 + ROW * self.rows.len() as f64;
        let mut svg = begin(bottom + 26.0);
        let mut at = 0.0;
        while at <= most {
            let x = LEFT + at * scale;
            grid(&mut svg, (x, 4.0), (x, bottom));
            text(&mut svg, "tick", "middle", (x, bottom + 16.0), &number(at));
            at += step(most);
        }
        text(
            &mut svg,
            "tick",
            "start",
            (WIDTH - RIGHT + 12.0, bottom + 16.0),
            &self.unit,
        );
        for (at, row) in self.rows.iter().enumerate() {
            if !row.label.is_empty() {
                row.draw(&mut svg, 8.0 + ROW * (at as f64 + 0.5), scale, &self.unit);
            }
        }
        svg + "</svg>"
    }
}

impl Row {
    fn draw(&self, svg: &mut String, y: f64, scale: f64, unit: &str) {
        let middle = median(self.samples.iter().copied());
        let end = LEFT + middle * scale;
        text(svg, "label", "end", (LEFT - 10.0, y + 4.0), &self.label);
        let title = format!("{}: {} {unit}", self.label, range(&self.samples));
        let _ = write!(
            svg,
            r#"<path class="bar {}" d="M{LEFT} {:.1}H{:.1}q4 0 4 4v4q0 4 -4 4H{LEFT}z"><title>{}</title></path>"#,
            self.class,
            y - 6.0,
            (end - 4.0).max(LEFT),
            escape(&title)
        );
        for sample in &self.samples {
            let x = LEFT + sample * scale;
            let _ = write!(
                svg,
                r#"<circle class="sample" cx="{x:.1}" cy="{y:.1}" r="1.6"/>"#
            );
        }
        for (class, name, samples) in &self.beside {
            let x = LEFT + median(samples.iter().copied()) * scale;
            let title = format!("{}, {name}: {} {unit}", self.label, range(samples));
            let _ = write!(
                svg,
                r#"<circle class="mark {class}" cx="{x:.1}" cy="{y:.1}" r="5"><title>{}</title></circle>"#,
                escape(&title)
            );
        }
        if let Some((must, aim)) = self.bounds {
            for (class, bound) in [("aim", aim), ("must", must)] {
                let x = LEFT + bound * scale;
                let _ = write!(
                    svg,
                    r#"<line class="{class}" x1="{x:.1}" x2="{x:.1}" y1="{:.1}" y2="{:.1}"><title>{class} {}</title></line>"#,
                    y - 10.0,
                    y + 10.0,
                    number(bound)
                );
            }
        }
        text(
            svg,
            "value",
            "start",
            (WIDTH - RIGHT + 12.0, y + 4.0),
            &number(middle),
        );
    }
}

/// The median, and what it scatters between.
fn range(samples: &[f64]) -> String {
    let low = samples.iter().copied().fold(f64::INFINITY, f64::min);
    let high = samples.iter().copied().fold(-f64::INFINITY, f64::max);
    let middle = number(median(samples.iter().copied()));
    match samples.len() {
        0 | 1 => middle,
        count => format!("{middle} ({} to {} in {count})", number(low), number(high)),
    }
}

/// How values become heights.
struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Scale {
    fn of(values: &[f64]) -> Self {
        let high = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        let low = values.iter().copied().fold(high, f64::min);
        let logarithmic = low > 0.0 && high / low > WIDE;
        if logarithmic {
            let low = 10f64.powf(low.log10().floor());
            let high = 10f64.powf(high.log10().ceil());
            return Self {
                low,
                high,
                logarithmic,
            };
        }
        Self {
            low: 0.0,
            high: high * 1.06,
            logarithmic,
        }
    }

    fn y(&self, value: f64) -> f64 {
        let share = if self.logarithmic {
            (value / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        8.0 + HEIGHT * (1.0 - share)
    }

    fn ticks(&self) -> Vec<f64> {
        let mut ticks = vec![self.low];
        while let Some(last) = ticks.last().copied()
            && ticks.len() < 20
        {
            let next = if self.logarithmic {
                last * 10.0
            } else {
                last + step(self.high)
            };
            if next > self.high * 1.001 {
                break;
            }
            ticks.push(next);
        }
        ticks
    }
}

/// An experiment's plot: lines where the axis has an order, else bars.
pub(super) fn experiment(experiment: &Experiment) -> String {
    let places = experiment.places();
    let first = places.first().copied().unwrap_or_default();
    if places.len() < 3 || first.parse::<f64>().is_err() {
        return bars(experiment).svg();
    }
    let values: Vec<f64> = experiment
        .lines
        .iter()
        .flat_map(|line| line.points.iter().flat_map(|point| point.samples.clone()))
        .collect();
    let scale = Scale::of(&values);
    let left = 64.0;
    let right = WIDTH - 132.0;
    let x = |at: usize| left + (right - left) * (at as f64 + 0.5) / places.len().max(1) as f64;
    let bottom = 8.0 + HEIGHT;
    let mut svg = begin(bottom + 44.0);
    for tick in scale.ticks() {
        let y = scale.y(tick);
        grid(&mut svg, (left, y), (right, y));
        text(
            &mut svg,
            "tick",
            "end",
            (left - 8.0, y + 4.0),
            &number(tick),
        );
    }
    for (at, place) in places.iter().enumerate() {
        text(&mut svg, "tick", "middle", (x(at), bottom + 18.0), place);
    }
    let middle = f64::midpoint(left, right);
    text(
        &mut svg,
        "tick",
        "middle",
        (middle, bottom + 38.0),
        &experiment.axis,
    );
    for (at, line) in experiment.lines.iter().enumerate() {
        draw_line(&mut svg, (line, at), &places, &scale, &experiment.unit, &x);
    }
    name_lines(&mut svg, experiment, &places, &scale, right + 8.0);
    svg + "</svg>"
}

/// A row for each point, line after line.
fn bars(experiment: &Experiment) -> Bars {
    let mut rows = Vec::new();
    for (at, line) in experiment.lines.iter().enumerate() {
        if at > 0 {
            rows.push(Row::default());
        }
        rows.extend(line.points.iter().map(|point| Row {
            label: match experiment.lines.len() {
                1 => point.at.clone(),
                _ => format!("{}, {}", line.name, point.at),
            },
            class: series(at),
            samples: point.samples.clone(),
            ..Row::default()
        }));
    }
    Bars {
        unit: experiment
            .unit
            .split(' ')
            .next()
            .unwrap_or_default()
            .to_owned(),
        rows,
    }
}

fn draw_line(
    svg: &mut String,
    (line, number_of): (&Line, usize),
    places: &[&str],
    scale: &Scale,
    unit: &str,
    x: &dyn Fn(usize) -> f64,
) {
    let class = series(number_of);
    let points = places.iter().enumerate();
    let points: Vec<_> = points
        .filter_map(|(at, place)| Some((x(at), line.at(place)?)))
        .collect();
    let path: Vec<String> = points
        .iter()
        .map(|(x, point)| format!("{x:.1},{:.1}", scale.y(point.median())))
        .collect();
    let _ = write!(
        svg,
        r#"<polyline class="line {class}" points="{}"/>"#,
        path.join(" ")
    );
    for (x, point) in points {
        let low = point.samples.iter().copied().fold(f64::INFINITY, f64::min);
        let high = point.samples.iter().copied().fold(-f64::INFINITY, f64::max);
        let title = format!(
            "{}, {}: {} {unit}",
            line.name,
            point.at,
            range(&point.samples)
        );
        let _ = write!(
            svg,
            r#"<line class="whisker {class}" x1="{x:.1}" x2="{x:.1}" y1="{:.1}" y2="{:.1}"/><circle class="point {class}" cx="{x:.1}" cy="{:.1}" r="4"><title>{}</title></circle>"#,
            scale.y(low),
            scale.y(high),
            scale.y(point.median()),
            escape(&title)
        );
    }
}

/// Names the lines where they end, none over another.
fn name_lines(svg: &mut String, experiment: &Experiment, places: &[&str], scale: &Scale, x: f64) {
    let last = |line: &Line| {
        let point = places.iter().rev().find_map(|place| line.at(place));
        point.map_or(0.0, |point| scale.y(point.median()))
    };
    let lines = experiment.lines.iter().enumerate();
    let mut names: Vec<(f64, usize, &str)> = lines
        .map(|(at, line)| (last(line), at, line.name.as_str()))
        .collect();
    names.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = 0.0f64;
    for (y, at, name) in names {
        let y = y.max(free).min(8.0 + HEIGHT + 30.0);
        free = y + 15.0;
        let _ = write!(
            svg,
            r#"<circle class="point {}" cx="{:.1}" cy="{y:.1}" r="4"/>"#,
            series(at),
            x + 4.0
        );
        text(svg, "label", "start", (x + 13.0, y + 4.0), name);
    }
}

/// The colour of the lines in their order; the same one for the eighth and all after it.
pub(super) fn series(at: usize) -> String {
    format!("s{}", (at + 1).min(8))
}

/// Which way is better, in words.
pub(super) fn better(better: Better) -> &'static str {
    match better {
        Better::Higher => "more is better",
        Better::Lower => "less is better",
    }
}

fn begin(height: f64) -> String {
    format!(r#"<svg viewBox="0 0 {WIDTH} {height:.0}" role="img">"#)
}

fn grid(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    let _ = write!(
        svg,
        r#"<line class="grid" x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}"/>"#,
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, class: &str, anchor: &str, at: (f64, f64), text: &str) {
    let _ = write!(
        svg,
        r#"<text class="{class}" text-anchor="{anchor}" x="{:.1}" y="{:.1}">{}</text>"#,
        at.0,
        at.1,
        escape(text)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_count() {
        let numbers = [0.0, 0.382, 4.996, 29.61, 441.4, 1000.0, 1_234_567.0].map(number);
        assert_eq!(
            numbers,
            [
                "0",
                "0.382",
                "5.00",
                "29.6",
                "441",
                "1000",
                "1\u{202f}234\u{202f}567"
            ]
        );
    }

    #[test]
    fn there_are_a_few_grid_lines_whatever_the_size() {
        for most in [0.003, 0.6, 1.0, 9.9, 37.0, 100.0, 64_000.0] {
            let lines = (most / step(most)).floor();
            assert!((2.0..=7.0).contains(&lines), "{lines} for {most}");
        }
    }

    #[test]
    fn what_is_shown_cannot_be_mistaken_for_markup() {
        let row = Row {
            label: "a<b>&".to_owned(),
            samples: vec![1.0],
            ..Row::default()
        };
        let svg = Bars {
            unit: "ns".to_owned(),
            rows: vec![row],
        }
        .svg();
        assert!(svg.contains("a&lt;b&gt;&amp;") && !svg.contains("a<b>"));
    }
}
