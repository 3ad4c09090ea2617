/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * ksrv_impl.h - the server core's own types, shared by its .c files and by nobody else. See
 * ksrv.h for lifetimes and locks.
 */
#ifndef KSRV_IMPL_H
#define KSRV_IMPL_H

#include <linux/atomic.h>
#include <linux/list.h>
#include <linux/llist.h>
#include <linux/mm_types_task.h>
#include <linux/mutex.h>
#include <linux/net.h>
#include <linux/percpu.h>
#include <linux/siphash.h>
#include <linux/skbuff.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <net/sock.h>

#include "compat.h"
#include "ksrv.h"

/* Bytes that one run of the pump takes, or answers, before it hands the rest to the worker. */
#define KSRV_PUMP_BUDGET (256 * 1024)
/* Bytes that each of its buffers counts as at least. */
#define KSRV_PUMP_COST 512
/*
 * What one run of an I/O worker does before it lets others run: connections pumped, where every
 * KSRV_IO_COST bytes of a pump's budget count as a further one.
 */
#define KSRV_IO_BUDGET 64
#define KSRV_IO_COST 16384
/* And for how long it begins with another, in jiffies: a tick at least. */
#define KSRV_IO_TIME 2
/* Connections that one run of the accept worker takes before it lets others run. */
#define KSRV_ACCEPT_BUDGET 64
/* Bytes below which a piece of input is always copied; no less can fill half a page. */
#define KSRV_SHARE_MIN (PAGE_SIZE / 2)
/* First and longest pause before another try where memory was short, in jiffies. */
#define KSRV_RETRY_MIN (HZ / 100 + 1)
#define KSRV_RETRY_MAX HZ
/* Release workers that run at a time. */
#define KSRV_RELEASERS 8
/* Connections that the sweep looks at before it lets others have the list. */
#define KSRV_SWEEP_BATCH 256
/* How often deadlines are looked at, in jiffies. */
#define KSRV_SWEEP_PERIOD HZ
/* How long input is thrown away after ksrv_conn_finish(), until the peer's FIN. */
#define KSRV_LINGER_SECONDS 5
/* Longest time that TCP is told to wait for a silent peer, seconds: what it waits by itself. */
#define KSRV_USER_TIMEOUT_MAX 900
/* How long a connection that has said and heard all waits to be freed with others, in jiffies. */
#define KSRV_LEAVE_DELAY 1
/* How often a new connection has those freed that have ended before it is refused for them. */
#define KSRV_FLUSH_TRIES 5
/* log2 of the buckets that peers' addresses are found by. */
#define KSRV_PEER_BITS 10

enum ksrv_conn_flag {
	KSRV_C_DYING,
	KSRV_C_ASLEEP,
	KSRV_C_OPENING,
};

/* Stages of ksrv_conn_finish(). */
enum ksrv_finish {
	KSRV_F_NO,
	KSRV_F_ASKED,
	KSRV_F_LINGERING,
};

/* What a server counts; one line each in /proc/net/stat/NAME, in this order. */
enum ksrv_counter {
	KSRV_ACCEPTED,
	KSRV_CLOSED,
	KSRV_REJECTED,
	KSRV_TIMEOUTS,
	KSRV_ERRORS,
	KSRV_BYTES_IN,
	KSRV_BYTES_OUT,
	KSRV_FASTPATH_BYTES,
	KSRV_COUNTERS
};

/**
 * struct ksrv_cpu - what each CPU has of its own
 * @counts: this CPU's part of each counter; bottom halves off
 * @frag: page that answers are copied into, lent to a socket for the time of a send; bottom
 *	halves off. Were it the socket's own, each connection would keep one. See may_borrow()
 *	for those that get one all the same.
 * @io: the part whose @worker serves this CPU: this one, unless the CPU was not online at load
 * @worker: I/O worker: thread that pumps the connections of @ready; NULL where there is none
 * @ready: connections for @worker, as they came; many producers, @worker is the one consumer
 * @rest: what @worker took from @ready and has not come to; its own
 * @left: connections whose FINs have gone both ways; many producers, @leave is the one consumer
 * @leave: release worker of those in @left
 * @own: this CPU's part of the protocol's counters; bottom halves off
 *
 * One worker for all the connections that a CPU finds ready costs a fraction of what a work item
 * for each would, and a thread of its own less than a workqueue's.
 */
struct ksrv_cpu {
	u64 counts[KSRV_COUNTERS];
	struct page_frag frag;
	struct ksrv_cpu *io;
	struct task_struct *worker;
	struct llist_head ready;
	struct llist_node *rest;
	struct llist_head left;
	struct delayed_work leave;
	u64 own[];
};

/**
 * struct ksrv_peer - an address that connections come from
 * @node: in a bucket of ksrv_server.peers
 * @addr: the address, IPv4 as ::ffff:a.b.c.d, of any other only the first 64 bits
 * @conns: its connections; it is freed with the last
 * @ended: of these, how many have ended and wait to be freed
 */
struct ksrv_peer {
	struct hlist_node node;
	struct in6_addr addr;
	unsigned int conns;
	atomic_t ended;
};

