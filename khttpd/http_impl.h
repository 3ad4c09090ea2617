/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * http_impl.h - what the parts of the request parser share: states, kinds of bytes, words. Each
 * http_take_*() takes bytes of one part of a request and returns where it stopped: at the end of
 * the part, of the bytes or at an error.
 */
#ifndef KHTTPD_HTTP_IMPL_H
#define KHTTPD_HTTP_IMPL_H

#include "http.h"

enum state {
	AT_START,
	AT_START_LF, /* of the one empty line that may come first */
	AT_METHOD,
	AT_TARGET,
	AT_VERSION,
	AT_LINE_LF,
	AT_FIELD, /* start of a field line, or of the line that ends the head */
	AT_NAME,
	AT_SPACE, /* after the colon */
	AT_VALUE,
	AT_FIELD_LF,
	AT_HEAD_LF, /* from here on the head is over, but for trailer fields */
	AT_BODY,
	AT_SIZE_START,
	AT_SIZE,
	AT_EXTENSION,
	AT_SIZE_LF,
	AT_CHUNK,
	AT_CHUNK_CR,
	AT_CHUNK_LF,
	AT_DONE,
	AT_ERROR
};

#define ALL_OF(words) ((1u << ARRAY_SIZE(words)) - 1)

/* What a byte may stand in. */
#define TOKEN 0x01 /* tchar */
#define VALUE 0x02 /* field-vchar, SP, HTAB */
#define PATH 0x04 /* pchar but for "%", "/", "?" */
#define HOST 0x08 /* unreserved, sub-delims */
#define HEX 0x10
#define DIGIT 0x20

/* Which byte of a host comes next. */
enum host { H_START, H_NAME, H_HEX1, H_HEX2, H_IP6, H_IP6_END, H_PORT };

extern const u8 http_class[256];

static inline bool is(u8 c, u8 what)
{
	return http_class[c] & what;
}

static inline bool is_space(u8 c)
{
	return c == ' ' || c == '\t';
}

static inline u8 lower(u8 c)
{
	return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

/* Whether @text, a literal, stands at @at: in one step, for what nearly every request has. */
#define BEGINS(at, end, text) \
	((size_t)((end) - (at)) >= sizeof(text) - 1 && !memcmp(at, text, sizeof(text) - 1))

static inline void word_begin(struct http_parser *p, u16 words)
{
	p->words = words;
	p->pos = 0;
}

/* Rules out the words of @table that do not have @c next. A word that has ended has a 0 there. */
static inline void word_byte(struct http_parser *p, const char *const *table, u8 c)
{
	unsigned int i;
	u16 left = p->words, out = 0;

	for (i = 0; left; i++, left >>= 1)
		if ((left & 1) && (u8)table[i][p->pos] != c)
			out |= 1u << i;
	p->words &= ~out;
	p->pos++;
}

/* http.c */
const u8 *http_fail(struct http_parser *p, u16 status, const u8 *at);
unsigned int http_word_end(const struct http_parser *p, const char *const *table,
			   unsigned int none);

/* http_line.c; a host begins with http_parser.host at 0 */
bool http_host_byte(struct http_parser *p, u8 c);
bool http_host_may_end(const struct http_parser *p);
const u8 *http_take_start(struct http_parser *p, const u8 *at);
const u8 *http_take_method(struct http_parser *p, const u8 *at, const u8 *end);
const u8 *http_take_target(struct http_parser *p, const u8 *at, const u8 *end);
const u8 *http_take_version(struct http_parser *p, const u8 *at, const u8 *end);
const u8 *http_take_line_end(struct http_parser *p, const u8 *at);

/* http_field.c */
const u8 *http_take_field_start(struct http_parser *p, const struct http_limits *limits,
				const u8 *at);
const u8 *http_take_name(struct http_parser *p, const u8 *at, const u8 *end);
const u8 *http_take_value(struct http_parser *p, const u8 *at, const u8 *end);
const u8 *http_take_field_end(struct http_parser *p, const u8 *at);
const u8 *http_take_head_end(struct http_parser *p, const struct http_limits *limits, const u8 *at);

/* http_body.c */
const u8 *http_take_body(struct http_parser *p, const struct http_limits *limits, const u8 *at,
			 const u8 *end);

#endif
