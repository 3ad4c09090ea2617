// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * sysctl.c - /proc/sys/net/tcpprobe_plus, and module parameters of the same names. Both refuse what
 * is out of range with EINVAL.
 */
#include <linux/module.h>
#include <linux/sysctl.h>

#include "compat.h"
#include "probe.h"

unsigned int probe_bufsize = 4096;
unsigned int probe_readnum = 10;
unsigned int probe_debug;
unsigned int probe_full = 1;
unsigned int probe_hashsize;
unsigned int probe_maxflows = 1000;
unsigned int probe_port;
unsigned int probe_time;
unsigned int probe_purgetime = 300;

static const unsigned int zero, one = 1, two = 2, max_port = 65535, max_time = 3600000;
static const unsigned int min_bufsize = 16, max_bufsize = 1 << 22, max_readnum = 1 << 20;
static const unsigned int max_hashsize = 1 << 24, max_flows = 1 << 24, max_purgetime = 31536000;

/* Those whose change takes more than a store. @change puts the new value into effect. */
static int changing(COMPAT_CTL_TABLE *table, int write, void *buffer, size_t *len, loff_t *pos,
		    int (*change)(unsigned int value))
{
	unsigned int *value = table->data;
	unsigned int old;
	int err;

	mutex_lock(&probe_mutex);
	old = *value;
	err = proc_douintvec_minmax(table, write, buffer, len, pos);
	if (!err && write && *value != old) {
		err = change(*value);
		if (err)
			WRITE_ONCE(*value, old);
	}
	mutex_unlock(&probe_mutex);
	return err;
}

static int do_bufsize(COMPAT_CTL_TABLE *table, int write, void *buffer, size_t *len, loff_t *pos)
{
	return changing(table, write, buffer, len, pos, probe_rings_resize);
}

static int do_hashsize(COMPAT_CTL_TABLE *table, int write, void *buffer, size_t *len, loff_t *pos)
{
	return changing(table, write, buffer, len, pos, probe_flows_resize);
}

static int do_port(COMPAT_CTL_TABLE *table, int write, void *buffer, size_t *len, loff_t *pos)
{
	return changing(table, write, buffer, len, pos, probe_flows_narrow);
}

#define ENTRY(name, variable, handler, min, max)                                                 \
	{                                                                                        \
		.procname = name, .data = &(variable), .maxlen = sizeof(variable), .mode = 0644, \
		.proc_handler = handler, .extra1 = (void *)&(min), .extra2 = (void *)&(max),     \
	}

static struct ctl_table entries[] = {
	ENTRY("bufsize", probe_bufsize, do_bufsize, min_bufsize, max_bufsize),
	ENTRY("readnum", probe_readnum, proc_douintvec_minmax, one, max_readnum),
	ENTRY("debug", probe_debug, proc_douintvec_minmax, zero, two),
	ENTRY("full", probe_full, proc_douintvec_minmax, zero, one),
	ENTRY("hashsize", probe_hashsize, do_hashsize, zero, max_hashsize),
	ENTRY("maxflows", probe_maxflows, proc_douintvec_minmax, one, max_flows),
	ENTRY("port", probe_port, do_port, zero, max_port),
	ENTRY("probetime", probe_time, proc_douintvec_minmax, zero, max_time),
	ENTRY("purgetime", probe_purgetime, proc_douintvec_minmax, zero, max_purgetime),
	COMPAT_SYSCTL_END
};

static struct ctl_table_header *header;

/* A module parameter is the entry of the same name, and has its bounds. */
static int param_set(const char *text, const struct kernel_param *kp)
{
	const struct ctl_table *entry = kp->arg;
	unsigned int value, min = *(unsigned int *)entry->extra1,
			    max = *(unsigned int *)entry->extra2;

	if (!text || kstrtouint(text, 0, &value) || value < min || value > max) {
		pr_err("%s=%.32s is not a number from %u to %u\n", kp->name, text ?: "", min, max);
		return -EINVAL;
	}
	WRITE_ONCE(*(unsigned int *)entry->data, value);
	return 0;
}

static int param_get(char *buffer, const struct kernel_param *kp)
{
	const struct ctl_table *entry = kp->arg;

	return sprintf(buffer, "%u\n", READ_ONCE(*(unsigned int *)entry->data));
}

static const struct kernel_param_ops param_ops = {
	.set = param_set,
	.get = param_get,
};

#define PARAM(name, at, text)                                  \
	module_param_cb(name, &param_ops, &entries[at], 0444); \
	MODULE_PARM_DESC(name, text)

PARAM(bufsize, 0, "records buffered per CPU, rounded up to a power of two (default 4096)");
PARAM(readnum, 1, "a read waits until so many records are there (default 10)");
PARAM(debug, 2, "0 none, 1 flows and hooks, 2 also each sample (default 0)");
PARAM(full, 3, "0 only when cwnd changed on the flow, 1 every segment (default 1)");
PARAM(hashsize, 4, "buckets of the flow table; 0 by memory (default 0)");
PARAM(maxflows, 5, "flows tracked (default 1000)");
PARAM(port, 6, "only flows with this port at either end; 0 all (default 0)");
PARAM(probetime, 7, "least ms between two samples of a flow (default 0)");
PARAM(purgetime, 8, "seconds after which an idle flow is forgotten; 0 never (default 300)");

int probe_sysctl_init(void)
{
	header = register_net_sysctl(&init_net, "net/tcpprobe_plus", entries);
	return header ? 0 : -ENOMEM;
}

void probe_sysctl_exit(void)
{
	unregister_net_sysctl_table(header);
}
