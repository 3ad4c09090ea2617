// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * flow.c - the table of flows. A flow is a socket's connection: both ends of one on loopback are
 * flows.
 *
 * Buckets are guarded by raw spinlocks, which handlers and process context alike take with
 * interrupts off. A table is replaced bucket by bucket: a handler that meets a bucket that has
 * moved goes on to the next table.
 */
#include <linux/hash.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>
#include <net/ipv6.h>

#include "compat.h"
#include "probe.h"

/**
 * struct flow - a connection
 * @node: in its bucket
 * @sk: the socket, by which flows are found; never followed, for it may be gone
 * @local: address here
 * @remote: the peer's
 * @local_port: host byte order
 * @remote_port: host byte order
 * @set_up: it was seen to be set up, which happens once
 * @bases: of its sequence numbers
 * @cwnd: congestion window of the last sample
 * @sampled: time of the last sample, ns
 * @seen: time of the last event, ns
 */
struct flow {
	struct hlist_node node;
	const struct sock *sk;
	struct in6_addr local;
	struct in6_addr remote;
	u16 local_port;
	u16 remote_port;
	bool set_up;
	struct probe_bases bases;
	u32 cwnd;
	u64 sampled;
	u64 seen;
};

struct bucket {
	raw_spinlock_t lock; /* guards flows and moved */
	bool moved; /* its flows are in the next table */
	struct hlist_head flows;
};

/**
 * struct table - buckets of flows
 * @next: what this one is being replaced by
 * @n: buckets
 * @buckets: of them
 */
struct table {
	struct table *next;
	unsigned int n;
	struct bucket buckets[];
};

/* Written under probe_mutex; NULL while closed. */
static struct table *table;
static struct kmem_cache *cache;
static atomic_t active;

static void purge(struct work_struct *work);
static DECLARE_DELAYED_WORK(purge_work, purge);

static unsigned int default_buckets(void)
{
	/* As the kernel once sized its table of connections: by memory, capped above 1 GiB. */
	unsigned long pages = totalram_pages();
	unsigned long buckets = (pages << PAGE_SHIFT) / 16384 / sizeof(struct bucket);

	return pages > (1UL << (30 - PAGE_SHIFT)) ? 16384 : buckets;
}

/* There may be millions: lets others have the CPU. Process context, no bucket locked. */
static void rest_among_buckets(unsigned int i)
{
	if (!(i % 1024))
		cond_resched();
}

static struct table *table_alloc(unsigned int buckets)
{
	struct table *new;
	unsigned int i;
	size_t size;

	buckets = max(buckets ?: default_buckets(), 32U);
	size = struct_size(new, buckets, buckets);
	new = probe_may_take(size) ? kvzalloc(size, GFP_KERNEL) : NULL;
	if (!new)
		return NULL;
	new->n = buckets;
	for (i = 0; i < buckets; i++) {
		raw_spin_lock_init(&new->buckets[i].lock);
		rest_among_buckets(i);
	}
	pr_info("Hashtable initialized with %u buckets\n", buckets);
	return new;
}

static struct bucket *bucket_of(struct table *t, const struct sock *sk)
{
	return &t->buckets[reciprocal_scale(hash_ptr((void *)sk, 32), t->n)];
}

static struct flow *find(struct bucket *b, const struct sock *sk)
{
	struct flow *f;

	hlist_for_each_entry(f, &b->flows, node) {
		if (f->sk == sk)
			return f;
	}
	return NULL;
}

/*
 * Whether the socket is still that of the connection that the flow was made for. Where the kernel
 * dropped the hit of its end, or the port was not asked for then, the next one may have the same
 * addresses, even the same memory: its SYN is another one, and it is set up once more.
 */
static bool is_same(const struct flow *f, const struct probe_record *rec,
		    const struct probe_bases *first)
{
	if (rec->type == PROBE_SETUP && f->set_up)
		return false;
	if (rec->type == PROBE_SEND && rec->flags & TCPHDR_SYN && first->local != f->bases.local)
		return false;
	return f->local_port == rec->local_port && f->remote_port == rec->remote_port &&
	       ipv6_addr_equal(&f->remote, &rec->remote) && ipv6_addr_equal(&f->local, &rec->local);
}

static void begin(struct flow *f, const struct sock *sk, const struct probe_record *rec,
		  const struct probe_bases *first)
{
	f->sk = sk;
	f->local = rec->local;
	f->remote = rec->remote;
	f->local_port = rec->local_port;
	f->remote_port = rec->remote_port;
	f->bases = *first;
	f->set_up = false;
	f->cwnd = 0;
	f->sampled = 0;
	probe_say(1, "new flow %pI6c %u %pI6c %u\n", &f->local, f->local_port, &f->remote,
		  f->remote_port);
}

/* The bucket is locked. Return: whether to take the sample. */
static bool judge(struct flow *f, const struct probe_record *rec, const struct probe_bases *first,
		  struct probe_bases *bases)
{
	u64 least = READ_ONCE(probe_time) * (u64)NSEC_PER_MSEC;

