// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * respond.c - answers requests. A connection keeps its parser and, only where the client does not
 * read, the part of an answer that found no room. Everything here but respond_init() and
 * respond_exit() runs in pump context (see ksrv.h).
 */
#include <linux/jiffies.h>
#include <linux/percpu.h>
#include <linux/slab.h>

#include "answer.h"
#include "http.h"
#include "respond.h"

/* Answers are collected up to so many bytes, then sent: pipelined ones share their segments. */
#define BATCH_SIZE 8192

/* What TCP waits longer than request_timeout, which is to be first where it can, seconds. */
#define TCP_SLACK 2

enum counter {
	REQUESTS,
	REQUESTS_ABORTED,
	RESPONSES_1XX,
	RESPONSES_2XX,
	RESPONSES_4XX,
	RESPONSES_5XX,
	PARSE_ERRORS,
	TIMEOUTS_HEADER,
	TIMEOUTS_BODY,
	TIMEOUTS_KEEPALIVE,
	TIMEOUTS_RESPONSE,
	COUNTERS
};

const char *const respond_counters[] = {
	[REQUESTS] = "requests",
	[REQUESTS_ABORTED] = "requests_aborted",
	[RESPONSES_1XX] = "responses_1xx",
	[RESPONSES_2XX] = "responses_2xx",
	[RESPONSES_4XX] = "responses_4xx",
	[RESPONSES_5XX] = "responses_5xx",
	[PARSE_ERRORS] = "parse_errors",
	[TIMEOUTS_HEADER] = "timeouts_header",
	[TIMEOUTS_BODY] = "timeouts_body",
	[TIMEOUTS_KEEPALIVE] = "timeouts_keepalive",
	[TIMEOUTS_RESPONSE] = "timeouts_response",
	[COUNTERS] = NULL,
};

/* What a deadline is for. */
enum phase {
	PHASE_NEW, /* a request was answered: none is set yet for what comes next */
	PHASE_IDLE, /* between requests, and for the client to read the last answer */
	PHASE_HEAD,
	PHASE_BODY,
	PHASE_BLOCKED, /* an answer found no room */
};

/**
 * struct http_conn - a connection
 * @parser: where its input stands
 * @phase: enum phase
 * @closing: the last answer is given
 * @tail_at: bytes of @tail that were sent since
 * @tail_len: bytes of @tail
 * @tail: answers that found no room in the send buffer, or NULL
 * @requests: requests answered
 * @idle_since: jiffies when PHASE_IDLE began
 */
struct http_conn {
	struct http_parser parser;
	u8 phase;
	bool closing;
	u16 tail_at;
	u16 tail_len;
	char *tail;
	u32 requests;
	unsigned long idle_since;
};

/**
 * struct http_cpu - what each CPU has of its own; bottom halves off
 * @answers: texts
 * @fill: bytes of @batch
 * @batch: answers that are to be sent; empty whenever the pump is not running
 */
struct http_cpu {
	struct answers answers;
	size_t fill;
	char batch[BATCH_SIZE];
};

static struct http_cpu __percpu *cpus;

/*
 * Sends what was collected but for the last @keep bytes. -EAGAIN: not all, and resume goes on with
 * it. @more: something follows at once, be it only the FIN, which then shares the last answer's
 * segment.
 */
static int flush(struct ksrv_conn *conn, struct http_conn *hc, struct http_cpu *cpu, size_t keep,
		 bool more)
{
	size_t fill = cpu->fill, len = fill - keep;
	int sent;

	if (!fill)
		return 0;
	cpu->fill = 0;
	sent = ksrv_send(conn, cpu->batch, len, more);
	if (unlikely(sent < 0))
		return sent;
	if (likely(sent == len)) {
		if (unlikely(keep))
			memmove(cpu->batch, cpu->batch + len, keep);
		cpu->fill = keep;
		return 0;
	}
	hc->tail = kmemdup(cpu->batch + sent, fill - sent, KSRV_GFP);
	if (!hc->tail)
		return -ENOMEM;
	hc->tail_at = 0;
	hc->tail_len = fill - sent;
	return -EAGAIN;
}

