// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
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

#define READ_SIZE (256 * 1024)
#define EVENTS 256
/* Connects under way at a time, all threads together: fewer than the least listen backlog. */
#define CONNECTING_MAX 64
/*
 * Connections from one source address before the next of 127.0.0.0/8 is taken: connect() searches
 * half of the ports first, and ever longer as they run out.
 */
#define PER_SOURCE 8000
#define SOURCES 0xffff00
#define SUPERVISE_NS 1000000000 /* how often it is looked whether something moves */

enum state { IDLE, CONNECTING, OPEN, DONE, FAILED };

struct conn {
	int fd;
	enum state state;
	bool want_write;
	size_t sent; /* bytes of the message under way */
	size_t size;
	unsigned int requests; /* in the message under way */
	uint64_t left; /* requests that are to be made, the ones under way included */
	uint64_t began; /* ns: the message's first byte */
	uint64_t connect_began;
	void *own; /* the protocol's */
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
	bool going; /* the barrier is passed */
	int epoll_fd;
	struct conn **again; /* failed, and to be made again */
	unsigned int n_again;
	char *buf;
	char *own; /* the protocol's, of all its connections */
	_Atomic uint64_t moved; /* bytes that came back, and connections made */
	_Atomic uint64_t messages;
	uint64_t done_at; /* ns: when a connection was last through with all of its messages */
	uint64_t bytes;
	struct load_result r;
};

struct run {
	const struct load_options *opt;
	pthread_barrier_t go;
	_Atomic bool stop; /* begin no further message */
	_Atomic bool give_up; /* nothing has moved for too long */
	_Atomic unsigned int connecting; /* workers that have not made their connections */
	_Atomic unsigned int running;
	int wake_fd; /* readable when the workers are to look at @give_up */
	pthread_mutex_t lock; /* for the condition alone */
	pthread_cond_t changed; /* @connecting or @running became 0 */
	uint64_t
		moved_at; /* ns: when that was, as far as is known: what watches looks once in a while */
	uint64_t ended; /* ns, and the CPU time since the start: the last worker's to set */
	struct cpustat cpu;
	struct worker *workers;
};

static void start_connect(struct worker *w, struct conn *c);

/* How many requests are lost with a connection: all of the message under way, or the one that it was to be made for. */
static unsigned int lost(const struct conn *c)
{
	return c->state == OPEN && c->requests ? c->requests : 1;
}

static void note_error(struct worker *w, struct conn *c, const char *what, int err)
{
	if (!w->r.first_error[0])
		snprintf(w->r.first_error, sizeof(w->r.first_error), "%s%s%s (connection %u)", what,
			 err ? ": " : "", err ? strerror(err) : "",
			 w->index + (unsigned int)(c - w->conns) * w->run->opt->threads);
}

static void fail(struct worker *w, struct conn *c, uint64_t *counter, const char *what, int err)
{
	const struct load_options *opt = w->run->opt;
	/* Else it was counted down when it was made. */
	bool due = w->going || c->state == CONNECTING;

	note_error(w, c, what, err);
	*counter += lost(c);
	c->left -= c->left < lost(c) ? c->left : lost(c);
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
	if (c->state == CONNECTING)
		w->connecting--;
	c->state = FAILED;
	/* From the loop, not from here: a server that is gone would make this go ever deeper. */
	if (opt->retry && c->left && !w->run->stop && w->going)
		w->again[w->n_again++] = c;
	else if (due)
		w->left--;
}

static int watch(struct worker *w, struct conn *c, bool write_too, int op)
{
	struct epoll_event ev = {
		.events = EPOLLIN | (write_too ? EPOLLOUT : 0),
		.data.ptr = c,
	};

	c->want_write = write_too;
	return epoll_ctl(w->epoll_fd, op, c->fd, &ev);
}

/* Sends what the socket takes of the message under way. */
static void push(struct worker *w, struct conn *c)
{
	const struct load_protocol *protocol = w->run->opt->protocol;
	const char *bytes;
	size_t len;
	ssize_t n;

	while (c->sent < c->size) {
		len = c->size - c->sent;
		bytes = protocol->bytes(c->own, c->sent, &len);
		n = send(c->fd, bytes, len, MSG_NOSIGNAL);
		if (n < 0) {
			if (errno == EAGAIN || errno == EINTR)
				break;
			fail(w, c, &w->r.broken, "send", errno);
			return;
		}
		c->sent += n;
	}
	if (c->want_write != (c->sent < c->size))
		watch(w, c, c->sent < c->size, EPOLL_CTL_MOD);
}

