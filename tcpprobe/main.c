// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * tcpprobe - TCP's variables per segment, through /proc/net/tcpprobe
 */
#include <linux/module.h>

#include "probe.h"

static int __init probe_init(void)
{
	int err;

	err = probe_sysctl_init();
	if (err)
		return err;
	err = probe_stat_init();
	if (err)
		goto err_sysctl;
	err = probe_proc_init();
	if (err)
		goto err_stat;
	return 0;

err_stat:
	probe_stat_exit();
err_sysctl:
	probe_sysctl_exit();
	return err;
}

static void __exit probe_exit(void)
{
	probe_proc_exit();
	probe_stat_exit();
	probe_sysctl_exit();
	probe_flows_drain();
	probe_hooks_exit();
}

module_init(probe_init);
module_exit(probe_exit);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_AUTHOR("The kernel networking suite");
MODULE_DESCRIPTION("Probe of TCP's variables per segment");
MODULE_VERSION("0.1.0");
