//! Telling NICs in process what the appliance's plan for them says.

use std::sync::Arc;

use anyhow::Context;
use sluice_dataplane::command::{PortId, WorkerId};
use sluice_dataplane::io::rss_nic::{Ends, KEY_LEN, Model, Rss, RssNic};
use sluice_dataplane::steer::{
    HashTypes, PortNeeds, RssCapabilities, RssPlan, Spread, Steering, plan,
};

use super::fleet::Plan;

/// Programs the NICs of a fleet and says how packets come to its workers.
pub(super) fn program(nics: &mut [RssNic], fleet: &Plan) -> anyhow::Result<Steering> {
    let workers = u16::try_from(fleet.workers).context("too many workers")?;
    let needs = (0..).zip(&*nics).map(|(port, nic)| PortNeeds {
        side: fleet.cabling.side(PortId(port)),
        queues: None,
        can: capabilities(nic.model(), workers),
    });
    let plans = plan(&needs.collect::<Vec<_>>(), workers);
    let mut spreads = Vec::new();
    for (nic, plan) in nics.iter_mut().zip(plans) {
        spreads.push(match plan.rss {
            Some(rss) => {
                let rss = if fleet.skewed { skewed(&rss)? } else { rss };
                nic.program(told(&rss)?)?;
                Spread::Rss(rss)
            }
            None if plan.queues > 1 => Spread::Unknown,
            None => Spread::One(WorkerId(0)),
        });
    }
    Ok(Steering::new(workers, spreads))
}

/// The same plan, with half of each worker's entries the first one's.
fn skewed(plan: &RssPlan) -> anyhow::Result<RssPlan> {
    let mut table = plan.table().to_vec();
    let workers = plan.workers().len();
    for (entry, queue) in table.iter_mut().enumerate() {
        if (entry / workers).is_multiple_of(2) {
            *queue = 0;
        }
    }
    let toeplitz = Arc::clone(plan.toeplitz());
    Ok(RssPlan::new(
        toeplitz,
        plan.types(),
        table,
        plan.workers().to_vec(),
    )?)
}

/// What a driver would say of such a NIC.
fn capabilities(model: Model, workers: u16) -> RssCapabilities {
    let one_end = HashTypes::SOURCE | HashTypes::DESTINATION;
    match model {
        Model::None => RssCapabilities::default(),
        Model::Foreign => RssCapabilities {
            queues: workers,
            ..RssCapabilities::default()
        },
        Model::Full | Model::Common | Model::VirtualFunction => RssCapabilities {
            queues: workers,
            table: model.entries() as u16,
            hash_types: if model.hashes_one_end() {
                HashTypes::EVERY_KIND | one_end
            } else {
                HashTypes::EVERY_KIND
            },
            key_len: KEY_LEN as u8,
        },
    }
}

/// A plan in a NIC's terms.
fn told(plan: &RssPlan) -> anyhow::Result<Rss> {
    let key = plan.toeplitz().key().bytes();
    let ends = if plan.types().contains(HashTypes::SOURCE) {
        Ends::Source
    } else if plan.types().contains(HashTypes::DESTINATION) {
        Ends::Destination
    } else {
        Ends::Both
    };
    Ok(Rss {
        key: key.try_into().context("a key of another length")?,
        ends,
        table: plan.table().to_vec(),
    })
}
