//! Receive-side scaling of a device: what it can do, telling it what to do, and reading back what it does.

use std::mem;

use dpdk_sys as sys;

use super::PortError;
use super::device::Device;
use crate::steer::check::Told;
use crate::steer::toeplitz::KEY_LEN;
use crate::steer::{HashTypes, RssCapabilities, RssPlan};

/// Our types and DPDK's.
const TYPES: [(HashTypes, u64); 16] = [
    (HashTypes::IPV4, sys::SLUICE_RSS_IPV4),
    (HashTypes::IPV4_FRAGMENT, sys::SLUICE_RSS_FRAG_IPV4),
    (HashTypes::IPV4_TCP, sys::SLUICE_RSS_NONFRAG_IPV4_TCP),
    (HashTypes::IPV4_UDP, sys::SLUICE_RSS_NONFRAG_IPV4_UDP),
    (HashTypes::IPV4_SCTP, sys::SLUICE_RSS_NONFRAG_IPV4_SCTP),
    (HashTypes::IPV4_OTHER, sys::SLUICE_RSS_NONFRAG_IPV4_OTHER),
    (HashTypes::IPV6, sys::SLUICE_RSS_IPV6),
    (HashTypes::IPV6_FRAGMENT, sys::SLUICE_RSS_FRAG_IPV6),
    (HashTypes::IPV6_TCP, sys::SLUICE_RSS_NONFRAG_IPV6_TCP),
    (HashTypes::IPV6_UDP, sys::SLUICE_RSS_NONFRAG_IPV6_UDP),
    (HashTypes::IPV6_SCTP, sys::SLUICE_RSS_NONFRAG_IPV6_SCTP),
    (HashTypes::IPV6_OTHER, sys::SLUICE_RSS_NONFRAG_IPV6_OTHER),
    (HashTypes::L3_SRC_ONLY, sys::SLUICE_RSS_L3_SRC_ONLY),
    (HashTypes::L3_DST_ONLY, sys::SLUICE_RSS_L3_DST_ONLY),
    (HashTypes::L4_SRC_ONLY, sys::SLUICE_RSS_L4_SRC_ONLY),
    (HashTypes::L4_DST_ONLY, sys::SLUICE_RSS_L4_DST_ONLY),
];

/// `RTE_ETH_RSS_*` bits.
fn to_bits(types: HashTypes) -> u64 {
    let held = TYPES.iter().filter(|(one, _)| types.contains(*one));
    held.fold(0, |bits, (_, bit)| bits | bit)
}

/// Of `RTE_ETH_RSS_*` bits those that sluice has a use for.
fn from_bits(bits: u64) -> HashTypes {
    let set = TYPES.iter().filter(|(_, bit)| bits & bit != 0);
    set.fold(HashTypes::NONE, |types, (one, _)| types | *one)
}

/// The device's part in a configuration. It points to `key`.
pub(super) fn conf(key: &mut [u8], types: HashTypes) -> sys::rte_eth_rss_conf {
    // SAFETY: all zeroes is a value of this structure.
    let mut conf: sys::rte_eth_rss_conf = unsafe { mem::zeroed() };
    conf.rss_key = key.as_mut_ptr();
    conf.rss_key_len = u8::try_from(key.len()).unwrap_or(u8::MAX);
    conf.rss_hf = to_bits(types);
    conf
}

pub(super) fn capabilities(info: &sys::rte_eth_dev_info) -> RssCapabilities {
    RssCapabilities {
        queues: info.max_rx_queues,
        table: info.reta_size,
        hash_types: from_bits(info.flow_type_rss_offloads),
        key_len: info.hash_key_size,
    }
}

