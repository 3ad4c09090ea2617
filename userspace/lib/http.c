// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include "http.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "util.h"

#define INTERIM_MAX 100 /* a server that says nothing else would be listened to for ever */
#define LINE_MAX_LEN 1024 /* of a line of an answer; what is longer is wrong or of no interest */

enum part { STATUS, FIELDS, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER, CLOSED };

struct state {
	const struct http *http;
	unsigned int due; /* answers that are to come, the one at hand included */
	unsigned int interim; /* of status 1xx in front of the one at hand */
	unsigned int bad;
	enum part part;
	unsigned int status;
	bool http10;
	bool close; /* the server closes behind this answer */
	bool said_close; /* by a Connection field; of several each counts (RFC 9110, 5.3) */
	bool said_keep;
	bool chunked;
	bool sized;
	uint64_t left; /* bytes of the body, or of the chunk */
	size_t line_len;
	char line[LINE_MAX_LEN];
};

void http_init(struct http *http)
{
	unsigned int i;

	http->many = malloc(http->request_len * http->depth);
	if (!http->many)
		die("out of memory for %u requests at a time", http->depth);
	for (i = 0; i < http->depth; i++)
		memcpy(http->many + i * http->request_len, http->request, http->request_len);
}

static void init(void *state, void *arg, unsigned int index)
{
	struct state *s = state;

	(void)index;
	s->http = arg;
}

static void on_open(void *state)
{
	struct state *s = state;

	s->part = STATUS;
	s->interim = 0;
	s->line_len = 0;
}

static size_t request(void *state, uint64_t max, unsigned int *requests)
{
	struct state *s = state;

	s->due = max < s->http->depth ? max : s->http->depth;
	s->bad = 0;
	*requests = s->due;
	return s->due * s->http->request_len;
}

static const char *bytes(void *state, size_t offset, size_t *len)
{
	const struct state *s = state;

	(void)len;
	return s->http->many + offset;
}

/* Whether @name is that of the field in @line; then @value is its value. Every answer has fields, so it is to cost little. */
static bool field_is(const char *line, const char *name, const char **value)
{
	size_t len = strlen(name);

	if ((*line | 0x20) != (*name | 0x20) || strncasecmp(line, name, len) || line[len] != ':')
		return false;
	*value = line + len + 1 + strspn(line + len + 1, " \t");
	return true;
}

/* Whether a line has a name and a colon right behind it, and does not go on with the line before (RFC 9112, 5.1 and 5.2). */
static bool is_field(const char *line, size_t len)
{
	const char *colon = memchr(line, ':', len);

	return colon && colon > line && colon[-1] > ' ' && *line > ' ';
}

/* Whether @name is in the list @value, whose members commas and white space divide. */
static bool lists(const char *value, const char *name)
{
	size_t len;

	for (value += strspn(value, ", \t"); *value; value += strspn(value, ", \t")) {
		len = strcspn(value, ", \t");
		if (len == strlen(name) && !strncasecmp(value, name, len))
			return true;
		value += len;
	}
	return false;
}

static unsigned int digit_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;
}

/*
 * Digits alone, at most 15 of them behind zeros, without the signs and prefixes that strtoull()
 * takes too. Every answer has one, so it is to cost little. Returns what is behind them, or NULL if
 * there are none.
 */
static const char *number_at(const char *text, unsigned int base, uint64_t *value)
{
	const char *at = text, *first;

	*value = 0;
	while (*at == '0')
		at++;
	for (first = at; at < first + 15 && digit_of(*at) < base; at++)
		*value = base * *value + digit_of(*at);
	return at > text ? at : NULL;
}

static bool length_is(const char *text, uint64_t *value)
{
	const char *end = number_at(text, 10, value);

	return end && (!*end || !end[strspn(end, " \t")]);
}

static bool chunk_size_is(const char *text, uint64_t *value)
{
	const char *end = number_at(text, 16, value);

	if (!end)
		return false;
	end += strspn(end, " \t"); /* which whoever reads has to put up with (RFC 9112, 7.1.1) */
	return !*end || *end == ';';
}

static const char *on_status(struct state *s)
{
	const char *code = s->line + 9;
	unsigned int i;

	if (strncmp(s->line, "HTTP/1.", 7) || digit_of(s->line[7]) > 9 || s->line[8] != ' ')
		return "no status line came";
	for (s->status = i = 0; i < 3 && digit_of(code[i]) < 10; i++)
		s->status = 10 * s->status + digit_of(code[i]);
	if (i < 3 || s->status < 100 || (code[3] && code[3] != ' '))
		return "no status line came";
	if (s->status >= 200)
		s->interim = 0;
	else if (++s->interim > INTERIM_MAX)
		return "one answer of status 1xx after the other came";
	s->http10 = s->line[7] == '0';
	s->said_close = s->said_keep = false;
	s->chunked = s->sized = false;
	s->left = 0;
	s->part = FIELDS;
	return NULL;
}

