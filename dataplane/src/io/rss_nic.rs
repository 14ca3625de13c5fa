//! A NIC without hardware that spreads what it receives over queues, as receive-side scaling does: what many workers are tested on.
//!
//! It hashes by the definition of the Toeplitz hash, a bit at a time, and shares no code with what predicts it: a mistake there
//! shows as a packet at the wrong worker. A [`RssNic`] is the wire's side of an interface, and each [`NicQueue`] is the
//! [`Port`] of one worker; rings lie between, so the two sides may be of different threads.

use arrayvec::ArrayVec;
use rtrb::{Consumer, Producer, RingBuffer};

use super::memory::MemoryFrame;
use super::{Burst, Port};

/// Bytes of a key: enough for two IPv6 addresses and two ports.
pub const KEY_LEN: usize = 40;

/// What a kind of NIC can do. Sizes of redirection tables are those of i40e, ixgbe and their virtual functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Model {
    /// It can hash sources alone or destinations alone, too.
    Full,
    /// It hashes sources and destinations together.
    Common,
    /// As [`Model::Common`], with a small table.
    VirtualFunction,
    /// It hashes nothing: every packet comes in by the first queue, as by a memif whose peer sends by one.
    None,
    /// Others choose the queue, by the packet's ends but in a way that nobody told us: a tap's kernel side, a memif's peer.
    Foreign,
}

impl Model {
    /// All.
    pub const ALL: [Self; 5] = [
        Self::Full,
        Self::Common,
        Self::VirtualFunction,
        Self::None,
        Self::Foreign,
    ];

    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Common => "common",
            Self::VirtualFunction => "vf",
            Self::None => "none",
            Self::Foreign => "foreign",
        }
    }

    /// Entries of the redirection table; 0 where packets are not hashed.
    pub fn entries(self) -> usize {
        match self {
            Self::Full => 512,
            Self::Common => 128,
            Self::VirtualFunction => 64,
            Self::None | Self::Foreign => 0,
        }
    }

    /// Whether it can hash one end of a packet alone.
    pub fn hashes_one_end(self) -> bool {
        self == Self::Full
    }
}

/// Which ends of a packet are hashed: address and port, or the address alone where there are no ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Source, then destination.
    Both,
    /// The source alone.
    Source,
    /// The destination alone.
    Destination,
}

/// What a NIC is told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rss {
    /// The key of the Toeplitz hash.
    pub key: [u8; KEY_LEN],
    /// What is hashed.
    pub ends: Ends,
    /// The redirection table: a queue for each remainder of the hash.
    pub table: Vec<u16>,
}

/// The NIC is not such a one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOffered {
    /// Its table has another size.
    #[error(
        "a table of {given} entries for a NIC of {entries}: fill the table that the NIC has, or none where it has none"
    )]
    Table {
        /// What was given.
        given: usize,
        /// What it has.
        entries: usize,
    },
    /// It has no such queue.
    #[error("queue {given} for a NIC of {queues}: name queues from 0")]
    Queue {
        /// What was given.
        given: u16,
        /// How many there are.
        queues: usize,
    },
    /// It hashes both ends only.
    #[error("this NIC cannot hash one end alone: hash both")]
    OneEnd,
}

/// The wire's side.
#[derive(Debug)]
pub struct RssNic {
    model: Model,
    rss: Option<Rss>,
    queues: Vec<WireEnd>,
    missed: u64,
}

#[derive(Debug)]
struct WireEnd {
    incoming: Producer<MemoryFrame>,
    outgoing: Consumer<MemoryFrame>,
}

/// A worker's side: one receive and one transmit queue.
#[derive(Debug)]
pub struct NicQueue {
    incoming: Consumer<MemoryFrame>,
    outgoing: Producer<MemoryFrame>,
}

impl RssNic {
    /// A NIC and its queues, each of so many frames. Until it is programmed everything comes in by queue 0.
    pub fn new(model: Model, queues: usize, frames: usize) -> (Self, Vec<NicQueue>) {
        let pair = |_| {
            let (incoming, from_wire) = RingBuffer::new(frames);
            let (to_wire, outgoing) = RingBuffer::new(frames);
            let wire = WireEnd { incoming, outgoing };
            let queue = NicQueue {
                incoming: from_wire,
                outgoing: to_wire,
            };
            (wire, queue)
        };
        let (ends, ports) = (0..queues).map(pair).unzip();
        let nic = Self {
            model,
            rss: None,
            queues: ends,
            missed: 0,
        };
        (nic, ports)
    }

