/* What Rust cannot take from DPDK's headers: inline functions, thread-locals, places of fields. No policy here. */
#ifndef SLUICE_SHIM_H
#define SLUICE_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rte_config.h>
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_flow.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_log.h>
#include <rte_malloc.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <rte_mempool.h>
#include <rte_pdump.h>
#include <rte_thash.h>
#include <rte_version.h>

/* Where the fields of a mbuf are. Releases nest them in different unions, so names would shut some out. */
enum {
	SLUICE_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
	SLUICE_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
	SLUICE_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
	SLUICE_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
	SLUICE_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
	SLUICE_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
	SLUICE_MBUF_OL_FLAGS = offsetof(struct rte_mbuf, ol_flags),
	SLUICE_MBUF_RSS_HASH = offsetof(struct rte_mbuf, hash.rss),
	SLUICE_MBUF_TX_OFFLOAD = offsetof(struct rte_mbuf, tx_offload),
	SLUICE_MBUF_L2_LEN_SHIFT = RTE_MBUF_L2_LEN_OFS,
	SLUICE_MBUF_L3_LEN_SHIFT = RTE_MBUF_L3_LEN_OFS,
	SLUICE_MBUF_SIZE = sizeof(struct rte_mbuf),
	SLUICE_PKTMBUF_HEADROOM = RTE_PKTMBUF_HEADROOM,
	/* What a pool takes besides its objects and their ring. */
	SLUICE_MEMPOOL_OVERHEAD = sizeof(struct rte_mempool) + RTE_MAX_LCORE * sizeof(struct rte_mempool_cache),
	SLUICE_MEMPOOL_NO_IOVA_CONTIG = RTE_MEMPOOL_F_NO_IOVA_CONTIG,
	SLUICE_MEMPOOL_CACHE_MAX = RTE_MEMPOOL_CACHE_MAX_SIZE,
	SLUICE_MEMPOOL_NAME_SIZE = RTE_MEMPOOL_NAMESIZE,
	SLUICE_ETH_NAME_SIZE = RTE_ETH_NAME_MAX_LEN,
	SLUICE_MAX_ETHPORTS = RTE_MAX_ETHPORTS,
	SLUICE_MAX_LCORE = RTE_MAX_LCORE,
	SLUICE_SOCKET_ID_ANY = SOCKET_ID_ANY,
	SLUICE_RETA_GROUP_SIZE = RTE_ETH_RETA_GROUP_SIZE,
	SLUICE_LOG_ERR = RTE_LOG_ERR,
	SLUICE_LOG_WARNING = RTE_LOG_WARNING,
	SLUICE_LOG_NOTICE = RTE_LOG_NOTICE,
	SLUICE_LOG_INFO = RTE_LOG_INFO,
};