/* One answer is complete. */
static void answered(struct state *s)
{
	s->part = STATUS;
	if (s->status < 200)
		return; /* another follows */
	s->bad += s->status >= 300;
	s->due--;
	if (s->close || !s->http->keep)
		s->part = CLOSED;
}

static const char *on_field(struct state *s)
{
	const char *value;

	if (!s->line_len) {
		s->close = s->said_close || (s->http10 && !s->said_keep); /* RFC 9112, 9.3 */
		if (s->chunked && s->sized)
			return "an answer came with Content-Length and chunked";
		if (s->status < 200 || s->status == 204 || s->status == 304)
			answered(s);
		else if (s->chunked)
			s->part = CHUNK_SIZE;
		else if (!s->sized)
			return "an answer came without Content-Length and not chunked";
		else if (s->left)
			s->part = BODY;
		else
			answered(s);
	} else if (field_is(s->line, "Content-Length", &value)) {
		if (s->sized || !length_is(value, &s->left))
			return "a wrong Content-Length came";
		s->sized = true;
	} else if (field_is(s->line, "Transfer-Encoding", &value)) {
		/* In HTTP/1.0 it is a fault (RFC 9112, 6.1), and no other coding was asked for (RFC 9110, 10.1.4). */
		if (s->chunked || s->http10 || strncasecmp(value, "chunked", 7) ||
		    value[7 + strspn(value + 7, " \t")])
			return "a Transfer-Encoding that is not chunked, not alone or of HTTP/1.0 came";
		s->chunked = true;
	} else if (field_is(s->line, "Connection", &value)) {
		if (s->line_len == sizeof(s->line) - 1)
			return "a Connection field of more than 1,022 bytes came";
		s->said_close |= lists(value, "close");
		s->said_keep |= lists(value, "keep-alive");
	} else if (!is_field(s->line, s->line_len)) {
		return "a line that is no field came";
	}
	return NULL;
}

static const char *on_line(struct state *s)
{
	switch (s->part) {
	case STATUS:
		return on_status(s);
	case FIELDS:
		return on_field(s);
	case CHUNK_SIZE:
		if (!chunk_size_is(s->line, &s->left))
			return "a wrong chunk size came";
		s->part = s->left ? CHUNK : TRAILER;
		return NULL;
	case CHUNK_END:
		s->part = CHUNK_SIZE;
		return s->line_len ? "a chunk is longer than its size" : NULL;
	default: /* TRAILER */
		if (!s->line_len)
			answered(s);
		return NULL;
	}
}

/* Takes bytes up to the end of a line; of a long one only the beginning is kept. */
static size_t take_line(struct state *s, const char *buf, size_t n, const char **what)
{
	const char *lf = memchr(buf, '\n', n);
	size_t len = lf ? (size_t)(lf - buf) : n;
	size_t room = sizeof(s->line) - 1 - s->line_len;

	memcpy(s->line + s->line_len, buf, len < room ? len : room);
	s->line_len += len < room ? len : room;
	if (!lf)
		return n;
	/* Of a line that was cut the CR may be as well. */
	if (s->line_len && s->line[s->line_len - 1] == '\r')
		s->line_len--;
	else if (s->line_len < sizeof(s->line) - 1)
		*what = "a line ended without CR";
	if (*what)
		return len + 1;
	s->line[s->line_len] = 0;
	*what = on_line(s);
	s->line_len = 0;
	return len + 1;
}

static size_t take_body(struct state *s, size_t n)
{
	size_t len = s->left < n ? s->left : n;

	s->left -= len;
	if (!s->left) {
		if (s->part == BODY)
			answered(s);
		else
			s->part = CHUNK_END;
	}
	return len;
}

static enum load_verdict received(void *state, const char *buf, size_t n, unsigned int *bad,
				  const char **what)
{
	struct state *s = state;
	size_t at = 0;

	*what = NULL;
	while (at < n && !*what) {
		if (s->part == CLOSED || !s->due)
			*what = "more came than was asked for";
		else if (s->part == BODY || s->part == CHUNK)
			at += take_body(s, n - at);
		else
			at += take_line(s, buf + at, n - at, what);
	}
	if (*what)
		return LOAD_WRONG;
	if (s->due || s->part == CLOSED)
		return LOAD_MORE;
	*bad = s->bad;
	return LOAD_DONE;
}

/* The server has closed: right behind the answer that it announced as its last, or that was asked for as such. */
static enum load_verdict eof(void *state, unsigned int *requests, unsigned int *bad)
{
	struct state *s = state;

	if (s->part != CLOSED)
		return LOAD_MORE;
	*requests -= s->due;
	*bad = s->bad;
	return LOAD_DONE_LAST;
}

const struct load_protocol http_protocol = {
	.state_size = sizeof(struct state),
	.init = init,
	.open = on_open,
	.request = request,
	.bytes = bytes,
	.received = received,
	.eof = eof,
};
