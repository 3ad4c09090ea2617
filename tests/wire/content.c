// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * content.c - bytes and requests by chance, and a reader of answers
 */
#include <stdlib.h>
#include <string.h>

#include "wire.h"

#define REQUESTS_MAX 30
#define ROOM 65536

uint64_t wire_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint8_t *wire_bytes(uint64_t *rng, uint32_t len)
{
	uint8_t *bytes = malloc(len + 1);
	uint32_t i;

	for (i = 0; i < len; i++)
		bytes[i] = wire_random(rng);
	return bytes;
}

/* Sound requests, none of which ends the connection, nor has an answer without its body. */
static const char *const requests[] = {
	"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET /a/b?c=%20d HTTP/1.1\r\nHost: example.org:80\r\nAccept: */*\r\nUser-Agent: wire\r\n\r\n",
	"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
	"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n12345",
	"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
	"PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
	"\r\nGET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
	"DELETE / HTTP/1.1\r\nhost:a\r\nCookie: 1=2; 3=4\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nTrailer: y\r\n\r\n",
};

/* One of the things that happen to bytes on their way from a careless program. */
static uint32_t spoil(uint64_t *rng, uint8_t *text, uint32_t len)
{
	static const char *const bits[] = { "\r\n",
					    "\r\n\r\n",
					    "\n",
					    "\r",
					    "\0",
					    ":",
					    " ",
					    "Content-Length: 9\r\n",
					    "Transfer-Encoding: chunked\r\n",
					    "\xff",
					    "%",
					    "HTTP/2.0",
					    "-1",
					    ",",
					    ";",
					    "18446744073709551616",
					    "\t",
					    "Connection: close\r\n",
					    "Host: b\r\n" };
	const char *bit = bits[wire_random(rng) % (sizeof(bits) / sizeof(*bits))];
	uint32_t at = wire_random(rng) % len, n = *bit ? strlen(bit) : 1;

	switch (wire_random(rng) % 4) {
	case 0:
		text[at] ^= 1 << wire_random(rng) % 8;
		break;
	case 1: /* left out */
		n = 1 + wire_random(rng) % 20;
		n = at + n > len ? len - at : n;
		memmove(text + at, text + at + n, len - at - n);
		len -= n;
		break;
	case 2: /* twice */
		n = 1 + wire_random(rng) % 200;
		n = at + n > len ? len - at : n;
		memmove(text + at + n, text + at, len - at);
		len += n;
		break;
	default:
		memmove(text + at + n, text + at, len - at);
		memcpy(text + at, bit, n);
		len += n;
	}
	return len;
}

uint8_t *wire_requests(uint64_t *rng, uint32_t *len, struct http_check *check)
{
	uint32_t n = 1 + wire_random(rng) % REQUESTS_MAX, i, size, spoiled;
	uint8_t *text = malloc(ROOM);
	const char *one;

	*len = 0;
	for (i = 0; i < n; i++) {
		one = requests[wire_random(rng) % (sizeof(requests) / sizeof(*requests))];
		size = strlen(one);
		memcpy(text + *len, one, size);
		*len += size;
	}
	check->wanted = n;
	check->exactly = true;
	if (wire_random(rng) % 2)
		return text;
	/* What is left of them is anybody's guess; more answers than bytes there cannot be. */
	check->exactly = false;
	check->wanted = *len;
	for (spoiled = 1 + wire_random(rng) % 5; spoiled && *len > 1; spoiled--)
		*len = spoil(rng, text, *len);
	return text;
}

/* A field's value in a head, or NULL. */
static const char *field(const char *head, const char *name)
{
	size_t n = strlen(name);

	for (; (head = strstr(head, "\r\n"));)
		if (!strncmp(head += 2, name, n) && !strncmp(head + n, ": ", 2))
			return head + n + 2;
	return NULL;
}

static const char *check_head(struct http_check *check)
{
	static const int known[] = { 100, 200, 400, 405, 408, 413, 414, 417, 431, 501, 505 };
	const char *value;
	size_t i;
	char *end;
	int status;

	if (strncmp(check->head, "HTTP/1.1 ", 9))
		return "does not begin with a status line";
	status = strtol(check->head + 9, &end, 10);
	if (end != check->head + 12 || *end != ' ')
		return "status of other than three digits";
	for (i = 0; known[i] != status; i++)
		if (i + 1 == sizeof(known) / sizeof(*known))
			return "unknown status";
	if (status == 100)
		return NULL;
	check->answers++;
	if (check->answers > check->wanted)
		return "more answers than requests";
	if (check->exactly && status != 200 && status != 405)
		return "an error for a sound request";
	value = field(check->head, "Content-Length");
	if (!value)
		return "no Content-Length";
	check->body = strtoul(value, &end, 10);
	if (end == value || strncmp(end, "\r\n", 2))
		return "Content-Length is not a number";
	check->text = NULL;
	if (status == 200 && check->body) {
		check->text = "Hello World!";
		if (check->body != strlen(check->text))
			return "a body of another length";
	}
	value = field(check->head, "Connection");
	check->closing = value && !strncmp(value, "close\r\n", 7);
	if (status != 200 && status != 405 && !check->closing)
		return "an error that keeps the connection";
	return NULL;
}

const char *wire_check(struct http_check *check, const char *data, size_t len)
{
	const char *wrong;
	size_t n;

	while (len) {
		if (check->body) {
			n = check->body < len ? check->body : len;
			if (check->text) {
				if (memcmp(check->text, data, n))
					return "a body that is another";
				check->text += n;
			}
			check->body -= n;
			data += n;
			len -= n;
			continue;
		}
		if (check->closing)
			return "something behind the last answer";
		if (check->head_len + 1 == sizeof(check->head))
			return "a head without an end";
		if (!*data)
			return "a byte of zero in a head";
		check->head[check->head_len++] = *data++;
		check->head[check->head_len] = '\0';
		len--;
		if (check->head_len >= 4 &&
		    !strcmp(check->head + check->head_len - 4, "\r\n\r\n")) {
			wrong = check_head(check);
			check->head_len = 0;
			if (wrong)
				return wrong;
		}
	}
	return NULL;
}

const char *wire_check_end(const struct http_check *check)
{
	if (check->body || check->head_len)
		return "the server's bytes end within an answer";
	if (check->exactly && check->answers != check->wanted)
		return "fewer answers than requests";
	return NULL;
}