static void start_message(struct worker *w, struct conn *c)
{
	const struct load_options *opt = w->run->opt;

	if (!opt->lean)
		c->began = opt->mode == LOAD_BURST ? c->connect_began : now_ns();
	c->sent = 0;
	c->size = opt->protocol->request(c->own, c->left, &c->requests);
	push(w, c);
}

static void set_source(struct worker *w, int fd)
{
	const struct load_options *opt = w->run->opt;
	struct sockaddr_in src = { .sin_family = AF_INET };
	uint64_t n = w->made++ * opt->threads + w->index;
	int one = 1;

	/* The first is the one that connect() takes by itself. */
	if (!opt->spread || n / PER_SOURCE % SOURCES == 0)
		return;
	/* The port is left to connect(), which may share one among several destinations. */
	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one));
	src.sin_addr.s_addr = htonl(0x7f000001 + (uint32_t)(n / PER_SOURCE % SOURCES));
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
	opt->protocol->open(c->own);
	if (!w->going) {
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

	c->sent = c->size = 0;
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
	if (watch(w, c, true, EPOLL_CTL_ADD))
		fail(w, c, &w->r.connect_failed, "epoll_ctl", errno);
}

/* A connect() to a port from which it goes out itself, as nobody listens there, meets itself, and would hear its own words. */
static bool is_own_peer(int fd)
{
	struct sockaddr_storage ends[2] = { 0 };
	socklen_t len = sizeof(ends[0]), len2 = len;

	return !getsockname(fd, (struct sockaddr *)&ends[0], &len) &&
	       !getpeername(fd, (struct sockaddr *)&ends[1], &len2) && len == len2 &&
	       !memcmp(&ends[0], &ends[1], len);
}

static void finish_connect(struct worker *w, struct conn *c)
{
	socklen_t len = sizeof(int);
	int err = 0;

	getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &len);
	if (!err && w->run->opt->may_meet_itself && is_own_peer(c->fd))
		err = ECONNREFUSED;
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
	} else {
		/* Were the server to close it, epoll would tell of that again and again. */
		epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
	}
	c->state = DONE;
	w->done_at = now_ns();
	w->left--;
}

static void message_done(struct worker *w, struct conn *c, unsigned int bad, bool last)
{
	const struct load_options *opt = w->run->opt;

	if (!opt->lean)
		hist_add(&w->r.latency, now_ns() - c->began);
	w->r.bad += bad;
	atomic_store_explicit(&w->messages, w->messages + c->requests - bad, memory_order_relaxed);
	c->left -= c->requests;
	if (!c->left || w->run->stop) {
		end_conn(w, c);
	} else if (last || opt->mode == LOAD_RECONNECT) {
		close(c->fd);
		start_connect(w, c);
	} else {
		start_message(w, c);
	}
}

static void on_readable(struct worker *w, struct conn *c)
{
	const struct load_protocol *protocol = w->run->opt->protocol;
	const char *what = "not what was asked for came back";
	enum load_verdict verdict;
	unsigned int bad = 0;
	ssize_t n;

	n = recv(c->fd, w->buf, READ_SIZE, 0);
	if (n < 0) {
		if (errno != EAGAIN && errno != EINTR)
			fail(w, c, &w->r.broken, "recv", errno);
		return;
	}
	w->bytes += n;
	atomic_store_explicit(&w->moved, w->moved + n, memory_order_relaxed);
	if (n)
		verdict = protocol->received(c->own, w->buf, n, &bad, &what);
	else
		verdict = protocol->eof(c->own, &c->requests, &bad);
	switch (verdict) {
	case LOAD_MORE:
		if (!n)
			fail(w, c, &w->r.short_eof, "closed by the server too early", 0);
		break;
	case LOAD_DONE:
	case LOAD_DONE_LAST:
		message_done(w, c, bad, verdict == LOAD_DONE_LAST);
		break;
	case LOAD_WRONG:
		fail(w, c, &w->r.mismatched, what, 0);
		break;
	}
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
		for (n = w->n_again; n && w->connecting < w->connect_max; n--)
			start_connect(w, w->again[--w->n_again]);
		if (!w->left)
			break;
		/*
		 * No time-out but where connects fail at once: arming a timer for every wait would be the
		 * client's cost.
		 */
		n = epoll_wait(w->epoll_fd, events, EVENTS,
			       w->n_again && w->connecting < w->connect_max ? 1 : -1);
		for (i = 0; i < n; i++)
			if (events[i].data.ptr)
				on_event(w, events[i].data.ptr, events[i].events);
	}
	w->r.unfinished += w->left;
	for (i = 0; w->left && w->going && i < (int)w->n_conns; i++)
		w->r.unfinished += lost(&w->conns[i]) - 1;
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

