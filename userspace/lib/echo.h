/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * echo.h - what "bench" says to an echo server, and checks when it comes back.
 *
 * What connection c sends is one endless stream: a fixed random sequence of a prime length in
 * which all 256 byte values occur, begun at a place of the connection's own. Whatever comes back
 * late, twice, not at all or on a wrong connection therefore differs from what is due.
 */
#ifndef LIB_ECHO_H
#define LIB_ECHO_H

#include "load.h"

/**
 * struct echo - load_options.arg for echo_protocol
 * @size: bytes in a message
 * @lean: check only how many bytes come back
 * @stream: echo_init()'s
 */
struct echo {
	size_t size;
	bool lean;
	char *stream;
};

extern const struct load_protocol echo_protocol;

/* Prepares the stream. */
void echo_init(struct echo *echo);

#endif