/*
 * Makes room for one more answer, before what asks for it is read. A byte stays: if nothing does
 * ask for one, it pushes what TCP holds back for more. That is only what an ACK would push too, if
 * there is no memory for that byte.
 */
static int make_room(struct ksrv_conn *conn, struct http_conn *hc, struct http_cpu *cpu)
{
	if (likely(cpu->fill + ANSWER_MAX <= BATCH_SIZE))
		return 0;
	return flush(conn, hc, cpu, 1, ksrv_conn_unacked(conn));
}

/* Where an answer goes. One for which nobody made room may cost those before it, not memory. */
static char *next_answer(struct http_cpu *cpu)
{
	if (WARN_ON_ONCE(cpu->fill + ANSWER_MAX > BATCH_SIZE))
		cpu->fill = 0;
	return cpu->batch + cpu->fill;
}

static void count_answer(struct ksrv_conn *conn, unsigned int status)
{
	ksrv_conn_count(conn, status < 300   ? RESPONSES_2XX
			      : status < 500 ? RESPONSES_4XX
					     : RESPONSES_5XX);
}

/* An error, after which the connection is closed. */
static void answer_error(struct ksrv_conn *conn, struct http_conn *hc, struct http_cpu *cpu,
			 unsigned int status)
{
	char *to = next_answer(cpu);

	hc->closing = true;
	count_answer(conn, status);
	cpu->fill += answer_compose(&cpu->answers, to, status, ANSWER_CLOSE, false,
				    hc->parser.method != HTTP_HEAD);
}

/* What to say about the connection; also marks the last request. */
static enum answer_connection connection_of(struct http_conn *hc)
{
	unsigned int max = ksrv_uint(respond_params.max_requests);

	if (!http_keeps(&hc->parser) || (max && hc->requests >= max)) {
		hc->closing = true;
		return ANSWER_CLOSE;
	}
	return hc->parser.minor ? ANSWER_PLAIN : ANSWER_KEEP;
}

/* The methods that are served come first. */
static bool is_served(const struct http_conn *hc)
{
	return hc->parser.method <= HTTP_OPTIONS;
}

/* A whole request. */
static void answer(struct ksrv_conn *conn, struct http_conn *hc, struct http_cpu *cpu)
{
	unsigned int status = is_served(hc) ? 200 : 405;
	enum answer_connection connection;
	char *to = next_answer(cpu);
	u8 method = hc->parser.method;
	const char *text;
	size_t len;

	hc->requests++;
	hc->phase = PHASE_NEW;
	connection = connection_of(hc);
	if (likely(method == HTTP_GET)) {
		text = answer_hello(&cpu->answers, connection, &len);
		memcpy(to, text, len);
	} else {
		len = answer_compose(&cpu->answers, to, status, connection, method == HTTP_HEAD,
				     method != HTTP_HEAD);
	}
	cpu->fill += len;
	count_answer(conn, status);
}

/* A head that a body follows. */
static void begin_body(struct ksrv_conn *conn, struct http_conn *hc, struct http_cpu *cpu)
{
	static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";

	if (!(hc->parser.flags & HTTP_F_EXPECT))
		return;
	/* Whether a client that is told no sends its body all the same, nobody can know. */
	if (!is_served(hc)) {
		answer_error(conn, hc, cpu, 405);
		return;
	}
	ksrv_conn_count(conn, RESPONSES_1XX);
	memcpy(next_answer(cpu), go_on, sizeof(go_on) - 1);
	cpu->fill += sizeof(go_on) - 1;
}

