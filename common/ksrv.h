/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * ksrv.h - an in-kernel TCP server: what a protocol module sees of it
 *
 * A protocol module (kecho, khttpd) fills in a struct ksrv_service and hands it to
 * ksrv_register(). The server core listens, accepts, moves bytes, applies limits and tears
 * down; the protocol is told of input and answers it. The core never looks at the bytes, the
 * protocol never at a socket. Each module compiles a copy of the core of its own.
 *
 * THE ONE RULE. A protocol's open, recv, resume, eof and expired run in "pump context": bottom
 * halves are off, the connection's socket spinlock is held, and no process owns the socket. They
 * must not sleep. As one connection is never pumped twice at a time, the protocol's per-connection
 * state needs no lock. Only work() runs in process context, without any lock, while the
 * connection is not pumped at all.
 *
 * LIFETIME. The server lives from ksrv_register() until ksrv_unregister() or until its network
 * namespace goes, whichever comes first. A connection is made by the accept worker and freed by a
 * release worker, its own or a CPU's, nowhere else. Death has stages:
 *   1. ksrv_conn_end() sets KSRV_C_DYING (once) and queues the release worker; or, where FINs have
 *	gone both ways and answers are acknowledged, ksrv_conn_leave() does, and puts the connection
 *	among those that one run of a CPU's release worker takes, a tick later;
 *   2. the release worker gives the socket its original callbacks back, under the pump's lock:
 *      from here on nothing of the network's reaches the connection;
 *   3. a connection that is queued for an I/O worker waits for that worker to come by, which
 *	queues the release worker again; work() and the pause after a lack of memory are
 *	cancelled and waited for;
 *   4. it takes the connection off the server's list: the sweep cannot see it any more;
 *   5. it calls close(), closes the socket, frees the connection and counts it out.
 * Whoever can hold a pointer to a connection: its socket's callbacks (until 2), the I/O worker
 * and work() (until 3), the sweep and the teardown of the server (until 4, under the list mutex).
 *
 * LOCKS
 *   socket spinlock, no owner ("the pump's lock", ksrv_lock()):
 *	the protocol's state; struct ksrv_conn's fields of the group "pump"; attaching and
 *	detaching the socket's callbacks. Softirqs hold it when they call the callbacks.
 *   sk_callback_lock: written around a change of the callbacks, inside the pump's lock on a
 *	connection and alone on the listener, whose data_ready runs under the lock of a child.
 *	Never held while pumping.
 *   ksrv_server.conns_mutex: the list of connections. Taken by the accept worker, the release
 *	workers, the sweep and the teardown; the pump's lock nests inside it.
 *   Nothing is cancelled, flushed or waited for under any of them.
 *
 * FLAGS (ksrv_conn.flags, atomic bits)
 *   KSRV_C_DYING	set once by ksrv_conn_end() or ksrv_conn_leave(), never cleared; meanwhile
 *			nobody pumps.
 *   KSRV_C_ASLEEP	set in the pump after ksrv_conn_defer(), cleared when work() has returned;
 *			meanwhile nobody pumps.
 *   KSRV_C_OPENING	set when the connection is made, cleared under the pump's lock when the
 *			callbacks are in; the sweep leaves such a connection alone.
 */
#ifndef KSRV_H
#define KSRV_H

#include <linux/gfp.h>
#include <linux/module.h>
#include <linux/types.h>

/*
 * How pump context allocates what clients are sent. It may have interrupted whoever has the
 * machine's last pages: those are not for clients, nor is it for the log when there are none.
 */
#define KSRV_GFP (GFP_ATOMIC | __GFP_NOMEMALLOC | __GFP_NOWARN)

struct ksrv_conn;
struct ksrv_input;

/**
 * struct ksrv_uint - a module parameter that is a whole number within bounds
 * @val: its value; the core reads it afresh each time, so a change applies at once
 * @min: the least value accepted
 * @max: the largest value accepted
 */
struct ksrv_uint {
	unsigned int val;
	unsigned int min;
	unsigned int max;
};

extern const struct kernel_param_ops ksrv_uint_ops;

