// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * user-http-server - the least that passes for an HTTP server, in user space: each empty line is
 * answered by the same 12 bytes, and nothing else of a request is looked at but for the word
 * "close". The baseline of khttpd, not a server to use.
 */

#include <string.h>

#include "server.h"

#define ANSWERS 1024 /* to one read; more stay unanswered */

static const char answer[] = "HTTP/1.1 200 OK\r\n"
			     "Server: user-http\r\n"
			     "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
			     "Content-Type: text/plain\r\n"
			     "Content-Length: 12\r\n\r\n"
			     "Hello World!";

static char answers[ANSWERS * sizeof(answer)];

/* What a connection's state says: the line that has begun is not empty; lines of a head have come. */
enum { IN_LINE = 1, IN_HEAD = 2 };

static size_t respond(unsigned int *state, const char **text, size_t len, bool *last)
{
	const char *in = *text, *at = in, *end = in + len, *lf;
	unsigned int s = *state;
	size_t n = 0;

	for (; (lf = memchr(at, '\n', end - at)); at = lf + 1) {
		if (s & IN_LINE || lf - at > (lf > at && lf[-1] == '\r')) {
			s = IN_HEAD;
		} else if (s & IN_HEAD) {
			s = 0;
			n += n < ANSWERS;
		}
	}
	if (at < end && !(at + 1 == end && *at == '\r'))
		s |= IN_LINE;
	*state = s;
	*last = memmem(in, len, "close", 5) && n;
	*text = answers;
	return n * (sizeof(answer) - 1);
}

int main(int argc, char **argv)
{
	size_t i;

	for (i = 0; i < ANSWERS; i++)
		memcpy(answers + i * (sizeof(answer) - 1), answer, sizeof(answer) - 1);
	return server_main(argc, argv, "8082", respond);
}
