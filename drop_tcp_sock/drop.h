/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* drop.h - finding sockets and dropping them; the file that users write to. */
#ifndef DROP_DROP_H
#define DROP_DROP_H

#include <linux/types.h>
#include <net/net_namespace.h>

#include "line.h"

/**
 * struct drop_totals - what came of the lines of a namespace, or of one open file
 * @requested: well-formed lines
 * @dropped: sockets dropped, by the TCP state they were in
 * @not_found: well-formed lines that met no socket at all
 * @skipped_listener: listeners met by lines that do not say "listening"
 * @malformed: lines that could not be read
 */
struct drop_totals {
	u64 requested;
	u64 dropped[DROP_STATES];
	u64 not_found;
	u64 skipped_listener;
	u64 malformed;
};

/**
 * drop_sockets() - drop what a line asks for
 * @net: whose sockets; stays while this runs
 * @sel: by drop_parse()
 * @totals: @dropped, @not_found and @skipped_listener are added to; the caller's own
 * @stop: polled while a table is walked; set, the walk ends early
 *
 * Sleeps. Connections are aborted as "ss -K" does: the peer gets a RST, the owner ECONNABORTED. A
 * TIME-WAIT socket and a request that is not a connection yet vanish without a word to the peer.
 */
void drop_sockets(struct net *net, const struct drop_selector *sel, struct drop_totals *totals,
		  const bool *stop);

/**
 * drop_proc_register() - make /proc/net/drop_tcp_sock, in every network namespace
 *
 * Return: 0 or a negative errno.
 */
int drop_proc_register(void);

/**
 * drop_proc_unregister() - remove it; open files of it fail with EIO from then on
 */
void drop_proc_unregister(void);

#endif /* DROP_DROP_H */
