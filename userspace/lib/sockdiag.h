/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* sockdiag.h - lists the TCP sockets of this network namespace, by sock_diag(7). */
#ifndef LIB_SOCKDIAG_H
#define LIB_SOCKDIAG_H

#include <linux/inet_diag.h>
#include <stdint.h>

/**
 * sockdiag_each() - call a function for each TCP socket, or die
 * @family: AF_INET or AF_INET6
 * @states: bit mask of states, 1 << TCP_ESTABLISHED and so on
 * @fn: called with each socket's message, valid during the call, and @priv
 * @priv: for @fn
 */
void sockdiag_each(int family, uint32_t states,
		   void (*fn)(const struct inet_diag_msg *msg, void *priv), void *priv);

#endif
