// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include "echoload.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "util.h"

#define PERIOD 65521 /* length of the sequence sent: a prime, so that no message size divides it */
#define READ_SIZE (256 * 1024)
#define EVENTS 256
/* Connects under way at a time, all threads together: fewer than the least listen backlog. */
#define CONNECTING_MAX 64
/*
 * Connections from one source address before the next of 127.0.0.0/8 is taken: connect() searches
 * half of the ports first, and ever longer as they run out.
 */
#define PER_SOURCE 8000

enum state { IDLE, CONNECTING, OPEN, DONE, FAILED };

struct conn {
	int fd;
	enum state state;
	bool want_write;
	uint64_t sent; /* place in the stream of the next byte to send */
	uint64_t received; /* and of the next one due back */
	uint64_t message_end; /* where the message under way ends */
	uint64_t messages;
	uint64_t began; /* ns: the message's first byte */
	uint64_t connect_began;
	uint32_t offset; /* this connection's place in the sequence */
};

struct worker {
	pthread_t thread;
	struct run *run;
	unsigned int index;
	unsigned int n_conns;
	struct conn *conns;
	unsigned int left; /* connections not DONE or FAILED */
	unsigned int connecting;
	unsigned int next; /* next connection to connect */
	unsigned int connect_max;
	uint64_t made; /* connections made, for the choice of sources */
	int epoll_fd;
	char *buf;
	_Atomic uint64_t moved; /* bytes that came back, and connections made */
	_Atomic uint64_t messages;
	uint64_t bytes;
	struct load_result r;
};

struct run {
	const struct load_options *opt;
	char *stream; /* PERIOD bytes, repeated so that any message lies in one piece */
	pthread_barrier_t go;
	_Atomic bool stop; /* begin no further message */
	_Atomic bool give_up; /* nothing has moved for too long */
	_Atomic unsigned int connecting; /* workers that have not made their connections */
	_Atomic unsigned int running;
	int wake_fd; /* readable when the workers are to look at @give_up */
	pthread_mutex_t lock; /* for the condition alone */
	pthread_cond_t changed; /* @connecting or @running became 0 */
	uint64_t ended; /* ns, and the CPU time since the start: the last worker's to set */
	struct cpustat cpu;
	struct worker *workers;
};

static void fail(struct worker *w, struct conn *c, uint64_t *counter, const char *what, int err)
{
	if (!w->r.first_error[0])
		snprintf(w->r.first_error, sizeof(w->r.first_error),
			 "%s%s%s (connection %u, byte %llu)", what, err ? ": " : "",
			 err ? strerror(err) : "",
			 w->index + (unsigned int)(c - w->conns) * w->run->opt->threads,
			 (unsigned long long)c->received);
	(*counter)++;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	if (c->state == CONNECTING)
		w->connecting--;
	c->state = FAILED;
	w->left--;
}

static void watch(struct worker *w, struct conn *c, bool write_too, int op)
{
	struct epoll_event ev = {
		.events = EPOLLIN | (write_too ? EPOLLOUT : 0),
		.data.ptr = c,
	};

	c->want_write = write_too;
	epoll_ctl(w->epoll_fd, op, c->fd, &ev);
}

/* Sends what the socket takes of the message under way. */
static void push(struct worker *w, struct conn *c)
{
	const char *stream = w->run->stream;
	ssize_t n;

	while (c->sent < c->message_end) {
		n = send(c->fd, stream + (c->offset + c->sent) % PERIOD, c->message_end - c->sent,
			 MSG_NOSIGNAL);
		if (n < 0) {
			if (errno == EAGAIN || errno == EINTR)
				break;
			fail(w, c, &w->r.broken, "send", errno);
			return;
		}
		c->sent += n;
	}
	if (c->want_write != (c->sent < c->message_end))
		watch(w, c, c->sent < c->message_end, EPOLL_CTL_MOD);
}

static void start_message(struct worker *w, struct conn *c)
{
	const struct load_options *opt = w->run->opt;

	if (!opt->lean)
		c->began = opt->mode == LOAD_BURST ? c->connect_began : now_ns();
	c->message_end = c->sent + opt->size;
	push(w, c);
}