static void set_phase(struct ksrv_conn *conn, struct http_conn *hc, enum phase phase)
{
	unsigned int seconds = ksrv_uint(respond_params.request_timeout);

	if (phase == PHASE_IDLE) {
		hc->idle_since = jiffies;
		seconds = min(seconds, ksrv_uint(respond_params.keepalive_timeout));
	} else if (hc->phase == phase) {
		return; /* however slowly its bytes come, its time runs from the first on */
	}
	hc->phase = phase;
	ksrv_conn_deadline(conn, seconds, phase);
}

/* What comes next, now that there is nothing more to do. */
static void settle(struct ksrv_conn *conn, struct http_conn *hc)
{
	if (hc->tail)
		set_phase(conn, hc, PHASE_BLOCKED);
	else if (hc->closing)
		ksrv_conn_finish(conn);
	else if (http_in_body(&hc->parser))
		set_phase(conn, hc, PHASE_BODY);
	else if (http_begun(&hc->parser))
		set_phase(conn, hc, PHASE_HEAD);
	else
		set_phase(conn, hc, PHASE_IDLE);
}

static void respond_open(struct ksrv_conn *conn)
{
	struct http_conn *hc = ksrv_conn_priv(conn);

	hc->phase = PHASE_IDLE;
	hc->idle_since = jiffies;
	ksrv_conn_deadline(conn, ksrv_uint(respond_params.keepalive_timeout), PHASE_IDLE);
	/*
	 * Our own deadline begins anew with each request: this one is for a client that goes on
	 * asking and never reads.
	 */
	ksrv_conn_user_timeout(conn, ksrv_uint(respond_params.request_timeout) + TCP_SLACK);
}

static void on_event(struct ksrv_conn *conn, struct http_conn *hc, struct http_cpu *cpu,
		     enum http_event event, bool was_in_body)
{
	if (event == HTTP_MORE)
		return;
	if (!was_in_body)
		ksrv_conn_count(conn, REQUESTS);
	if (event == HTTP_DONE) {
		answer(conn, hc, cpu);
	} else if (event == HTTP_BODY) {
		begin_body(conn, hc, cpu);
	} else {
		ksrv_conn_count(conn, PARSE_ERRORS);
		answer_error(conn, hc, cpu, hc->parser.status);
	}
}

static int respond_recv(struct ksrv_conn *conn, struct ksrv_input *in)
{
	const struct http_limits limits = {
		.header = ksrv_uint(respond_params.max_header),
		.fields = ksrv_uint(respond_params.max_headers),
		.body = ksrv_uint(respond_params.max_body),
	};
	struct http_conn *hc = ksrv_conn_priv(conn);
	struct http_cpu *cpu = this_cpu_ptr(cpus);
	enum http_event event;
	int taken = 0, err = 0;
	bool was_in_body;
	const char *data;
	size_t len;

	while (!hc->closing && (data = ksrv_input_peek(in, &len))) {
		err = make_room(conn, hc, cpu);
		if (unlikely(err))
			break;
		was_in_body = http_in_body(&hc->parser);
		len = http_parse(&hc->parser, &limits, data, len, &event);
		ksrv_input_skip(in, len);
		taken += len;
		on_event(conn, hc, cpu, event, was_in_body);
	}
	if (likely(!err))
		err = flush(conn, hc, cpu, 0, hc->closing);
	if (unlikely(err && err != -EAGAIN))
		return err;
	settle(conn, hc);
	return taken;
}

static int respond_resume(struct ksrv_conn *conn)
{
	struct http_conn *hc = ksrv_conn_priv(conn);
	int sent;

	if (hc->tail) {
		sent = ksrv_send(conn, hc->tail + hc->tail_at, hc->tail_len - hc->tail_at,
				 hc->closing);
		if (sent < 0)
			return sent;
		hc->tail_at += sent;
		if (hc->tail_at < hc->tail_len)
			return -EAGAIN;
		kfree(hc->tail);
		hc->tail = NULL;
	}
	settle(conn, hc);
	return 0;
}

