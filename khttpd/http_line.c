// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * http_line.c - the request line, and hosts wherever they stand
 */
#include "http_impl.h"

enum target { T_START, T_PATH, T_HEX1, T_HEX2, T_STAR, T_SCHEME, T_HOST, T_CONNECT };

static const char *const methods[] = {
	[HTTP_GET] = "GET",	[HTTP_HEAD] = "HEAD",	[HTTP_OPTIONS] = "OPTIONS",
	[HTTP_POST] = "POST",	[HTTP_PUT] = "PUT",	[HTTP_DELETE] = "DELETE",
	[HTTP_PATCH] = "PATCH", [HTTP_TRACE] = "TRACE", [HTTP_CONNECT] = "CONNECT",
};

static bool ip6_digit(struct http_ip6 *ip, u8 c)
{
	/* A number begins at once, or behind two colons: one alone is between two groups. */
	if (ip->colons == 1 && !ip->groups)
		return false;
	/* An octet is 0 to 255, without zeros in front. */
	if (!is(c, DIGIT) || (ip->digits && !ip->octet))
		ip->decimal = false;
	else
		ip->octet = 10 * ip->octet + c - '0';
	ip->decimal = ip->decimal && ip->octet <= 255;
	ip->colons = 0;
	return ip->octets ? ip->decimal : ip->digits < 4;
}

/* The group or octet at hand is over. */
static void ip6_next(struct http_ip6 *ip)
{
	ip->digits = 0;
	ip->decimal = true;
	ip->octet = 0;
}

static bool ip6_colon(struct http_ip6 *ip)
{
	if (ip->octets)
		return false;
	ip->groups += ip->digits > 0;
	if (ip->colons == 2 || (ip->colons == 1 && ip->elided) || ip->groups > 7)
		return false;
	ip->elided |= ip->colons == 1;
	ip->colons++;
	ip6_next(ip);
	return true;
}

static bool ip6_dot(struct http_ip6 *ip)
{
	if (!ip->digits || !ip->decimal || ip->octets == 3 || ip->groups > 6)
		return false;
	ip->octets++;
	ip6_next(ip);
	return true;
}

static bool ip6_may_end(const struct http_ip6 *ip)
{
	unsigned int groups = ip->groups + (ip->octets ? 2 : ip->digits > 0);

	if (ip->octets ? ip->octets < 3 || !ip->digits : !ip->digits && ip->colons != 2)
		return false;
	return ip->elided ? groups < 8 : groups == 8;
}

/* Takes one byte of an IPv6 address. False: it cannot stand here. */
static bool ip6_byte(struct http_ip6 *ip, u8 c)
{
	if (c == ':')
		return ip6_colon(ip);
	if (c == '.')
		return ip6_dot(ip);
	if (!is(c, HEX) || !ip6_digit(ip, c))
		return false;
	ip->digits++;
	return true;
}

/* Takes one byte of uri-host [ ":" port ] (RFC 9110, 4.2.1). False: it cannot stand here. */
bool http_host_byte(struct http_parser *p, u8 c)
{
	switch (p->host) {
	case H_START:
		p->pos = 0;
		p->number = 0;
		if (c == '[') {
			p->host = H_IP6;
			p->ip6 = (struct http_ip6){ .decimal = true };
			return true;
		}
		p->host = H_NAME;
		fallthrough;
	case H_NAME:
		if (is(c, HOST))
			return true;
		if (c == '%') {
			p->host = H_HEX1;
			return true;
		}
		break;
	case H_HEX1:
	case H_HEX2:
		p->host = p->host == H_HEX1 ? H_HEX2 : H_NAME;
		return is(c, HEX);
	case H_IP6:
		if (c == ']') {
			p->host = H_IP6_END;
			return ip6_may_end(&p->ip6);
		}
		return ip6_byte(&p->ip6, c);
	case H_IP6_END:
		p->number = 0;
		break;
	case H_PORT:
		if (!is(c, DIGIT) || p->pos == 5)
			return false;
		p->pos++;
		p->number = 10 * p->number + c - '0';
		return p->number <= 65535;
	}
	if (c != ':')
		return false;
	p->host = H_PORT;
	p->pos = 0;
	return true;
}

bool http_host_may_end(const struct http_parser *p)
{
	return p->host != H_HEX1 && p->host != H_HEX2 && p->host != H_IP6;
}

const u8 *http_take_start(struct http_parser *p, const u8 *at)
{
	if (p->state == AT_START_LF) {
		if (*at != '\n')
			return http_fail(p, 400, at);
		p->state = AT_START;
		p->flags = HTTP_F_NEWLINE;
	} else if (*at == '\r' && !p->flags) {
		p->state = AT_START_LF;
	} else {
		p->state = AT_METHOD;
		word_begin(p, ALL_OF(methods));
		return at;
	}
	return at + 1;
}