/* All connections are made, but for those that failed, which are made again. */
static void begin_messages(struct worker *w)
{
	const struct load_options *opt = w->run->opt;
	struct conn *c;

	w->going = true;
	w->left = 0;
	for (c = w->conns; c < w->conns + w->n_conns; c++) {
		if (c->state == FAILED && opt->retry && c->left && !w->run->give_up)
			w->again[w->n_again++] = c;
		else if (c->state != OPEN)
			continue;
		w->left++;
	}
	for (c = w->conns; c < w->conns + w->n_conns && w->left; c++)
		if (c->state == OPEN)
			start_message(w, c);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	struct run *run = w->run;

	w->left = w->n_conns;
	w->going = run->opt->mode != LOAD_STEADY;
	if (!w->going)
		work_off(w);
	count_down(run, &run->connecting);
	pthread_barrier_wait(&run->go);
	if (!w->going) {
		begin_messages(w);
	}
	work_off(w);
	if (atomic_fetch_sub(&run->running, 1) == 1) {
		run->ended = now_ns();
		run->cpu = cpustat_since(&run->cpu);
		wake(run);
	}
	return NULL;
}

/* How many requests connection @index is to make. */
static uint64_t quota(const struct load_options *opt, unsigned int index)
{
	if (opt->messages)
		return opt->messages;
	if (opt->total)
		return opt->total / opt->conns + (index < opt->total % opt->conns);
	return UINT64_MAX;
}

static void init_conns(struct worker *w)
{
	const struct load_options *opt = w->run->opt;
	unsigned int k, index;
	struct conn *c;

	for (k = 0; k < w->n_conns; k++) {
		c = &w->conns[k];
		index = k * opt->threads + w->index;
		c->fd = -1;
		c->own = w->own + k * opt->protocol->state_size;
		c->left = quota(opt, index);
		opt->protocol->init(c->own, opt->arg, index);
	}
}

static void start_workers(struct run *run)
{
	const struct load_options *opt = run->opt;
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = NULL };
	unsigned int i;
	struct worker *w;

	run->workers = calloc(opt->threads, sizeof(*run->workers));
	if (!run->workers)
		die("out of memory");
	for (i = 0; i < opt->threads; i++) {
		w = &run->workers[i];
		w->run = run;
		w->index = i;
		w->n_conns = opt->conns / opt->threads + (i < opt->conns % opt->threads);
		w->conns = calloc(w->n_conns, sizeof(*w->conns));
		w->again = calloc(w->n_conns, sizeof(*w->again));
		w->own = calloc(w->n_conns, opt->protocol->state_size);
		w->buf = malloc(READ_SIZE);
		w->connect_max = opt->mode == LOAD_BURST ? w->n_conns
							 : CONNECTING_MAX / opt->threads ?: 1;
		w->epoll_fd = epoll_create1(0);
		epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, run->wake_fd, &ev);
		if (!w->conns || !w->again || !w->own || !w->buf || w->epoll_fd < 0)
			die("out of memory or files");
		init_conns(w);
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
 * progress, and has the workers give up when nothing moves any more, or when they were told to stop
 * and have not for as long. Wakes up once a second, or ten times where somebody looks on: what it
 * does itself is part of what is measured.
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
		}
		/* What is under way when the time is over may come in drops: that is waited for as long at most. */
		if (now - (run->stop ? began : moved_at) > opt->stall * 1000000000ull &&
		    !run->give_up) {
			run->moved_at = moved_at;
			run->give_up = true;
			eventfd_write(run->wake_fd, 1);
		}
		if (opt->progress)
			fprintf(stderr, "\r%5.1f s  %llu answers ", (now - began) / 1e9,
				(unsigned long long)total(run, true));
		next = now + (opt->progress ? SUPERVISE_NS / 10 : SUPERVISE_NS);
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
	run->wake_fd = eventfd(0, EFD_NONBLOCK);
	if (run->wake_fd < 0)
		die("eventfd: %s", strerror(errno));
	pthread_mutex_init(&run->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&run->changed, &attr);
	pthread_barrier_init(&run->go, NULL, opt->threads + 1);
}