/* Defines parameter @name, @perm 0444 or 0644, that refuses what is outside @lo..@hi. */
#define KSRV_PARAM_UINT(name, def, lo, hi, perm, desc)                             \
	static struct ksrv_uint name = { .val = (def), .min = (lo), .max = (hi) }; \
	module_param_cb(name, &ksrv_uint_ops, &name, perm);                        \
	__MODULE_PARM_TYPE(name, "uint");                                          \
	MODULE_PARM_DESC(name, desc)

static inline unsigned int ksrv_uint(const struct ksrv_uint *param)
{
	return READ_ONCE(param->val);
}

/**
 * struct ksrv_ops - a protocol, as the core calls it
 * @conn_size: bytes of protocol state per connection, zeroed at first; see ksrv_conn_priv()
 * @open: the connection is there, and no input was offered yet. Pump context; may be NULL.
 * @recv: input has come. Takes bytes in order from @in and answers with ksrv_send() or
 *	ksrv_send_input(). Returns how many bytes it took, or a negative errno, which ends the
 *	connection by a reset. To take fewer than were offered is allowed only after a send that
 *	fell short, ksrv_conn_defer() or ksrv_conn_end(); the rest is offered again. To take
 *	nothing without such a reason ends the connection by a reset. A protocol that waits for
 *	more input takes what there is and keeps it. Pump context.
 * @resume: the send buffer has room again after a send fell short, or work() has returned.
 *	Returns 0 when there is nothing left to send, so that input is offered again; -EAGAIN
 *	after another short send or defer; or a negative errno, which ends the connection by a
 *	reset. Pump context; may be NULL.
 * @eof: the peer has sent FIN, all before it was taken and nothing is left to resume; called
 *	once. NULL: as if it called ksrv_conn_finish(). The protocol must do that, or end the
 *	connection, now or from @resume or @expired. Pump context.
 * @expired: the deadline of ksrv_conn_deadline() has passed; @kind is the one given there.
 *	Returns whether that was a time-out, to be counted under "timeouts"; or else it has set
 *	another deadline. NULL: the connection is ended by a reset. Pump context.
 * @timed_out: TCP has given up on a peer that did not acknowledge what was sent; or the core
 *	has, see ksrv_conn_user_timeout() and ksrv_service.unread_timeout. The connection
 *	is being ended, and counted under "timeouts"; NULL: under "errors". Under the pump's lock.
 * @work: what was deferred, in process context; may sleep. Then @resume is called. May be NULL
 *	only in a protocol that never calls ksrv_conn_defer(), as kecho and khttpd are.
 * @close: the connection is being freed; may sleep. May be NULL.
 */
struct ksrv_ops {
	size_t conn_size;
	void (*open)(struct ksrv_conn *conn);
	int (*recv)(struct ksrv_conn *conn, struct ksrv_input *in);
	int (*resume)(struct ksrv_conn *conn);
	void (*eof)(struct ksrv_conn *conn);
	bool (*expired)(struct ksrv_conn *conn, unsigned int kind);
	void (*timed_out)(struct ksrv_conn *conn);
	void (*work)(struct ksrv_conn *conn);
	void (*close)(struct ksrv_conn *conn);
};

/**
 * struct ksrv_service - what a module serves, and its parameters
 * @name: the module's name; also the file under /proc/net/stat
 * @greeting: what the load message says a client gets, "echoes ..."
 * @ops: the protocol
 * @addr: address to listen on, text; "::" is both IPv6 and IPv4
 * @port: TCP port to listen on
 * @backlog: bound of the accept queue and of the SYN queue, connections
 * @bench: 0: I/O workers run where the scheduler puts them; 1: on the CPU that queued for them,
 *	until it goes offline
 * @fastpath: 0: only workers pump; 1: the receive softirq pumps when it can
 * @max_conns: connections; one more is reset at once
 * @idle_timeout: seconds without a byte either way; 0 never; NULL: the protocol sets deadlines
 * @max_conns_per_ip: connections from one address, of IPv6 from one /64; one more is reset at once;
 *	0 no bound; NULL: addresses are not counted
 * @unread_timeout: seconds that a peer may acknowledge nothing of what is left when all is said,
 *	before the connection is ended and timed_out() called; NULL: that is for @idle_timeout, or
 *	without that either for core TCP, once the lingering close is over
 * @counters: names of what the protocol counts by ksrv_conn_count(), ended by a NULL; may be NULL
 */
