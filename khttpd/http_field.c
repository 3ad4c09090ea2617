// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * http_field.c - header and trailer fields, and what they say of the request
 */
#include "http_impl.h"

enum number { N_START, N_DIGITS, N_SPACE };

enum list { L_START, L_TOKEN, L_SPACE, L_OTHER };

enum field { FIELD_HOST, FIELD_CONNECTION, FIELD_LENGTH, FIELD_CODING, FIELD_EXPECT, FIELD_OTHER };

enum word { WORD_CLOSE, WORD_KEEP_ALIVE, WORD_CHUNKED, WORD_CONTINUE };

/* In lower case: names and tokens are compared without regard to it. */
static const char *const names[] = {
	[FIELD_HOST] = "host",
	[FIELD_CONNECTION] = "connection",
	[FIELD_LENGTH] = "content-length",
	[FIELD_CODING] = "transfer-encoding",
	[FIELD_EXPECT] = "expect",
};

static const char *const tokens[] = {
	[WORD_CLOSE] = "close",
	[WORD_KEEP_ALIVE] = "keep-alive",
	[WORD_CHUNKED] = "chunked",
	[WORD_CONTINUE] = "100-continue",
};

const u8 *http_take_field_start(struct http_parser *p, const struct http_limits *limits,
				const u8 *at)
{
	if (*at == '\r') {
		p->state = AT_HEAD_LF;
		return at + 1;
	}
	if (!is(*at, TOKEN)) /* a line folded, or without a name */
		return http_fail(p, 400, at);
	if (p->fields >= limits->fields)
		return http_fail(p, 431, at);
	p->fields++;
	p->state = AT_NAME;
	word_begin(p, p->flags & HTTP_F_TRAILER ? 0 : ALL_OF(names));
	return at;
}

static const u8 *name_is(struct http_parser *p, enum field field, const u8 *at)
{
	p->field = field;
	p->state = AT_SPACE;
	return at;
}

const u8 *http_take_name(struct http_parser *p, const u8 *at, const u8 *end)
{
	if (p->words == ALL_OF(names)) {
		if (BEGINS(at, end, "Host:"))
			return name_is(p, FIELD_HOST, at + 5);
		if (BEGINS(at, end, "Connection:"))
			return name_is(p, FIELD_CONNECTION, at + 11);
	}
	while (p->words && at < end && is(*at, TOKEN))
		word_byte(p, names, lower(*at++));
	while (at < end && is(*at, TOKEN))
		at++;
	if (at == end)
		return at;
	if (*at != ':')
		return http_fail(p, 400, at);
	return name_is(p, http_word_end(p, names, FIELD_OTHER), at + 1);
}

/* Content-Length: too large a number stays the largest there is. */
static bool length_byte(struct http_parser *p, u8 c)
{
	if (is_space(c)) {
		p->sub = N_SPACE;
		return true;
	}
	if (!is(c, DIGIT) || p->sub == N_SPACE)
		return false;
	p->sub = N_DIGITS;
	if (p->left > (~(u64)0 - 9) / 10)
		p->left = ~(u64)0;
	else
		p->left = 10 * p->left + c - '0';
	return true;
}

/* The end of an element of a list. */
static bool list_element(struct http_parser *p)
{
	unsigned int word = http_word_end(p, tokens, ARRAY_SIZE(tokens));
	bool plain = p->sub != L_OTHER;

	switch (p->field) {
	case FIELD_CONNECTION:
		if (word == WORD_CLOSE)
			p->flags |= HTTP_F_CLOSE;
		else if (word == WORD_KEEP_ALIVE)
			p->flags |= HTTP_F_KEEP_ALIVE;
		break;
	case FIELD_CODING:
		/* "chunked" is the last coding, once, and has no parameters. */
		if ((p->flags & HTTP_F_CHUNKED) || (word == WORD_CHUNKED && !plain))
			return false;
		p->flags |= word == WORD_CHUNKED ? HTTP_F_CHUNKED : HTTP_F_OTHER_CODING;
		break;
	case FIELD_EXPECT:
		p->flags |= word == WORD_CONTINUE && plain ? HTTP_F_EXPECT : HTTP_F_OTHER_EXPECT;
		break;
	}
	p->sub = L_START;
	return true;
}

static u16 list_words(const struct http_parser *p)
{
	switch (p->field) {
	case FIELD_CONNECTION:
		return 1u << WORD_CLOSE | 1u << WORD_KEEP_ALIVE;
	case FIELD_CODING:
		return 1u << WORD_CHUNKED;
	default:
		return 1u << WORD_CONTINUE;
	}
}

