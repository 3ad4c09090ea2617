/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * answer.h - the text of answers. None depends on what the client sent but by its status, so none
 * can carry anything of it back.
 */
#ifndef KHTTPD_ANSWER_H
#define KHTTPD_ANSWER_H

#include <linux/types.h>

/* Room that any answer fits into. */
#define ANSWER_MAX 384

/* What an answer says about the connection. */
enum answer_connection {
	ANSWER_PLAIN, /* nothing: HTTP/1.1 keeps it */
	ANSWER_KEEP, /* keep-alive, which HTTP/1.0 has to be told */
	ANSWER_CLOSE,
	ANSWER_CONNECTIONS
};

/**
 * struct answers - a CPU's answers that are asked for most, composed anew each second
 * @second: what they are composed for, seconds since 1970
 * @date: that as a Date field has it
 * @len: length of each text, 0 for one that was not asked for in this second
 * @text: 200 to a GET, by enum answer_connection
 */
struct answers {
	time64_t second;
	char date[32];
	u16 len[ANSWER_CONNECTIONS];
	char text[ANSWER_CONNECTIONS][ANSWER_MAX];
};

/**
 * answer_hello() - the answer to a GET
 * @answers: this CPU's
 * @connection: what to say about the connection
 * @len: set to its length
 *
 * Return: the text, valid until the next call of any function here.
 */
const char *answer_hello(struct answers *answers, enum answer_connection connection, size_t *len);

/**
 * answer_compose() - any other answer
 * @answers: this CPU's
 * @buf: where to put it, ANSWER_MAX bytes
 * @status: 200 to OPTIONS; or of an error, with a line of text as its body
 * @connection: what to say about the connection
 * @hello: with 200: the answer to a GET after all
 * @body: false: to a HEAD, which is answered without the body
 *
 * Return: its length.
 */
size_t answer_compose(struct answers *answers, char *buf, unsigned int status,
		      enum answer_connection connection, bool hello, bool body);

#endif
