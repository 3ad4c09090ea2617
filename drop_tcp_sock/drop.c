// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * drop.c - finds sockets by a selector and drops them.
 *
 * Sockets are looked up in the namespace's own tables and held by a reference before anything is
 * done to them; whether they are meant is then looked at again, since a socket goes on living until
 * it is held. Requests (NEW_SYN_RECV) and TIME-WAIT sockets are struct sock_common only.
 */
#include <linux/delay.h>
#include <linux/moduleparam.h>
#include <linux/netdevice.h>
#include <linux/sched/signal.h>
#include <linux/socket.h>
#include <net/inet_hashtables.h>
#include <net/inet6_hashtables.h>
#include <net/inet_timewait_sock.h>
#include <net/mptcp.h>
#include <net/tcp.h>

#include "compat.h"
#include "drop.h"

#define PAIR_TRIES 3 /* states that a connection can pass through while it is looked up */
#define CHAIN_TRIES 3 /* likewise, while a chain is walked through */
#define UNACCEPTED_TRIES 100 /* tenths of a millisecond that somebody may have one locked */
#define OWNER_MS 10 /* that its owner may keep one locked */
#define OWNERS_MS 1000 /* and that all may beyond that, whose sockets a line meets */
#define WALK_BATCH 64 /* sockets held at a time while a table is walked */
#define WALK_REST 1024 /* buckets between two offers of the CPU to others */

static unsigned int state_of(const struct sock *sk)
{
	unsigned int state = inet_sk_state_load(sk);

	if (state == TCP_TIME_WAIT)
		return READ_ONCE(inet_twsk(sk)->tw_substate);
	return state == TCP_NEW_SYN_RECV ? TCP_SYN_RECV : state;
}

static bool is_request(const struct sock *sk)
{
	return inet_sk_state_load(sk) == TCP_NEW_SYN_RECV;
}

static void tuple_of(const struct sock *sk, struct drop_tuple *tuple)
{
	tuple->family = 4;
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6 && !ipv6_addr_v4mapped(&sk->sk_v6_daddr) &&
	    !ipv6_addr_v4mapped(&sk->sk_v6_rcv_saddr)) {
		tuple->family = 6;
		memcpy(tuple->local, &sk->sk_v6_rcv_saddr, 16);
		memcpy(tuple->remote, &sk->sk_v6_daddr, 16);
	}
#endif
	if (tuple->family == 4) {
		drop_map_address(tuple->local, &sk->sk_rcv_saddr);
		drop_map_address(tuple->remote, &sk->sk_daddr);
	}
	tuple->local_port = sk->sk_num;
	tuple->remote_port = ntohs(sk->sk_dport);
}

/**
 * struct search - what is looked for, and what came of it
 * @net: whose sockets; a table may hold those of other namespaces too
 * @sel: which of them
 * @ifindex: bound to this interface; 0 for any and none
 * @totals: what came of it
 * @stop: set by others to end it early
 * @patience: jiffies that owners may yet be waited for
 * @met: a socket was dropped, or a listener passed by
 * @cut: it did end early: nothing met is not all that there is
 */
struct search {
	struct net *net;
	const struct drop_selector *sel;
	int ifindex;
	struct drop_totals *totals;
	const bool *stop;
	unsigned long patience;
	bool met;
	bool cut;
};

#ifdef TEST_HOOKS
static unsigned int hook_found_ms;
module_param(hook_found_ms, uint, 0644);
MODULE_PARM_DESC(hook_found_ms, "for tests: ms between finding a pair and dropping it");

static unsigned int hook_meant_ms;
module_param(hook_meant_ms, uint, 0644);
MODULE_PARM_DESC(hook_meant_ms, "for tests: ms between a last look at a request and dropping it");

static void hook_found(void)
{
	msleep(hook_found_ms);
}

static void hook_meant(const struct sock *sk)
{
	if (is_request(sk))
		msleep(hook_meant_ms);
}
#else
static inline void hook_found(void)
{
}

static inline void hook_meant(const struct sock *sk)
{
}
#endif

/* The part of is_meant() that one of the pair's sockets may meet and another may not. */
static inline bool is_that_one(const struct sock *sk, const struct search *s)
{
	return (s->sel->states & (1U << state_of(sk))) &&
	       (!s->ifindex || READ_ONCE(sk->sk_bound_dev_if) == s->ifindex);
}

