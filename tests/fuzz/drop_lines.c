// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * drop_lines - a libFuzzer target: the lines of drop_tcp_sock are the same for any cut of a stream,
 * what a line asks for is the sockets that it describes and no others, bit for bit, and what is shown
 * of a line is printable.
 * The first byte of the input chooses the cuts.
 */
#include <stdint.h>
#include <stdlib.h>

#include "line.h"

static uint64_t mix(uint64_t sum, const void *data, size_t len)
{
	const uint8_t *b = data;
	size_t i;

	for (i = 0; i < len; i++)
		sum = (sum ^ b[i]) * 0x100000001b3ull;
	return sum;
}

static void check_escape(const struct drop_text *line)
{
	char text[DROP_ESCAPED_MAX];
	const char *c;

	drop_escape(line->s, line->len, text);
	for (c = text; *c; c++)
		if (*c < ' ' || *c > '~')
			abort();
}

/* Of an end: each bit that it names counts, and none of the others. */
static void check_end(const struct drop_selector *sel, struct drop_tuple *tuple,
		      const struct drop_end *end, u8 addr[16], u16 *port)
{
	unsigned int bit;

	for (bit = 0; bit < 128; bit++) {
		addr[bit / 8] ^= 0x80 >> bit % 8;
		if (drop_matches(sel, tuple) != (!end->family || bit >= end->prefix))
			abort();
		addr[bit / 8] ^= 0x80 >> bit % 8;
	}
	for (bit = 0; bit < 16; bit++) {
		*port ^= 1 << bit;
		if (drop_matches(sel, tuple) != end->any_port)
			abort();
		*port ^= 1 << bit;
	}
}

static void check_matches(const struct drop_selector *sel)
{
	struct drop_tuple tuple = {
		.local_port = sel->local.port,
		.remote_port = sel->remote.port,
		.family = sel->local.family ? sel->local.family : sel->remote.family,
	};

	if (!tuple.family)
		tuple.family = 4;
	memcpy(tuple.local, sel->local.addr, 16);
	memcpy(tuple.remote, sel->remote.addr, 16);
	if (!drop_matches(sel, &tuple))
		abort();
	check_end(sel, &tuple, &sel->local, tuple.local, &tuple.local_port);
	check_end(sel, &tuple, &sel->remote, tuple.remote, &tuple.remote_port);
	tuple.family = 10 - tuple.family;
	if (drop_matches(sel, &tuple) != (!sel->local.family && !sel->remote.family))
		abort();
}

static uint64_t one(uint64_t sum, const struct drop_text *line)
{
	struct drop_selector sel;
	const char *wrong;

	if (line->len > DROP_LINE_MAX)
		abort();
	memset(&sel, 0, sizeof(sel));
	wrong = drop_parse(line, &sel);
	check_escape(line);
	sum = mix(sum, line->s, line->len);
	if (wrong)
		return mix(sum, wrong, strlen(wrong));
	if (sel.local.prefix > 128 || sel.remote.prefix > 128 || !sel.states ||
	    sel.states >> DROP_STATES)
		abort();
	check_matches(&sel);
	return mix(sum, &sel.states, sizeof(sel.states));
}

static uint64_t read_all(const char *data, size_t size, size_t step)
{
	struct drop_cutter cutter = {};
	struct drop_text line;
	uint64_t sum = 1;
	size_t left, n;
	char *piece;
	const char *at;

	for (; size; size -= n, data += n) {
		n = size < step ? size : step;
		/* A buffer of its own for each piece, so that reading beyond it is found out. */
		at = piece = malloc(n);
		memcpy(piece, data, n);
		left = n;
		while (left && drop_cut(&cutter, &at, &left, &line))
			sum = one(sum, &line);
		free(piece);
	}
	if (drop_cut_last(&cutter, &line))
		sum = one(sum, &line);
	return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	if (read_all((const char *)data + 1, size - 1, size) !=
	    read_all((const char *)data + 1, size - 1, 1 + data[0]))
		abort();
	return 0;
}