    /// What kind it is.
    pub fn model(&self) -> Model {
        self.model
    }

    /// From now on packets are spread so. `Err` leaves everything as it was.
    pub fn program(&mut self, rss: Rss) -> Result<(), NotOffered> {
        let (given, entries) = (rss.table.len(), self.model.entries());
        if given != entries || entries == 0 {
            return Err(NotOffered::Table { given, entries });
        }
        if rss.ends != Ends::Both && !self.model.hashes_one_end() {
            return Err(NotOffered::OneEnd);
        }
        let queues = self.queues.len();
        if let Some(given) = rss
            .table
            .iter()
            .find(|queue| usize::from(**queue) >= queues)
        {
            return Err(NotOffered::Queue {
                given: *given,
                queues,
            });
        }
        self.rss = Some(rss);
        Ok(())
    }

    /// What it was told to do.
    pub fn rss(&self) -> Option<&Rss> {
        self.rss.as_ref()
    }

    /// The hash that it computes of a frame, as it stands in a receive descriptor; `None` for what it does not hash.
    pub fn hash(&self, frame: &[u8]) -> Option<u32> {
        let rss = self.rss.as_ref()?;
        Some(toeplitz(&rss.key, &hashed(frame, rss.ends)?))
    }

    /// Takes a frame off the wire and returns the queue that it went to; `None` when that was full, and the frame is lost.
    pub fn receive(&mut self, frame: &[u8]) -> Option<usize> {
        let queue = self.queue_of(frame);
        let kept = self.queues[queue].incoming.push(MemoryFrame::new(frame));
        self.missed += u64::from(kept.is_err());
        kept.is_ok().then_some(queue)
    }

    fn queue_of(&mut self, frame: &[u8]) -> usize {
        if self.model == Model::Foreign {
            return foreign(frame) as usize % self.queues.len();
        }
        match (&self.rss, self.hash(frame)) {
            (Some(rss), Some(hash)) => usize::from(rss.table[hash as usize % rss.table.len()]),
            _ => 0,
        }
    }

    /// The next frame that a worker has sent, and by which queue; the lowest queue's first.
    pub fn sent(&mut self) -> Option<(usize, MemoryFrame)> {
        let mut queues = self.queues.iter_mut().enumerate();
        queues.find_map(|(at, queue)| Some((at, queue.outgoing.pop().ok()?)))
    }

    /// Frames lost because their queue was full.
    pub fn missed(&self) -> u64 {
        self.missed
    }
}

impl Port for NicQueue {
    type Frame = MemoryFrame;

    fn rx(&mut self, burst: &mut Burst<MemoryFrame>) -> usize {
        let count = burst.remaining_capacity().min(self.incoming.slots());
        for _ in 0..count {
            match self.incoming.pop() {
                Ok(frame) => burst.push(frame),
                Err(_) => unreachable!("nobody else takes what is there"),
            }
        }
        count
    }

    fn tx(&mut self, burst: &mut Burst<MemoryFrame>) -> usize {
        let count = burst.len().min(self.outgoing.slots());
        for frame in burst.drain(..count) {
            if self.outgoing.push(frame).is_err() {
                unreachable!("nobody else takes the room there is");
            }
        }
        count
    }

    fn alloc(&mut self) -> Option<MemoryFrame> {
        Some(MemoryFrame::new(&[]))
    }
}