static void set_source(struct worker *w, int fd)
{
	const struct load_options *opt = w->run->opt;
	struct sockaddr_in src = { .sin_family = AF_INET };
	uint64_t n = w->made++ * opt->threads + w->index;
	int one = 1;

	if (!opt->spread)
		return;
	/* The port is left to connect(), which may share one among several destinations. */
	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	src.sin_addr.s_addr = htonl(0x7f000001 + (uint32_t)(n / PER_SOURCE % 0xffff00));
	if (bind(fd, (struct sockaddr *)&src, sizeof(src)))
		die("cannot bind to %s: %s", inet_ntoa(src.sin_addr), strerror(errno));
}

static void on_connected(struct worker *w, struct conn *c)
{
	const struct load_options *opt = w->run->opt;

	w->connecting--;
	atomic_store_explicit(&w->moved, w->moved + 1, memory_order_relaxed);
	c->state = OPEN;
	if (!opt->lean)
		hist_add(&w->r.connect, now_ns() - c->connect_began);
	if (opt->mode == LOAD_STEADY) {
		watch(w, c, false, EPOLL_CTL_MOD);
		w->left--; /* of the connects; counted anew for the messages */
	} else {
		start_message(w, c);
	}
}

static void start_connect(struct worker *w, struct conn *c)
{
	const struct load_options *opt = w->run->opt;
	int one = 1, err;

	c->sent = c->received = c->message_end = 0;
	c->state = CONNECTING;
	w->connecting++;
	c->fd = socket(opt->addr->ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (c->fd < 0) {
		fail(w, c, &w->r.connect_failed, "socket", errno);
		return;
	}
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	set_source(w, c->fd);
	if (!opt->lean)
		c->connect_began = now_ns();
	err = connect(c->fd, (struct sockaddr *)opt->addr, opt->addrlen) ? errno : 0;
	if (err && err != EINPROGRESS) {
		fail(w, c, &w->r.connect_failed, "connect", err);
		return;
	}
	watch(w, c, true, EPOLL_CTL_ADD);
}

static void finish_connect(struct worker *w, struct conn *c)
{
	socklen_t len = sizeof(int);
	int err = 0;

	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len);
	if (err)
		fail(w, c, &w->r.connect_failed, "connect", err);
	else
		on_connected(w, c);
}

static void end_conn(struct worker *w, struct conn *c)
{
	if (w->run->opt->mode != LOAD_STEADY) {
		close(c->fd);
		c->fd = -1;
	}
	c->state = DONE;
	w->left--;
}

static void message_done(struct worker *w, struct conn *c)
{
	const struct load_options *opt = w->run->opt;

	if (!opt->lean)
		hist_add(&w->r.latency, now_ns() - c->began);
	c->messages++;
	atomic_store_explicit(&w->messages, w->messages + 1, memory_order_relaxed);
	if ((opt->messages && c->messages >= opt->messages) || w->run->stop) {
		end_conn(w, c);
	} else if (opt->mode == LOAD_RECONNECT) {
		close(c->fd);
		start_connect(w, c);
	} else {
		start_message(w, c);
	}
}

static void on_readable(struct worker *w, struct conn *c)
{
	const struct load_options *opt = w->run->opt;
	uint64_t due = c->message_end - c->received;
	const char *want;
	ssize_t n;

	/* One byte more than is due, to notice an answer that is too long. */
	n = recv(c->fd, w->buf, due < READ_SIZE ? due + 1 : READ_SIZE, 0);
	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			fail(w, c, &w->r.broken, "recv", errno);
		return;
	}
	if (n == 0) {
		fail(w, c, &w->r.short_eof, "closed by the server too early", 0);
		return;
	}
	want = w->run->stream + (c->offset + c->received) % PERIOD;
	if ((uint64_t)n > due || (!opt->lean && memcmp(w->buf, want, n))) {
		fail(w, c, &w->r.mismatched, "not what was sent came back", 0);
		return;
	}
	c->received += n;
	w->bytes += n;
	atomic_store_explicit(&w->moved, w->moved + n, memory_order_relaxed);
	if (c->received == c->message_end)
		message_done(w, c);
}

