/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * http.h - what "htstress" says to an HTTP server, and how it reads the answers: status line, the
 * fields that frame the body, and the body to its last byte.
 */
#ifndef LIB_HTTP_H
#define LIB_HTTP_H

#include "load.h"

/**
 * struct http - load_options.arg for http_protocol
 * @request: one request, the same each time
 * @request_len: its length
 * @depth: requests sent together
 * @keep: whether connections are kept; else the server has to close behind its answer
 * @many: http_init()'s: @depth requests in a row
 */
struct http {
	const char *request;
	size_t request_len;
	unsigned int depth;
	bool keep;
	char *many;
};

extern const struct load_protocol http_protocol;

/* Prepares the requests. */
void http_init(struct http *http);

#endif