static bool list_byte(struct http_parser *p, u8 c)
{
	if (c == ',') {
		/* Empty elements: of codings, one reader would see them and another not. */
		if (p->sub == L_START)
			return p->field != FIELD_CODING;
		return list_element(p);
	}
	if (is_space(c)) {
		if (p->sub == L_TOKEN)
			p->sub = L_SPACE;
		return true;
	}
	if (p->sub == L_START && is(c, TOKEN)) {
		p->sub = L_TOKEN;
		word_begin(p, list_words(p));
	}
	if (p->sub == L_TOKEN && is(c, TOKEN)) {
		if (p->words)
			word_byte(p, tokens, lower(c));
		return true;
	}
	/* Parameters, or what is no token: options of a connection are nothing else. */
	if (p->sub == L_START)
		word_begin(p, 0);
	p->sub = L_OTHER;
	return p->field != FIELD_CONNECTION && is(c, VALUE);
}

static bool list_end(struct http_parser *p)
{
	if (p->sub == L_START)
		return p->field != FIELD_CODING;
	return list_element(p);
}

static bool value_begin(struct http_parser *p)
{
	static const u16 once[] = { [FIELD_HOST] = HTTP_F_HOST, [FIELD_LENGTH] = HTTP_F_LENGTH };

	p->state = AT_VALUE;
	p->sub = 0;
	p->host = 0;
	switch (p->field) {
	case FIELD_HOST:
	case FIELD_LENGTH:
		if (p->flags & once[p->field])
			return false;
		p->flags |= once[p->field];
		break;
	case FIELD_CODING:
		p->flags |= HTTP_F_CODING;
		break;
	}
	return true;
}

static bool value_byte(struct http_parser *p, u8 c)
{
	switch (p->field) {
	case FIELD_LENGTH:
		return length_byte(p, c);
	case FIELD_HOST:
		if (is_space(c))
			p->sub = N_SPACE;
		return p->sub == N_SPACE ? is_space(c) && http_host_may_end(p)
					 : http_host_byte(p, c);
	case FIELD_OTHER:
		return is(c, VALUE);
	default:
		return list_byte(p, c);
	}
}

static bool value_end(struct http_parser *p)
{
	switch (p->field) {
	case FIELD_LENGTH:
		return p->sub != N_START;
	case FIELD_HOST:
		return http_host_may_end(p);
	case FIELD_OTHER:
		return true;
	default:
		return list_end(p);
	}
}

/* Skips bytes that leave the parser as it is: those amid a host's name, and of other fields all. */
static const u8 *skip_value(const struct http_parser *p, const u8 *at, const u8 *end)
{
	u8 what = 0;

	if (p->field == FIELD_OTHER)
		what = VALUE;
	else if (p->field == FIELD_HOST && p->sub == N_START && p->host == H_NAME)
		what = HOST;
	while (at < end && is(*at, what))
		at++;
	return at;
}

const u8 *http_take_value(struct http_parser *p, const u8 *at, const u8 *end)
{
	if (p->state == AT_SPACE) {
		while (at < end && is_space(*at))
			at++;
		if (at == end)
			return at;
		if (!value_begin(p))
			return http_fail(p, 400, at);
		if (p->field == FIELD_CONNECTION && BEGINS(at, end, "close\r")) {
			p->flags |= HTTP_F_CLOSE;
			p->state = AT_FIELD_LF;
			return at + 6;
		}
	}
	for (; at < end; at++) {
		at = skip_value(p, at, end);
		if (at == end)
			return at;
		if (*at == '\r')
			break;
		if (!value_byte(p, *at))
			return http_fail(p, 400, at);
	}
	if (at == end)
		return at;
	if (!value_end(p))
		return http_fail(p, 400, at);
	p->state = AT_FIELD_LF;
	return at + 1;
}

const u8 *http_take_field_end(struct http_parser *p, const u8 *at)
{
	if (*at != '\n')
		return http_fail(p, 400, at);
	p->state = AT_FIELD;
	return at + 1;
}

/* What is wrong with a head as a whole; 0 for nothing. */
static u16 judge(const struct http_parser *p, const struct http_limits *limits)
{
	if (p->minor && !(p->flags & HTTP_F_HOST))
		return 400;
	if ((p->flags & HTTP_F_CODING) && (!p->minor || (p->flags & HTTP_F_LENGTH)))
		return 400;
	if (p->flags & HTTP_F_OTHER_CODING)
		return 501;
	if (p->flags & HTTP_F_OTHER_EXPECT)
		return 417;
	if ((p->flags & HTTP_F_LENGTH) && p->left > limits->body)
		return 413;
	return 0;
}

const u8 *http_take_head_end(struct http_parser *p, const struct http_limits *limits, const u8 *at)
{
	u16 status;

	if (*at != '\n')
		return http_fail(p, 400, at);
	if (p->flags & HTTP_F_TRAILER) {
		p->state = AT_DONE;
		return at + 1;
	}
	if (!p->minor) /* HTTP/1.0 knows no expectations */
		p->flags &= ~(HTTP_F_EXPECT | HTTP_F_OTHER_EXPECT);
	status = judge(p, limits);
	if (status)
		return http_fail(p, status, at);
	p->number = 0;
	if (p->flags & HTTP_F_CHUNKED)
		p->state = AT_SIZE_START;
	else if ((p->flags & HTTP_F_LENGTH) && p->left)
		p->state = AT_BODY;
	else
		p->state = AT_DONE;
	return at + 1;
}
