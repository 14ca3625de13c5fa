//! Throughput by size of packets and method.

use std::time::Duration;

use super::rig::{Boot, Rig, window};
use crate::frame;
use crate::report::experiment::{Better, Experiment};
use crate::scenario::{METHODS, Scenario, name};
use crate::traffic::Traffic;
use crate::walk::Walk;

const CONNECTIONS: u32 = 10_000;

/// Bytes of frames, without the frame check sequence.
const SIZES: [usize; 6] = [64, 128, 256, 512, 1024, 1514];

/// What fits any frame, in a tunnel too.
const MTU: u16 = 1600;

/// Runs it.
pub fn run(rig: &Rig<'_>, rounds: usize, cpu: Duration) -> anyhow::Result<Experiment> {
    let mut experiment = Experiment {
        title: "Throughput by size of packets".to_owned(),
        how: "10 k established connections, frames of one size each, without the frame check sequence; IMIX is 7 of 64 bytes, 4 of 590, 1 of 1514. net_pcap copies every frame it receives.".to_owned(),
        axis: "bytes of a frame".to_owned(),
        unit: "Mpps".to_owned(),
        better: Better::Higher,
        lines: Vec::new(),
    };
    let mixes = SIZES.map(|size| (size.to_string(), vec![size]));
    let imix = (
        "IMIX".to_owned(),
        [[64; 7].as_slice(), &[590; 4], &[1514]].concat(),
    );
    for method in METHODS {
        let scenario = Scenario::of_connections(method, CONNECTIONS);
        let mut walk = Walk::new(&scenario)?;
        let traffic = Traffic::new(&scenario, &mut walk)?;
        let mut boot = Boot::of(&scenario, &rig.place())?;
        boot.set_room(MTU, scenario.frames());
        for (size, mix) in mixes.iter().chain([&imix]) {
            eprintln!("{}, frames of {size}", name(method));
            let sizes = mix.iter().copied().cycle();
            let steady = traffic.steady.iter().zip(sizes);
            rig.write(
                traffic.opening_file(),
                steady.map(|(frame, size)| frame::grown(frame, size)),
            )?;
            for _ in 0..rounds {
                let mut daemon = rig.start(&boot, CONNECTIONS.into())?;
                let window = window(&mut daemon, cpu, &[])?;
                experiment.push(name(method), size, window.mpps());
                rig.stop(daemon)?;
            }
        }
    }
    Ok(experiment)
}
