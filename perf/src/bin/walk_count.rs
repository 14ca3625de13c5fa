//! Walks so many packets in one method: what callgrind counts. `walk_count METHOD FLOWS PACKETS`; the difference between two
//! counts of packets is the cost of the walk.

use sluice_dataplane::service::Method;
use sluice_perf::rig::Rig;

fn main() {
    let mut args = std::env::args().skip(1);
    let method = match args.next().as_deref() {
        Some("tun") => Method::Tun,
        Some("nat") => Method::Nat,
        Some("fullnat") => Method::FullNat,
        _ => Method::Dr,
    };
    let mut number = || args.next().and_then(|arg| arg.parse().ok()).unwrap_or(1000);
    let flows = number();
    let mut rig = Rig::new(method, flows);
    rig.run(number());
}