	f->seen = rec->time;
	f->set_up |= rec->type == PROBE_SETUP;
	if (!f->bases.remote)
		f->bases.remote = first->remote;
	*bases = f->bases;
	if (rec->type == PROBE_RECV || rec->type == PROBE_SEND) {
		if (least && f->sampled && rec->time - f->sampled < least)
			return false;
		if (!READ_ONCE(probe_full) && f->cwnd == rec->snd_cwnd)
			return false;
		f->sampled = rec->time;
	}
	f->cwnd = rec->snd_cwnd;
	return true;
}

/**
 * enum verdict - what came of looking for a flow in a bucket
 * @MOVED: the bucket's flows are in the next table
 * @UNKNOWN: there is no such flow
 * @SKIP: no sample is to be taken
 * @TAKE: a sample is to be taken
 */
enum verdict { MOVED, UNKNOWN, SKIP, TAKE };

/*
 * Finds the flow of a socket and judges whether to sample. @new is added if there is none; the
 * socket is locked by whoever we interrupt, so nobody else adds its flow. @done is a flow to be
 * freed.
 */
static enum verdict consult(struct bucket *b, const struct sock *sk, const struct probe_record *rec,
			    const struct probe_bases *first, struct probe_bases *bases,
			    struct flow *new, struct flow **done)
{
	enum verdict verdict = UNKNOWN;
	struct flow *f;

	raw_spin_lock(&b->lock);
	if (b->moved) {
		raw_spin_unlock(&b->lock);
		return MOVED;
	}
	f = find(b, sk);
	if (!f && new) {
		hlist_add_head(&new->node, &b->flows);
		f = new;
		__this_cpu_inc(probe_stats.fresh);
	} else if (f && !is_same(f, rec, first)) {
		begin(f, sk, rec, first);
		__this_cpu_inc(probe_stats.reset);
	} else if (f) {
		__this_cpu_inc(probe_stats.found);
	}
	if (f) {
		verdict = judge(f, rec, first, bases) ? TAKE : SKIP;
		if (rec->type == PROBE_DONE) {
			hlist_del(&f->node);
			*done = f;
		}
	}
	raw_spin_unlock(&b->lock);
	return verdict;
}

static enum verdict consult_tables(const struct sock *sk, const struct probe_record *rec,
				   const struct probe_bases *first, struct probe_bases *bases,
				   struct flow *new, struct flow **done)
{
	enum verdict verdict = SKIP;
	struct table *t;

	/* Pairs with the releases of what is filled in before it is seen here. */
	for (t = smp_load_acquire(&table); t; t = smp_load_acquire(&t->next)) {
		verdict = consult(bucket_of(t, sk), sk, rec, first, bases, new, done);
		if (verdict != MOVED)
			break;
	}
	return verdict;
}

/* A flow for a socket that has none, if that is allowed. */
static struct flow *take_on(const struct sock *sk, const struct probe_record *rec,
			    const struct probe_bases *first)
{
	struct flow *f;

	if (atomic_inc_return(&active) > READ_ONCE(probe_maxflows)) {
		atomic_dec(&active);
		__this_cpu_inc(probe_stats.maxflows);
		return NULL;
	}
	f = kmem_cache_alloc(cache, GFP_ATOMIC | __GFP_NOWARN);
	if (!f) {
		atomic_dec(&active);
		__this_cpu_inc(probe_stats.no_memory);
		return NULL;
	}
	begin(f, sk, rec, first);
	return f;
}

bool probe_flow(const struct sock *sk, const struct probe_record *rec,
		const struct probe_bases *first, struct probe_bases *bases)
{
	struct flow *new, *done = NULL;
	enum verdict verdict;

	__this_cpu_inc(probe_stats.search);
	verdict = consult_tables(sk, rec, first, bases, NULL, &done);
	if (verdict == UNKNOWN && rec->type == PROBE_DONE) {
		if (atomic_read(&active) >= READ_ONCE(probe_maxflows)) {
			__this_cpu_inc(probe_stats.maxflows);
			return false;
		}
		/* Closed, and nothing was seen of it: told all the same, but not kept. */
		*bases = *first;
		return true;
	}
	if (verdict == UNKNOWN) {
		new = take_on(sk, rec, first);
		if (!new)
			return false;
		verdict = consult_tables(sk, rec, first, bases, new, &done);
	}
	if (done) {
		probe_say(1, "flow done %pI6c %u %pI6c %u\n", &done->local, done->local_port,
			  &done->remote, done->remote_port);
		kmem_cache_free(cache, done);
		atomic_dec(&active);
	}
	return verdict == TAKE;
}

/* Tells of a flow that is forgotten; its socket may be gone, so only its addresses are known. */
static void tell_purged(const struct flow *f, u64 now)
{
	struct probe_record rec = {
		.type = PROBE_PURGE,
		.time = now,
		.local = f->local,
		.remote = f->remote,
		.local_port = f->local_port,
		.remote_port = f->remote_port,
	};

	probe_ring_put(&rec);
}

