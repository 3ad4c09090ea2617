// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * khttpd - an in-kernel HTTP/1.1 responder
 */
#include <linux/module.h>

#include "respond.h"

KSRV_PARAMS(8081);
KSRV_PARAM_UINT(keepalive_timeout, 60, 1, 31536000, 0644,
		"seconds that a connection is kept between requests, 1-31536000 (default 60)");
KSRV_PARAM_UINT(request_timeout, 10, 1, 31536000, 0644,
		"seconds for a head, a body and the reading of an answer, 1-31536000 (default 10)");
KSRV_PARAM_UINT(max_requests, 0, 0, UINT_MAX, 0644,
		"requests per connection; 0 any number (default 0)");
KSRV_PARAM_UINT(max_header, 8192, 64, 1 << 20, 0644,
		"bytes of request line and header fields, 64-1048576 (default 8192)");
KSRV_PARAM_UINT(max_headers, 100, 1, 1 << 16, 0644,
		"header fields of a request, 1-65536 (default 100)");
KSRV_PARAM_UINT(max_body, 1 << 20, 0, INT_MAX, 0644,
		"bytes of a request's body, read and discarded, 0-2147483647 (default 1048576)");
KSRV_PARAM_UINT(max_conns_per_ip, 0, 0, 1 << 24, 0644,
		"connections per client address, IPv6 per /64; 0 any number (default 0)");

const struct respond_params respond_params = {
	.keepalive_timeout = &keepalive_timeout,
	.request_timeout = &request_timeout,
	.max_requests = &max_requests,
	.max_header = &max_header,
	.max_headers = &max_headers,
	.max_body = &max_body,
};

static const struct ksrv_service khttpd = {
	.name = "khttpd",
	.greeting = "answers HTTP requests",
	.ops = &respond_ops,
	.addr = &addr,
	.port = &port,
	.backlog = &backlog,
	.bench = &bench,
	.fastpath = &fastpath,
	.max_conns = &max_conns,
	.max_conns_per_ip = &max_conns_per_ip,
	.unread_timeout = &request_timeout,
	.counters = respond_counters,
};

static int __init khttpd_init(void)
{
	int err = respond_init();

	if (err)
		return err;
	err = ksrv_register(&khttpd);
	if (err)
		respond_exit();
	return err;
}

static void __exit khttpd_exit(void)
{
	ksrv_unregister();
	respond_exit();
}

module_init(khttpd_init);
module_exit(khttpd_exit);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_AUTHOR("The kernel networking suite");
MODULE_DESCRIPTION("In-kernel HTTP/1.1 responder");
MODULE_VERSION("0.1.0");
