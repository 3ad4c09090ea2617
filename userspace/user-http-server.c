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

/* @state: how much of the empty line has come. */
static size_t respond(unsigned int *state, const char **text, size_t len, bool *last)
{
	static const char end[] = "\r\n\r\n";
	const char *in = *text;
	size_t i, n = 0;

	for (i = 0; i < len; i++) {
		*state = in[i] == end[*state] ? *state + 1 : in[i] == '\r';
		if (*state == 4) {
			*state = 0;
			n += n < ANSWERS;
		}
	}
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
