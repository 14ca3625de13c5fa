//! Random choices: which real server got how many, recorded and here.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::compare::RandomServices;
use crate::decode::fields;
use crate::trace::{Emitted, Header, Packet, Side};

/// How far apart two honest samples may be: the normal quantile of one in ten thousand.
const QUANTILE: f64 = 3.72;

/// How often each next hop was chosen: in the recording, and here.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    chosen: BTreeMap<[u8; 6], [u64; 2]>,
}

impl Choices {
    /// Counts one packet's.
    pub fn count(&mut self, recorded: &[Emitted], ours: &[Emitted]) {
        for (which, emitted) in [recorded, ours].into_iter().enumerate() {
            let to_server = emitted.iter().filter(|packet| packet.side == Side::Server);
            for packet in to_server {
                self.chosen.entry(packet.dmac).or_default()[which] += 1;
            }
        }
    }

    /// Whether both are samples of one distribution (chi-squared test of homogeneity).
    pub fn compare(&self) -> Result<(), String> {
        let totals = [0, 1].map(|which| {
            self.chosen
                .values()
                .map(|counts| counts[which])
                .sum::<u64>()
        });
        let all = (totals[0] + totals[1]) as f64;
        let mut distance = 0.0;
        for counts in self.chosen.values() {
            let chosen = (counts[0] + counts[1]) as f64;
            for (count, total) in counts.iter().zip(totals) {
                let expected = chosen * total as f64 / all;
                if expected > 0.0 {
                    distance += (*count as f64 - expected).powi(2) / expected;
                }
            }
        }
        let freedom = self.chosen.len().saturating_sub(1);
        if distance <= critical(freedom) {
            return Ok(());
        }
        let counts = self.chosen.iter().map(|(mac, [recorded, ours])| {
            let mac = crate::decode::mac(*mac);
            format!("{mac}  recorded {recorded}, sluice {ours}\n")
        });
        Err(format!(
            "the choices are not of one distribution\n{}",
            counts.collect::<String>()
        ))
    }
}

/// What chi-squared exceeds once in ten thousand times (Wilson and Hilferty's approximation).
fn critical(freedom: usize) -> f64 {
    if freedom == 0 {
        return 0.0;
    }
    let k = freedom as f64;
    let spread = 2.0 / (9.0 * k);
    k * (1.0 - spread + QUANTILE * spread.sqrt()).powi(3)
}

/// Whether a packet's server was chosen at random.
pub fn is_random(packet: &Packet, header: &Header, services: &RandomServices) -> bool {
    if services.is_empty() || packet.side != Side::Client {
        return false;
    }
    let fields = fields(&packet.l3);
    let value = |name: &str| {
        fields
            .iter()
            .find(|field| field.name == name)
            .map(|field| field.value.as_str())
    };
    let Some(dst) = value("ip.dst").and_then(|dst| dst.parse::<IpAddr>().ok()) else {
        return false;
    };
    let marks = header
        .fwmark
        .iter()
        .filter(|prefix| prefix.dst.contains(&dst));
    let marked = marks
        .map(|prefix| prefix.mark.to_string())
        .any(|mark| services.contains(&mark));
    let port = ["tcp.dport", "udp.dport", "sctp.dport"]
        .into_iter()
        .find_map(value);
    let host = match dst {
        IpAddr::V4(dst) => dst.to_string(),
        IpAddr::V6(dst) => format!("[{dst}]"),
    };
    marked || port.is_some_and(|port| services.contains(&format!("{host}:{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(counts: &[[u64; 2]]) -> Choices {
        let macs = (0..).map(|n| [2, 1, 0, 0, 0, n]);
        Choices {
            chosen: macs.zip(counts.iter().copied()).collect(),
        }
    }

    #[test]
    fn samples_of_one_distribution_agree() {
        sample(&[[167, 155], [95, 112], [38, 33]])
            .compare()
            .unwrap();
        sample(&[[300, 300]]).compare().unwrap();
        sample(&[]).compare().unwrap();
    }

    #[test]
    fn another_distribution_is_found_and_shown() {
        let said = sample(&[[167, 100], [95, 100], [38, 100]])
            .compare()
            .unwrap_err();
        assert!(said.contains("recorded 38, sluice 100"), "{said}");
        assert!(sample(&[[60, 60], [0, 60], [240, 180]]).compare().is_err());
    }

    #[test]
    fn the_bound_is_near_that_of_the_tables() {
        // Chi-squared at one in ten thousand. The approximation is wide at one degree of freedom.
        for (freedom, table) in [(1, 15.14), (2, 18.42), (4, 23.51), (9, 33.72)] {
            let bound = critical(freedom);
            assert!((0.0..1.2).contains(&(bound - table)), "{freedom}: {bound}");
        }
    }
}