/* Bytes behind a connection's last answer: looked for once all have theirs, since it is to cost the run nothing. */
static void find_surplus(struct worker *w)
{
	struct conn *c;

	for (c = w->conns; c < w->conns + w->n_conns; c++) {
		if (c->state != DONE || c->fd < 0 || recv(c->fd, w->buf, 1, MSG_PEEK) <= 0)
			continue;
		note_error(w, c, "more came than was asked for", 0);
		w->r.mismatched++;
		if (w->messages)
			w->messages--;
		else
			w->r.bad--;
	}
}

static void merge(struct run *run, struct load_result *r)
{
	struct load_result *from;
	unsigned int i;

	for (i = 0; i < run->opt->threads; i++) {
		from = &run->workers[i].r;
		r->messages += run->workers[i].messages;
		r->bad += from->bad;
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

/* When the last answer came: not when those who got none were given up. @began: when the messages did. */
static uint64_t last_answer(const struct run *run, uint64_t began)
{
	uint64_t at = 0;
	unsigned int i;

	if (!run->give_up)
		return run->ended;
	for (i = 0; i < run->opt->threads; i++)
		if (run->workers[i].done_at > at)
			at = run->workers[i].done_at;
	/* Looked at once a second or a little later: what moved last may be that connection's last. */
	if (at + SUPERVISE_NS * 5ull / 4 < run->moved_at)
		at = run->moved_at;
	return at > began ? at : run->ended; /* it may be the connects that were given up */
}

static bool holds_some(const struct run *run)
{
	const struct worker *w;
	unsigned int i, k;

	for (i = 0; i < run->opt->threads; i++) {
		w = &run->workers[i];
		for (k = 0; k < w->n_conns; k++)
			if (w->conns[k].fd >= 0)
				return true;
	}
	return false;
}

static void hold_open(const struct run *run)
{
	sigset_t set;
	int sig;

	if (!holds_some(run)) {
		fputs("nothing to hold: no connection is open\n", stderr);
		return;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	fputs("holding\n", stderr);
	sigwait(&set, &sig);
}

/* Whether the kernel may take @port for the near end of a connection. */
static bool is_ephemeral(unsigned int port)
{
	FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "r");
	unsigned int from = 1, to = 65535;

	if (f) {
		if (fscanf(f, "%u %u", &from, &to) != 2)
			from = 1;
		fclose(f);
	}
	return port >= from && port <= to;
}

void load_complete(struct load_options *opt)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)opt->addr;
	uint64_t files = raise_nofile();

	if (opt->threads > opt->conns)
		opt->threads = opt->conns;
	if (files < (uint64_t)opt->conns + opt->threads + 32)
		die("-c %u -t %u need %u open files, and 'ulimit -n' allows %" PRIu64, opt->conns,
		    opt->threads, opt->conns + opt->threads + 32, files);
	/* The port is where it is in both families. */
	opt->may_meet_itself = is_ephemeral(ntohs(in->sin_port));
	opt->spread = opt->addr->ss_family == AF_INET && ntohl(in->sin_addr.s_addr) >> 24 == 127 &&
		      (opt->conns > PER_SOURCE || opt->mode == LOAD_RECONNECT);
	opt->progress = isatty(STDERR_FILENO);
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
	end = opt->messages || opt->total ? UINT64_MAX : began + (uint64_t)(opt->seconds * 1e9);
	pthread_barrier_wait(&run.go);
	supervise(&run, &run.running, end);
	run.stop = true;
	supervise(&run, &run.running, UINT64_MAX);
	for (i = 0; i < opt->threads; i++) {
		pthread_join(run.workers[i].thread, NULL);
		find_surplus(&run.workers[i]);
	}
	if (opt->progress)
		fputs("\r\033[K", stderr);
	result->seconds = (last_answer(&run, began) - began) / 1e9;
	result->cpu = run.cpu;
	merge(&run, result);
	if (opt->hold)
		hold_open(&run);
}

