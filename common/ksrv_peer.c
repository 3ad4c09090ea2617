// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * ksrv_peer.c - how many connections an address has, for max_conns_per_ip.
 */
#include <linux/random.h>
#include <linux/slab.h>
#include <net/ipv6.h>

#include "ksrv_impl.h"

/* Whoever has an IPv6 address usually has all of its /64. */
static void peer_address(const struct sock *sk, struct in6_addr *addr)
{
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6) {
		*addr = sk->sk_v6_daddr;
		if (!ipv6_addr_v4mapped(addr))
			memset(&addr->s6_addr32[2], 0, 8);
		return;
	}
#endif
	ipv6_addr_set_v4mapped(sk->sk_daddr, addr);
}

static struct hlist_head *bucket(struct ksrv_server *srv, const struct in6_addr *addr)
{
	const __be32 *a = addr->s6_addr32;
	u32 hash = hsiphash_4u32((__force u32)a[0], (__force u32)a[1], (__force u32)a[2],
				 (__force u32)a[3], &srv->peer_key);

	return &srv->peers[hash & ((1 << KSRV_PEER_BITS) - 1)];
}

static struct ksrv_peer *find(struct hlist_head *head, const struct in6_addr *addr)
{
	struct ksrv_peer *peer;

	hlist_for_each_entry(peer, head, node)
		if (ipv6_addr_equal(&peer->addr, addr))
			return peer;
	return NULL;
}

static struct ksrv_peer *add(struct hlist_head *head, const struct in6_addr *addr)
{
	struct ksrv_peer *peer = kzalloc(sizeof(*peer), GFP_KERNEL);

	if (!peer)
		return NULL;
	peer->addr = *addr;
	hlist_add_head(&peer->node, head);
	return peer;
}

/**
 * ksrv_peer_get() - count a connection to its address
 * @srv: the server
 * @sk: the connection's socket
 * @peer: set to the address, for ksrv_peer_put(); NULL where addresses are not counted
 *
 * They are counted without a bound too, so that one that is set later holds for all.
 *
 * Return: 0; -EUSERS above the bound; -EAGAIN there if some of them have ended; -ENOMEM.
 */
int ksrv_peer_get(struct ksrv_server *srv, struct sock *sk, struct ksrv_peer **peer)
{
	struct hlist_head *head;
	struct in6_addr addr;
	unsigned int bound;
	int err = 0;

	*peer = NULL;
	if (!srv->peers)
		return 0;
	bound = ksrv_uint(srv->svc->max_conns_per_ip);
	peer_address(sk, &addr);
	head = bucket(srv, &addr);
	mutex_lock(&srv->conns_mutex);
	*peer = find(head, &addr) ?: add(head, &addr);
	if (!*peer)
		err = -ENOMEM;
	else if (bound && (*peer)->conns >= bound)
		err = atomic_read(&(*peer)->ended) ? -EAGAIN : -EUSERS;
	else
		(*peer)->conns++;
	mutex_unlock(&srv->conns_mutex);
	return err;
}

/**
 * ksrv_peer_put() - the reverse of ksrv_peer_get()
 * @srv: the server; conns_mutex is held
 * @peer: what was got there
 */
void ksrv_peer_put(struct ksrv_server *srv, struct ksrv_peer *peer)
{
	if (!peer)
		return;
	lockdep_assert_held(&srv->conns_mutex);
	if (--peer->conns)
		return;
	hlist_del(&peer->node);
	kfree(peer);
}

/**
 * ksrv_peer_init() - get ready to count
 * @srv: the server
 *
 * Return: 0 or -ENOMEM.
 */
int ksrv_peer_init(struct ksrv_server *srv)
{
	if (!srv->svc->max_conns_per_ip)
		return 0;
	get_random_bytes(&srv->peer_key, sizeof(srv->peer_key));
	srv->peers = kvcalloc(1 << KSRV_PEER_BITS, sizeof(*srv->peers), GFP_KERNEL);
	return srv->peers ? 0 : -ENOMEM;
}

/**
 * ksrv_peer_uninit() - forget about addresses; there are no connections
 * @srv: the server
 */
void ksrv_peer_uninit(struct ksrv_server *srv)
{
	kvfree(srv->peers);
}
