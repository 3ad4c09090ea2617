/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * echoload.h - the load that "bench" puts on an echo server: many connections, each sending a
 * message, waiting until it has come back whole, and going on with the next.
 *
 * What connection c sends is one endless stream: a fixed random sequence of a prime length in
 * which all 256 byte values occur, begun at a place of the connection's own. Whatever comes back
 * late, twice, not at all or on a wrong connection therefore differs from what is due.
 */
#ifndef LIB_ECHOLOAD_H
#define LIB_ECHOLOAD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "cpustat.h"
#include "hist.h"

enum load_mode {
	LOAD_STEADY, /* connect all, then send on all */
	LOAD_BURST, /* release all at once: connect, one message, end */
	LOAD_RECONNECT, /* every message on a connection of its own */
};

/**
 * struct load_options - what to do
 * @addr: the server
 * @addrlen: length of @addr
 * @mode: how connections and messages go together
 * @conns: connections at a time
 * @threads: threads that share them
 * @messages: per connection; 0: until @seconds have passed
 * @seconds: how long, where @messages is 0
 * @size: bytes in a message
 * @lean: no clock and no check per message, so that the client's own cost is least
 * @stall: seconds without a byte on any connection after which the run is given up
 * @progress: show it on stderr
 * @spread: take source addresses from all of 127.0.0.0/8, when the server is there
 * @hold: keep the connections open at the end until SIGINT or SIGTERM
 */
struct load_options {
	struct sockaddr_storage *addr;
	socklen_t addrlen;
	enum load_mode mode;
	unsigned int conns;
	unsigned int threads;
	uint64_t messages;
	double seconds;
	size_t size;
	bool lean;
	unsigned int stall;
	bool progress;
	bool spread;
	bool hold;
};

/**
 * struct load_result - what came of it
 * @messages: whole messages that came back right (with @lean: of the right length)
 * @bytes: bytes that came back
 * @seconds: from the first message's start (burst, reconnect: first connect) to the last one's end
 * @latency: first byte sent to last byte back, ns; with burst from the start of the connect
 * @connect: time that connects took, ns
 * @cpu: where the machine's CPU time went in those seconds
 * @connect_failed: connections that could not be made
 * @broken: connections that ended by an error
 * @short_eof: connections that the server closed too early
 * @mismatched: connections on which a wrong byte came
 * @unfinished: connections that had not got their answer when the run was given up
 * @first_error: what went wrong first, "" if nothing did
 */
struct load_result {
	uint64_t messages;
	uint64_t bytes;
	double seconds;
	struct hist latency;
	struct hist connect;
	struct cpustat cpu;
	uint64_t connect_failed;
	uint64_t broken;
	uint64_t short_eof;
	uint64_t mismatched;
	uint64_t unfinished;
	char first_error[160];
};

/* Runs the load. Returns when it is done or given up; dies only where nothing can be measured. */
void load_run(const struct load_options *opt, struct load_result *result);

static inline bool load_failed(const struct load_result *r)
{
	return r->connect_failed || r->broken || r->short_eof || r->mismatched || r->unfinished;
}

#endif
