// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * thread-echo-server - a thread for each connection, which blocks in read() and write().
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "server.h"
#include "util.h"

#define BUFFER (64 * 1024)

static void *serve(void *arg)
{
	int fd = (intptr_t)arg;
	char buf[BUFFER];
	ssize_t got, put, at;

	while ((got = read(fd, buf, sizeof(buf))) > 0) {
		for (at = 0; at < got; at += put) {
			put = send(fd, buf + at, got - at, MSG_NOSIGNAL);
			if (put < 0)
				goto out;
		}
	}
out:
	close(fd);
	return NULL;
}

int main(int argc, char **argv)
{
	int fd, zero = 0, listener = server_open(argc, argv, "12347");
	pthread_attr_t attr;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, BUFFER + 16 * 1024);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	ioctl(listener, FIONBIO, &zero);
	for (;;) {
		fd = accept(listener, NULL, NULL);
		if (fd >= 0 && pthread_create(&thread, &attr, serve, (void *)(intptr_t)fd))
			close(fd);
	}
}