static void write_hist(const struct load_result *r, const char *file)
{
	FILE *f = fopen(file, "w");

	if (!f)
		die("cannot write %s", file);
	hist_dump(&r->latency, f);
	if (fclose(f))
		die("cannot write %s", file);
}

static const char *first_error(const struct load_result *r)
{
	return r->first_error[0] || !r->unfinished ? r->first_error : "no answer in time";
}

void load_print_errors(const struct load_result *r)
{
	printf("errors: %" PRIu64 " connect, %" PRIu64 " broken, %" PRIu64 " closed early, %" PRIu64
	       " wrong bytes, %" PRIu64 " unanswered; first: %s\n",
	       r->connect_failed, r->broken, r->short_eof, r->mismatched, r->unfinished,
	       first_error(r));
}

void load_json_errors(const struct load_result *r, FILE *to)
{
	fprintf(to,
		"{\"connect\": %" PRIu64 ", \"broken\": %" PRIu64 ", \"closed_early\": %" PRIu64
		", \"wrong_bytes\": %" PRIu64 ", \"unanswered\": %" PRIu64 ", \"first\": ",
		r->connect_failed, r->broken, r->short_eof, r->mismatched, r->unfinished);
	json_string(first_error(r), to);
	fputc('}', to);
}

void load_csv_errors_header(FILE *to)
{
	fputs(",connect_failed,broken,closed_early,wrong_bytes,unanswered", to);
}

void load_csv_errors(const struct load_result *r, FILE *to)
{
	fprintf(to, ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64, r->connect_failed,
		r->broken, r->short_eof, r->mismatched, r->unfinished);
}

bool load_option(int c, struct load_options *opt, int *family, struct load_output *out)
{
	switch (c) {
	case 'c':
		opt->conns = number("-c", optarg, 1, 1000000);
		break;
	case 't':
		opt->threads = number("-t", optarg, 1, 1024);
		break;
	case '4':
	case '6':
		if (*family != AF_UNSPEC && *family != (c == '4' ? AF_INET : AF_INET6))
			die("-4 and -6: one of them");
		*family = c == '4' ? AF_INET : AF_INET6;
		break;
	case LOAD_OPT_LEAN:
		opt->lean = true;
		break;
	case LOAD_OPT_HOLD:
		opt->hold = true;
		break;
	case LOAD_OPT_TIMEOUT:
		opt->stall = number("--timeout", optarg, 1, 86400);
		break;
	case LOAD_OPT_JSON:
		out->format = LOAD_JSON;
		break;
	case LOAD_OPT_CSV:
		out->format = LOAD_CSV;
		break;
	case LOAD_OPT_LABEL:
		/* A C library without that locale cannot tell. */
		if (setlocale(LC_CTYPE, "C.UTF-8") && mbstowcs(NULL, optarg, 0) == (size_t)-1)
			die("--label: '%s' is not UTF-8", optarg);
		out->label = optarg;
		break;
	case LOAD_OPT_HIST:
		out->hist_file = optarg;
		break;
	default:
		return false;
	}
	return true;
}

int load_main(const struct load_options *opt, const struct load_output *out)
{
	static struct load_result result;

	if (opt->lean && out->hist_file)
		die("--hist: with --lean no latency is measured");
	load_run(opt, &result);
	out->print[out->format](opt, &result, out->label);
	if (out->hist_file)
		write_hist(&result, out->hist_file);
	if (fflush(stdout) || ferror(stdout))
		die("the result cannot be written: %s", strerror(errno));
	return load_failed(&result);
}
