// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * http_requests - shows what khttpd's parser makes of streams. Standard input holds cases, each a
 * line "BYTES" and then so many bytes. A line of output a case: for each request
 *	METHOD/MINOR/keep|close@OFFSET
 * with the offset behind it, and then how the stream ends: "idle", "more" (in a request's head),
 * "body" (in its body) or "!STATUS@OFFSET".
 * With the argument "splits" each case is parsed again cut in two at every offset, and in pieces of
 * one byte, with a buffer of its own for each piece, and the program fails where that differs.
 * With "heads" in front of that "+@OFFSET" tells of each body where it begins.
 * Three more arguments, HEADER FIELDS BODY, are the limits.
 */
#include <stdio.h>
#include <stdlib.h>

#include "http.h"

static const char *const methods[] = { "GET",	 "HEAD",  "OPTIONS", "POST",   "PUT",
				       "DELETE", "PATCH", "TRACE",   "CONNECT" };

struct run {
	struct http_parser parser;
	struct http_limits limits;
	size_t offset;
	char text[1 << 20];
	size_t len;
	bool ended;
};

static bool heads; /* whether bodies are told of */

static void feed(struct run *run, const char *bytes, size_t len)
{
	/* A buffer of its own, so that reading beyond it is found out. */
	char *piece = malloc(len);
	const char *at = piece;
	enum http_event event;
	size_t taken;

	memcpy(piece, bytes, len);
	while (len && !run->ended) {
		taken = http_parse(&run->parser, &run->limits, at, len, &event);
		at += taken;
		len -= taken;
		run->offset += taken;
		if (event == HTTP_DONE) {
			run->len += sprintf(run->text + run->len, "%s/%u/%s@%zu ",
					    methods[run->parser.method], run->parser.minor,
					    http_keeps(&run->parser) ? "keep" : "close",
					    run->offset);
		} else if (event == HTTP_BODY && heads) {
			run->len += sprintf(run->text + run->len, "+@%zu ", run->offset);
		} else if (event == HTTP_ERROR) {
			run->len += sprintf(run->text + run->len, "!%u@%zu", run->parser.status,
					    run->offset);
			run->ended = true;
		}
		if (run->len > sizeof(run->text) - 100)
			abort();
	}
	free(piece);
}

static void finish(struct run *run)
{
	const char *how = "idle";

	if (run->ended)
		return;
	if (http_in_body(&run->parser))
		how = "body";
	else if (http_begun(&run->parser))
		how = "more";
	run->len += sprintf(run->text + run->len, "%s", how);
}

static void begin(struct run *run)
{
	memset(&run->parser, 0, sizeof(run->parser));
	run->offset = 0;
	run->len = 0;
	run->ended = false;
	run->text[0] = 0;
}

static void compare(const struct run *whole, const struct run *split, size_t at)
{
	if (!strcmp(whole->text, split->text))
		return;
	printf("cut at %zu: \"%s\" instead of \"%s\"\n", at, split->text, whole->text);
	exit(1);
}

int main(int argc, char **argv)
{
	static struct run whole, split;
	bool splits;
	struct http_limits limits = { .header = 8192, .fields = 100, .body = 1048576 };
	size_t len, at;
	char *bytes;

	heads = argc > 1 && !strcmp(argv[1], "heads");
	argc -= heads;
	argv += heads;
	splits = argc > 1 && !strcmp(argv[1], "splits");
	if (argc - splits == 4) {
		limits.header = strtoul(argv[argc - 3], NULL, 10);
		limits.fields = strtoul(argv[argc - 2], NULL, 10);
		limits.body = strtoul(argv[argc - 1], NULL, 10);
	}
	whole.limits = split.limits = limits;
	while (scanf("%zu", &len) == 1 && getchar() == '\n') {
		bytes = malloc(len + 1);
		if (fread(bytes, 1, len, stdin) != len)
			return 2;
		begin(&whole);
		feed(&whole, bytes, len);
		finish(&whole);
		puts(whole.text);
		for (at = 0; splits && at <= len; at++) {
			begin(&split);
			feed(&split, bytes, at);
			feed(&split, bytes + at, len - at);
			finish(&split);
			compare(&whole, &split, at);
		}
		if (splits) {
			begin(&split);
			for (at = 0; at < len; at++)
				feed(&split, bytes + at, 1);
			finish(&split);
			compare(&whole, &split, 1);
		}
		free(bytes);
	}
	return 0;
}
