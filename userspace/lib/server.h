/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * server.h - a TCP server in user space: one thread and edge-triggered epoll, as the kernel's servers are measured
 * against. It does what a fair server must and nothing else: reads what is there, sends the answer,
 * keeps what the socket did not take, and prints nothing per event.
 */
#ifndef LIB_SERVER_H
#define LIB_SERVER_H

#include <stdbool.h>
#include <stddef.h>

/**
 * typedef server_answer - what is answered to input
 * @state: the connection's own number, 0 at first
 * @text: the input; set to the answer, if that is another text
 * @len: bytes of input
 * @last: set to true if the connection is to be closed behind the answer
 *
 * Return: bytes of the answer, which may be 0.
 */
typedef size_t (*server_answer)(unsigned int *state, const char **text, size_t len, bool *last);

/**
 * server_open() - parse the options -a, -p, -b and -D, and listen; or die
 * @argc: main()'s
 * @argv: main()'s
 * @port: to listen on without -p
 *
 * Return: the listening socket, non-blocking, for IPv4 too; what is accepted acknowledges
 * its first data with the answer, and delays no segment. With as many files as may be.
 */
int server_open(int argc, char **argv, const char *port);

/* Parses the options -a, -p, -b and -D, and serves until it is killed; or dies. */
int server_main(int argc, char **argv, const char *port, server_answer answer);

#endif
