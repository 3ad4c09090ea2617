// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * splice-echo-server - one thread and edge-triggered epoll, which moves what comes through a pipe by
 * splice(2), and so copies nothing.
 *
 * One pipe serves all clients, as it is empty when the next has its turn. A client that takes less
 * than came keeps the pipe until it has taken the rest, and reads nothing meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server.h"
#include "util.h"

#define EVENTS 256
#define PIPE (1 << 20) /* bytes; without the right to so many it stays as the kernel makes it */
#define SLOTS (PIPE / 4096) /* pieces that fit, were each but a byte */
#define WATCHED (EPOLLIN | EPOLLRDHUP | EPOLLET)

struct pipe {
	int out, in;
};

struct client {
	int fd;
	struct pipe pipe; /* of its own while @left is not 0 */
	size_t left;
};

static struct pipe shared;
static int epoll_fd;

static void open_pipe(void)
{
	int ends[2];

	if (pipe2(ends, O_NONBLOCK))
		die("pipe2: %s", strerror(errno));
	fcntl(ends[1], F_SETPIPE_SZ, PIPE);
	shared = (struct pipe){ ends[0], ends[1] };
}

static void close_pipe(struct pipe pipe)
{
	close(pipe.out);
	close(pipe.in);
}

static void client_close(struct client *c)
{
	if (c->left)
		close_pipe(c->pipe);
	close(c->fd);
	free(c);
}

static void client_watch(struct client *c, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = c };

	epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &ev);
}

static ssize_t move(int from, int to, size_t len)
{
	return splice(from, NULL, to, NULL, len, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
}

/* Echoes what has come. Return: whether to go on. */
static bool echo_some(struct client *c, bool to_the_end)
{
	ssize_t got = move(c->fd, shared.in, PIPE), put;

	if (got < 0 && errno == EAGAIN)
		return false;
	if (got <= 0) {
		client_close(c);
		return false;
	}
	put = move(shared.out, c->fd, got);
	if (put == got)
		return to_the_end || got >= SLOTS; /* less is all there was */
	if (put < 0 && errno != EAGAIN) {
		close_pipe(shared); /* with what is in it */
		open_pipe();
		client_close(c);
		return false;
	}
	c->pipe = shared;
	c->left = got - (put > 0 ? put : 0);
	open_pipe();
	client_watch(c, EPOLLOUT);
	return false;
}

static void on_readable(struct client *c, bool to_the_end)
{
	while (echo_some(c, to_the_end))
		;
}

static void on_writable(struct client *c)
{
	ssize_t put = move(c->pipe.out, c->fd, c->left);

	if (put < 0 && errno == EAGAIN)
		return;
	if (put <= 0) {
		client_close(c);
		return;
	}
	c->left -= put;
	if (c->left)
		return;
	close_pipe(c->pipe);
	client_watch(c, WATCHED);
}

static void on_accept(int listener)
{
	struct epoll_event ev = { .events = WATCHED };
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	struct client *c;

	if (fd < 0)
		return;
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
		on_readable(c, false);
}

int main(int argc, char **argv)
{
	struct epoll_event events[EVENTS], ev = { .events = EPOLLIN };
	int n, i, listener = server_open(argc, argv, "12353");
	struct client *c;

	signal(SIGPIPE, SIG_IGN); /* splice() to a client who has gone has no MSG_NOSIGNAL */
	open_pipe();
	epoll_fd = epoll_create1(0);
	if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &ev))
		die("epoll: %s", strerror(errno));
	for (;;) {
		n = epoll_wait(epoll_fd, events, EVENTS, -1);
		for (i = 0; i < n; i++) {
			c = events[i].data.ptr;
			if (!c)
				on_accept(listener);
			else if (c->left)
				on_writable(c);
			else
				on_readable(c, events[i].events & EPOLLRDHUP);
		}
	}
}
