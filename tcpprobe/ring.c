// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * ring.c - a ring of records per CPU: one producer (the CPU, interrupts off), one consumer (whoever
 * holds probe_read_mutex). No locks; @head and @tail count for ever and are the whole protocol.
 */
#include <linux/delay.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/moduleparam.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "probe.h"

#define RETIRED_MAX 4 /* rings that are read to their end, while new ones are in use */

/**
 * struct ring - a CPU's ring
 * @head: records put in; written by the producer
 * @lost: records not put in; written by the producer
 * @tail: records taken out; written by the consumer
 * @lost_told: how many of @lost readers were told of; the consumer's
 * @records: mask + 1 of them
 */
struct ring {
	unsigned long head;
	u64 lost;
	unsigned long tail ____cacheline_aligned_in_smp;
	u64 lost_told;
	struct probe_record *records;
};

/**
 * struct rings - all CPUs' rings of one size
 * @next: what replaced them, and is read once these are empty
 * @mask: records per ring, a power of two, less one
 * @cpu: by CPU number
 */
struct rings {
	struct rings *next;
	unsigned long mask;
	struct ring *cpu[];
};

/* What producers use. Written under probe_mutex; NULL while closed. */
static struct rings *newest;
/* What the consumer empties first, mostly the same. Under probe_mutex and probe_read_mutex. */
static struct rings *oldest;

static void rings_free(struct rings *rings)
{
	int cpu;

	if (!rings)
		return;
	for_each_possible_cpu(cpu) {
		if (rings->cpu[cpu])
			vfree(rings->cpu[cpu]->records);
		kfree(rings->cpu[cpu]);
	}
	kfree(rings);
}

static struct rings *rings_alloc(unsigned int records)
{
	size_t size = roundup_pow_of_two(records) * sizeof(struct probe_record);
	struct rings *rings;
	struct ring *ring;
	int cpu;

	if (!probe_may_take((u64)size * num_possible_cpus()))
		return NULL;
	rings = kzalloc(struct_size(rings, cpu, nr_cpu_ids), GFP_KERNEL);
	if (!rings)
		return NULL;
	rings->mask = roundup_pow_of_two(records) - 1;
	for_each_possible_cpu(cpu) {
		ring = kzalloc_node(sizeof(*ring), GFP_KERNEL, cpu_to_node(cpu));
		rings->cpu[cpu] = ring;
		if (ring)
			ring->records = vzalloc_node(size, cpu_to_node(cpu));
		if (!ring || !ring->records) {
			rings_free(rings);
			return NULL;
		}
	}
	return rings;
}

int probe_rings_start(void)
{
	struct rings *rings = rings_alloc(READ_ONCE(probe_bufsize));

	if (!rings)
		return -ENOMEM;
	oldest = rings;
	smp_store_release(&newest, rings); /* they are made */
	return 0;
}

void probe_rings_stop(void)
{
	struct rings *next;

	WRITE_ONCE(newest, NULL);
	synchronize_rcu();
	for (; oldest; oldest = next) {
		next = oldest->next;
		rings_free(oldest);
	}
}

/* How many rings wait to be read to their end. */
static unsigned int rings_retired(void)
{
	struct rings *rings;
	unsigned int n = 0;

	mutex_lock(&probe_read_mutex);
	for (rings = oldest; rings && rings != newest; rings = rings->next)
		n++;
	mutex_unlock(&probe_read_mutex);
	return n;
}

int probe_rings_resize(unsigned int records)
{
	struct rings *rings, *old = newest;

	if (!old || old->mask + 1 == roundup_pow_of_two(records))
		return 0;
	if (rings_retired() >= RETIRED_MAX)
		return -EBUSY;
	rings = rings_alloc(records);
	if (!rings)
		return -ENOMEM;
	smp_store_release(&newest, rings); /* they are made */
	/* Nobody puts anything into the old ones from here on; the consumer may move on. */
	synchronize_rcu();
	smp_store_release(&old->next, rings); /* the old ones have all they will have */
	return 0;
}