struct ksrv_service {
	const char *name;
	const char *greeting;
	const struct ksrv_ops *ops;
	char *const *addr;
	const struct ksrv_uint *port;
	const struct ksrv_uint *backlog;
	const struct ksrv_uint *bench;
	const struct ksrv_uint *fastpath;
	const struct ksrv_uint *max_conns;
	const struct ksrv_uint *idle_timeout;
	const struct ksrv_uint *max_conns_per_ip;
	const struct ksrv_uint *unread_timeout;
	const char *const *counters;
};

/* The parameters that every server has, under the names that its users know. */
#define KSRV_PARAMS(def_port)                                                             \
	static char *addr = "::";                                                         \
	module_param(addr, charp, 0444);                                                  \
	MODULE_PARM_DESC(addr, "address to listen on; :: is IPv6 and IPv4 (default ::)"); \
	KSRV_PARAM_UINT(port, def_port, 1, 65535, 0444,                                   \
			"TCP port to listen on, 1-65535 (default " #def_port ")");        \
	KSRV_PARAM_UINT(backlog, 128, 1, 65535, 0444,                                     \
			"bound of the SYN and accept queues, 1-65535 (default 128)");     \
	KSRV_PARAM_UINT(bench, 0, 0, 1, 0444,                                             \
			"1: workers stay on the CPU that queued for them (default 0)");   \
	KSRV_PARAM_UINT(fastpath, 1, 0, 1, 0644,                                          \
			"1: answer from the receive path when possible (default 1)");     \
	KSRV_PARAM_UINT(max_conns, 65536, 1, 1 << 24, 0644,                               \
			"connections served at once, 1-16777216 (default 65536)")

/**
 * ksrv_register() - start serving in the network namespace of the calling process
 * @svc: the service; must stay as it is until ksrv_unregister()
 *
 * For module_init. Says in the log what listens where, or what is wrong.
 *
 * Return: 0; -EINVAL for an address that does not parse, -EADDRINUSE, -EADDRNOTAVAIL, -ENOMEM,
 * or what else the socket calls returned.
 */
int ksrv_register(const struct ksrv_service *svc);

/**
 * ksrv_unregister() - stop serving: reset every connection, wait until all are freed
 *
 * But for those where FINs have gone both ways: what the peer has yet to read is left to core TCP.
 * For module_exit. Process context; sleeps.
 */
void ksrv_unregister(void);

/**
 * ksrv_send() - queue bytes for the peer
 * @conn: a connection, in pump context
 * @data: the bytes; copied
 * @len: how many
 * @more: further sends follow at once, so a part-filled segment may wait for them
 *
 * Return: how many bytes were taken, which may be fewer than @len (then @resume is called when
 * there is room); or a negative errno when the connection is broken. -EAGAIN is 0 here.
 */
int ksrv_send(struct ksrv_conn *conn, const void *data, size_t len, bool more);

/**
 * ksrv_send_input() - queue bytes of the input itself for the peer
 * @conn: a connection, in pump context
 * @in: the input that recv was called with
 * @len: how many of its bytes, from its current place
 *
 * The place moves on by what was taken. Large pieces go out as the pages they came in, without a
 * copy; see worth_sharing() for which.
 *
 * Return: as ksrv_send().
 */
int ksrv_send_input(struct ksrv_conn *conn, struct ksrv_input *in, size_t len);

/**
 * ksrv_input_len() - the bytes that are left in an input
 * @in: the input that recv was called with
 */
size_t ksrv_input_len(const struct ksrv_input *in);

/**
 * ksrv_input_peek() - look at the next bytes of an input, in place
 * @in: the input that recv was called with
 * @len: set to how many bytes lie there in one piece, at least 1
 *
 * Return: the bytes, valid until recv returns; NULL if none are left, or if they lie in a device's
 * memory, where nobody can read them.
 */
const void *ksrv_input_peek(struct ksrv_input *in, size_t *len);

/**
 * ksrv_input_skip() - move on behind bytes that were read
 * @in: the input that recv was called with
 * @len: how many; at most ksrv_input_len()
 */
void ksrv_input_skip(struct ksrv_input *in, size_t len);

/**
 * enum ksrv_end - how a connection ends
 * @KSRV_END_ORDERLY: what was sent still arrives, then FIN; core TCP sees to it
 * @KSRV_END_RESET: at once, by RST
 * @KSRV_END_ERROR: as KSRV_END_RESET, and counted under "errors"
 * @KSRV_END_TIMEOUT: as KSRV_END_RESET, and counted under "timeouts"; the core's own
 */
enum ksrv_end {
	KSRV_END_ORDERLY,
	KSRV_END_RESET,
	KSRV_END_ERROR,
	KSRV_END_TIMEOUT,
};

/**
 * ksrv_conn_end() - end a connection, once; later calls do nothing
 * @conn: a connection that the caller may touch now
 * @how: the way it ends
 *
 * Any context. In pump context the protocol is not called again after it returns to the core,
 * but for @timed_out and @close.
 * ksrv_conn_finish() does an orderly end at less cost.
 * An orderly end before the peer's FIN, with input unread, still makes core TCP send RST.
 *
 * Return: whether this call was the first.
 */
bool ksrv_conn_end(struct ksrv_conn *conn, enum ksrv_end how);

/**
 * ksrv_conn_finish() - say no more: what was sent still arrives, then FIN
 * @conn: a connection, in pump context, with all that it has to say sent in full
 *
 * Were input left unread, or came it later, closing would make core TCP send RST, which may
 * overtake what the peer has not read yet. So input is read and thrown away until the peer's FIN,
 * for at most KSRV_LINGER_SECONDS; for longer where the peer has yet to acknowledge some of what
 * was sent (see ksrv_service.unread_timeout). The protocol is not called again but for @timed_out
 * and @close. If the last ksrv_send() had @more set, the FIN shares its segment.
 */
void ksrv_conn_finish(struct ksrv_conn *conn);

/**
 * ksrv_conn_unacked() - whether the peer has yet to acknowledge some of what was sent
 * @conn: a connection, in pump context
 */
bool ksrv_conn_unacked(struct ksrv_conn *conn);

/**
 * ksrv_conn_moved() - when the connection was last seen to move a byte
 * @conn: a connection, in pump context
 *
 * Either way: one that came, or one that the peer acknowledged, which is seen once a second.
 *
 * Return: jiffies.
 */
unsigned long ksrv_conn_moved(struct ksrv_conn *conn);

/**
 * ksrv_jiffies() - a duration as jiffies
 * @seconds: how long; a longer one than jiffies can tell apart, which on a 32-bit machine is one of
 *	weeks, becomes the longest that they can
 */
static inline unsigned long ksrv_jiffies(unsigned int seconds)
{
	return min_t(u64, (u64)seconds * HZ, MAX_JIFFY_OFFSET);
}

/**
 * ksrv_conn_user_timeout() - how long to wait for a peer that acknowledges nothing
 * @conn: a connection, in pump context
 * @seconds: since it last acknowledged some of what was sent (RFC 5482), to within a second or
 *	so; more than KSRV_USER_TIMEOUT_MAX: as long as TCP waits by itself
 *
 * Then the connection is ended, and timed_out() called. Of what an orderly end has left to core
 * TCP, when the connection is long freed, it is TCP's own user timeout.
 */
void ksrv_conn_user_timeout(struct ksrv_conn *conn, unsigned int seconds);

/**
 * ksrv_conn_count() - count something
 * @conn: a connection, in pump context or with bottom halves off
 * @which: place in ksrv_service.counters, from 0
 */
void ksrv_conn_count(struct ksrv_conn *conn, unsigned int which);

/**
 * ksrv_conn_defer() - have the protocol's work() called in process context
 * @conn: a connection, in pump context
 *
 * Until work() has returned and resume was called, no input is offered.
 */
void ksrv_conn_defer(struct ksrv_conn *conn);

/**
 * ksrv_conn_deadline() - have expired() called unless this is called again in time
 * @conn: a connection, in pump context
 * @seconds: from now; 0: no deadline. Kept to within a second or so, never early
 * @kind: passed to expired(); says which phase was too long
 */
void ksrv_conn_deadline(struct ksrv_conn *conn, unsigned int seconds, unsigned int kind);

/**
 * ksrv_conn_priv() - the protocol's own state of a connection, ksrv_ops.conn_size bytes
 * @conn: a connection
 */
void *ksrv_conn_priv(struct ksrv_conn *conn);

#endif /* KSRV_H */
