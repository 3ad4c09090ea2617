// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * stat.c - /proc/net/stat/tcpprobe_plus, in the initial network namespace.
 */
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <net/net_namespace.h>

#include "probe.h"

#define FILE_NAME "tcpprobe_plus"

/* Its CPU goes on counting meanwhile. */
static void add(struct probe_stat *sum, const struct probe_stat *stat)
{
	sum->search += READ_ONCE(stat->search);
	sum->found += READ_ONCE(stat->found);
	sum->fresh += READ_ONCE(stat->fresh);
	sum->reset += READ_ONCE(stat->reset);
	sum->purging += READ_ONCE(stat->purging);
	sum->ring_full += READ_ONCE(stat->ring_full);
	sum->maxflows += READ_ONCE(stat->maxflows);
	sum->no_memory += READ_ONCE(stat->no_memory);
	sum->taken += READ_ONCE(stat->taken);
}

static void show_counters(struct seq_file *seq, const struct probe_stat *stat, u64 multiple_reader,
			  u64 copy_failed)
{
	seq_printf(seq, "hash_stat: %6llu %6llu %6llu %6llu, ", stat->search, stat->found,
		   stat->fresh, stat->reset);
	seq_printf(seq, "ack_drop: %6llu %6llu, ", stat->purging, stat->ring_full);
	seq_printf(seq, "conn_drop: %6llu %6llu, ", stat->maxflows, stat->no_memory);
	seq_printf(seq, "err: %6llu %6llu\n", multiple_reader, copy_failed);
}

static int show(struct seq_file *seq, void *v)
{
	struct probe_stat sum = {};
	int cpu;

	for_each_possible_cpu(cpu)
		add(&sum, per_cpu_ptr(&probe_stats, cpu));
	mutex_lock(&probe_mutex);
	seq_printf(seq, "Flows: active %u mem %zuK\n", probe_flows_active(),
		   probe_flows_memory() / 1024);
	seq_printf(seq, "Hash: size %u mem %zuK\n", probe_flows_buckets(),
		   probe_flows_table_memory() / 1024);
	seq_puts(seq, "cpu# hash_stat: <search_flows found new reset>, ");
	seq_puts(seq, "ack_drop: <purge_in_progress ring_full>, ");
	seq_puts(seq, "conn_drop: <maxflow_reached memory_alloc_failed>, ");
	seq_puts(seq, "err: <multiple_reader copy_failed>\n");
	seq_puts(seq, "Total: ");
	show_counters(seq, &sum, atomic64_read(&probe_totals.multiple_reader),
		      atomic64_read(&probe_totals.copy_failed));
	seq_printf(seq, "Samples: taken %llu read %llu lost %llu missed %lu discarded %llu\n",
		   sum.taken, (u64)atomic64_read(&probe_totals.read), sum.ring_full,
		   probe_hooks_missed(), (u64)atomic64_read(&probe_totals.discarded));
	for_each_possible_cpu(cpu) {
		struct probe_stat one = {};

		add(&one, per_cpu_ptr(&probe_stats, cpu));
		seq_printf(seq, "cpu%d: ", cpu);
		show_counters(seq, &one, 0, 0);
	}
	seq_printf(seq, "Rings: mem %zuK\n", probe_rings_memory() / 1024);
	probe_hooks_show(seq);
	mutex_unlock(&probe_mutex);
	return 0;
}

int probe_stat_init(void)
{
	return proc_create_single_data(FILE_NAME, 0444, init_net.proc_net_stat, show, NULL)
		       ? 0
		       : -ENOMEM;
}

void probe_stat_exit(void)
{
	remove_proc_entry(FILE_NAME, init_net.proc_net_stat);
}