/**
 * struct ksrv_server - a running server
 * @svc: what it serves
 * @net: namespace it lives in; not held: the pernet exit stops the server first
 * @listener: listening socket
 * @ops: the listener's and every connection's operations: TCP's, but for one
 * @data_ready: the listener's original callback, for accepted sockets to get back
 * @state_change: likewise
 * @cpu: what each CPU has of its own
 * @cache: slab that connections come from
 * @acceptor: accept worker, a thread
 * @sweep_wq: runs the sweep
 * @work_wq: runs work(), which may sleep for long and must not hold those up
 * @release_wq: runs the release workers; apart, as those wait for work()
 * @accept_pause: jiffies until the next try after a failure that time may cure, else 0; the accept
 *	worker's own
 * @closed_told: the log says that the listener was closed; the accept worker's own
 * @sweep: looks at every connection's deadline each KSRV_SWEEP_PERIOD
 * @conns_mutex: guards @conns and @peers
 * @peers: by address, who the connections come from; NULL where nobody asks
 * @peer_key: secret, so that nobody can choose addresses that share a bucket
 * @conns: every connection that has not left (stage 4 of ksrv.h), and @swept
 * @swept: in @conns, behind the last that the sweep has looked at, while it lets others have those
 * @active: connections that are not freed yet; only created and freed change it
 * @ended: of these, how many have ended and wait to be freed
 * @idle: woken when @active becomes 0
 * @stat: the file of the statistics; NULL once it is removed
 */
struct ksrv_server {
	const struct ksrv_service *svc;
	struct net *net;
	struct socket *listener;
	struct proto_ops ops;
	void (*data_ready)(struct sock *sk);
	void (*state_change)(struct sock *sk);
	struct ksrv_cpu __percpu *cpu;
	struct kmem_cache *cache;
	struct task_struct *acceptor;
	struct workqueue_struct *sweep_wq;
	struct workqueue_struct *work_wq;
	struct workqueue_struct *release_wq;
	unsigned long accept_pause;
	bool closed_told;
	struct delayed_work sweep;
	struct mutex conns_mutex; /* guards conns and peers */
	struct hlist_head *peers;
	hsiphash_key_t peer_key;
	struct list_head conns;
	struct list_head swept;
	atomic_t active;
	atomic_t ended;
	wait_queue_head_t idle;
	struct proc_dir_entry *stat;
};

/**
 * struct ksrv_conn - one connection
 * @srv: its server
 * @sock: its socket; closed by the release worker only
 * @node: in ksrv_server.conns
 * @peer: whose connection it is, where addresses are counted
 * @flags: enum ksrv_conn_flag
 * @end: enum ksrv_end; written by whoever set KSRV_C_DYING
 * @later: runs work(), and pumps again after a pause where memory was short
 * @release: release worker
 * @left: in a ksrv_cpu.left
 * @ready: in a ksrv_cpu.ready or .rest while @queued
 * @queued: (pump) an I/O worker is due; it clears this when it has the pump's lock, and from then
 *	on does not touch the connection without it
 * @detached: (pump) the callbacks are out: nothing starts the pump or queues the connection
 * @stamp: jiffies when a byte last moved; written in the pump and, of one that the peer
 *	acknowledged, by the sweep
 * @seen_una: snd_una at the last sweep; the sweep's own
 * @unacked: whether something was yet to be acknowledged at the last sweep; the sweep's own
 * @acked: jiffies when the sweep last saw that the peer had acknowledged something, or all, or that
 *	something had been sent since; its own
 * @user_timeout: seconds of ksrv_conn_user_timeout(), 0 for none; written in the pump
 * @delayed: (pump) @later was queued once, and so may be now
 * @in_pump: (pump) the pump is running: write_space must not start it again
 * @blocked: (pump) a send fell short; input waits until there is room
 * @deferred: (pump) the protocol asked for work()
 * @unfinished: (pump) resume is due before input is offered again
 * @eof_told: (pump) the protocol was told of the end of input
 * @borrowed: (pump) the CPU's page that the first of the answers which are not acknowledged was
 *	copied into; to be compared only
 * @answered: (pump) bytes that ksrv_send() has sent for the piece of input at hand
 * @finish: (pump) enum ksrv_finish
 * @retry: (pump) next pause where memory was short, jiffies
 * @deadline_kind: (pump) what ksrv_conn_deadline() was given
 * @deadline: (pump) jiffies, 0 for none; the sweep reads it without the lock, then again with it
 * @data_ready: the socket's original callbacks, put back by the release worker
 * @write_space: likewise
 * @state_change: likewise
 * @error_report: likewise
 * @allocation: the socket's original sk_allocation
 * @priv: the protocol's state
 */
