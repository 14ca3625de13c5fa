//! Why a packet stopped. One counter each, no string, no log on the packet path.

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Why a packet was dropped. Each packet that stops, stops with exactly one.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DropReason {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl DropReason {
            /// All of them, in the order of their counters.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Its name in statistics and metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it means, in a sentence.
            pub fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

drop_reasons! {
    /// The frame is shorter than an Ethernet header.
    ShortEthernet = "short_ethernet",
    /// The frame's destination MAC is neither ours nor broadcast nor multicast.
    NotOurMac = "not_our_mac",
    /// The frame is longer than one buffer.
    Oversize = "oversize",
    /// The IPv4 header is cut short or its version or length fields contradict the frame.
    BadIpv4Header = "bad_ipv4_header",
    /// The IPv4 header checksum is wrong.
    BadIpv4Checksum = "bad_ipv4_checksum",
    /// A TCP, UDP or SCTP packet to a service is too short for its header.
    ShortL4 = "short_l4",
    /// An ICMP error about a NAT or FULLNAT connection has a wrong checksum.
    BadIcmpChecksum = "bad_icmp_checksum",
    /// A fragment addressed to a service: fragments are not reassembled yet.
    Fragment = "fragment",
    /// The connection's real server was deleted (`expire_nodest_conn` is 0).
    ServerGone = "server_gone",
    /// No real server may take a new connection; the client got an ICMP port unreachable.
    NoServer = "no_server",
    /// The real server is behind a GRE, GUE or IPv6 tunnel, which this version cannot make.
    UnsupportedTunnel = "unsupported_tunnel",
    /// An opening packet that `drop_packet` sacrificed.
    Defence = "drop_packet",
    /// A NAT server's packet of no connection; the server got an ICMP port unreachable (`nat_icmp_send`).
    UnknownReply = "unknown_reply",
    /// The table of persistence templates is full: it grows with `max_connections`.
    TemplatesFull = "templates_full",
    /// The connection table is full.
    TableFull = "table_full",
    /// FULLNAT found no free local address and port for the real server.
    LocalPortsExhausted = "local_ports_exhausted",
    /// FULLNAT service without a local address.
    NoLocalAddress = "no_local_address",
    /// To a local address and port of FULLNAT, but of no connection.
    StrayLocalPort = "stray_local_port",
    /// The TTL ran out; the sender got an ICMP time exceeded.
    TtlExceeded = "ttl_exceeded",
    /// Longer than the path allows and not to be fragmented; the sender got an ICMP fragmentation needed.
    FragmentationNeeded = "fragmentation_needed",
    /// Longer than the path allows, and fragmenting it failed.
    TooLong = "too_long",
    /// No route to where it should go.
    NoRoute = "no_route",
    /// The next hop did not answer in time.
    NeighbourUnresolved = "neighbour_unresolved",
    /// Too many packets wait for next hops.
    NeighbourQueueFull = "neighbour_queue_full",
    /// The buffer had no room for an outer header.
    NoHeadroom = "no_headroom",
    /// The transmit queue is full.
    TxFull = "tx_full",
    /// The way to the kernel is full, or policed.
    PuntFull = "punt_full",
    /// The port has no exception interface, so nothing can go to the kernel.
    NoKernel = "no_kernel",
    /// No buffer for a packet that sluice wanted to send.
    NoBuffer = "no_buffer",
    /// The ring to the worker that owns the connection is full: that worker is overloaded, or does not turn.
    HandOffFull = "hand_off_full",
    /// Too many opening packets wait for another worker, which owns the client's persistence template or lblc's cache, to say where
    /// they go.
    AdviceQueueFull = "advice_queue_full",
    /// The worker that owns the client's persistence template, or lblc's cache, did not say in time where the opening packet goes.
    AdviceMissing = "advice_missing",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_counters_dense() {
        for (i, a) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*a as usize, i);
            assert!(!a.description().is_empty());
            for b in &DropReason::ALL[i + 1..] {
                assert_ne!(a.name(), b.name());
            }
        }
    }
}
