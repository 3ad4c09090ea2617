// SPDX-License-Identifier: GPL-2.0-only OR MIT
#include "util.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define PROBE_MS 3000 /* that one of several addresses is given to answer */

void die(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "%s: ", program_invocation_short_name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(2);
}

int printed(void)
{
	if (!fflush(stdout) && !ferror(stdout))
		return 0;
	fprintf(stderr, "%s: cannot write: %s\n", program_invocation_short_name, strerror(errno));
	return 1;
}

void guard_streams(void)
{
	int fd;

	/* The least that is free is what open() returns. Read-only, so that a write to it fails as it would have. */
	do
		fd = open("/dev/null", O_RDONLY);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

uint64_t number(const char *option, const char *text, uint64_t min, uint64_t max)
{
	unsigned long long value;
	char *end;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno || *text < '0' || *text > '9' || *end || value < min || value > max)
		die("%s takes a number from %llu to %llu, not '%s'", option,
		    (unsigned long long)min, (unsigned long long)max, text);
	return value;
}

/* Whether somebody listens there, and says so within seconds. */
static bool answers(const struct addrinfo *ai)
{
	int fd = socket(ai->ai_family, ai->ai_socktype | SOCK_NONBLOCK, ai->ai_protocol);
	struct pollfd ready = { .fd = fd, .events = POLLOUT };
	socklen_t len = sizeof(int);
	int err = 0;

	if (fd < 0)
		return false;
	if (connect(fd, ai->ai_addr, ai->ai_addrlen)) {
		err = errno;
		if (err == EINPROGRESS && poll(&ready, 1, PROBE_MS) == 1)
			getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len);
	}
	close(fd);
	return !err;
}

struct sockaddr_storage *resolve(const char *host, const char *port, int family, bool passive,
				 socklen_t *len)
{
	struct addrinfo hints = {
		.ai_family = family,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = passive ? AI_PASSIVE : 0,
	};
	struct sockaddr_storage *addr;
	struct addrinfo *all, *ai;
	int err;

	number("the port", port, 1, 65535); /* of one too large, getaddrinfo() takes the low bits */
	err = getaddrinfo(host, port, &hints, &all);
	if (err)
		die("host '%s' port '%s': %s", host, port, gai_strerror(err));
	addr = calloc(1, sizeof(*addr));
	if (!addr)
		die("out of memory");
	for (ai = passive || !all->ai_next ? NULL : all; ai && !answers(ai);)
		ai = ai->ai_next;
	ai = ai ?: all;
	memcpy(addr, ai->ai_addr, ai->ai_addrlen);
	*len = ai->ai_addrlen;
	freeaddrinfo(all);
	return addr;
}

uint64_t raise_nofile(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return 0;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);
	getrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur;
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

void json_string(const char *s, FILE *to)
{
	fputc('"', to);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			fprintf(to, "\\%c", *s);
		else if ((unsigned char)*s < 0x20)
			fprintf(to, "\\u%04x", *s);
		else
			fputc(*s, to);
	}
	fputc('"', to);
}

void csv_string(const char *s, FILE *to)
{
	fputc('"', to);
	for (; *s; s++) {
		if (*s == '"')
			fputc('"', to);
		fputc(*s, to);
	}
	fputc('"', to);
}

double seconds(const char *option, const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value > 0 && value <= 1e6))
		die("%s takes a number of seconds above 0, up to 1000000, not '%s'", option, text);
	return value;
}
