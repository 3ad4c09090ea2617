// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * http_parser - a libFuzzer target: khttpd's request parser gives the same for any cut of a stream,
 * and keeps to its limits. The first two bytes of the input choose the cuts and the limits.
 */
#include <stdint.h>
#include <stdlib.h>

#include "http.h"

struct outcome {
	u64 requests; /* a sum over what each was, where its head and it ended, and what it is to be told */
	size_t offset;
	u16 status;
	bool begun, in_body; /* a request has, and is, where it ends */
};

static struct outcome parse(const struct http_limits *limits, const char *data, size_t len,
			    size_t step)
{
	struct outcome out = { 0 };
	struct http_parser p = { 0 };
	size_t at = 0, n, taken;
	enum http_event event;

	while (at < len) {
		n = len - at < step ? len - at : step;
		taken = http_parse(&p, limits, data + at, n, &event);
		if (taken > n || (!taken && event != HTTP_ERROR))
			abort();
		at += taken;
		if (p.body > limits->body || p.fields > limits->fields || p.head > limits->header)
			abort();
		if (event == HTTP_DONE || event == HTTP_BODY)
			out.requests = out.requests * 31 + at * 7 + p.method + http_keeps(&p) +
				       p.minor * 3 + (p.flags & HTTP_F_EXPECT) + event * 11;
		if (event == HTTP_ERROR) {
			if (p.status < 400 || p.status > 505)
				abort();
			out.status = p.status;
			break;
		}
	}
	out.offset = at;
	if (!out.status) {
		out.begun = http_begun(&p);
		out.in_body = http_in_body(&p);
	}
	return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct http_limits limits = { .header = 8192, .fields = 100, .body = 1048576 };
	struct outcome whole, cut;

	if (size < 2)
		return 0;
	if (data[0] & 1) {
		limits.header = 32 + data[1];
		limits.fields = 1 + data[1] % 5;
		limits.body = data[1];
	}
	whole = parse(&limits, (const char *)data + 2, size - 2, size);
	cut = parse(&limits, (const char *)data + 2, size - 2, 1 + data[0] / 2);
	if (whole.requests != cut.requests || whole.offset != cut.offset ||
	    whole.status != cut.status || whole.begun != cut.begun || whole.in_body != cut.in_body)
		abort();
	return 0;
}