void probe_ring_put(struct probe_record *rec)
{
	struct rings *rings = smp_load_acquire(&newest); /* pairs with their making */
	struct ring *ring;
	unsigned long head;

	if (!rings)
		return;
	ring = rings->cpu[smp_processor_id()];
	head = ring->head;
	__this_cpu_inc(probe_stats.taken);
	/* Pairs with the release of tail: the record there has been copied out. */
	if (head - smp_load_acquire(&ring->tail) > rings->mask) {
		__this_cpu_inc(probe_stats.ring_full);
		smp_wmb(); /* who sees this sees the records before it */
		WRITE_ONCE(ring->lost, ring->lost + 1);
		return;
	}
	rec->lost = ring->lost;
	ring->records[head & rings->mask] = *rec;
	smp_store_release(&ring->head, head + 1); /* the record is there */
}

#ifdef TEST_HOOKS
static unsigned int hook_missing_ms;
module_param(hook_missing_ms, uint, 0644);
MODULE_PARM_DESC(hook_missing_ms, "for tests: ms between looks for the lost and for records");

static void hook_missing(void)
{
	if (hook_missing_ms)
		msleep(hook_missing_ms);
}
#else
static inline void hook_missing(void)
{
}
#endif

/* What is missing up to @lost, which readers are hereby told of. */
static u64 ring_tell_lost(struct ring *ring, u64 lost)
{
	u64 untold = 0;

	if (lost > ring->lost_told) {
		untold = lost - ring->lost_told;
		ring->lost_told = lost;
	}
	return untold;
}

/* The ring whose next record is the oldest, or NULL. @lost: plus what no record marks. */
static struct ring *rings_oldest(struct rings *rings, u64 *lost)
{
	const struct probe_record *next, *first = NULL, *before;
	struct ring *ring, *from;
	bool empty, passed;
	u64 missing;
	int cpu;

	do {
		before = first;
		first = NULL;
		from = NULL;
		empty = false;
		passed = false;
		for_each_possible_cpu(cpu) {
			ring = rings->cpu[cpu];
			missing = READ_ONCE(ring->lost);
			hook_missing();
			/* Pairs with the producer's: what was there when that was lost is seen. */
			smp_rmb();
			/* Pairs with the release of head: the record is there. */
			if (smp_load_acquire(&ring->head) == ring->tail) {
				/* Nothing is there to mark the place of what was lost last. */
				*lost += ring_tell_lost(ring, missing);
				empty = true;
				continue;
			}
			next = &ring->records[ring->tail & rings->mask];
			if (!first || next->time < first->time) {
				first = next;
				from = ring;
				passed = empty;
			}
		}
		/*
		 * A connection may have left a record in a ring that was looked at before and was
		 * empty, and then gone to the CPU of this one. Who has seen this sees that too.
		 */
	} while (passed && first != before);
	return from;
}

static bool rings_get(struct rings *rings, struct probe_record *rec, u64 *lost)
{
	struct ring *from = rings_oldest(rings, lost);
	const struct probe_record *first;

	if (!from)
		return false;
	first = &from->records[from->tail & rings->mask];
	*rec = *first;
	*lost += ring_tell_lost(from, rec->lost);
	smp_store_release(&from->tail, from->tail + 1); /* the record was copied out */
	return true;
}

bool probe_rings_get(struct probe_record *rec, u64 *lost)
{
	struct rings *next;

	*lost = 0;
	while (oldest) {
		/* Before looking: what is there once they are retired is all that will be. */
		next = smp_load_acquire(&oldest->next);
		if (rings_get(oldest, rec, lost))
			return true;
		if (!next || *lost)
			return false;
		rings_free(oldest);
		oldest = next;
	}
	return false;
}

unsigned long probe_rings_count(void)
{
	struct rings *rings;
	unsigned long sum = 0;
	int cpu;

	/* Pairs with the making of the next. */
	for (rings = oldest; rings; rings = smp_load_acquire(&rings->next)) {
		for_each_possible_cpu(cpu)
			sum += READ_ONCE(rings->cpu[cpu]->head) - READ_ONCE(rings->cpu[cpu]->tail);
	}
	return sum;
}

size_t probe_rings_memory(void)
{
	struct rings *rings = READ_ONCE(newest);

	return rings ? num_possible_cpus() * (rings->mask + 1) * sizeof(struct probe_record) : 0;
}
