// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * kecho - an in-kernel TCP echo server (RFC 862)
 */
#include <linux/module.h>

#include "echo.h"

KSRV_PARAMS(12345);
KSRV_PARAM_UINT(idle_timeout, 3600, 0, 31536000, 0644,
		"seconds without a byte before a connection is closed; 0 never (default 3600)");

static const struct ksrv_service kecho = {
	.name = "kecho",
	.greeting = "echoes",
	.ops = &echo_ops,
	.addr = &addr,
	.port = &port,
	.backlog = &backlog,
	.bench = &bench,
	.fastpath = &fastpath,
	.max_conns = &max_conns,
	.idle_timeout = &idle_timeout,
};

static int __init kecho_init(void)
{
	return ksrv_register(&kecho);
}

static void __exit kecho_exit(void)
{
	ksrv_unregister();
}

module_init(kecho_init);
module_exit(kecho_exit);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_AUTHOR("The kernel networking suite");
MODULE_DESCRIPTION("In-kernel TCP echo server");
MODULE_VERSION("0.1.0");