/*
 * Whether @sk, held or its bucket locked, is asked for. Inline: called, it costs a walk 30
 * instructions for each socket that it drops.
 */
static inline bool is_meant(const struct sock *sk, const struct search *s)
{
	struct drop_tuple tuple;

	/* What it was has gone on as another one, which is found by looking again. */
	if (hlist_nulls_unhashed_lockless(&sk->sk_nulls_node))
		return false;
	if (!net_eq(sock_net(sk), s->net) || !is_that_one(sk, s))
		return false;
	tuple_of(sk, &tuple);
	return drop_matches(s->sel, &tuple);
}

/*
 * A connection that waits to be accepted may only be touched as softirqs do it. Its listener's
 * close takes no more than its spinlock: it warns of a child that a process has locked, as
 * tcp_abort() does, and would end one once more whose state tcp_abort() has looked at already. So
 * it is disconnected as that close does it, and is then in the queue like one that its peer has
 * reset. Return: 0; -ENOENT if it was closed already; -EBUSY if somebody has it locked; -EAGAIN if
 * it does not wait any more.
 */
static int abort_unaccepted(struct sock *sk)
{
	__be16 dport;
	int err = 0;

	local_bh_disable();
	bh_lock_sock(sk);
	if (sk->sk_socket || sock_flag(sk, SOCK_DEAD)) {
		err = -EAGAIN;
	} else if (sock_owned_by_user(sk)) {
		err = -EBUSY;
	} else if (sk->sk_state == TCP_CLOSE) {
		err = -ENOENT;
	} else {
		dport = sk->sk_dport;
		sk->sk_prot->disconnect(sk, O_NONBLOCK);
		sk->sk_dport = dport; /* or accept() would not know whom to name */
		WRITE_ONCE(sk->sk_err, ECONNABORTED);
		WRITE_ONCE(sk->sk_shutdown, SHUTDOWN_MASK);
	}
	bh_unlock_sock(sk);
	local_bh_enable();
	return err;
}

static bool must_stop(struct search *s)
{
	cond_resched();
	s->cut = READ_ONCE(*s->stop) || fatal_signal_pending(current);
	return s->cut;
}

static bool is_owned(struct sock *sk)
{
	bool owned;

	local_bh_disable();
	bh_lock_sock(sk);
	owned = sock_owned_by_user_nocheck(sk);
	bh_unlock_sock(sk);
	local_bh_enable();
	return owned;
}

/*
 * An owner may keep its socket locked for as long as it likes: what it sends may be in memory that
 * does not come. Whoever waits for a socket's lock cannot be killed, so this waits before, and not
 * for ever: a little for each socket, and for all of a line's no more than a second beyond that.
 * The owner may be back before the lock is taken; it takes many threads, and luck, to be that.
 * Return: 0, or -EBUSY.
 */
static int wait_for_owner(struct sock *sk, struct search *s)
{
	unsigned long began = jiffies, passed, least = msecs_to_jiffies(OWNER_MS) + 1;
	bool owned;

	for (;;) {
		owned = is_owned(sk);
		passed = jiffies - began;
		if (!owned || passed >= least + s->patience || must_stop(s))
			break;
		usleep_range(100, 200);
	}
	if (passed > least)
		s->patience -= min(passed - least, s->patience);
	return owned ? -EBUSY : 0;
}

/* Whoever has one locked that nobody has accepted is about to accept it, or looks at it. */
static int abort_connection(struct sock *sk, struct search *s)
{
	unsigned int tries = UNACCEPTED_TRIES;
	int err = -EBUSY;

	while (err == -EBUSY && tries-- && sk_fullsock(sk) && !sk_is_mptcp(sk) &&
	       !READ_ONCE(sk->sk_socket) && inet_sk_state_load(sk) != TCP_LISTEN) {
		err = abort_unaccepted(sk);
		if (err == -EBUSY)
			usleep_range(100, 200);
	}
	if (err != -EBUSY && err != -EAGAIN)
		return err;
	if (sk_fullsock(sk) && wait_for_owner(sk, s))
		return -EBUSY;
	return compat_tcp_destroy(sk, ECONNABORTED);
}

