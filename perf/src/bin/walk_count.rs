//! Walks so many packets in one method: what callgrind counts. `walk_count METHOD FLOWS PACKETS`.

use anyhow::{Context, bail};
use sluice_control::api::Method;
use sluice_perf::scenario::Scenario;
use sluice_perf::traffic::Traffic;
use sluice_perf::walk::Walk;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [method, flows, packets] = arguments.as_slice() else {
        bail!("walk_count METHOD FLOWS PACKETS");
    };
    let method: Method = serde_json::from_value(method.as_str().into()).context("METHOD")?;
    let flows = flows.parse().context("FLOWS")?;
    let scenario = Scenario { method, flows };
    let mut walk = Walk::new(&scenario)?;
    let traffic = Traffic::new(&scenario, &mut walk)?;
    walk.load(&traffic.steady);
    walk.go_on(packets.parse().context("PACKETS")?);
    Ok(())
}
