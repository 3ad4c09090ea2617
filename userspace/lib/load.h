/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * load.h - loads a TCP server with many connections, each sending a message, waiting until it was
 * answered, and going on with the next. What a message is and whether the answer is right, a
 * struct load_protocol says.
 */
#ifndef LIB_LOAD_H
#define LIB_LOAD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "cpustat.h"
#include "hist.h"

/* What came of bytes that were received. */
enum load_verdict {
	LOAD_MORE, /* the answer goes on */
	LOAD_DONE, /* it is complete and right */
	LOAD_DONE_LAST, /* and the server is about to close the connection */
	LOAD_WRONG, /* it is not what it should be: no use to go on with this connection */
};

/**
 * struct load_protocol - what is said on a connection
 * @state_size: bytes of its own per connection
 * @init: called once for each connection, numbered from 0; @arg is load_options.arg
 * @open: the connection has been made, or made again
 * @request: begins a message of at most @max requests; sets how many they are and returns how many
 *	bytes they have. The answer to all of them is one answer here.
 * @bytes: the bytes of that message from @offset on, at most @len of them, which it may lower
 * @received: bytes have come; @what says what is wrong with them. @bad: set to how many of the
 *	requests got an answer that is complete but not the one wanted
 * @eof: the server has closed: LOAD_DONE or LOAD_DONE_LAST if that is right, LOAD_MORE if not. Where
 *	it was right to close before all of the requests were answered, @requests is lowered to
 *	those that were; the rest are asked again.
 */
struct load_protocol {
	size_t state_size;
	void (*init)(void *state, void *arg, unsigned int index);
	void (*open)(void *state);
	size_t (*request)(void *state, uint64_t max, unsigned int *requests);
	const char *(*bytes)(void *state, size_t offset, size_t *len);
	enum load_verdict (*received)(void *state, const char *buf, size_t n, unsigned int *bad,
				      const char **what);
	enum load_verdict (*eof)(void *state, unsigned int *requests, unsigned int *bad);
};

enum load_mode {
	LOAD_STEADY, /* connect all, then send on all */
	LOAD_BURST, /* release all at once: connect, one message, end */
	LOAD_RECONNECT, /* every message on a connection of its own */
};

/**
 * struct load_options - what to do
 * @protocol: what to say
 * @arg: passed to its init
 * @addr: the server
 * @addrlen: length of @addr
 * @mode: how connections and messages go together
 * @conns: connections at a time
 * @threads: threads that share them
 * @messages: requests per connection; 0: as @total or @seconds says
 * @total: requests on all connections together; 0: until @seconds have passed
 * @seconds: how long
 * @retry: a connection that fails costs the requests that were sent on it together, and is made again
 * @lean: no clock and no check per message, so that the client's own cost is least
 * @stall: seconds without a byte on any connection after which the run is given up
 * @progress: show it on stderr
 * @spread: take source addresses from all of 127.0.0.0/8, when the server is there
 * @may_meet_itself: the port is one that the kernel may give to a connection's near end
 * @hold: keep the connections open at the end until SIGINT or SIGTERM
 */
struct load_options {
	const struct load_protocol *protocol;
	void *arg;
	struct sockaddr_storage *addr;
	socklen_t addrlen;
	enum load_mode mode;
	unsigned int conns;
	unsigned int threads;
	uint64_t messages;
	uint64_t total;
	double seconds;
	bool retry;
	bool lean;
	unsigned int stall;
	bool progress;
	bool spread;
	bool may_meet_itself;
	bool hold;
};

/**
 * struct load_result - what came of it
 * @messages: requests that were answered right (with @lean: as far as it is checked)
 * @bad: requests that were answered, but not as wanted
 * @bytes: bytes that came back
 * @seconds: from the first message's start (burst, reconnect: first connect) to the last one's end; where some
 *	got no answer, to the last that did, to a second
 * @latency: first byte sent to last byte back, ns; with burst from the start of the connect
 * @connect: time that connects took, ns
 * @cpu: where the machine's CPU time went in those seconds
 * @connect_failed: requests whose connection could not be made
 * @broken: requests whose connection ended by an error; all that were sent together, here and below
 * @short_eof: requests whose connection the server closed too early
 * @mismatched: requests on whose connection a wrong byte came
 * @unfinished: requests that had not got their answer when the run was given up
 * @first_error: what went wrong first, "" if nothing did
 */
struct load_result {
	uint64_t messages;
	uint64_t bad;
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

enum load_format { LOAD_TEXT, LOAD_JSON, LOAD_CSV };

/**
 * struct load_output - how the result is told
 * @format: on stdout
 * @label: put into it, to tell runs apart
 * @hist_file: where to write the distribution of latencies, or NULL
 * @print: by format
 */
struct load_output {
	enum load_format format;
	const char *label;
	const char *hist_file;
	void (*print[3])(const struct load_options *opt, const struct load_result *r,
			 const char *label);
};

/* Long options that every load generator has, and the numbers that getopt_long() returns for them. */
enum load_option {
	LOAD_OPT_LEAN = 256,
	LOAD_OPT_HOLD,
	LOAD_OPT_TIMEOUT,
	LOAD_OPT_JSON,
	LOAD_OPT_CSV,
	LOAD_OPT_LABEL,
	LOAD_OPT_HIST,
	LOAD_OPT_OWN /* the first of the program's */
};

/* clang-format off */
#define LOAD_LONG_OPTIONS					\
	{ "threads", required_argument, NULL, 't' },		\
	{ "lean", no_argument, NULL, LOAD_OPT_LEAN },		\
	{ "hold", no_argument, NULL, LOAD_OPT_HOLD },		\
	{ "timeout", required_argument, NULL, LOAD_OPT_TIMEOUT },	\
	{ "json", no_argument, NULL, LOAD_OPT_JSON },		\
	{ "csv", no_argument, NULL, LOAD_OPT_CSV },		\
	{ "label", required_argument, NULL, LOAD_OPT_LABEL },	\
	{ "hist", required_argument, NULL, LOAD_OPT_HIST },	\
	{ "help", no_argument, NULL, 'h' },			\
	{ NULL, 0, NULL, 0 }
/* clang-format on */

/* Takes one of those, or -c, -t, -4 or -6, with its value in optarg. False: it is another. */
bool load_option(int c, struct load_options *opt, int *family, struct load_output *out);
/* Runs the load and tells the result; returns the program's exit status. */
int load_main(const struct load_options *opt, const struct load_output *out);
/* Sets what follows from the options and this machine, or dies of what cannot be. */
void load_complete(struct load_options *opt);
/* What went wrong, as a line of text, as a JSON object, or as columns of a CSV. */
void load_print_errors(const struct load_result *r);
void load_json_errors(const struct load_result *r, FILE *to);
void load_csv_errors_header(FILE *to);
void load_csv_errors(const struct load_result *r, FILE *to);

/* Runs the load. Returns when it is done or given up; dies only where nothing can be measured. */
void load_run(const struct load_options *opt, struct load_result *result);

static inline uint64_t load_errors(const struct load_result *r)
{
	return r->connect_failed + r->broken + r->short_eof + r->mismatched + r->unfinished;
}

static inline bool load_failed(const struct load_result *r)
{
	return load_errors(r) || r->bad;
}

#endif
