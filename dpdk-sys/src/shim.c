#define _GNU_SOURCE
#include <stdio.h>
#include <sys/types.h>

#include "shim.h"

int sluice_errno(void)
{
	return rte_errno;
}

uint64_t sluice_rdtsc(void)
{
	return rte_rdtsc();
}

unsigned int sluice_lcore_id(void)
{
	return rte_lcore_id();
}

static void (*log_write)(const char *text, size_t len);

static ssize_t log_cookie_write(void *cookie, const char *text, size_t len)
{
	(void)cookie;
	log_write(text, len);
	return (ssize_t)len;
}

int sluice_log_to(void (*write)(const char *text, size_t len))
{
	cookie_io_functions_t functions = { .write = log_cookie_write };
	FILE *stream;

	log_write = write;
	stream = fopencookie(NULL, "w", functions);
	return stream == NULL ? -1 : rte_openlog_stream(stream);
}

uint16_t sluice_rx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t n)
{
	return rte_eth_rx_burst(port, queue, packets, n);
}

uint16_t sluice_tx_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, packets, n);
}

uint16_t sluice_tx_prepared_burst(uint16_t port, uint16_t queue, struct rte_mbuf **packets, uint16_t n)
{
	return rte_eth_tx_burst(port, queue, packets, rte_eth_tx_prepare(port, queue, packets, n));
}

struct rte_mbuf *sluice_pktmbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

void sluice_pktmbuf_free(struct rte_mbuf *packet)
{
	rte_pktmbuf_free(packet);
}

int sluice_pktmbuf_linearize(struct rte_mbuf *packet)
{
	return rte_pktmbuf_linearize(packet);
}

int sluice_pktmbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail)
{
	return rte_pktmbuf_chain(head, tail);
}

int sluice_link(uint16_t port, bool *up, uint32_t *mbit_per_s)
{
	struct rte_eth_link link = { 0 };
	int error = rte_eth_link_get_nowait(port, &link);

	*up = link.link_status == RTE_ETH_LINK_UP;
	*mbit_per_s = link.link_speed == RTE_ETH_SPEED_NUM_UNKNOWN ? 0 : link.link_speed;
	return error;
}

int sluice_flow_validate(uint16_t port, const char **message)
{
	struct rte_flow_attr attributes = { .ingress = 1 };
	struct rte_flow_item pattern[] = {
		{ .type = RTE_FLOW_ITEM_TYPE_ETH },
		{ .type = RTE_FLOW_ITEM_TYPE_IPV4 },
		{ .type = RTE_FLOW_ITEM_TYPE_END },
	};
	struct rte_flow_action_queue queue = { .index = 0 };
	struct rte_flow_action actions[] = {
		{ .type = RTE_FLOW_ACTION_TYPE_QUEUE, .conf = &queue },
		{ .type = RTE_FLOW_ACTION_TYPE_END },
	};
	struct rte_flow_error error = { 0 };
	int result = rte_flow_validate(port, &attributes, pattern, actions, &error);

	*message = error.message;
	return result;
}

uint32_t sluice_softrss(uint32_t *words, uint32_t len, const uint8_t *key)
{
	return rte_softrss(words, len, key);
}