static void free_flows(struct hlist_head *gone)
{
	struct hlist_node *next;
	struct flow *f;

	hlist_for_each_entry_safe(f, next, gone, node) {
		kmem_cache_free(cache, f);
		atomic_dec(&active);
	}
}

static void purge_bucket(struct bucket *b, u64 idle)
{
	struct hlist_node *next;
	unsigned long flags;
	HLIST_HEAD(gone);
	struct flow *f;
	u64 now;

	raw_spin_lock_irqsave(&b->lock, flags);
	now = ktime_get_mono_fast_ns(); /* as of here no other record comes into this CPU's ring */
	hlist_for_each_entry_safe(f, next, &b->flows, node) {
		if ((s64)(now - f->seen) < (s64)idle)
			continue;
		hlist_del(&f->node);
		hlist_add_head(&f->node, &gone);
		tell_purged(f, now);
	}
	raw_spin_unlock_irqrestore(&b->lock, flags);
	free_flows(&gone);
}

static void purge(struct work_struct *work)
{
	unsigned int i, seconds = READ_ONCE(probe_purgetime);
	struct table *t;

	mutex_lock(&probe_mutex);
	t = table;
	for (i = 0; t && seconds && i < t->n; i++) {
		if (!hlist_empty(&t->buckets[i].flows))
			purge_bucket(&t->buckets[i], seconds * (u64)NSEC_PER_SEC);
		cond_resched();
	}
	if (t)
		schedule_delayed_work(&purge_work, HZ);
	mutex_unlock(&probe_mutex);
}

int probe_flows_start(void)
{
	struct table *t;

	cache = kmem_cache_create("tcpprobe_flow", sizeof(struct flow), 0, 0, NULL);
	if (!cache)
		return -ENOMEM;
	t = table_alloc(READ_ONCE(probe_hashsize));
	if (!t) {
		kmem_cache_destroy(cache);
		return -ENOMEM;
	}
	atomic_set(&active, 0);
	smp_store_release(&table, t); /* its buckets are made */
	schedule_delayed_work(&purge_work, HZ);
	return 0;
}

void probe_flows_stop(void)
{
	struct table *t = table;
	struct hlist_node *next;
	struct flow *f;
	unsigned int i;

	WRITE_ONCE(table, NULL);
	synchronize_rcu();
	for (i = 0; i < t->n; i++) {
		hlist_for_each_entry_safe(f, next, &t->buckets[i].flows, node)
			kmem_cache_free(cache, f);
		rest_among_buckets(i);
	}
	atomic_set(&active, 0);
	kvfree(t);
	kmem_cache_destroy(cache);
}

void probe_flows_drain(void)
{
	cancel_delayed_work_sync(&purge_work);
}

int probe_flows_resize(unsigned int buckets)
{
	struct table *new, *old = table;
	struct hlist_node *next;
	unsigned long flags;
	struct bucket *from, *to;
	struct flow *f;
	unsigned int i;

	if (!old)
		return 0;
	new = table_alloc(buckets);
	if (!new)
		return -ENOMEM;
	smp_store_release(&old->next, new); /* its buckets are made */
	for (i = 0; i < old->n; i++) {
		from = &old->buckets[i];
		raw_spin_lock_irqsave(&from->lock, flags);
		hlist_for_each_entry_safe(f, next, &from->flows, node) {
			to = bucket_of(new, f->sk);
			hlist_del(&f->node);
			raw_spin_lock_nested(&to->lock, SINGLE_DEPTH_NESTING);
			hlist_add_head(&f->node, &to->flows);
			raw_spin_unlock(&to->lock);
		}
		from->moved = true;
		raw_spin_unlock_irqrestore(&from->lock, flags);
		rest_among_buckets(i);
	}
	smp_store_release(&table, new); /* it holds all flows */
	synchronize_rcu();
	kvfree(old);
	return 0;
}

int probe_flows_narrow(unsigned int port)
{
	struct hlist_node *next;
	unsigned long flags;
	HLIST_HEAD(gone);
	struct bucket *b;
	struct flow *f;
	unsigned int i;

	if (!table || !port)
		return 0;
	synchronize_rcu(); /* from here on no handler takes on one of another port */
	for (i = 0; i < table->n; i++) {
		b = &table->buckets[i];
		rest_among_buckets(i);
		if (hlist_empty(&b->flows))
			continue;
		raw_spin_lock_irqsave(&b->lock, flags);
		hlist_for_each_entry_safe(f, next, &b->flows, node) {
			if (f->local_port == port || f->remote_port == port)
				continue;
			hlist_del(&f->node);
			hlist_add_head(&f->node, &gone);
		}
		raw_spin_unlock_irqrestore(&b->lock, flags);
	}
	free_flows(&gone);
	return 0;
}

unsigned int probe_flows_active(void)
{
	return atomic_read(&active);
}

unsigned int probe_flows_buckets(void)
{
	return table ? table->n : 0;
}

size_t probe_flows_memory(void)
{
	return atomic_read(&active) * sizeof(struct flow);
}

size_t probe_flows_table_memory(void)
{
	return table ? table->n * sizeof(struct bucket) : 0;
}
