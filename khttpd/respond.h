/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
#ifndef KHTTPD_RESPOND_H
#define KHTTPD_RESPOND_H

#include "ksrv.h"

/**
 * struct respond_params - the module's parameters that the protocol reads, each afresh each time
 * @keepalive_timeout: seconds between requests
 * @request_timeout: seconds for a head, for a body and for the reading of an answer, each
 * @max_requests: requests per connection, 0 for any number
 * @max_header: bytes of a head
 * @max_headers: fields of a head
 * @max_body: bytes of a body
 */
struct respond_params {
	const struct ksrv_uint *keepalive_timeout;
	const struct ksrv_uint *request_timeout;
	const struct ksrv_uint *max_requests;
	const struct ksrv_uint *max_header;
	const struct ksrv_uint *max_headers;
	const struct ksrv_uint *max_body;
};

extern const struct respond_params respond_params;
extern const struct ksrv_ops respond_ops;
extern const char *const respond_counters[];

int respond_init(void);
void respond_exit(void);

#endif