/// What is hashed of a frame; `None` of what is not IP. A VLAN tag is passed over.
fn hashed(frame: &[u8], ends: Ends) -> Option<ArrayVec<u8, 36>> {
    const TAGGED: [&[u8]; 2] = [&[0x81, 0], &[0x88, 0xa8]];
    let mut at = 12;
    if TAGGED.contains(&frame.get(at..at + 2)?) {
        at += 4;
    }
    let ethertype = frame.get(at..at + 2)?;
    let ip = &frame[at + 2..];
    let (addresses, len, ports) = match ethertype {
        [0x08, 0x00] => {
            let l4 = usize::from(*ip.first()? & 15) * 4;
            // More fragments, or an offset.
            let fragment = ip.get(6)? & 0x3f != 0 || *ip.get(7)? != 0;
            (ip.get(12..20)?, 4, (!fragment).then_some((*ip.get(9)?, l4)))
        }
        [0x86, 0xdd] => (ip.get(8..40)?, 16, Some((*ip.get(6)?, 40))),
        _ => return None,
    };
    let (src, dst) = addresses.split_at(len);
    let ports = match ports {
        Some((/* TCP, UDP, SCTP */ 6 | 17 | 132, l4)) => ip.get(l4..l4 + 4),
        _ => None,
    };
    let (src_port, dst_port) = ports.unwrap_or(&[]).split_at(ports.map_or(0, |_| 2));
    let parts: [&[u8]; 4] = match ends {
        Ends::Both => [src, dst, src_port, dst_port],
        Ends::Source => [src, &[], src_port, &[]],
        Ends::Destination => [&[], dst, &[], dst_port],
    };
    Some(parts.into_iter().flatten().copied().collect())
}

/// A hash of both ends that is no Toeplitz hash (Fowler, Noll and Vo, FNV-1a); 0 of what is not IP.
fn foreign(frame: &[u8]) -> u32 {
    let fold = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    hashed(frame, Ends::Both).map_or(0, |input| input.iter().fold(0x811c_9dc5, fold) >> 8)
}

