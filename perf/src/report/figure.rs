//! The figures of a report, each with all its samples, under names that stay the same from run to run: what two reports are
//! compared by.

use super::Report;
use super::experiment::Better;
use crate::churn::Opened;
use crate::timing::{Window, median};

/// Something that was measured more than once.
#[derive(Clone, Debug)]
pub struct Figure {
    /// What.
    pub name: String,
    /// In what.
    pub unit: String,
    /// Which way is better.
    pub better: Better,
    /// A sample a round.
    pub samples: Vec<f64>,
}

/// How a figure differs between two reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The samples overlap, or lie no further apart than they scatter: no difference can be seen.
    Noise,
    /// All samples are better than all before, by more than they scatter.
    Better,
    /// All samples are worse than all before, by more than they scatter.
    Worse,
}

impl Figure {
    fn new(name: String, unit: &str, better: Better, samples: impl Iterator<Item = f64>) -> Self {
        Self {
            name,
            unit: unit.to_owned(),
            better,
            samples: samples.collect(),
        }
    }

    /// The middle sample.
    pub fn median(&self) -> f64 {
        median(self.samples.iter().copied())
    }

    /// The lowest and the highest sample.
    pub fn range(&self) -> (f64, f64) {
        let low = self.samples.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.samples.iter().copied().fold(-f64::INFINITY, f64::max);
        (low, high)
    }

    /// Whether this one, measured later, differs from `before`. Two runs scatter more than the rounds of one: so the gap
    /// between their samples must exceed the wider of the two ranges, and 1 % of the figure.
    pub fn against(&self, before: &Self) -> Change {
        let ((old_low, old_high), (low, high)) = (before.range(), self.range());
        let scatter = (old_high - old_low).max(high - low);
        let enough = scatter.max(before.median().abs() / 100.0);
        let (up, down) = (low - old_high > enough, old_low - high > enough);
        match (self.better, up, down) {
            (_, false, false) | (_, true, true) => Change::Noise,
            (Better::Higher, up, _) => better_if(up),
            (Better::Lower, _, down) => better_if(down),
        }
    }
}

fn better_if(better: bool) -> Change {
    if better {
        Change::Better
    } else {
        Change::Worse
    }
}

impl Report {
    /// All figures, in the order of the report.
    pub fn figures(&self) -> Vec<Figure> {
        let (more, less) = (Better::Higher, Better::Lower);
        let mut figures = Vec::new();
        for row in &self.rows {
            let ratios = row.ratios(&row.macswap);
            let name = format!("{}: ratio to macswap", row.scenario);
            figures.push(Figure::new(name, "", more, ratios.into_iter()));
            let ns = row.sluice.iter().map(Window::ns_per_packet);
            let name = format!("{}: a packet", row.scenario);
            figures.push(Figure::new(name, "ns", less, ns));
            let counts = row.instructions.into_iter();
            let name = format!("{}: instructions a packet", row.scenario);
            figures.push(Figure::new(name, "", less, counts));
        }
        for new in &self.new_connections {
            let rates = new.windows.iter().map(Opened::millions_per_s);
            let name = format!("new connections, {}", new.method);
            figures.push(Figure::new(name, "M/s", more, rates));
        }
        for single in &self.singles {
            let medians = single.windows.iter().map(|turns| turns.median_ns);
            let name = format!("burst of one packet, {}", single.scenario);
            figures.push(Figure::new(name, "ns", less, medians));
        }
        let bytes = self.connection_bytes.into_iter();
        let name = "memory of a connection".to_owned();
        figures.push(Figure::new(name, "bytes", less, bytes));
        for experiment in &self.experiments {
            for line in &experiment.lines {
                figures.extend(line.points.iter().map(|point| Figure {
                    name: format!("{}, {}, {}", experiment.title, line.name, point.at),
                    unit: experiment.unit.clone(),
                    better: experiment.better,
                    samples: point.samples.clone(),
                }));
            }
        }
        figures.retain(|figure| !figure.samples.is_empty());
        figures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(better: Better, samples: &[f64]) -> Figure {
        Figure::new(String::new(), "ns", better, samples.iter().copied())
    }

    #[test]
    fn only_a_gap_wider_than_the_scatter_is_a_change() {
        let before = figure(Better::Lower, &[100.0, 102.0, 101.0]);
        let change = |samples: &[f64]| figure(Better::Lower, samples).against(&before);
        assert_eq!(change(&[99.0, 101.5, 103.0]), Change::Noise, "they overlap");
        assert_eq!(change(&[103.0, 104.0, 103.5]), Change::Noise, "too near");
        assert_eq!(change(&[106.0, 107.0, 106.5]), Change::Worse);
        assert_eq!(change(&[90.0, 91.0, 92.0]), Change::Better);
        assert_eq!(change(&[60.0, 97.0, 92.0]), Change::Noise, "too wide");
    }

    #[test]
    fn more_is_better_where_more_is() {
        let before = figure(Better::Higher, &[3.0]);
        assert_eq!(
            figure(Better::Higher, &[4.0]).against(&before),
            Change::Better
        );
        assert_eq!(
            figure(Better::Higher, &[2.0]).against(&before),
            Change::Worse
        );
        let one_percent = figure(Better::Higher, &[3.02]);
        assert_eq!(one_percent.against(&before), Change::Noise);
    }
}
