/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* util.h - what every program here needs: errors, options that are numbers, sockets, clocks. */
#ifndef LIB_UTIL_H
#define LIB_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

/**
 * die() - print "PROGRAM: message" on stderr and exit with 2
 * @fmt: printf format
 */
void die(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

/**
 * printed() - what a program that has printed its help exits with
 *
 * Return: 0; or 1, and it says why, if standard output could not be written.
 */
int printed(void);

/**
 * guard_streams() - for a program's beginning: see that no file takes the place of a standard stream that is closed
 *
 * Else what is printed would go into that file.
 */
void guard_streams(void);

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
 * Of several addresses to connect to, the first at which somebody listens, which costs a connection.
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
 * json_string() - write a string of ours or the user's as JSON has it
 * @s: the string
 * @to: where to
 */
void json_string(const char *s, FILE *to);

/**
 * csv_string() - write a string as a quoted field of CSV (RFC 4180)
 * @s: the string
 * @to: where to
 */
void csv_string(const char *s, FILE *to);

/**
 * seconds() - parse the value of an option that is a duration, or die naming both
 * @option: the option's name, for the message
 * @text: its value, above 0, at most 10^6
 */
double seconds(const char *option, const char *text);

/**
 * now_ns() - CLOCK_MONOTONIC in nanoseconds
 */
uint64_t now_ns(void);

#endif