/* Flags of one width, whatever the width of the macros is. */
static const uint64_t SLUICE_MBUF_TX_IPV4 = RTE_MBUF_F_TX_IPV4;
static const uint64_t SLUICE_MBUF_TX_IP_CKSUM = RTE_MBUF_F_TX_IP_CKSUM;
static const uint64_t SLUICE_MBUF_TX_UDP_CKSUM = RTE_MBUF_F_TX_UDP_CKSUM;
static const uint64_t SLUICE_TX_OFFLOAD_IPV4_CKSUM = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM;
static const uint64_t SLUICE_TX_OFFLOAD_UDP_CKSUM = RTE_ETH_TX_OFFLOAD_UDP_CKSUM;
static const uint64_t SLUICE_RSS_IPV4 = RTE_ETH_RSS_IPV4;
static const uint64_t SLUICE_RSS_FRAG_IPV4 = RTE_ETH_RSS_FRAG_IPV4;
static const uint64_t SLUICE_RSS_NONFRAG_IPV4_TCP = RTE_ETH_RSS_NONFRAG_IPV4_TCP;
static const uint64_t SLUICE_RSS_NONFRAG_IPV4_UDP = RTE_ETH_RSS_NONFRAG_IPV4_UDP;
static const uint64_t SLUICE_RSS_NONFRAG_IPV4_SCTP = RTE_ETH_RSS_NONFRAG_IPV4_SCTP;
static const uint64_t SLUICE_RSS_NONFRAG_IPV4_OTHER = RTE_ETH_RSS_NONFRAG_IPV4_OTHER;
static const uint64_t SLUICE_RSS_IPV6 = RTE_ETH_RSS_IPV6;
static const uint64_t SLUICE_RSS_FRAG_IPV6 = RTE_ETH_RSS_FRAG_IPV6;
static const uint64_t SLUICE_RSS_NONFRAG_IPV6_TCP = RTE_ETH_RSS_NONFRAG_IPV6_TCP;
static const uint64_t SLUICE_RSS_NONFRAG_IPV6_UDP = RTE_ETH_RSS_NONFRAG_IPV6_UDP;
static const uint64_t SLUICE_RSS_NONFRAG_IPV6_SCTP = RTE_ETH_RSS_NONFRAG_IPV6_SCTP;
static const uint64_t SLUICE_RSS_NONFRAG_IPV6_OTHER = RTE_ETH_RSS_NONFRAG_IPV6_OTHER;
static const uint64_t SLUICE_RSS_L3_SRC_ONLY = RTE_ETH_RSS_L3_SRC_ONLY;
static const uint64_t SLUICE_RSS_L3_DST_ONLY = RTE_ETH_RSS_L3_DST_ONLY;
static const uint64_t SLUICE_RSS_L4_SRC_ONLY = RTE_ETH_RSS_L4_SRC_ONLY;
static const uint64_t SLUICE_RSS_L4_DST_ONLY = RTE_ETH_RSS_L4_DST_ONLY;
static const uint64_t SLUICE_RX_OFFLOAD_RSS_HASH = RTE_ETH_RX_OFFLOAD_RSS_HASH;
static const uint64_t SLUICE_MBUF_RX_RSS_HASH = RTE_MBUF_F_RX_RSS_HASH;
static const uint32_t SLUICE_MQ_RX_RSS = RTE_ETH_MQ_RX_RSS;

/* The error number of the last failed call on this thread. */
int sluice_errno(void);

/* The TSC. */
uint64_t sluice_rdtsc(void);

/* The lcore that this thread is, or a number no lcore has. */
unsigned int sluice_lcore_id(void);

/* Sends DPDK's log to `write`, called with whole messages on whatever thread logs. 0, or -1. */
int sluice_log_to(void (*write)(const char *text, size_t len));

/* Receives up to `n` packets. */
uint16_t sluice_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t n);

/* Sends up to `n` packets; returns how many were taken. */
uint16_t sluice_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t n);

/* The same, after the driver has looked over the packets' checksum requests, which it stops at if it cannot do one. */
uint16_t sluice_tx_prepared_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t n);

/* An empty single-segment packet, or NULL. */
struct rte_mbuf *sluice_pktmbuf_alloc(struct rte_mempool *pool);

/* Gives a packet and all its segments back. */
void sluice_pktmbuf_free(struct rte_mbuf *packet);

/* Moves all data of a chain into its first segment. 0, or -1 when that has no room. */
int sluice_pktmbuf_linearize(struct rte_mbuf *packet);

/* Hangs `tail` behind the last segment of `head`. 0, or a negative error number. */
int sluice_pktmbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail);

/* Link state without waiting for it. 0, or a negative error number. */
int sluice_link(uint16_t port, bool *up, uint32_t *mbit_per_s);

/* Whether a device would take the rule "IPv4 goes to queue 0". 0, or a negative error number and what the driver says to it or NULL. */
int sluice_flow_validate(uint16_t port, const char **message);

/* DPDK's own Toeplitz hash of `len` words of 32 bits in host order. */
uint32_t sluice_softrss(uint32_t *words, uint32_t len, const uint8_t *key);

#endif
