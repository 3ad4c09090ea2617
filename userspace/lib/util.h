/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* util.h - what every program here needs: errors, options that are numbers, sockets, clocks. */
#ifndef LIB_UTIL_H
#define LIB_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/**
 * die() - print "PROGRAM: message" on stderr and exit with 2
 * @fmt: printf format
 */
void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/**
 * number() - parse the value of an option, or die naming both
 * @option: the option's name, for the message
 * @text: its value
 * @min: the least value accepted
 * @max: the largest
 */
uint64_t number(const char *option, const char *text, uint64_t min, uint64_t max);

/**
 * resolve() - turn a host and a port into an address, or die
 * @host: name or address, IPv4 or IPv6
 * @port: number or service
 * @family: AF_UNSPEC, AF_INET or AF_INET6
 * @passive: for listening
 * @len: set to the address's length
 *
 * Return: the address; the caller frees it.
 */
struct sockaddr_storage *resolve(const char *host, const char *port, int family, bool passive,
				 socklen_t *len);

/**
 * raise_nofile() - lift this process's limit of open files as far as it may
 *
 * Return: the limit now in force.
 */
uint64_t raise_nofile(void);

/**
 * now_ns() - CLOCK_MONOTONIC in nanoseconds
 */
uint64_t now_ns(void);

#endif
