// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include "server.h"

#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util.h"

#define EVENTS 256
#define ENFILE_MS 10 /* before another look where the machine has no file left */
#define BUFFER (64 * 1024)

/* A client. Its buffer exists only while the socket did not take all of an answer. */
struct client {
	int fd;
	unsigned int state; /* the answering function's */
	bool last; /* close when all is sent */
	char *held;
	size_t held_off;
	size_t held_len;
};

static char scratch[BUFFER];
static int epoll_fd;
static int listener_fd;
static bool full; /* no file is left for who would be accepted next, until one is closed */

static server_answer answer_of;

struct options {
	const char *addr;
	const char *port;
	int backlog;
	bool defer;
};

static void usage(FILE *to, const char *name, const char *port)
{
	fprintf(to,
		"usage: %s [-a ADDRESS] [-p PORT] [-b BACKLOG] [-D]\n"
		"  -a ADDRESS  address to listen on (default ::, which is IPv4 too)\n"
		"  -p PORT     TCP port (default %s)\n"
		"  -b BACKLOG  accept queue (default 4096)\n"
		"  -D          accept a connection when something has come of it (TCP_DEFER_ACCEPT)\n",
		name, port);
}

static void listen_on(bool on)
{
	struct epoll_event ev = { .events = EPOLLIN };

	full = !on;
	epoll_ctl(epoll_fd, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, listener_fd, &ev);
}

static void client_close(struct client *c)
{
	close(c->fd);
	free(c->held);
	free(c);
	if (full)
		listen_on(true);
}

static void client_watch(struct client *c, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = c };

	epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
}

/* What a client is watched for: an event is told once, so whoever is told reads all there is. */
#define WATCHED (EPOLLIN | EPOLLRDHUP | EPOLLET)

/* Keeps what the socket did not take and waits for room, reading nothing meanwhile. */
static bool client_hold(struct client *c, const char *data, size_t len)
{
	c->held = malloc(len);
	if (!c->held)
		return false;
	memcpy(c->held, data, len);
	c->held_off = 0;
	c->held_len = len;
	client_watch(c, EPOLLOUT);
	return true;
}

/* Answers what one read brings. Return: whether to read again, as there is more, or the end to come. */
static bool answer_some(struct client *c, bool to_the_end)
{
	ssize_t got = read(c->fd, scratch, sizeof(scratch));
	bool more = got == sizeof(scratch) || to_the_end; /* less is all there was */
	const char *text = scratch;
	ssize_t put;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return errno == EINTR;
	if (got <= 0) {
		client_close(c);
		return false;
	}
	got = answer_of(&c->state, &text, got, &c->last);
	put = got ? send(c->fd, text, got, MSG_NOSIGNAL) : 0;
	if (put == got && !c->last)
		return more;
	if (put == got || (put < 0 && errno != EAGAIN && errno != EINTR)) {
		client_close(c);
		return false;
	}
	if (put < 0)
		put = 0;
	if (!client_hold(c, text + put, got - put))
		client_close(c);
	return false;
}

/* @to_the_end: that has come, and is told but once. */
static void on_readable(struct client *c, bool to_the_end)
{
	while (answer_some(c, to_the_end))
		;
}

static void on_writable(struct client *c)
{
	ssize_t put = send(c->fd, c->held + c->held_off, c->held_len - c->held_off, MSG_NOSIGNAL);

	if (put < 0) {
		if (errno != EAGAIN && errno != EINTR)
			client_close(c);
		return;
	}
	c->held_off += put;
	if (c->held_off < c->held_len)
		return;
	if (c->last) {
		client_close(c);
		return;
	}
	free(c->held);
	c->held = NULL;
	client_watch(c, WATCHED);
}

/* One: epoll goes on telling of who is left, and an accept() that finds nobody makes a file for him first. */
static void on_accept(void)
{
	struct epoll_event ev = { .events = WATCHED };
	int fd = accept4(listener_fd, NULL, NULL, SOCK_NONBLOCK);
	struct client *c;

	if (fd < 0) {
		/* Or epoll would tell of him again and again, who cannot come in. */
		if (errno == EMFILE)
			listen_on(false);
		else if (errno == ENFILE)
			poll(NULL, 0, ENFILE_MS); /* it may be others' files that are closed */
		return;
	}
	c = calloc(1, sizeof(*c));
	if (!c) {
		close(fd);
		return;
	}
	c->fd = fd;
	ev.data.ptr = c;
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev))
		client_close(c);
	else
		on_readable(c, false); /* mostly its first message is there */
}

static int open_listener(const struct options *o)
{
	struct sockaddr_storage *ss;
	int fd, one = 1, zero = 0;
	socklen_t len;

	ss = resolve(o->addr, o->port, AF_UNSPEC, true, &len);
	fd = socket(ss->ss_family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (fd < 0)
		die("socket: %s", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ss->ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof(zero));
	if (bind(fd, (struct sockaddr *)ss, len) || listen(fd, o->backlog))
		die("cannot listen on %s port %s: %s", o->addr, o->port, strerror(errno));
	/* What is accepted inherits both: the answer acknowledges the first request, not an ACK before. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &zero, sizeof(zero));
	if (o->defer)
		setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &one, sizeof(one));
	free(ss);
	return fd;
}

/* Sets @o, or prints and exits. */
static void parse(int argc, char **argv, struct options *o)
{
	const char *name = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
	const char *default_port = o->port;
	int opt;

	while ((opt = getopt(argc, argv, "a:p:b:Dh")) != -1) {
		switch (opt) {
		case 'a':
			o->addr = optarg;
			break;
		case 'p':
			o->port = optarg;
			break;
		case 'b':
			o->backlog = number("-b", optarg, 1, 1 << 20);
			break;
		case 'D':
			o->defer = true;
			break;
		case 'h':
			usage(stdout, name, default_port);
			exit(printed());
		default:
			usage(stderr, name, default_port);
			exit(2);
		}
	}
	if (optind != argc) {
		usage(stderr, name, default_port);
		exit(2);
	}
}

int server_open(int argc, char **argv, const char *port)
{
	struct options o = { .addr = "::", .port = port, .backlog = 4096 };

	guard_streams();
	parse(argc, argv, &o);
	raise_nofile();
	return open_listener(&o);
}

int server_main(int argc, char **argv, const char *port, server_answer answer)
{
	struct epoll_event events[EVENTS];
	struct client *c;
	int n, i;

	answer_of = answer;
	listener_fd = server_open(argc, argv, port);
	epoll_fd = epoll_create1(0);
	if (epoll_fd < 0)
		die("epoll: %s", strerror(errno));
	listen_on(true);

	for (;;) {
		n = epoll_wait(epoll_fd, events, EVENTS, -1);
		for (i = 0; i < n; i++) {
			c = events[i].data.ptr;
			if (!c)
				on_accept();
			else if (c->held)
				on_writable(c);
			else
				on_readable(c, events[i].events & EPOLLRDHUP);
		}
	}
}
