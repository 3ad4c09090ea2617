// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * ksrv_stat.c - /proc/net/stat/NAME: the server's counters, in its own namespace.
 */
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

#include "compat.h"
#include "ksrv_impl.h"

/* Changes when a line changes its meaning; new lines may come at the end without it. */
#define KSRV_STAT_VERSION 1

static u64 sum(const struct ksrv_server *srv, enum ksrv_counter what)
{
	u64 total = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		total += READ_ONCE(per_cpu_ptr(srv->cpu, cpu)->counts[what]);
	return total;
}

static u64 sum_own(const struct ksrv_server *srv, unsigned int which)
{
	u64 total = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		total += READ_ONCE(per_cpu_ptr(srv->cpu, cpu)->own[which]);
	return total;
}

static int stat_show(struct seq_file *seq, void *v)
{
	const struct ksrv_server *srv = pde_data(file_inode(seq->file));
	const char *const *own = srv->svc->counters;
	u64 accepted, closed, in, fast;
	unsigned int i;

	/* In this order no connection is seen closed that was not seen accepted. */
	closed = sum(srv, KSRV_CLOSED);
	smp_rmb(); /* another CPU adds to them in the order of the connection's life */
	accepted = sum(srv, KSRV_ACCEPTED);
	/* Nor a byte taken in the receive path that was not seen taken. */
	fast = sum(srv, KSRV_FASTPATH_BYTES);
	smp_rmb(); /* likewise */
	in = sum(srv, KSRV_BYTES_IN);
	seq_printf(seq, "version %d\n", KSRV_STAT_VERSION);
	seq_printf(seq, "accepted %llu\n", accepted);
	seq_printf(seq, "active %llu\n", accepted - closed);
	seq_printf(seq, "closed %llu\n", closed);
	seq_printf(seq, "rejected %llu\n", sum(srv, KSRV_REJECTED));
	seq_printf(seq, "timeouts %llu\n", sum(srv, KSRV_TIMEOUTS));
	seq_printf(seq, "errors %llu\n", sum(srv, KSRV_ERRORS));
	seq_printf(seq, "bytes_in %llu\n", in);
	seq_printf(seq, "bytes_out %llu\n", sum(srv, KSRV_BYTES_OUT));
	seq_printf(seq, "fastpath_bytes %llu\n", fast);
	for (i = 0; own && own[i]; i++)
		seq_printf(seq, "%s %llu\n", own[i], sum_own(srv, i));
	return 0;
}

/**
 * ksrv_stat_init() - make the file
 * @srv: the server; its counters are there
 *
 * It is of the kind that holds the namespace while it is open: else a reader whose own memory
 * keeps it would hold up the removal of namespaces, which is one queue for all.
 */
int ksrv_stat_init(struct ksrv_server *srv)
{
	srv->stat = proc_create_net_single(srv->svc->name, 0444, srv->net->proc_net_stat, stat_show,
					   srv);
	return srv->stat ? 0 : -ENOMEM;
}

/**
 * ksrv_stat_uninit() - remove the file, if it is there; waits for its readers
 * @srv: the server
 */
void ksrv_stat_uninit(struct ksrv_server *srv)
{
	proc_remove(srv->stat);
	srv->stat = NULL;
}
