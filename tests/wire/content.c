// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * content.c - bytes and requests by chance, and a reader of answers, which knows what has to come:
 * what khttpd's own parser makes of the whole stream, in one piece and in user space
 */
#include <stdlib.h>
#include <string.h>

#include "http.h"
#include "wire.h"

#define REQUESTS_MAX 30 /* most of the time */
#define REQUESTS_MANY 300 /* their answers are more than a batch of khttpd's */
#define ROOM 65536

/* khttpd's, as loaded without parameters. */
static const struct http_limits limits = { .header = 8192, .fields = 100, .body = 1 << 20 };

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

/* Sound requests; the last few, seldom taken, are the connection's last. */
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
	"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
	"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
	"GET / HTTP/1.0\r\n\r\n",
	"PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
	"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
};

#define LAST_ONES 4

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

static const char hello[] = "Hello World!";

static void expect(struct http_check *check, uint16_t status, enum http_method method, bool last)
{
	uint16_t length = status != 200 ? ANY_LENGTH : method == HTTP_OPTIONS ? 0 : strlen(hello);

	check->expected[check->wanted++] =
		(struct http_answer){ status, length, method == HTTP_HEAD, last };
}

/* What has to come. A request of no byte there is not, so there are at most as many as bytes. */
static void foresee(struct http_check *check, const uint8_t *text, size_t len)
{
	struct http_parser parser = {};
	enum http_event event;
	bool served, last = false;
	size_t at = 0;

	check->wanted = 0;
	check->expected = malloc((len + 1) * sizeof(*check->expected));
	while (at < len && !last) {
		at += http_parse(&parser, &limits, (const char *)text + at, len - at, &event);
		served = parser.method <= HTTP_OPTIONS;
		switch (event) {
		case HTTP_MORE:
			break;
		case HTTP_DONE:
			last = !http_keeps(&parser);
			expect(check, served ? 200 : 405, parser.method, last);
			break;
		case HTTP_BODY:
			if (!(parser.flags & HTTP_F_EXPECT))
				break;
			last = !served;
			expect(check, served ? 100 : 405, parser.method, last);
			break;
		case HTTP_ERROR:
			last = true;
			expect(check, parser.status, parser.method, last);
		}
	}
	check->expected = realloc(check->expected, (check->wanted + 1) * sizeof(*check->expected));
}

uint8_t *wire_requests(uint64_t *rng, uint32_t *len, struct http_check *check)
{
	uint32_t n = 1 + wire_random(rng) % (wire_random(rng) % 16 ? REQUESTS_MAX : REQUESTS_MANY);
	uint32_t i, size, spoiled, kinds = sizeof(requests) / sizeof(*requests);
	uint8_t *text = malloc(ROOM);
	const char *one;

	*len = 0;
	for (i = 0; i < n; i++) {
		one = requests[wire_random(rng) %
			       (wire_random(rng) % 64 ? kinds - LAST_ONES : kinds)];
		size = strlen(one);
		memcpy(text + *len, one, size);
		*len += size;
	}
	if (wire_random(rng) % 2)
		for (spoiled = 1 + wire_random(rng) % 5; spoiled && *len > 1; spoiled--)
			*len = spoil(rng, text, *len);
	foresee(check, text, *len);
	return text;
}

void wire_forget(struct http_check *check)
{
	free(check->expected);
	check->expected = NULL;
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
	const struct http_answer *expected = &check->expected[check->answers];
	const char *value;
	bool closing;
	char *end;
	int status;

	if (check->answers == check->wanted)
		return "an answer that nothing asked for";
	check->answers++;
	if (strncmp(check->head, "HTTP/1.1 ", 9))
		return "does not begin with a status line";
	status = strtol(check->head + 9, &end, 10);
	if (end != check->head + 12 || *end != ' ')
		return "status of other than three digits";
	if (status != expected->status)
		return "another status than the parser's";
	if (status == 100)
		return strstr(check->head, "\r\n\r\n") == strstr(check->head, "\r\n")
			       ? NULL
			       : "100 with fields";
	value = field(check->head, "Content-Length");
	if (!value)
		return "no Content-Length";
	check->body = strtoul(value, &end, 10);
	if (end == value || strncmp(end, "\r\n", 2))
		return "Content-Length is not a number";
	check->text = status == 200 ? hello : NULL;
	if (expected->length != ANY_LENGTH && check->body != expected->length)
		return "a body of another length";
	if (expected->no_body)
		check->body = 0;
	value = field(check->head, "Connection");
	closing = value && !strncmp(value, "close\r\n", 7);
	if (closing != expected->last)
		return closing ? "it is to be the last answer" : "the last answer does not say so";
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
	if (check->answers != check->wanted)
		return "answers are missing";
	return NULL;
}