struct ksrv_conn {
	struct ksrv_server *srv;
	struct socket *sock;
	struct list_head node;
	struct ksrv_peer *peer;
	unsigned long flags;
	enum ksrv_end end;
	struct delayed_work later;
	struct work_struct release;
	struct llist_node left;
	struct llist_node ready;
	bool queued;
	bool detached;
	unsigned long stamp;
	u32 seen_una;
	bool unacked;
	unsigned long acked;
	unsigned int user_timeout;
	bool delayed;
	bool in_pump;
	bool blocked;
	bool deferred;
	bool unfinished;
	bool eof_told;
	const struct page *borrowed;
	int answered;
	u8 finish;
	u16 retry;
	u16 deadline_kind;
	unsigned long deadline;
	void (*data_ready)(struct sock *sk);
	void (*write_space)(struct sock *sk);
	void (*state_change)(struct sock *sk);
	void (*error_report)(struct sock *sk);
	gfp_t allocation;
	unsigned long priv[];
};

/* How deep in lists within lists of buffers a place is kept. */
#define KSRV_PLACES 2

/**
 * struct ksrv_place - where in a buffer's list of further ones the last bytes looked at were
 * @part: the one; NULL for none yet
 * @start: the place in the buffer at which it begins
 */
struct ksrv_place {
	const struct sk_buff *part;
	unsigned int start;
};

/**
 * struct ksrv_input - bytes that a pump offers to the protocol
 * @skb: buffer in the socket's receive queue
 * @off: place in it
 * @len: bytes from there
 * @place: where that is in its list, and in that one's; the next look goes on from there
 */
struct ksrv_input {
	struct sk_buff *skb;
	unsigned int off;
	size_t len;
	struct ksrv_place place[KSRV_PLACES];
};

/**
 * ksrv_conn_of() - the connection that a connected socket belongs to
 * @sk: the socket, locked by spinlock or owned by the caller
 *
 * Return: NULL once the connection has been detached.
 */
static inline struct ksrv_conn *ksrv_conn_of(struct sock *sk)
{
	return rcu_dereference_protected(__sk_user_data(sk), lockdep_sock_is_held(sk));
}

/* Bottom halves are off wherever something is counted, so a plain per-CPU add will do. */
static inline void ksrv_count(struct ksrv_server *srv, enum ksrv_counter what, u64 n)
{
	__this_cpu_add(srv->cpu->counts[what], n);
}

static inline void ksrv_count_bh(struct ksrv_server *srv, enum ksrv_counter what)
{
	local_bh_disable();
	ksrv_count(srv, what, 1);
	local_bh_enable();
}

/* ksrv_send.c */
void ksrv_wait_for_room(struct ksrv_conn *conn);
void ksrv_drop_page(struct sock *sk);

/* ksrv_pump.c */
void ksrv_lock(struct sock *sk) __acquires(&sk->sk_lock.slock);
void ksrv_unlock(struct sock *sk) __releases(&sk->sk_lock.slock);
size_t ksrv_pump(struct ksrv_conn *conn, bool softirq);
bool ksrv_pump_expired(struct ksrv_conn *conn);
void ksrv_give_up(struct ksrv_conn *conn);
void ksrv_queue_later(struct ksrv_conn *conn, unsigned long delay);
int ksrv_io_worker(void *data);
void ksrv_later_work(struct work_struct *work);
void ksrv_data_ready(struct sock *sk);
void ksrv_write_space(struct sock *sk);
void ksrv_state_change(struct sock *sk);

/* ksrv_conn.c */
void ksrv_conn_open(struct ksrv_server *srv, struct socket *sock);
void ksrv_conn_leave(struct ksrv_conn *conn);
void ksrv_conn_leave_work(struct work_struct *work);
void ksrv_conn_flush_ended(struct ksrv_server *srv);
void ksrv_socket_reset(struct socket *sock);

/* ksrv_listen.c */
int ksrv_listen_start(struct ksrv_server *srv);
void ksrv_listen_stop(struct ksrv_server *srv);

/* ksrv_peer.c */
int ksrv_peer_init(struct ksrv_server *srv);
void ksrv_peer_uninit(struct ksrv_server *srv);
int ksrv_peer_get(struct ksrv_server *srv, struct sock *sk, struct ksrv_peer **peer);
void ksrv_peer_put(struct ksrv_server *srv, struct ksrv_peer *peer);

/* ksrv_sweep.c */
void ksrv_sweep_work(struct work_struct *work);

/* ksrv_stat.c */
int ksrv_stat_init(struct ksrv_server *srv);
void ksrv_stat_uninit(struct ksrv_server *srv);

/* ksrv_hooks.c: only in builds for the tests */
#ifdef TEST_HOOKS
bool ksrv_hook_owned(void);
bool ksrv_hook_send_fails(struct sock *sk);
bool ksrv_hook_room_gone(void);
bool ksrv_hook_accept_fails(void);
bool ksrv_hook_unreadable(void);
void ksrv_hook_shared(size_t bytes);
void ksrv_hook_io(void);
#else
static inline bool ksrv_hook_owned(void)
{
	return false;
}

static inline bool ksrv_hook_send_fails(struct sock *sk)
{
	return false;
}

static inline bool ksrv_hook_room_gone(void)
{
	return false;
}

static inline bool ksrv_hook_accept_fails(void)
{
	return false;
}

static inline bool ksrv_hook_unreadable(void)
{
	return false;
}

static inline void ksrv_hook_shared(size_t bytes)
{
}

static inline void ksrv_hook_io(void)
{
}
#endif

#endif /* KSRV_IMPL_H */
