// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include "echo.h"

#include <stdlib.h>
#include <string.h>

#include "util.h"

#define PERIOD 65521 /* length of the sequence sent: a prime, so that no message size divides it */

struct state {
	const struct echo *echo;
	uint64_t begin; /* place in the stream of the message under way */
	uint64_t received; /* and of the next byte due back */
	uint32_t offset; /* this connection's place in the sequence */
};

void echo_init(struct echo *echo)
{
	size_t i, len = PERIOD + echo->size;
	uint32_t x = 2463534242u;

	echo->stream = malloc(len);
	if (!echo->stream)
		die("out of memory for messages of %zu bytes", echo->size);
	for (i = 0; i < PERIOD; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		echo->stream[i] = i < 256 ? (char)i : (char)(x >> 24);
	}
	/* Repeated, so that any message lies in one piece. */
	for (; i < len; i++)
		echo->stream[i] = echo->stream[i - PERIOD];
}

static void init(void *state, void *arg, unsigned int index)
{
	struct state *s = state;

	s->echo = arg;
	s->offset = (uint64_t)index * 7919 % PERIOD;
}

static void on_open(void *state)
{
	struct state *s = state;

	s->begin = s->received = 0;
}

static size_t request(void *state, uint64_t max, unsigned int *requests)
{
	struct state *s = state;

	(void)max;
	s->begin = s->received;
	*requests = 1;
	return s->echo->size;
}

static const char *bytes(void *state, size_t offset, size_t *len)
{
	const struct state *s = state;

	(void)len;
	return s->echo->stream + (s->offset + s->begin + offset) % PERIOD;
}

static enum load_verdict received(void *state, const char *buf, size_t n, unsigned int *bad,
				  const char **what)
{
	struct state *s = state;
	uint64_t due = s->begin + s->echo->size - s->received,
		 at = (s->offset + s->received) % PERIOD;

	(void)bad;
	if (n > due || (!s->echo->lean && memcmp(buf, s->echo->stream + at, n))) {
		*what = "not what was sent came back";
		return LOAD_WRONG;
	}
	s->received += n;
	return n == due ? LOAD_DONE : LOAD_MORE;
}

static enum load_verdict eof(void *state, unsigned int *requests, unsigned int *bad)
{
	(void)state;
	(void)requests;
	(void)bad;
	return LOAD_MORE;
}

const struct load_protocol echo_protocol = {
	.state_size = sizeof(struct state),
	.init = init,
	.open = on_open,
	.request = request,
	.bytes = bytes,
	.received = received,
	.eof = eof,
};
