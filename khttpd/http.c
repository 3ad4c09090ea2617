// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * http.c - the request parser of http.h: what its parts share, and which part is next.
 */
#include "http_impl.h"

#define NAMELY (TOKEN | VALUE | PATH | HOST)

const u8 http_class[256] = {
	['\t'] = VALUE,
	[' '] = VALUE,
	['!'] = NAMELY,
	['"'] = VALUE,
	['#'] = TOKEN | VALUE,
	['$'] = NAMELY,
	['%'] = TOKEN | VALUE,
	['&'] = NAMELY,
	['\''] = NAMELY,
	['('] = VALUE | PATH | HOST,
	[')'] = VALUE | PATH | HOST,
	['*'] = NAMELY,
	['+'] = NAMELY,
	[','] = VALUE | PATH | HOST,
	['-'] = NAMELY,
	['.'] = NAMELY,
	['/'] = VALUE | PATH,
	['0' ... '9'] = NAMELY | HEX | DIGIT,
	[':'] = VALUE | PATH,
	[';'] = VALUE | PATH | HOST,
	['<'] = VALUE,
	['='] = VALUE | PATH | HOST,
	['>'] = VALUE,
	['?'] = VALUE | PATH,
	['@'] = VALUE | PATH,
	['A' ... 'F'] = NAMELY | HEX,
	['G' ... 'Z'] = NAMELY,
	['['] = VALUE,
	['\\'] = VALUE,
	[']'] = VALUE,
	['^'] = TOKEN | VALUE,
	['_'] = NAMELY,
	['`'] = TOKEN | VALUE,
	['a' ... 'f'] = NAMELY | HEX,
	['g' ... 'z'] = NAMELY,
	['{'] = VALUE,
	['|'] = TOKEN | VALUE,
	['}'] = VALUE,
	['~'] = NAMELY,
	[0x80 ... 0xff] = VALUE,
};

const u8 *http_fail(struct http_parser *p, u16 status, const u8 *at)
{
	p->state = AT_ERROR;
	p->status = status;
	return at;
}

/* The word that has ended here; @none if none has. */
unsigned int http_word_end(const struct http_parser *p, const char *const *table, unsigned int none)
{
	unsigned int i;

	for (i = 0; p->words >> i; i++)
		if ((p->words >> i & 1) && !table[i][p->pos])
			return i;
	return none;
}

/* Bytes of a head, or of trailer fields; no more than the limit lets through. */
static const u8 *take_head(struct http_parser *p, const struct http_limits *limits, const u8 *at,
			   const u8 *end)
{
	const u8 *from = at;

	if (p->head >= limits->header)
		return http_fail(p, p->state < AT_FIELD ? 414 : 431, at);
	if (end - at > limits->header - p->head)
		end = at + (limits->header - p->head);
	/* In the order in which they usually come, so that one leads to the next. */
	while (at < end && p->state < AT_FIELD) {
		if (p->state <= AT_START_LF)
			at = http_take_start(p, at);
		if (p->state == AT_METHOD)
			at = http_take_method(p, at, end);
		if (p->state == AT_TARGET)
			at = http_take_target(p, at, end);
		if (p->state == AT_VERSION)
			at = http_take_version(p, at, end);
		if (p->state == AT_LINE_LF && at < end)
			at = http_take_line_end(p, at);
	}
	while (at < end && p->state <= AT_HEAD_LF) {
		if (p->state == AT_FIELD)
			at = http_take_field_start(p, limits, at);
		if (p->state == AT_NAME)
			at = http_take_name(p, at, end);
		if (p->state == AT_SPACE || p->state == AT_VALUE)
			at = http_take_value(p, at, end);
		if (p->state == AT_FIELD_LF && at < end)
			at = http_take_field_end(p, at);
		if (p->state == AT_HEAD_LF && at < end)
			at = http_take_head_end(p, limits, at);
	}
	p->head += at - from;
	return at;
}

size_t http_parse(struct http_parser *p, const struct http_limits *limits, const char *buf,
		  size_t len, enum http_event *event)
{
	const u8 *from = (const u8 *)buf, *at = from, *end = from + len;
	bool in_body;

	if (p->state == AT_DONE)
		memset(p, 0, sizeof(*p));
	*event = HTTP_MORE;
	while (at < end && p->state < AT_DONE) {
		in_body = http_in_body(p);
		if (p->state <= AT_HEAD_LF)
			at = take_head(p, limits, at, end);
		else
			at = http_take_body(p, limits, at, end);
		if (!in_body && http_in_body(p)) {
			*event = HTTP_BODY;
			break;
		}
	}
	if (p->state == AT_DONE)
		*event = HTTP_DONE;
	else if (p->state == AT_ERROR)
		*event = HTTP_ERROR;
	return at - from;
}

bool http_begun(const struct http_parser *p)
{
	return p->state != AT_START && p->state != AT_DONE;
}

bool http_in_body(const struct http_parser *p)
{
	return p->state < AT_DONE && (p->state > AT_HEAD_LF || (p->flags & HTTP_F_TRAILER));
}

bool http_keeps(const struct http_parser *p)
{
	/* What follows a CONNECT may be meant for somebody else. */
	if ((p->flags & HTTP_F_CLOSE) || p->method == HTTP_CONNECT)
		return false;
	return p->minor || (p->flags & HTTP_F_KEEP_ALIVE);
}