/*
 * Drops @sk, and the caller's reference to it. Until it was held it may have become another
 * connection's, or a listener. Return: 0 or a negative errno.
 */
static int drop_one(struct sock *sk, struct search *s)
{
	unsigned int state = state_of(sk);
	int err;

	if (!is_meant(sk, s) || (state == TCP_LISTEN && !s->sel->listeners)) {
		sock_gen_put(sk);
		return -ENOENT;
	}
	if (inet_sk_state_load(sk) == TCP_TIME_WAIT) {
		local_bh_disable();
		inet_twsk_deschedule_put(inet_twsk(sk));
		local_bh_enable();
		err = 0;
	} else {
		hook_meant(sk);
		err = abort_connection(sk, s);
		sock_gen_put(sk);
	}
	if (!err) {
		s->totals->dropped[state]++;
		s->met = true;
	}
	return err;
}

/* --- all that match --- */

static void walk_chain(struct search *s, struct hlist_nulls_head *chain, spinlock_t *lock)
{
	unsigned int i, n, done, missed, passed, refused = 0, tries = CHAIN_TRIES;
	struct sock *batch[WALK_BATCH];
	struct hlist_nulls_node *node;
	struct sock *sk;

	/*
	 * A chain is gone through again if it had more than a batch, past those that may not be
	 * dropped and stay where they are, and if a socket in it moved on, or can have, while it
	 * was not locked.
	 */
	do {
		n = 0;
		passed = 0;
		spin_lock_bh(lock);
		sk_nulls_for_each(sk, node, chain) {
			if (!is_meant(sk, s))
				continue;
			if (state_of(sk) == TCP_LISTEN && !s->sel->listeners) {
				s->totals->skipped_listener++;
				s->met = true;
				continue;
			}
			if (passed < refused)
				passed++;
			else if (refcount_inc_not_zero(&sk->sk_refcnt))
				batch[n++] = sk;
			if (n == WALK_BATCH)
				break;
		}
		spin_unlock_bh(lock);
		done = 0;
		missed = 0;
		for (i = 0; i < n; i++) {
			/* Its connection may have taken its place just before it was dropped. */
			bool request = is_request(batch[i]);
			int err = drop_one(batch[i], s);

			done += err != -ENOENT;
			refused += err && err != -ENOENT;
			missed += request || err == -ENOENT;
		}
	} while (((n == WALK_BATCH && done) || (missed && tries--)) && !must_stop(s));
}

static void walk_connections(struct search *s)
{
	struct inet_hashinfo *table = s->net->ipv4.tcp_death_row.hashinfo;
	unsigned int i;

	for (i = 0; i <= table->ehash_mask; i++) {
		if (!(i % WALK_REST) && must_stop(s))
			return;
		if (!hlist_nulls_empty(&table->ehash[i].chain))
			walk_chain(s, &table->ehash[i].chain, inet_ehash_lockp(table, i));
	}
}

static void walk_listeners(struct search *s)
{
	struct inet_hashinfo *table = s->net->ipv4.tcp_death_row.hashinfo;
	struct inet_listen_hashbucket *bucket;
	unsigned int i;

	for (i = 0; (bucket = compat_listen_bucket(table, i)); i++) {
		if (!(i % WALK_REST) && must_stop(s))
			return;
		if (!hlist_nulls_empty(&bucket->nulls_head))
			walk_chain(s, &bucket->nulls_head, &bucket->lock);
	}
}

/* --- one connection --- */

static __be32 ipv4_of(const struct drop_end *end)
{
	__be32 addr;

	memcpy(&addr, end->addr + 12, sizeof(addr));
	return addr;
}

#if IS_ENABLED(CONFIG_IPV6)
static struct in6_addr ipv6_of(const struct drop_end *end)
{
	struct in6_addr addr;

	memcpy(&addr, end->addr, sizeof(addr));
	return addr;
}
#endif

/* TCP's own way to a socket of the pair that is bound to the interface, or to none. */
static struct sock *lookup(const struct search *s)
{
	const struct drop_end *local = &s->sel->local, *remote = &s->sel->remote;

