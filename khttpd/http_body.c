// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * http_body.c - bodies: of a length, or in chunks
 */
#include "http_impl.h"

enum extension { X_START, X_NAME, X_VALUE_START, X_VALUE, X_QUOTED, X_ESCAPED, X_AFTER };

static inline unsigned int hex(u8 c)
{
	return is(c, DIGIT) ? c - '0' : (c | 0x20) - 'a' + 10;
}

static const u8 *take_bytes(struct http_parser *p, const u8 *at, const u8 *end, u8 next)
{
	size_t n = end - at;

	if (n >= p->left) {
		n = p->left;
		p->state = next;
	}
	p->left -= n;
	return at + n;
}

static const u8 *take_size(struct http_parser *p, const u8 *at)
{
	u8 c = *at;

	if (p->state == AT_SIZE_START) {
		p->left = 0;
		p->pos = 0;
		p->state = AT_SIZE;
		if (!is(c, HEX))
			return http_fail(p, 400, at);
	}
	if (is(c, HEX) && p->pos < 16) {
		p->left = p->left << 4 | hex(c);
		p->pos++;
	} else if (c == ';') {
		p->state = AT_EXTENSION;
		p->sub = X_START;
	} else if (c == '\r') {
		p->state = AT_SIZE_LF;
	} else {
		return http_fail(p, 400, at);
	}
	return at + 1;
}

static bool extension_byte(struct http_parser *p, u8 c)
{
	bool ends = c == ';' || c == '\r';

	switch (p->sub) {
	case X_START:
		p->sub = X_NAME;
		return is(c, TOKEN);
	case X_NAME:
		if (c == '=') {
			p->sub = X_VALUE_START;
			return true;
		}
		fallthrough;
	case X_VALUE:
		if (is(c, TOKEN))
			return true;
		break;
	case X_VALUE_START:
		p->sub = c == '"' ? X_QUOTED : X_VALUE;
		return c == '"' || is(c, TOKEN);
	case X_QUOTED:
		if (c == '"')
			p->sub = X_AFTER;
		else if (c == '\\')
			p->sub = X_ESCAPED;
		return is(c, VALUE);
	case X_ESCAPED:
		p->sub = X_QUOTED;
		return is(c, VALUE);
	}
	if (c == ';')
		p->sub = X_START;
	else
		p->state = AT_SIZE_LF;
	return ends;
}

static const u8 *take_extension(struct http_parser *p, const struct http_limits *limits,
				const u8 *at)
{
	if (p->number++ >= limits->header)
		return http_fail(p, 413, at);
	if (!extension_byte(p, *at))
		return http_fail(p, 400, at);
	return at + 1;
}

static const u8 *take_size_end(struct http_parser *p, const struct http_limits *limits,
			       const u8 *at)
{
	if (*at != '\n')
		return http_fail(p, 400, at);
	if (!p->left) {
		p->state = AT_FIELD;
		p->flags |= HTTP_F_TRAILER;
		p->head = 0;
		p->fields = 0;
		return at + 1;
	}
	/* Each by itself first: their sum may be too large a number. */
	if (p->left > limits->body || p->body + p->left > limits->body)
		return http_fail(p, 413, at);
	p->body += p->left;
	p->state = AT_CHUNK;
	return at + 1;
}

const u8 *http_take_body(struct http_parser *p, const struct http_limits *limits, const u8 *at,
			 const u8 *end)
{
	switch (p->state) {
	case AT_BODY:
		return take_bytes(p, at, end, AT_DONE);
	case AT_SIZE_START:
	case AT_SIZE:
		return take_size(p, at);
	case AT_EXTENSION:
		return take_extension(p, limits, at);
	case AT_SIZE_LF:
		return take_size_end(p, limits, at);
	case AT_CHUNK:
		return take_bytes(p, at, end, AT_CHUNK_CR);
	case AT_CHUNK_CR:
		p->state = AT_CHUNK_LF;
		return *at == '\r' ? at + 1 : http_fail(p, 400, at);
	default: /* AT_CHUNK_LF */
		p->state = AT_SIZE_START;
		return *at == '\n' ? at + 1 : http_fail(p, 400, at);
	}
}