static void on_event(struct worker *w, struct conn *c, uint32_t events)
{
	if (c->state == CONNECTING) {
		finish_connect(w, c);
		return;
	}
	if (c->state == OPEN && (events & EPOLLOUT))
		push(w, c);
	if (c->state == OPEN && (events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
		on_readable(w, c);
}

/* Works until every connection is where it should be, or the run is given up. */
static void work_off(struct worker *w)
{
	struct epoll_event events[EVENTS];
	int n, i;

	while (w->left && !w->run->give_up) {
		while (w->next < w->n_conns && w->connecting < w->connect_max)
			start_connect(w, &w->conns[w->next++]);
		if (!w->left)
			break;
		/* No time-out here: arming a timer for every wait would be the client's cost. */
		n = epoll_wait(w->epoll_fd, events, EVENTS, -1);
		for (i = 0; i < n; i++)
			if (events[i].data.ptr)
				on_event(w, events[i].data.ptr, events[i].events);
	}
	w->r.unfinished += w->left;
}

static void wake(struct run *run)
{
	pthread_mutex_lock(&run->lock);
	pthread_cond_broadcast(&run->changed);
	pthread_mutex_unlock(&run->lock);
}

static void count_down(struct run *run, _Atomic unsigned int *counter)
{
	if (atomic_fetch_sub(counter, 1) == 1)
		wake(run);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct run *run = w->run;
	const struct load_options *opt = run->opt;
	unsigned int i;

	w->left = w->n_conns;
	if (opt->mode == LOAD_STEADY)
		work_off(w);
	count_down(run, &run->connecting);
	pthread_barrier_wait(&run->go);
	if (opt->mode == LOAD_STEADY) {
		w->left = 0;
		for (i = 0; i < w->n_conns; i++)
			w->left += w->conns[i].state == OPEN;
		for (i = 0; i < w->n_conns && w->left; i++)
			if (w->conns[i].state == OPEN)
				start_message(w, &w->conns[i]);
	}
	work_off(w);
	if (atomic_fetch_sub(&run->running, 1) == 1) {
		run->ended = now_ns();
		run->cpu = cpustat_since(&run->cpu);
		wake(run);
	}
	return NULL;
}

static char *make_stream(size_t size)
{
	size_t i, len = PERIOD + size;
	char *stream = malloc(len);
	uint32_t x = 2463534242u;

	if (!stream)
		die("out of memory for messages of %zu bytes", size);
	for (i = 0; i < PERIOD; i++) {
		x ^= x << 13;
		x ^= x >> 17;
		x ^= x << 5;
		stream[i] = i < 256 ? (char)i : (char)(x >> 24);
	}
	for (; i < len; i++)
		stream[i] = stream[i - PERIOD];
	return stream;
}

static void start_workers(struct run *run)
{
	const struct load_options *opt = run->opt;
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };
	unsigned int i, k, limit;
	struct worker *w;

	limit = opt->mode == LOAD_BURST ? opt->conns : CONNECTING_MAX;
	run->workers = calloc(opt->threads, sizeof(*run->workers));
	if (!run->workers)
		die("out of memory");
	for (i = 0; i < opt->threads; i++) {
		w = &run->workers[i];
		w->run = run;
		w->index = i;
		w->n_conns = opt->conns / opt->threads + (i < opt->conns % opt->threads);
		w->conns = calloc(w->n_conns, sizeof(*w->conns));
		w->buf = malloc(READ_SIZE + 1);
		w->connect_max = limit / opt->threads ?: 1;
		w->epoll_fd = epoll_create1(0);
		epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, run->wake_fd, &ev);
		if (!w->conns || !w->buf || w->epoll_fd < 0)
			die("out of memory or files");
		for (k = 0; k < w->n_conns; k++) {
			w->conns[k].fd = -1;
			w->conns[k].offset = ((uint64_t)k * opt->threads + i) * 7919 % PERIOD;
		}
		if (pthread_create(&w->thread, NULL, worker_main, w))
			die("cannot start thread %u", i);
	}
}

