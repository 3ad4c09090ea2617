/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * wire.h - what wire sends, and what it expects to come back
 */
#ifndef WIRE_H
#define WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ANY_LENGTH UINT16_MAX

/**
 * struct http_answer - an answer that has to come
 * @status: its status code
 * @length: its Content-Length, or ANY_LENGTH where a server may say what it likes
 * @no_body: it is to a HEAD request
 * @last: nothing comes behind it, and it says so
 */
struct http_answer {
	uint16_t status;
	uint16_t length;
	bool no_body;
	bool last;
};

/**
 * struct http_check - an HTTP server's answers, as they come
 * @expected: what has to come, to all that is to be sent
 * @wanted: how many of them there are
 * @answers: how many have come
 * @body: bytes of a body to come
 * @text: what they have to be, or NULL where a server may say there what it likes
 * @head_len: bytes of @head
 * @head: a head that has not ended yet
 */
struct http_check {
	struct http_answer *expected;
	uint32_t wanted;
	uint32_t answers;
	size_t body;
	const char *text;
	size_t head_len;
	char head[1024];
};

/* The next of a sequence of random numbers; @state is any number to begin with. */
uint64_t wire_random(uint64_t *state);

/* @len random bytes. */
uint8_t *wire_bytes(uint64_t *rng, uint32_t len);

/*
 * Requests, half the time broken at some places; @len is set, and what is to be expected, which is
 * freed with wire_forget().
 */
uint8_t *wire_requests(uint64_t *rng, uint32_t *len, struct http_check *check);

void wire_forget(struct http_check *check);

/* Takes the next bytes of a server. Return: NULL, or what is wrong. */
const char *wire_check(struct http_check *check, const char *data, size_t len);

/* Whether a server that has been told all may end here. Return: NULL, or what is wrong. */
const char *wire_check_end(const struct http_check *check);

#endif