static const u8 *method_is(struct http_parser *p, enum http_method method, const u8 *at)
{
	p->method = method;
	p->state = AT_TARGET;
	p->sub = T_START;
	return at;
}

const u8 *http_take_method(struct http_parser *p, const u8 *at, const u8 *end)
{
	if (p->words == ALL_OF(methods) && BEGINS(at, end, "GET "))
		return method_is(p, HTTP_GET, at + 4);
	for (; at < end && is(*at, TOKEN); at++) {
		if (p->words)
			word_byte(p, methods, *at);
		else
			p->pos = 1;
	}
	if (at == end)
		return at;
	if (*at != ' ' || !p->pos)
		return http_fail(p, 400, at);
	return method_is(p, http_word_end(p, methods, HTTP_UNKNOWN), at + 1);
}

/* The first byte of a target tells its form. */
static bool target_start(struct http_parser *p, u8 c)
{
	p->host = H_START;
	if (p->method == HTTP_CONNECT) {
		p->sub = T_CONNECT;
		return c != ':' && http_host_byte(p, c);
	}
	switch (c) {
	case '/':
		p->sub = T_PATH;
		return true;
	case '*':
		p->sub = T_STAR;
		return p->method == HTTP_OPTIONS || p->method == HTTP_UNKNOWN;
	case 'h':
	case 'H':
		p->sub = T_SCHEME;
		p->pos = 1;
		return true;
	}
	return false;
}

static bool target_byte(struct http_parser *p, u8 c)
{
	static const char scheme[] = "http://";

	switch (p->sub) {
	case T_START:
		return target_start(p, c);
	case T_PATH:
		p->sub = c == '%' ? T_HEX1 : T_PATH;
		return c == '%' || is(c, PATH);
	case T_HEX1:
	case T_HEX2:
		p->sub = p->sub == T_HEX1 ? T_HEX2 : T_PATH;
		return is(c, HEX);
	case T_SCHEME:
		if (lower(c) != scheme[p->pos++])
			return false;
		if (!scheme[p->pos])
			p->sub = T_HOST;
		return true;
	case T_HOST:
		if (p->host == H_START)
			return c != ':' && http_host_byte(p, c);
		if ((c == '/' || c == '?') && http_host_may_end(p)) {
			p->sub = T_PATH;
			return true;
		}
		return http_host_byte(p, c);
	case T_CONNECT:
		return http_host_byte(p, c);
	}
	return false;
}

static bool target_may_end(const struct http_parser *p)
{
	switch (p->sub) {
	case T_PATH:
	case T_STAR:
		return true;
	case T_HOST:
		return p->host != H_START && http_host_may_end(p);
	case T_CONNECT:
		return p->host == H_PORT && p->pos;
	}
	return false;
}

const u8 *http_take_target(struct http_parser *p, const u8 *at, const u8 *end)
{
	for (; at < end; at++) {
		while (p->sub == T_PATH && is(*at, PATH))
			if (++at == end)
				return at;
		if (*at == ' ')
			break;
		if (!target_byte(p, *at))
			return http_fail(p, 400, at);
	}
	if (at == end)
		return at;
	if (!target_may_end(p))
		return http_fail(p, 400, at);
	p->state = AT_VERSION;
	p->pos = 0;
	return at + 1;
}

const u8 *http_take_version(struct http_parser *p, const u8 *at, const u8 *end)
{
	static const char form[] = "HTTP/0.0\r";
	u8 c;

	if (!p->pos && BEGINS(at, end, "HTTP/1.1\r")) {
		p->major = 1;
		p->minor = 1;
		p->state = AT_LINE_LF;
		return at + 9;
	}
	for (; at < end && p->state == AT_VERSION; at++) {
		c = form[p->pos];
		if (c == '0' ? !is(*at, DIGIT) : *at != c)
			return http_fail(p, 400, at);
		if (c == '0') {
			p->major = p->pos == 5 ? *at - '0' : p->major;
			p->minor = *at - '0';
		}
		p->pos++;
		if (c == '\r')
			p->state = AT_LINE_LF;
	}
	return at;
}

const u8 *http_take_line_end(struct http_parser *p, const u8 *at)
{
	if (*at != '\n')
		return http_fail(p, 400, at);
	if (p->major != 1)
		return http_fail(p, 505, at);
	if (p->method == HTTP_UNKNOWN)
		return http_fail(p, 501, at);
	p->state = AT_FIELD;
	return at + 1;
}
