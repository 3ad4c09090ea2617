// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * drop_tcp_sock - drops TCP sockets named in /proc/net/drop_tcp_sock
 */
#include <linux/module.h>

#include "drop.h"

static int __init drop_init(void)
{
	return drop_proc_register();
}

static void __exit drop_exit(void)
{
	drop_proc_unregister();
}

module_init(drop_init);
module_exit(drop_exit);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_AUTHOR("The kernel networking suite");
MODULE_DESCRIPTION("Drops TCP sockets, TIME-WAIT and others, by address and port");
MODULE_VERSION("0.1.0");