	RCU_LOCKDEP_WARN(!rcu_read_lock_held(), "what is looked up may be freed meanwhile");
#if IS_ENABLED(CONFIG_IPV6)
	if (local->family == 6) {
		const struct in6_addr local6 = ipv6_of(local), remote6 = ipv6_of(remote);

		return compat_inet6_lookup_established(s->net, &remote6, htons(remote->port),
						       &local6, local->port, s->ifindex);
	}
#endif
	return compat_inet_lookup_established(s->net, ipv4_of(remote), htons(remote->port),
					      ipv4_of(local), local->port, s->ifindex);
}

/* Where TCP has the sockets of the pair: interfaces do not count there. */
static unsigned int hash_of_pair(const struct search *s)
{
	const struct drop_end *local = &s->sel->local, *remote = &s->sel->remote;

#if IS_ENABLED(CONFIG_IPV6)
	if (local->family == 6) {
		const struct in6_addr local6 = ipv6_of(local), remote6 = ipv6_of(remote);

		return inet6_ehashfn(s->net, &local6, local->port, &remote6, htons(remote->port));
	}
#endif
	return inet_ehashfn(s->net, ipv4_of(local), local->port, ipv4_of(remote),
			    htons(remote->port));
}

/* A socket of the pair, whatever it is bound to, or to the very interface that is asked for. */
static struct sock *find_in_chain(const struct search *s)
{
	struct inet_hashinfo *table = s->net->ipv4.tcp_death_row.hashinfo;
	unsigned int hash = hash_of_pair(s);
	struct hlist_nulls_node *node;
	struct sock *sk, *found = NULL;

	spin_lock_bh(inet_ehash_lockp(table, hash));
	sk_nulls_for_each(sk, node, &table->ehash[hash & table->ehash_mask].chain) {
		if (is_meant(sk, s) && refcount_inc_not_zero(&sk->sk_refcnt)) {
			found = sk;
			break;
		}
	}
	spin_unlock_bh(inet_ehash_lockp(table, hash));
	return found;
}

/*
 * Without an interface in the line: a socket bound to none, else one bound to any, which may be
 * gone, or have never been. Where the first is not meant, as it is in another state, or as the line
 * has an interface, another one of the pair may be.
 */
static struct sock *find_pair(const struct search *s)
{
	struct sock *sk;

	rcu_read_lock();
	sk = lookup(s);
	rcu_read_unlock();
	if (sk && !is_that_one(sk, s)) {
		sock_gen_put(sk);
		sk = NULL;
	}
	return sk ?: find_in_chain(s);
}

/*
 * A connection may move on while it is looked up: a request becomes a full socket, that one becomes
 * a TIME-WAIT socket. The pair still names it then, so it is looked up again.
 */
static void drop_pair(struct search *s)
{
	unsigned int tries = PAIR_TRIES;
	struct sock *sk;
	bool request;
	int err;

	while (tries-- && (sk = find_pair(s))) {
		hook_found();
		request = is_request(sk);
		err = drop_one(sk, s);
		if (err ? err != -ENOENT : !request)
			return;
	}
}

static int find_ifindex(struct net *net, const char *name)
{
	struct net_device *dev;
	int ifindex = 0;

	rcu_read_lock();
	dev = dev_get_by_name_rcu(net, name);
	if (dev)
		ifindex = dev->ifindex;
	rcu_read_unlock();
	if (ifindex)
		return ifindex;
	/* "if7" is what ss calls one that is gone. */
	if (!strncmp(name, "if", 2))
		name += 2;
	return kstrtoint(name, 10, &ifindex) ? 0 : ifindex;
}

void drop_sockets(struct net *net, const struct drop_selector *sel, struct drop_totals *totals,
		  const bool *stop)
{
	struct search s = {
		.net = net,
		.sel = sel,
		.totals = totals,
		.stop = stop,
		.patience = msecs_to_jiffies(OWNERS_MS),
	};

	if (*sel->ifname) {
		s.ifindex = find_ifindex(net, sel->ifname);
		if (s.ifindex <= 0) {
			totals->not_found++;
			return;
		}
	}
	if (drop_is_pair(sel)) {
		drop_pair(&s);
	} else {
		if (sel->states & ~(1U << TCP_LISTEN))
			walk_connections(&s);
		if (sel->states & (1U << TCP_LISTEN))
			walk_listeners(&s);
	}
	if (!s.met && !s.cut)
		totals->not_found++;
}