impl Device {
    /// Tells a started device what it was not told, or forgot, when it was configured, and reads back what it does: what it did
    /// not take shows there.
    pub(super) fn program(&self, plan: &RssPlan) -> Result<Told, PortError> {
        let size = self.info()?.reta_size;
        let mut told = self.told(size);
        let key = plan.toeplitz().key().bytes();
        if told.key.as_deref().is_some_and(|found| found != key) {
            self.set_key(key, plan.types());
            told = self.told(size);
        }
        // Some devices have a table of another size once they are configured.
        let table: Vec<u16> = plan
            .table()
            .iter()
            .copied()
            .cycle()
            .take(size.into())
            .collect();
        if size >= plan.table().len() as u16 && told.table.as_ref() != Some(&table) {
            let set = self.set_table(&table);
            told = self.told(size);
            if let (Err(error), None) = (set, &told.table) {
                told.refused = Some(error.reason());
            }
        }
        Ok(told)
    }

    /// Gives the device another table while it runs.
    pub(super) fn set_table(&self, queues: &[u16]) -> Result<(), PortError> {
        let mut table = groups(queues.len());
        for (entries, queues) in table
            .iter_mut()
            .zip(queues.chunks(sys::SLUICE_RETA_GROUP_SIZE as usize))
        {
            entries.mask = u64::MAX >> (64 - queues.len());
            entries.reta[..queues.len()].copy_from_slice(queues);
        }
        // SAFETY: reads as many groups as so many entries take, which is how many there are.
        self.check("given a redirection table", unsafe {
            sys::rte_eth_dev_rss_reta_update(self.id(), table.as_mut_ptr(), queues.len() as u16)
        })
    }

    /// Some devices take a key only while they run.
    fn set_key(&self, key: &[u8], types: HashTypes) {
        let mut key = key.to_vec();
        let mut conf = conf(&mut key, types);
        // SAFETY: the configuration and its key live longer than the call, which copies them.
        let error = unsafe { sys::rte_eth_dev_rss_hash_update(self.id(), &mut conf) };
        if let Err(error) = self.check("given an RSS key", error) {
            tracing::debug!("{error}");
        }
    }

    /// What the device says that it does, with a table of `size` entries.
    pub(super) fn told(&self, size: u16) -> Told {
        let (key, hash_types) = self.told_hash().unzip();
        Told {
            refused: None,
            key,
            hash_types,
            table: self.told_table(size),
        }
    }

    fn told_hash(&self) -> Option<(Vec<u8>, HashTypes)> {
        let len = match self.info().ok()?.hash_key_size {
            0 => KEY_LEN,
            len => usize::from(len),
        };
        let mut key = vec![0; len];
        let mut conf = conf(&mut key, HashTypes::NONE);
        // SAFETY: writes a key of the device's length, which is how much room there is.
        let error = unsafe { sys::rte_eth_dev_rss_hash_conf_get(self.id(), &mut conf) };
        (error == 0).then_some((key, from_bits(conf.rss_hf)))
    }

    pub(super) fn told_table(&self, size: u16) -> Option<Vec<u16>> {
        let mut table = groups(usize::from(size));
        for entries in &mut table {
            entries.mask = u64::MAX;
        }
        // SAFETY: fills as many groups as `size` entries take, which is how many there are.
        let error = unsafe { sys::rte_eth_dev_rss_reta_query(self.id(), table.as_mut_ptr(), size) };
        let queues = table.iter().flat_map(|entries| entries.reta);
        (error == 0).then(|| queues.take(usize::from(size)).collect())
    }
}

fn groups(entries: usize) -> Vec<sys::rte_eth_rss_reta_entry64> {
    let groups = entries.div_ceil(sys::SLUICE_RETA_GROUP_SIZE as usize);
    // SAFETY: all zeroes is a value of this structure of numbers.
    vec![unsafe { mem::zeroed() }; groups]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_bit() {
        let all = HashTypes::each().fold(HashTypes::NONE, |all, one| all | one);
        assert_eq!(to_bits(all).count_ones() as usize, TYPES.len());
        for one in HashTypes::each() {
            assert_eq!(from_bits(to_bits(one)), one);
        }
        assert_eq!(from_bits(!to_bits(all)), HashTypes::NONE);
    }
}
