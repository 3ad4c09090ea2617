// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * kline - a line protocol that uses every part of the server core that an echo does not: input
 * kept between calls, several sends for one, answers larger than the send buffer, sleeping in
 * process context, deadlines, an end of its own. For the tests only.
 *
 * A request is a line of at most 60 characters:
 *	say TEXT	answers TEXT in three sends
 *	fill N		answers N bytes, 'a' to 'z' over and over
 *	sleep MS	sleeps in process context, then answers "slept"
 *	deadline S KIND	sets a deadline; when it passes, answers "expired KIND" and ends in order
 *	bye		ends in order
 *	fail		ends by an error
 */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/string.h>

#include "ksrv.h"

KSRV_PARAMS(12399);

struct line {
	char text[64];
	unsigned int len;
	unsigned int fill_left;
	unsigned int fill_at;
	unsigned int sleep_ms;
	bool slept;
};

static int send_text(struct ksrv_conn *conn, const char *text, bool more)
{
	int sent = ksrv_send(conn, text, strlen(text), more);

	return sent < 0 ? sent : 0;
}

/*
 * The alphabet, several times, so that a send has more than 26 bytes: a kernel with detectors
 * would take seconds over what fills a send buffer else.
 */
static char letters[26 * 12];

static int fill(struct ksrv_conn *conn, struct line *line)
{
	unsigned int n;
	int sent;

	while (line->fill_left) {
		n = min_t(unsigned int, sizeof(letters) - line->fill_at, line->fill_left);
		sent = ksrv_send(conn, letters + line->fill_at, n, line->fill_left > n);
		if (sent < 0)
			return sent;
		line->fill_at = (line->fill_at + sent) % sizeof(letters);
		line->fill_left -= sent;
		if (sent < n)
			return -EAGAIN;
	}
	return 0;
}

/* Carries out a line. -EAGAIN: not done yet, resume goes on. */
static int run(struct ksrv_conn *conn, struct line *line)
{
	unsigned int a, b;

	if (!strncmp(line->text, "say ", 4)) {
		return send_text(conn, "<", true) ?: send_text(conn, line->text + 4, true) ?:
						     send_text(conn, ">\n", false);
	} else if (sscanf(line->text, "fill %u", &a) == 1) {
		line->fill_left = a;
		line->fill_at = 0;
		return fill(conn, line);
	} else if (sscanf(line->text, "sleep %u", &a) == 1) {
		line->sleep_ms = a;
		ksrv_conn_defer(conn);
		return -EAGAIN;
	} else if (sscanf(line->text, "deadline %u %u", &a, &b) == 2) {
		ksrv_conn_deadline(conn, a, b);
		return 0;
	} else if (!strcmp(line->text, "bye")) {
		ksrv_conn_end(conn, KSRV_END_ORDERLY);
		return 0;
	}
	return -EPROTO;
}

static int line_recv(struct ksrv_conn *conn, struct ksrv_input *in)
{
	struct line *line = ksrv_conn_priv(conn);
	const char *data;
	int taken = 0, err;
	size_t len, i;

	while ((data = ksrv_input_peek(in, &len))) {
		for (i = 0; i < len && data[i] != '\n'; i++) {
			if (line->len == sizeof(line->text) - 1)
				return -EPROTO;
			line->text[line->len++] = data[i];
		}
		if (i == len) {
			ksrv_input_skip(in, i);
			taken += i;
			continue;
		}
		ksrv_input_skip(in, i + 1);
		taken += i + 1;
		line->text[line->len] = 0;
		line->len = 0;
		err = run(conn, line);
		if (err == -EAGAIN)
			break;
		if (err)
			return err;
	}
	return taken;
}

static int line_resume(struct ksrv_conn *conn)
{
	struct line *line = ksrv_conn_priv(conn);

	if (line->slept) {
		line->slept = false;
		return send_text(conn, "slept\n", false);
	}
	return fill(conn, line);
}

static void line_work(struct ksrv_conn *conn)
{
	struct line *line = ksrv_conn_priv(conn);

	might_sleep();
	msleep(line->sleep_ms);
	line->slept = true;
}

static bool line_expired(struct ksrv_conn *conn, unsigned int kind)
{
	char text[32];

	snprintf(text, sizeof(text), "expired %u\n", kind);
	send_text(conn, text, false);
	ksrv_conn_end(conn, KSRV_END_ORDERLY);
	return true;
}

static void line_eof(struct ksrv_conn *conn)
{
	struct line *line = ksrv_conn_priv(conn);
	char text[32];

	snprintf(text, sizeof(text), "eof after %u\n", line->len);
	send_text(conn, text, false);
	ksrv_conn_end(conn, KSRV_END_ORDERLY);
}

static atomic_t closed = ATOMIC_INIT(0);

static void line_close(struct ksrv_conn *conn)
{
	might_sleep();
	atomic_inc(&closed);
}

static const struct ksrv_ops line_ops = {
	.conn_size = sizeof(struct line),
	.recv = line_recv,
	.resume = line_resume,
	.eof = line_eof,
	.expired = line_expired,
	.work = line_work,
	.close = line_close,
};

static const struct ksrv_service kline = {
	.name = "kline",
	.greeting = "runs a test protocol",
	.ops = &line_ops,
	.addr = &addr,
	.port = &port,
	.backlog = &backlog,
	.bench = &bench,
	.fastpath = &fastpath,
	.max_conns = &max_conns,
};

static int __init kline_init(void)
{
	unsigned int i;

	for (i = 0; i < sizeof(letters); i++)
		letters[i] = 'a' + i % 26;
	return ksrv_register(&kline);
}

static void __exit kline_exit(void)
{
	ksrv_unregister();
	pr_info("close was called %d times\n", atomic_read(&closed));
}

module_init(kline_init);
module_exit(kline_exit);

MODULE_LICENSE("Dual MIT/GPL");
MODULE_DESCRIPTION("Line protocol for the tests of the server core");