/* What is left of @param seconds since @since, in seconds. */
static unsigned int left_of(const struct ksrv_uint *param, unsigned long since)
{
	unsigned long limit = ksrv_jiffies(ksrv_uint(param)), passed = jiffies - since;

	return passed < limit ? DIV_ROUND_UP(limit - passed, HZ) : 0;
}

/*
 * A client that does not read what it asked for: an answer to it would not be read either. One that
 * reads slowly does, and is looked at each second until it has read all.
 */
static bool expire_unread(struct ksrv_conn *conn, enum phase phase)
{
	if (left_of(respond_params.request_timeout, ksrv_conn_moved(conn))) {
		ksrv_conn_deadline(conn, 1, phase);
		return false;
	}
	ksrv_conn_count(conn, TIMEOUTS_RESPONSE);
	ksrv_conn_end(conn, KSRV_END_RESET);
	return true;
}

/*
 * Idle since it was answered; or, if it took its time for that, since it was seen to have read: the
 * sweep looks once a second.
 */
static unsigned long idle_since(struct ksrv_conn *conn, const struct http_conn *hc)
{
	unsigned long moved = ksrv_conn_moved(conn);

	return time_after(moved, hc->idle_since + 2 * HZ) ? moved : hc->idle_since;
}

/* It may rest for one time, and has another to read its answer in. */
static bool expire_idle(struct ksrv_conn *conn, struct http_conn *hc)
{
	unsigned int left;

	if (ksrv_conn_unacked(conn))
		return expire_unread(conn, PHASE_IDLE);
	left = left_of(respond_params.keepalive_timeout, idle_since(conn, hc));
	if (left) {
		ksrv_conn_deadline(conn, left, PHASE_IDLE);
		return false;
	}
	ksrv_conn_count(conn, TIMEOUTS_KEEPALIVE);
	ksrv_conn_finish(conn);
	return true;
}

static bool respond_expired(struct ksrv_conn *conn, unsigned int phase)
{
	struct http_conn *hc = ksrv_conn_priv(conn);
	struct http_cpu *cpu = this_cpu_ptr(cpus);
	int err;

	switch (phase) {
	case PHASE_IDLE:
		return expire_idle(conn, hc);
	case PHASE_BLOCKED:
		return expire_unread(conn, PHASE_BLOCKED);
	case PHASE_HEAD:
		ksrv_conn_count(conn, REQUESTS);
		ksrv_conn_count(conn, TIMEOUTS_HEADER);
		break;
	default:
		ksrv_conn_count(conn, TIMEOUTS_BODY);
	}
	answer_error(conn, hc, cpu, 408);
	err = flush(conn, hc, cpu, 0, true);
	if (err && err != -EAGAIN)
		ksrv_conn_end(conn, KSRV_END_RESET);
	else
		settle(conn, hc);
	return true;
}

static void respond_timed_out(struct ksrv_conn *conn)
{
	ksrv_conn_count(conn, TIMEOUTS_RESPONSE);
}

static void respond_close(struct ksrv_conn *conn)
{
	struct http_conn *hc = ksrv_conn_priv(conn);

	if (http_in_body(&hc->parser) && !hc->closing) {
		local_bh_disable();
		ksrv_conn_count(conn, REQUESTS_ABORTED);
		local_bh_enable();
	}
	kfree(hc->tail);
}

const struct ksrv_ops respond_ops = {
	.conn_size = sizeof(struct http_conn),
	.open = respond_open,
	.recv = respond_recv,
	.resume = respond_resume,
	.expired = respond_expired,
	.timed_out = respond_timed_out,
	.close = respond_close,
};

/**
 * respond_init() - get what each CPU needs
 *
 * Return: 0 or -ENOMEM.
 */
int respond_init(void)
{
	cpus = alloc_percpu(struct http_cpu);
	return cpus ? 0 : -ENOMEM;
}

/**
 * respond_exit() - give it back; there are no connections any more
 */
void respond_exit(void)
{
	free_percpu(cpus);
}