/// The Toeplitz hash by its definition: for every bit that is set, the 32 bits of the key from that place on.
fn toeplitz(key: &[u8; KEY_LEN], input: &[u8]) -> u32 {
    let mut hash = 0;
    for (at, byte) in input.iter().enumerate() {
        for bit in 0..8 {
            if byte & (0x80 >> bit) != 0 {
                let five = key[at..at + 5].iter();
                let window = five.fold(0u64, |window, byte| window << 8 | u64::from(*byte));
                hash ^= (window >> (8 - bit)) as u32;
            }
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    /// Microsoft's, of "Verifying the RSS Hash Calculation".
    const KEY: [u8; KEY_LEN] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f,
        0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
        0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    fn programmed(ends: Ends) -> RssNic {
        let (mut nic, _) = RssNic::new(Model::Full, 3, 8);
        let table = (0..512).map(|entry| entry % 3).collect();
        nic.program(Rss {
            key: KEY,
            ends,
            table,
        })
        .unwrap();
        nic
    }

    fn bytes(builder: etherparse::PacketBuilderStep<etherparse::UdpHeader>) -> Vec<u8> {
        let mut frame = Vec::new();
        builder.write(&mut frame, b"1234").unwrap();
        frame
    }

    /// The first IPv4 vector, as UDP: its ports count as TCP's do.
    fn vector() -> Vec<u8> {
        of_port(2794)
    }

    fn of_port(port: u16) -> Vec<u8> {
        let step = PacketBuilder::ethernet2([1; 6], [2; 6]);
        let step = step.ipv4([66, 9, 149, 187], [161, 142, 100, 80], 64);
        bytes(step.udp(port, 1766))
    }

    #[test]
    fn hashes_are_those_that_microsoft_published() {
        let nic = programmed(Ends::Both);
        assert_eq!(nic.hash(&vector()), Some(0x51cc_c178));
        let src = "3ffe:2501:200:1fff::7".parse::<std::net::Ipv6Addr>();
        let dst = "3ffe:2501:200:3::1".parse::<std::net::Ipv6Addr>();
        let step = PacketBuilder::ethernet2([1; 6], [2; 6]);
        let step = step.ipv6(src.unwrap().octets(), dst.unwrap().octets(), 64);
        assert_eq!(nic.hash(&bytes(step.udp(2794, 1766))), Some(0x4020_7d3d));
    }

    #[test]
    fn what_has_no_ports_to_show_is_hashed_by_its_addresses() {
        let nic = programmed(Ends::Both);
        let of_addresses = Some(0x323e_8fc2);
        let (mut first, mut later, mut icmp) = (vector(), vector(), vector());
        first[20] |= 0x20;
        later[21] = 1;
        icmp[23] = 1;
        for frame in [first, later, icmp] {
            assert_eq!(nic.hash(&frame), of_addresses);
        }
        let mut unfragmentable = vector();
        unfragmentable[20] |= 0x40;
        assert_eq!(nic.hash(&unfragmentable), Some(0x51cc_c178));
    }

    #[test]
    fn a_tag_is_passed_over_and_what_is_not_ip_comes_in_by_the_first_queue() {
        let mut nic = programmed(Ends::Both);
        let mut tagged = vector();
        tagged.splice(12..12, [0x81, 0, 0, 5]);
        assert_eq!(nic.hash(&tagged), Some(0x51cc_c178));
        for short in 0..vector().len() {
            let _ = nic.hash(&vector()[..short]);
        }
        let arp = [[0xff; 12].as_slice(), &[8, 6], &[0; 28]].concat();
        assert_eq!(nic.hash(&arp), None);
        assert_eq!(nic.receive(&arp), Some(0));
    }

    #[test]
    fn a_source_here_hashes_as_the_same_destination_there() {
        let there = PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4([9, 9, 9, 9], [66, 9, 149, 187], 64)
            .udp(80, 2794);
        let source = programmed(Ends::Source).hash(&vector());
        assert!(source.is_some());
        assert_eq!(source, programmed(Ends::Destination).hash(&bytes(there)));
    }

    #[test]
    fn frames_go_to_the_queue_of_their_entry_and_come_back_by_any() {
        let (mut nic, mut ports) = RssNic::new(Model::Common, 3, 2);
        let mut table = vec![0; 128];
        table[0x78] = 2;
        let rss = Rss {
            key: KEY,
            ends: Ends::Both,
            table,
        };
        nic.program(rss).unwrap();
        let taken: Vec<_> = (0..3).map(|_| nic.receive(&vector())).collect();
        assert_eq!(taken, [Some(2), Some(2), None], "a queue holds two");
        assert_eq!(nic.missed(), 1);
        let mut burst = Burst::new();
        assert_eq!(ports[0].rx(&mut burst), 0);
        assert_eq!(ports[2].rx(&mut burst), 2);
        assert_eq!(ports[1].tx(&mut burst), 2);
        assert_eq!(nic.sent().map(|(queue, _)| queue), Some(1));
        assert_eq!(nic.sent().map(|(queue, _)| queue), Some(1));
        assert!(nic.sent().is_none());
    }

    #[test]
    fn without_rss_all_comes_in_by_the_first_queue() {
        let (mut nic, _ports) = RssNic::new(Model::None, 2, 100);
        for port in 0..100 {
            assert_eq!(nic.receive(&of_port(port)), Some(0));
        }
    }

    #[test]
    fn where_others_choose_a_flow_keeps_its_queue_and_flows_use_all() {
        let (mut nic, _ports) = RssNic::new(Model::Foreign, 2, 300);
        let mut used = [0; 2];
        for port in 0..100 {
            let [first, again] = [(), ()].map(|()| nic.receive(&of_port(port)).unwrap());
            assert_eq!(first, again);
            used[first] += 1;
        }
        assert!(used.iter().all(|count| *count > 30), "{used:?}");
    }

    #[test]
    fn a_nic_refuses_what_it_cannot_do() {
        let rss = |ends, entries, queue| Rss {
            key: KEY,
            ends,
            table: vec![queue; entries],
        };
        let refused = |model, rss| RssNic::new(model, 2, 1).0.program(rss);
        let (given, entries) = (64, 128);
        assert_eq!(
            refused(Model::Common, rss(Ends::Both, 64, 0)),
            Err(NotOffered::Table { given, entries })
        );
        assert_eq!(
            refused(Model::Common, rss(Ends::Source, 128, 0)),
            Err(NotOffered::OneEnd)
        );
        let (given, queues) = (2, 2);
        assert_eq!(
            refused(Model::Full, rss(Ends::Source, 512, 2)),
            Err(NotOffered::Queue { given, queues })
        );
        assert!(refused(Model::None, rss(Ends::Both, 0, 0)).is_err());
        assert_eq!(refused(Model::Full, rss(Ends::Source, 512, 1)), Ok(()));
    }
}
