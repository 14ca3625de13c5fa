//! One question of the suite and what was measured to answer it: lines over an axis.

use serde::{Deserialize, Serialize};

use crate::timing::median;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More is.
    Higher,
    /// Less is.
    Lower,
}

/// Measurements of one kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Experiment {
    /// What it is about, in a few words.
    pub title: String,
    /// How it was measured, in a sentence or two.
    pub how: String,
    /// What the axis counts.
    pub axis: String,
    /// What is measured.
    pub unit: String,
    /// Which way is better.
    pub better: Better,
    /// What is compared.
    pub lines: Vec<Line>,
}

/// Measurements that belong together.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Which.
    pub name: String,
    /// In the order of the axis.
    pub points: Vec<Point>,
}

/// One place on the axis.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Point {
    /// The place.
    pub at: String,
    /// A sample a round.
    pub samples: Vec<f64>,
}

impl Experiment {
    /// The places on the axis, in order.
    pub fn places(&self) -> Vec<&str> {
        let mut places: Vec<&str> = Vec::new();
        for point in self.lines.iter().flat_map(|line| &line.points) {
            if !places.contains(&point.at.as_str()) {
                places.push(&point.at);
            }
        }
        places
    }

    /// Adds a sample.
    pub fn push(&mut self, line: &str, at: &str, sample: f64) {
        let known = self.lines.iter().position(|known| known.name == line);
        let line = known.unwrap_or_else(|| {
            let name = line.to_owned();
            let points = Vec::new();
            self.lines.push(Line { name, points });
            self.lines.len() - 1
        });
        let points = &mut self.lines[line].points;
        match points.iter_mut().find(|point| point.at == at) {
            Some(point) => point.samples.push(sample),
            None => points.push(Point {
                at: at.to_owned(),
                samples: vec![sample],
            }),
        }
    }
}

impl Line {
    /// What was measured at a place.
    pub fn at(&self, place: &str) -> Option<&Point> {
        self.points.iter().find(|point| point.at == place)
    }
}

impl Point {
    /// The middle sample.
    pub fn median(&self) -> f64 {
        median(self.samples.iter().copied())
    }
}
