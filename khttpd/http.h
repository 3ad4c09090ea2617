/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * http.h - an incremental parser of HTTP/1.x requests (RFC 9110, RFC 9112)
 *
 * Pure: it keeps 48 bytes between calls and no input, so any cut of a stream into pieces
 * gives the same result. It is strict: what two readers could take for two different requests is
 * no request. docs/khttpd.md has the table of what gets which status.
 */
#ifndef KHTTPD_HTTP_H
#define KHTTPD_HTTP_H

#include "pure.h"

enum http_method {
	HTTP_GET,
	HTTP_HEAD,
	HTTP_OPTIONS,
	HTTP_POST,
	HTTP_PUT,
	HTTP_DELETE,
	HTTP_PATCH,
	HTTP_TRACE,
	HTTP_CONNECT,
	HTTP_METHODS,
	HTTP_UNKNOWN = HTTP_METHODS
};

/* What http_parse() has come to. */
enum http_event {
	HTTP_MORE, /* the end of the bytes given */
	HTTP_BODY, /* the end of a head that a body follows */
	HTTP_DONE, /* the end of a request */
	HTTP_ERROR, /* something that is no request; http_parser.status says how to answer */
};

/**
 * struct http_limits - what a request may cost
 * @header: bytes of request line and header fields; also, apart, of trailer fields, and of the
 *	extensions of all chunks of a body
 * @fields: header fields; also trailer fields
 * @body: bytes of a body
 */
struct http_limits {
	u32 header;
	u32 fields;
	u32 body;
};

/* Bits of http_parser.flags. */
#define HTTP_F_CLOSE 0x0001 /* Connection: close */
#define HTTP_F_KEEP_ALIVE 0x0002 /* Connection: keep-alive */
#define HTTP_F_HOST 0x0004
#define HTTP_F_LENGTH 0x0008
#define HTTP_F_CODING 0x0010 /* a Transfer-Encoding */
#define HTTP_F_CHUNKED 0x0020 /* whose last coding is chunked */
#define HTTP_F_OTHER_CODING 0x0040 /* and that names another */
#define HTTP_F_EXPECT 0x0080 /* Expect: 100-continue */
#define HTTP_F_OTHER_EXPECT 0x0100
#define HTTP_F_TRAILER 0x0200 /* the fields that come are trailer fields */
#define HTTP_F_NEWLINE 0x0400 /* an empty line came before the request */

/**
 * struct http_ip6 - an IPv6 address as far as it has come (RFC 3986, 3.2.2)
 * @digits: of the group, or of the octet, at hand
 * @colons: in a row, right before the next byte
 * @groups: groups of 16 bits that are complete
 * @octets: of an IPv4 address at the end, those that are complete
 * @elided: "::" stood
 * @decimal: the group at hand may be an octet
 * @octet: which is then this
 */
struct http_ip6 {
	u16 digits : 3;
	u16 colons : 2;
	u16 groups : 4;
	u16 octets : 3;
	u16 elided : 1;
	u16 decimal : 1;
	u16 octet;
};

/**
 * struct http_parser - one connection's parser; all zero before its first byte
 * @state: which byte comes next
 * @sub: the same, within a target, a field's value or a chunk extension
 * @host: the same, within a host
 * @pos: place in a word that is compared, or digits of a number so far
 * @method: enum http_method
 * @field: which field's value it is, of those that matter
 * @minor: the minor version asked for
 * @major: the major version
 * @words: which of the words that are compared may still be it, a bit each
 * @flags: HTTP_F_
 * @fields: fields so far
 * @status: with HTTP_ERROR, the status to answer with
 * @head: bytes of the head, or of the trailer fields, so far
 * @number: the port, or bytes of chunk extensions so far
 * @ip6: in its place, an address in brackets
 * @left: bytes of the body, or of the chunk, that are to come
 * @body: bytes of the body so far, the chunk at hand included
 */
struct http_parser {
	u8 state;
	u8 sub;
	u8 host;
	u8 pos;
	u8 method;
	u8 field;
	u8 minor;
	u8 major;
	u16 words;
	u16 flags;
	u16 status;
	u32 fields;
	u32 head;
	union {
		u32 number;
		struct http_ip6 ip6;
	};
	u64 left;
	u64 body;
};

/**
 * http_parse() - take some bytes of a stream of requests
 * @p: the connection's parser
 * @limits: what a request may cost
 * @buf: the bytes
 * @len: how many
 * @event: set to what they came to
 *
 * Stops at the first event. After HTTP_DONE the next byte is the next request's first, with @p's
 * fields left as the request had them until then. After HTTP_ERROR it must not be called again.
 *
 * Return: the bytes taken.
 */
size_t http_parse(struct http_parser *p, const struct http_limits *limits, const char *buf,
		  size_t len, enum http_event *event);

/**
 * http_begun() - whether a request has begun and not ended
 * @p: the parser
 */
bool http_begun(const struct http_parser *p);

/**
 * http_in_body() - whether the head is complete and the body is not
 * @p: the parser
 */
bool http_in_body(const struct http_parser *p);

/**
 * http_keeps() - whether the client wants the connection kept after the request
 * @p: the parser, at HTTP_DONE
 */
bool http_keeps(const struct http_parser *p);

#endif