static uint64_t total(struct run *run, bool messages)
{
	uint64_t sum = 0;
	unsigned int i;

	for (i = 0; i < run->opt->threads; i++)
		sum += messages ? run->workers[i].messages : run->workers[i].moved;
	return sum;
}

/*
 * Waits for the workers to count @counter down, until @end at the latest. Meanwhile shows
 * progress, and has the workers give up when nothing moves any more. Wakes up once a second, or
 * ten times where somebody looks on: what it does itself is part of what is measured.
 */
static void supervise(struct run *run, _Atomic unsigned int *counter, uint64_t end)
{
	const struct load_options *opt = run->opt;
	uint64_t now, next, moved = 0, moved_at = now_ns(), began = moved_at;
	struct timespec until;

	while (*counter) {
		now = now_ns();
		if (now >= end)
			return;
		if (total(run, false) != moved) {
			moved = total(run, false);
			moved_at = now;
		} else if (now - moved_at > opt->stall * 1000000000ull && !run->give_up) {
			run->give_up = true;
			eventfd_write(run->wake_fd, 1);
		}
		if (opt->progress)
			fprintf(stderr, "\r%5.1f s  %llu messages ", (now - began) / 1e9,
				(unsigned long long)total(run, true));
		next = now + (opt->progress ? 100000000 : 1000000000);
		if (next > end)
			next = end;
		until = (struct timespec){ next / 1000000000, next % 1000000000 };
		pthread_mutex_lock(&run->lock);
		if (*counter)
			pthread_cond_timedwait(&run->changed, &run->lock, &until);
		pthread_mutex_unlock(&run->lock);
	}
}

static void run_init(struct run *run, const struct load_options *opt)
{
	pthread_condattr_t attr;

	run->opt = opt;
	run->connecting = run->running = opt->threads;
	run->stream = make_stream(opt->size);
	run->wake_fd = eventfd(0, EFD_NONBLOCK);
	if (run->wake_fd < 0)
		die("eventfd: %s", strerror(errno));
	pthread_mutex_init(&run->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&run->changed, &attr);
	pthread_barrier_init(&run->go, NULL, opt->threads + 1);
}

static void merge(struct run *run, struct load_result *r)
{
	struct load_result *from;
	unsigned int i;

	for (i = 0; i < run->opt->threads; i++) {
		from = &run->workers[i].r;
		r->messages += run->workers[i].messages;
		r->bytes += run->workers[i].bytes;
		r->connect_failed += from->connect_failed;
		r->broken += from->broken;
		r->short_eof += from->short_eof;
		r->mismatched += from->mismatched;
		r->unfinished += from->unfinished;
		hist_merge(&r->latency, &from->latency);
		hist_merge(&r->connect, &from->connect);
		if (!r->first_error[0])
			memcpy(r->first_error, from->first_error, sizeof(r->first_error));
	}
}

static void hold_open(void)
{
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fputs("holding\n", stderr);
	sigwait(&set, &sig);
}

void load_run(const struct load_options *opt, struct load_result *result)
{
	struct run run = { 0 };
	uint64_t began, end;
	unsigned int i;

	memset(result, 0, sizeof(*result));
	run_init(&run, opt);
	start_workers(&run);
	supervise(&run, &run.connecting, UINT64_MAX);
	run.cpu = cpustat_read();
	began = now_ns();
	end = opt->messages ? UINT64_MAX : began + (uint64_t)(opt->seconds * 1e9);
	pthread_barrier_wait(&run.go);
	supervise(&run, &run.running, end);
	run.stop = true;
	supervise(&run, &run.running, UINT64_MAX);
	for (i = 0; i < opt->threads; i++)
		pthread_join(run.workers[i].thread, NULL);
	if (opt->progress)
		fputs("\r\033[K", stderr);
	result->seconds = (run.ended - began) / 1e9;
	result->cpu = run.cpu;
	merge(&run, result);
	if (opt->hold)
		hold_open();
}
